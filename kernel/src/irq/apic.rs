//! Local APIC: receives interrupts for one CPU and has its timer (Intel SDM vol. 3 §11), as xAPIC through memory
//! or as x2APIC through MSRs.
//! Neighbours: `pv_ops` (end of interrupt, IPI and timer deadline), `ioapic` (who sends), `time` (the timer).

use super::vectors;
use crate::{
    acpi::madt::Madt,
    cpu::{self, Feature, features},
    mm::map::{self, MapError},
    sync::OnceCell,
};
use core::ptr::NonNull;
use pv_ops::native::irq::{ApicMode, TimerMode, apic_mode};
use volatile::VolatilePtr;

/// IA32_APIC_BASE (§11.4.4, §11.12.1).
const MSR_APIC_BASE: u32 = 0x1b;
const APIC_BASE_X2APIC: u64 = 1 << 10;
const APIC_BASE_ENABLE: u64 = 1 << 11;
const APIC_BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// First of the registers' MSRs in x2APIC mode.
const MSR_X2APIC: u32 = 0x800;

/// Registers by their offset (§11.4.1, table 11-1).
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
enum Register {
    Id = 0x20,
    Version = 0x30,
    TaskPriority = 0x80,
    SpuriousVector = 0xf0,
    ErrorStatus = 0x280,
    LvtTimer = 0x320,
    LvtLint0 = 0x350,
    LvtLint1 = 0x360,
    LvtError = 0x370,
    InitialCount = 0x380,
    CurrentCount = 0x390,
    DivideConfiguration = 0x3e0,
}

/// Spurious vector register (§11.9).
const SOFTWARE_ENABLE: u32 = 1 << 8;
/// Local vector table (§11.5.1).
const MASKED: u32 = 1 << 16;
const DELIVERY_NMI: u32 = 0b100 << 8;
const ACTIVE_LOW: u32 = 1 << 13;
const TIMER_TSC_DEADLINE: u32 = 0b10 << 17;
/// Divide configuration: by 1.
const DIVIDE_BY_1: u32 = 0b1011;

/// How the registers are reached.
enum Access {
    Memory(NonNull<u32>),
    Msr,
}

/// The local APIC of whichever CPU asks: all have theirs at the same address.
pub struct LocalApic(Access);

// SAFETY: every CPU reaches its own registers through the same address, so nothing is shared between them.
unsafe impl Send for LocalApic {}
// SAFETY: as above.
unsafe impl Sync for LocalApic {}

/// Why there is no local APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// CPUID does not offer one.
    #[error("this CPU has none")]
    Missing,
    /// Its registers cannot be mapped.
    #[error("registers: {0}")]
    Map(#[from] MapError),
    /// What answers is none.
    #[error("version register reads {0:#010x}: not a local APIC")]
    Version(u32),
}

static LOCAL_APIC: OnceCell<LocalApic> = OnceCell::uninit();

/// The local APIC, if `init` found one.
pub fn local() -> Option<&'static LocalApic> {
    LOCAL_APIC.try_get().ok()
}

/// Finds and enables the local APIC of the boot CPU, in the mode for which the pv-ops were chosen. `madt` tells which pin carries an NMI.
pub(super) fn init(madt: Option<&Madt>) -> Result<&'static LocalApic, Error> {
    if !features().has(Feature::Apic) || !features().has(Feature::Msr) {
        return Err(Error::Missing);
    }
    let address = enter_mode() & APIC_BASE_ADDRESS;
    if let Some(told) = madt.and_then(|madt| madt.local_apic).filter(|&told| told != address) {
        log::warn!("local APIC: ACPI says {told:#x}, the CPU {address:#x}: the CPU knows");
    }
    let access = if apic_mode() == ApicMode::X2Apic {
        Access::Msr
    } else {
        Access::Memory(map::local_apic(address)?.cast())
    };
    let apic = LocalApic(access);
    let version = apic.read(Register::Version);
    if version & 0xff == 0 || version == u32::MAX {
        return Err(Error::Version(version));
    }
    apic.enable(madt);
    let _ = LOCAL_APIC.try_init_once(|| apic);
    local().ok_or(Error::Missing)
}

/// Lets the local APIC of a further CPU be as that of the boot CPU, whose timer's mode it takes over.
pub(super) fn cpu_up(madt: Option<&Madt>) {
    let Some(apic) = local() else { return };
    enter_mode();
    apic.enable(madt);
    apic.use_timer();
}

/// Brings this CPU's local APIC into the mode for which the pv-ops were chosen; gives the base register as it was.
fn enter_mode() -> u64 {
    // SAFETY: a CPU with a local APIC has this register.
    let base = unsafe { pv_ops::rdmsr(MSR_APIC_BASE) };
    let x2apic = apic_mode() == ApicMode::X2Apic;
    let mode = APIC_BASE_ENABLE | if x2apic { APIC_BASE_X2APIC } else { 0 };
    if base & mode != mode {
        // SAFETY: from "disabled" both modes must be entered in two steps (§11.12.5); the address stays.
        unsafe { pv_ops::wrmsr(MSR_APIC_BASE, base | APIC_BASE_ENABLE) };
        // SAFETY: as above.
        unsafe { pv_ops::wrmsr(MSR_APIC_BASE, base | mode) };
    }
    base
}

impl LocalApic {
    fn read(&self, register: Register) -> u32 {
        match self.0 {
            Access::Memory(_) => self.register(register).map_or(0, |pointer| pointer.read()),
            // SAFETY: the CPU is in x2APIC mode, where each of these registers but the destination format exists.
            Access::Msr => unsafe { pv_ops::rdmsr(MSR_X2APIC + register as u32 / 16) as u32 },
        }
    }

    fn write(&self, register: Register, value: u32) {
        match self.0 {
            Access::Memory(_) => {
                if let Some(pointer) = self.register(register) {
                    pointer.write(value);
                }
            }
            // SAFETY: as in `read`; this module writes only values that the registers define.
            Access::Msr => unsafe { pv_ops::wrmsr(MSR_X2APIC + register as u32 / 16, value.into()) },
        }
    }

    fn register(&self, register: Register) -> Option<VolatilePtr<'_, u32>> {
        let Access::Memory(base) = self.0 else { return None };
        // SAFETY: `map::local_apic` mapped the page of registers for good, and the offset lies in it.
        Some(unsafe { VolatilePtr::new(base.byte_add(register as usize)) })
    }

    /// The mode, by its name in the manual.
    pub fn mode(&self) -> &'static str {
        match self.0 {
            Access::Memory(_) => "xAPIC",
            Access::Msr => "x2APIC",
        }
    }

    /// The ID of the CPU that asks.
    pub fn id(&self) -> u32 {
        match self.0 {
            Access::Memory(_) => self.read(Register::Id) >> 24,
            Access::Msr => self.read(Register::Id),
        }
    }

    /// Lets everything through: no priority held back, the pins as a PC has them, errors to a vector.
    fn enable(&self, madt: Option<&Madt>) {
        self.write(Register::TaskPriority, 0);
        self.write(Register::LvtTimer, MASKED);
        self.write(Register::LvtLint0, MASKED);
        self.write(Register::LvtLint1, MASKED);
        for nmi in madt.into_iter().flat_map(|madt| &madt.nmis) {
            let register = if nmi.lint == 0 { Register::LvtLint0 } else { Register::LvtLint1 };
            self.write(register, DELIVERY_NMI | if nmi.active_low { ACTIVE_LOW } else { 0 });
        }
        self.write(Register::ErrorStatus, 0);
        self.write(Register::LvtError, vectors::APIC_ERROR.into());
        self.write(Register::SpuriousVector, SOFTWARE_ENABLE | u32::from(vectors::SPURIOUS));
        cpu::current().set_apic_id(self.id());
    }

    /// Programs the timer as `set_timer` was told.
    fn use_timer(&self) {
        match pv_ops::native::irq::timer() {
            TimerMode::None => {}
            TimerMode::TscDeadline => self.use_tsc_deadline(),
            TimerMode::OneShot { .. } => self.use_one_shot(),
        }
    }

    /// Errors since the last call (§11.5.3).
    pub fn take_errors(&self) -> u32 {
        self.write(Register::ErrorStatus, 0);
        self.read(Register::ErrorStatus)
    }

    /// Lets the timer compare with the TSC: it is armed by writing IA32_TSC_DEADLINE.
    pub fn use_tsc_deadline(&self) {
        self.write(Register::LvtTimer, TIMER_TSC_DEADLINE | u32::from(vectors::TIMER));
        // The store may be slow through memory, and the MSR write that arms must not overtake it (§11.5.4.1).
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    }

    /// Lets the timer count down once from what is written to its initial count, at the bus clock.
    pub fn use_one_shot(&self) {
        self.write(Register::DivideConfiguration, DIVIDE_BY_1);
        self.write(Register::LvtTimer, vectors::TIMER.into());
    }

    /// Lets the timer count down from its largest value without an interrupt, to measure its clock.
    pub fn start_count(&self) {
        self.write(Register::LvtTimer, MASKED | u32::from(vectors::TIMER));
        self.write(Register::DivideConfiguration, DIVIDE_BY_1);
        self.write(Register::InitialCount, u32::MAX);
    }

    /// Ticks since [`start_count`](Self::start_count).
    pub fn counted(&self) -> u32 {
        u32::MAX - self.read(Register::CurrentCount)
    }

    /// Ends the counting.
    pub fn stop_count(&self) {
        self.write(Register::InitialCount, 0);
    }
}

/// Sends `vector` to the CPU with this APIC ID, which may be the one that runs this.
pub(super) fn send(apic_id: u32, vector: u8) {
    // SAFETY: a fixed, edge-triggered interrupt to one CPU, with a vector whose handler was registered.
    unsafe { pv_ops::send_ipi(apic_id, vector.into()) };
}

/// Delivery modes of the interrupt command register, with the level asserted (§11.6.1).
const ICR_INIT: u32 = 0x4500;
const ICR_START_UP: u32 = 0x4600;
const ICR_NMI: u32 = 0x4400;

/// Interrupts the CPU with this APIC ID even where interrupts are disabled.
///
/// # Safety
/// The handler makes sense of it.
pub unsafe fn send_nmi(apic_id: u32) {
    // SAFETY: the caller's promise.
    unsafe { pv_ops::send_ipi(apic_id, ICR_NMI) };
}

/// Resets the CPU with this APIC ID: it waits for a start-up message then.
///
/// # Safety
/// The CPU runs nothing of ours that would be missed.
pub unsafe fn send_init(apic_id: u32) {
    // SAFETY: the caller's promise.
    unsafe { pv_ops::send_ipi(apic_id, ICR_INIT) };
}

/// Lets the CPU with this APIC ID, which was reset, begin at the page with the number `vector`.
///
/// # Safety
/// There is code for a CPU in real mode.
pub unsafe fn send_start_up(apic_id: u32, vector: u8) {
    // SAFETY: the caller's promise.
    unsafe { pv_ops::send_ipi(apic_id, ICR_START_UP | u32::from(vector)) };
}

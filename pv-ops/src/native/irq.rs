//! The local APIC: inter-processor interrupts and the one-shot timer (SDM vol. 3A chapter 11).
//! Neighbours: `native` (EOI is instructions), `time` (scale of deadlines). The kernel's `irq::apic` maps, enables
//! and programs the controller; here is only what must be an op.

use super::time;
use crate::{
    cpu_set::{CpuSet, MAX_CPUS},
    detect::Reader,
    table::Code,
};
use core::{
    arch::naked_asm,
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
};

/// Where the kernel maps the local APIC's page, uncached, in xAPIC mode: within the uppermost 2 GiB, so that EOI is
/// one instruction with an absolute address.
pub const LOCAL_APIC: u64 = 0xffff_ffff_ffdf_f000;

/// How the registers of the local APIC are reached (SDM vol. 3A §11.4.3, §11.12.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicMode {
    /// Through memory, at [`LOCAL_APIC`].
    XApic,
    /// Through MSRs 0x800 to 0x8ff.
    X2Apic,
}

/// What counts down to the one-shot interrupt (SDM vol. 3A §11.5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerMode {
    /// No timer: [`timer_arm`](crate::timer_arm) does nothing.
    None,
    /// The deadline MSR, compared with the TSC.
    TscDeadline,
    /// The initial-count register.
    OneShot {
        /// Its rate after the divider.
        ticks_per_second: u64,
    },
}

/// IA32_APIC_BASE (SDM vol. 3A §11.4.4), its bit for x2APIC mode (§11.12.1).
const APIC_BASE: u32 = 0x1b;
const APIC_BASE_EXTD: u64 = 1 << 10;
/// CPUID.1:ECX, x2APIC is available; CPUID.1:EDX, there is a local APIC, and there are MSRs (SDM vol. 2A, CPUID).
const CPUID1_ECX_X2APIC: u32 = 1 << 21;
const CPUID1_EDX_APIC: u32 = 1 << 9;
const CPUID1_EDX_MSR: u32 = 1 << 5;

/// Registers of the local APIC by their offset in its page (SDM vol. 3A Table 11-1).
const ICR_LOW: u64 = 0x300;
const ICR_HIGH: u64 = 0x310;
const INITIAL_COUNT: u64 = 0x380;
/// ICR, delivery status: send pending.
const SEND_PENDING: u32 = 1 << 12;
/// Polls of the delivery status before it is given up.
const PATIENCE_POLLS: u32 = 100_000;
/// IA32_X2APIC_ICR, IA32_X2APIC_INIT_COUNT (SDM vol. 3A Table 11-6), IA32_TSC_DEADLINE (§11.5.4.1).
const X2APIC_ICR: u32 = 0x830;
const X2APIC_INITIAL_COUNT: u32 = 0x838;
const TSC_DEADLINE: u32 = 0x6e0;

/// `safe_halt`, and the bytes of STI in it.
pub(crate) const HALT: (Code, u64) = (safe_halt, 1);

/// Lets interrupts in and sleeps, in one step; see [`halt`](crate::halt) for who takes two.
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn safe_halt() {
    naked_asm!("sti", "hlt", "ret")
}

static APIC_MODE: AtomicU8 = AtomicU8::new(XAPIC);
const XAPIC: u8 = 0;
const X2APIC: u8 = 1;
/// 0: none; `DEADLINE`: TSC deadline; else the ticks per second of the initial count.
static TIMER: AtomicU64 = AtomicU64::new(0);
const DEADLINE: u64 = u64::MAX;

/// The mode for which the ops were chosen. The kernel brings every CPU's APIC into it before the first interrupt.
pub fn apic_mode() -> ApicMode {
    match APIC_MODE.load(Ordering::Relaxed) {
        X2APIC => ApicMode::X2Apic,
        _ => ApicMode::XApic,
    }
}

/// x2APIC where the CPU offers it or already runs in it: no page to map, one write for an IPI, EOI by `wrmsr`, which
/// under a hypervisor is cheaper than a memory access to emulate.
pub(super) fn choose_apic_mode(read: Reader<'_>) -> ApicMode {
    let features = read(1, 0);
    let has_base = features.edx & (CPUID1_EDX_APIC | CPUID1_EDX_MSR) == CPUID1_EDX_APIC | CPUID1_EDX_MSR;
    let offered = has_base && features.ecx & CPUID1_ECX_X2APIC != 0;
    let mode = if offered || has_base && read_apic_base() & APIC_BASE_EXTD != 0 { X2APIC } else { XAPIC };
    APIC_MODE.store(mode, Ordering::Relaxed);
    apic_mode()
}

/// Before the table is installed, so not through the op.
fn read_apic_base() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: CPUID said that the register is there; reading it changes nothing.
    unsafe {
        core::arch::asm!("rdmsr", in("ecx") APIC_BASE, out("eax") low, out("edx") high, options(nostack, nomem));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Tells how this machine's one-shot timer works. The kernel has programmed the timer's vector, mode and divider.
pub fn set_timer(mode: TimerMode) {
    let timer = match mode {
        TimerMode::None => 0,
        TimerMode::TscDeadline => DEADLINE,
        TimerMode::OneShot { ticks_per_second } => ticks_per_second.min(DEADLINE - 1),
    };
    TIMER.store(timer, Ordering::Relaxed);
}

/// What [`set_timer`] was told.
pub fn timer() -> TimerMode {
    match TIMER.load(Ordering::Relaxed) {
        0 => TimerMode::None,
        DEADLINE => TimerMode::TscDeadline,
        ticks_per_second => TimerMode::OneShot { ticks_per_second },
    }
}

pub(crate) extern "sysv64" fn timer_arm(deadline_ns: u64) {
    match TIMER.load(Ordering::Relaxed) {
        0 => {}
        DEADLINE => arm_tsc_deadline(deadline_ns),
        ticks_per_second => {
            set_initial_count(initial_count(deadline_ns, time::monotonic_ns(), ticks_per_second))
        }
    }
}

/// Arms the timer for a time `delay_ns` from now, by whichever clock that is meant; `None` disarms.
pub(crate) fn timer_arm_after(delay_ns: Option<u64>) {
    match TIMER.load(Ordering::Relaxed) {
        0 => {}
        DEADLINE => write_deadline(delay_ns.map_or(0, |delay_ns| time::tsc_after(delay_ns).unwrap_or(1))),
        ticks_per_second => {
            set_initial_count(initial_count(delay_ns.unwrap_or(u64::MAX), 0, ticks_per_second))
        }
    }
}

/// A deadline of 0 disarms; one in the past fires at once (SDM vol. 3A §11.5.4.1).
fn arm_tsc_deadline(deadline_ns: u64) {
    write_deadline(if deadline_ns == u64::MAX { 0 } else { time::tsc_at(deadline_ns).unwrap_or(1) });
}

fn write_deadline(deadline: u64) {
    // SAFETY: `set_timer` was told that the CPU has this mode; the interrupt has a handler by then.
    unsafe { crate::wrmsr(TSC_DEADLINE, deadline) }
}

/// The count to the deadline: 0 disarms, 1 is at once, and what is beyond 32 bits comes early.
pub(crate) fn initial_count(deadline_ns: u64, now_ns: u64, ticks_per_second: u64) -> u32 {
    if deadline_ns == u64::MAX {
        return 0;
    }
    let ticks = u128::from(deadline_ns.saturating_sub(now_ns)) * u128::from(ticks_per_second);
    u32::try_from(ticks.div_ceil(1_000_000_000)).unwrap_or(u32::MAX).max(1)
}

fn set_initial_count(count: u32) {
    match apic_mode() {
        ApicMode::XApic => write_register(INITIAL_COUNT, count),
        // SAFETY: the register is there in this mode; the interrupt has a handler by then (`set_timer`).
        ApicMode::X2Apic => unsafe { crate::wrmsr(X2APIC_INITIAL_COUNT, u64::from(count)) },
    }
}

/// xAPIC: destination first, since the write of the lower half sends; not interruptible in between. Only the next one waits
/// until it is sent: under a hypervisor each look at the register is an exit.
/// # Safety
/// As for [`send_ipi`](crate::send_ipi).
pub(crate) unsafe extern "sysv64" fn send_ipi(apic_id: u32, icr_low: u32) {
    let flags = crate::irq_flags();
    crate::irq_disable();
    wait_until_sent();
    write_register(ICR_HIGH, apic_id << 24);
    write_register(ICR_LOW, icr_low);
    crate::irq_restore(flags);
}

/// x2APIC: one MSR, which needs no wait (SDM vol. 3A §11.12.9) but does not order stores before it (§11.12.3).
/// # Safety
/// As for [`send_ipi`](crate::send_ipi).
pub(super) unsafe extern "sysv64" fn send_ipi_x2apic(apic_id: u32, icr_low: u32) {
    // SAFETY: fences.
    unsafe { core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags)) };
    // SAFETY: the register is there in this mode; what the message does is the caller's promise.
    unsafe { crate::wrmsr(X2APIC_ICR, u64::from(apic_id) << 32 | u64::from(icr_low)) }
}

/// The local APIC of each CPU, as the complement of its ID; 0 is "unknown".
static APIC_IDS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// Tells the ID of a CPU's local APIC, so that interrupts can be sent to it by its number.
pub fn set_apic_id(cpu: u32, apic_id: u32) {
    if let Some(place) = APIC_IDS.get(cpu as usize) {
        place.store(!apic_id, Ordering::Relaxed);
    }
}

/// The ID of a CPU's local APIC, if it was told.
pub fn apic_id(cpu: u32) -> Option<u32> {
    let id = !APIC_IDS.get(cpu as usize)?.load(Ordering::Relaxed);
    (id != u32::MAX).then_some(id)
}

/// # Safety
/// As for [`send_ipi_many`](crate::send_ipi_many).
pub(crate) unsafe extern "sysv64" fn send_ipi_many(cpus: *const CpuSet, vector: u8) {
    // SAFETY: the op's argument is a reference.
    for apic_id in unsafe { *cpus }.iter().filter_map(apic_id) {
        // SAFETY: a fixed interrupt; its vector is the caller's promise.
        unsafe { send_ipi(apic_id, vector.into()) };
    }
}

/// ICR, destination mode: logical (SDM vol. 3A §11.6.1).
const LOGICAL: u64 = 1 << 11;

/// In x2APIC mode the logical ID is made of the ID: 16 CPUs a cluster, a bit each (SDM vol. 3A §11.12.10.2). Those of
/// one cluster take one message.
/// # Safety
/// As for [`send_ipi_many`](crate::send_ipi_many).
pub(crate) unsafe extern "sysv64" fn send_ipi_many_x2apic(cpus: *const CpuSet, vector: u8) {
    // SAFETY: fences, as in `send_ipi_x2apic`.
    unsafe { core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags)) };
    let send = |logical: u64| {
        // SAFETY: the register is there in this mode; the vector is the caller's promise.
        unsafe { crate::wrmsr(X2APIC_ICR, logical << 32 | LOGICAL | u64::from(vector)) }
    };
    // SAFETY: the op's argument is a reference.
    let ids = unsafe { *cpus }.iter().filter_map(apic_id);
    for_each_message(ids.map(u64::from), send);
}

/// The logical IDs to send to: one for the CPUs of a cluster, as far as they come one after the other.
fn for_each_message(apic_ids: impl Iterator<Item = u64>, mut send: impl FnMut(u64)) {
    let mut message = 0;
    for apic_id in apic_ids {
        let (cluster, bit) = ((apic_id >> 4) << 16, 1 << (apic_id & 15));
        if message != 0 && message >> 16 << 16 != cluster {
            send(message);
            message = 0;
        }
        message |= cluster | bit;
    }
    if message != 0 {
        send(message);
    }
}

fn wait_until_sent() {
    for _ in 0..PATIENCE_POLLS {
        if read_register(ICR_LOW) & SEND_PENDING == 0 {
            return;
        }
        core::hint::spin_loop();
    }
}

/// Only for the registers above, in xAPIC mode.
fn read_register(offset: u64) -> u32 {
    // SAFETY: the kernel maps the registers at `LOCAL_APIC` before it sends or arms anything; reading ICR and
    // counters changes nothing.
    unsafe { core::ptr::with_exposed_provenance::<u32>((LOCAL_APIC + offset) as usize).read_volatile() }
}

/// Only for the registers above, in xAPIC mode.
fn write_register(offset: u64, value: u32) {
    // SAFETY: as for reading; what ICR and timer then do is what the caller was asked for.
    unsafe {
        core::ptr::with_exposed_provenance_mut::<u32>((LOCAL_APIC + offset) as usize).write_volatile(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// SDM vol. 3A §11.12.10.2: the cluster in the upper half, a bit for each of its 16.
    #[test]
    fn sixteen_cpus_take_one_message() {
        let messages = |ids: &[u64]| {
            let mut sent = Vec::new();
            for_each_message(ids.iter().copied(), |message| sent.push(message));
            sent
        };
        assert!(messages(&[]).is_empty());
        assert_eq!(messages(&(0..16).collect::<Vec<_>>()), [0xffff]);
        assert_eq!(messages(&(1..64).collect::<Vec<_>>()), [0xfffe, 0x1_ffff, 0x2_ffff, 0x3_ffff]);
        assert_eq!(messages(&[3, 300, 301]), [1 << 3, 0x12_0000 | 0b11 << 12]);
    }
}

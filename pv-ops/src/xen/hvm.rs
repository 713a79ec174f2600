//! The backend `xen-pvh`: a hardware-assisted guest of Xen (PVH, or HVM by a PC's firmware). Memory, interrupts and
//! the local APIC are as natively; clocks, scheduling, console and the end are Xen's own.
//! Neighbours: `time`, `sched`, `console` (the bodies), `memory` (what set-up asks for).

use super::{
    abi::{hvm, memory::SPACE_SHARED_INFO},
    console, cpuid,
    hypercall::{self, Errno, Form},
    lock, memory, sched, shared_info, steal, time,
};
use crate::{
    backend::{Backend, Environment, Services},
    detect::Hypervisors,
    native,
    ops::PvOps,
};
use core::sync::atomic::{AtomicU64, Ordering};

/// The backend.
pub static BACKEND: Backend = Backend {
    name: "xen-pvh",
    detect: |hypervisors, _| cpuid::base(hypervisors).is_some(),
    setup,
    services: Services {
        memory_map,
        tsc_hz: time::tsc_hz,
        map_pages,
        cpu_up: steal::cpu_up,
        max_cpus: shared_info::VCPUS as u32,
        ..Services::NONE
    },
    early: None,
};

/// What a PVH guest does otherwise than a machine.
pub const OPS: PvOps = over(native::OPS);

/// Likewise where the local APIC is in x2APIC mode.
pub const OPS_X2APIC: PvOps = over(native::OPS_X2APIC);

const fn over(native: PvOps) -> PvOps {
    PvOps {
        timer_arm: function!(timer_arm => timer_arm),
        monotonic_ns: thunk!(monotonic_ns => time::monotonic_ns),
        wall_ns: function!(wall_ns => time::wall_ns),
        steal_ns: thunk!(steal_ns => steal::steal_ns),
        lock_kick: thunk!(lock_kick => lock::lock_kick),
        lock_wait: thunk!(lock_wait => lock::lock_wait),
        sched_yield: thunk!(sched_yield => sched::sched_yield),
        shutdown: function!(shutdown => sched::shutdown),
        console_write: function!(console_write => console::console_write),
        ..native
    }
}

const PAGE: u64 = 4096;

/// Xen's timer once its event has a handler; before, and where there is none, the local APIC's.
extern "sysv64" fn timer_arm(deadline_ns: u64) {
    if time::has_event_timer() { time::timer_arm(deadline_ns) } else { native::irq::timer_arm(deadline_ns) }
}

/// Finds the way into Xen and has the shared page mapped. Where that does not work out, the guest runs as natively.
fn setup(environment: &Environment<'_>, hypervisors: &Hypervisors, ops: &mut PvOps) {
    native::setup(environment, hypervisors, ops);
    let read = environment.cpuid;
    let vendor = read(0, 0);
    hypercall::set_form(hypercall::form_of_vendor(vendor.ebx, vendor.ecx, vendor.edx));
    let Some(base) = cpuid::base(hypervisors) else { return };
    if !map_shared_info(environment) {
        hypercall::set_form(Form::None);
        return;
    }
    time::start(environment.entry_tsc, read, base);
    if !super::is_dom0() {
        find_console(&environment.entry_map);
    }
    *ops = over(*ops);
}

/// The frame of the image's own page in whose place Xen's is.
static SHARED_FRAME: AtomicU64 = AtomicU64::new(0);

/// Puts Xen's page in place of the image's own, whose frame must be known.
fn map_shared_info(environment: &Environment<'_>) -> bool {
    let Some(physical) = (environment.image_physical)(shared_info::address()) else { return false };
    SHARED_FRAME.store(physical / PAGE, Ordering::Relaxed);
    map_again().is_ok()
}

/// The same after the domain was restored, when there is nothing in its place.
pub(super) fn map_again() -> Result<(), Errno> {
    let frame = SHARED_FRAME.load(Ordering::Relaxed);
    // SAFETY: the frame is that of a page of the image which is nobody's but Xen's: `shared_info`'s.
    unsafe { memory::add_to_physmap(SPACE_SHARED_INFO, 0, frame) }?;
    shared_info::set_mapped();
    Ok(())
}

/// The console ring's frame number and event channel, if the toolstack gave one.
fn console() -> Option<(u64, u32)> {
    let frame = memory::hvm_param(hvm::CONSOLE_PFN).ok().filter(|&frame| frame != 0)?;
    let port = memory::hvm_param(hvm::CONSOLE_EVTCHN).ok()?;
    Some((frame.checked_mul(PAGE)?, port as u32))
}

/// The ring under the page tables of the entry, which map the lowest physical addresses.
fn find_console(entry_map: &core::ops::Range<u64>) {
    let Some((physical, port)) = console() else { return };
    let Some(address) = entry_map.start.checked_add(physical).filter(|&page| page < entry_map.end) else {
        return;
    };
    // SAFETY: the entry maps physical memory there; the frame is the one that Xen names as the ring.
    unsafe {
        console::set_ring(core::ptr::with_exposed_provenance_mut(address as usize), port, entry_root())
    };
}

/// CR3 before there are ops.
fn entry_root() -> u64 {
    let root;
    // SAFETY: set-up runs in ring 0 of a hardware-assisted guest, where this only reads a register.
    unsafe { core::arch::asm!("mov {}, cr3", out(reg) root, options(nomem, nostack, preserves_flags)) };
    root
}

/// The ring under the kernel's own page tables.
fn map_pages(map: &dyn Fn(u64) -> Option<*mut u8>) {
    if !shared_info::is_mapped() || super::is_dom0() {
        return;
    }
    let Some((physical, port)) = console() else { return };
    if let Some(page) = map(physical) {
        // SAFETY: the kernel mapped the frame that Xen names as the ring, for good.
        unsafe { console::set_ring(page, port, crate::read_cr3()) };
    }
}

fn memory_map(each: &mut dyn FnMut(crate::backend::Region)) {
    // SAFETY: the kernel asks at boot, on the one CPU that runs.
    let _ = unsafe { memory::map(each) };
}

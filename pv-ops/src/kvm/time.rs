//! Clocks of a KVM guest: kvmclock, the wall clock, stolen time (msr.rst).
//! Neighbours: `pvclock` (arithmetic, reading protocol), `area` (where a CPU's page is), `native` (the timer itself).
//!
//! While the host says that the pages of all CPUs agree, the boot CPU's serves all and time is a pure reading. Else each
//! CPU has its own, and a value that all have passed keeps time from going back between them.

use super::{
    area::{self, Area},
    features::{CLOCK, CLOCK_STABLE, CLOCKSOURCE2, STEAL_TIME},
    msr,
};
use crate::{
    backend::CPU_SLOT,
    native,
    pvclock::{WallClock, ordered_tsc},
};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The host's system time when the guest was entered: time 0.
static BASE_NS: AtomicU64 = AtomicU64::new(0);
/// What the clock showed last on any CPU, where their pages do not agree.
static LAST_NS: AtomicU64 = AtomicU64::new(0);
/// The rate of the time-stamp counter in hertz; 0 is "unknown".
static TSC_HZ: AtomicU64 = AtomicU64::new(0);
/// The flag in the page can be believed.
static STABLE_COUNTS: AtomicBool = AtomicBool::new(false);
/// GS leads to a CPU's own data on every CPU that runs.
static CPUS_KNOWN: AtomicBool = AtomicBool::new(false);

/// Written by the host when asked.
static WALL: WallClock = WallClock::new();
static WALL_PHYSICAL: AtomicU64 = AtomicU64::new(0);
/// Unix time at system time 0, once it was asked for.
static WALL_BOOT_NS: AtomicU64 = AtomicU64::new(0);
static NEW_NUMBERS: AtomicBool = AtomicBool::new(false);

/// Registers the boot CPU's clock page. Time 0 is when the counter stood at `entry_tsc`. Whether there is a clock now.
pub(super) fn start(offered: u32, entry_tsc: u64, physical: &dyn Fn(u64) -> Option<u64>) -> bool {
    NEW_NUMBERS.store(offered & CLOCKSOURCE2 != 0, Ordering::Relaxed);
    let Some(area) = area::of(0) else { return false };
    if !register(area) {
        return false;
    }
    let Ok((snapshot, _)) = area.clock.read(|| ()) else { return false };
    let Some(hz) = snapshot.scale.ticks_per_second() else { return false };
    TSC_HZ.store(hz, Ordering::Relaxed);
    BASE_NS.store(snapshot.at_or_before(entry_tsc), Ordering::Relaxed);
    STABLE_COUNTS.store(CLOCK_STABLE.is_wanted(), Ordering::Relaxed);
    if CLOCK_STABLE.is_wanted() && snapshot.flags.tsc_is_stable() {
        CLOCK_STABLE.set_used();
    }
    // A page of the image is in one frame; the struct is smaller than what its address is a multiple of.
    let wall = (&raw const WALL).addr() as u64;
    WALL_PHYSICAL.store(physical(wall & !0xfff).map_or(0, |page| page + wall % 4096), Ordering::Relaxed);
    CLOCK.set_used();
    true
}

/// Registers a CPU's clock page; the boot CPU's was [`start`]'s.
pub(super) fn cpu_up(area: &'static Area, cpu: u32) {
    if CLOCK.is_used() && cpu != 0 {
        register(area);
    }
    CPUS_KNOWN.store(true, Ordering::Release);
}

fn register(area: &'static Area) -> bool {
    let Some(physical) = area::physical(&area.clock) else { return false };
    let register = if NEW_NUMBERS.load(Ordering::Relaxed) { msr::SYSTEM_TIME_NEW } else { msr::SYSTEM_TIME };
    // SAFETY: the clock is offered; the host writes 32 bytes of atomics, which are nothing but its clock.
    unsafe { msr::write(register, physical | msr::ENABLE) };
    true
}

/// The rate of the time-stamp counter in hertz, as the clock page tells it.
pub(super) fn tsc_hz() -> Option<u64> {
    Some(TSC_HZ.load(Ordering::Relaxed)).filter(|&hz| hz != 0)
}

/// Nanoseconds since the host's own beginning; 0 if its clock does not come to rest.
fn system_ns() -> u64 {
    let Some(boot_cpu) = area::of(0) else { return 0 };
    let Ok((snapshot, tsc)) = boot_cpu.clock.read(ordered_tsc) else { return 0 };
    if STABLE_COUNTS.load(Ordering::Relaxed) && snapshot.flags.tsc_is_stable() {
        return snapshot.at(tsc);
    }
    let now = match own_area() {
        Some(own) => own.clock.now_ns(ordered_tsc).unwrap_or(0),
        None => snapshot.at(tsc),
    };
    LAST_NS.fetch_max(now, Ordering::Relaxed).max(now)
}

/// The area of the CPU that runs this; none before it is up. Should the CPU change between this and the reading, the
/// other one's page is still read consistently, and `LAST_NS` makes up for the rest.
fn own_area() -> Option<&'static Area> {
    if !CPUS_KNOWN.load(Ordering::Acquire) {
        return None;
    }
    let area: *const Area;
    // SAFETY: GS leads to the data of this CPU from before the first `cpu_up` on, and the slot is part of it.
    unsafe {
        core::arch::asm!("mov {}, qword ptr gs:[{slot}]", out(reg) area, slot = const CPU_SLOT,
            options(readonly, nostack, preserves_flags));
    }
    // SAFETY: only `cpu_up` writes the slot: 0, or the address of a static.
    unsafe { area.as_ref() }
}

pub(super) extern "sysv64" fn monotonic_ns() -> u64 {
    system_ns().saturating_sub(BASE_NS.load(Ordering::Relaxed))
}

/// The wall clock at system time 0, plus the system time.
pub(super) extern "sysv64" fn wall_ns() -> u64 {
    let boot_ns = match WALL_BOOT_NS.load(Ordering::Relaxed) {
        0 => ask_wall_clock(),
        known => known,
    };
    if boot_ns == 0 { u64::MAX } else { boot_ns.saturating_add(system_ns()) }
}

/// Asked once: a host that sets its clock later is followed by the system time only. Two CPUs that ask at the same time
/// get the same answer.
fn ask_wall_clock() -> u64 {
    let physical = WALL_PHYSICAL.load(Ordering::Relaxed);
    if physical == 0 {
        return 0;
    }
    let register = if NEW_NUMBERS.load(Ordering::Relaxed) { msr::WALL_CLOCK_NEW } else { msr::WALL_CLOCK };
    // SAFETY: the clock is offered; the host writes 12 bytes of atomics, which are nothing but its answer.
    unsafe { msr::write(register, physical) };
    let boot_ns = WALL.read_boot_unix_ns().unwrap_or(0);
    WALL_BOOT_NS.store(boot_ns, Ordering::Relaxed);
    boot_ns
}

/// The native timer, armed for so long from now: its own clock may drift from this one.
pub(super) extern "sysv64" fn timer_arm(deadline_ns: u64) {
    let delay_ns = (deadline_ns != u64::MAX).then(|| deadline_ns.saturating_sub(monotonic_ns()));
    native::irq::timer_arm_after(delay_ns);
}

/// Registers a CPU's steal time.
pub(super) fn register_steal_time(area: &'static Area) {
    let Some(physical) = area::physical(&area.steal).filter(|_| STEAL_TIME.is_wanted()) else { return };
    // SAFETY: it is offered; the host writes 64 bytes of atomics, which are nothing but its record.
    unsafe { msr::write(msr::STEAL_TIME, physical | msr::ENABLE) };
    STEAL_TIME.set_used();
}

pub(super) extern "sysv64" fn steal_ns(cpu: u32) -> u64 {
    area::of(cpu).map_or(0, |area| area.steal.read_ns())
}

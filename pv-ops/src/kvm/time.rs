//! Clocks of a KVM guest: kvmclock, the wall clock, stolen time (msr.rst).
//! Neighbours: `pvclock` (arithmetic, reading protocol), `area` (where a CPU's page is), `native` (the timer itself).
//!
//! While the host says that the pages of all CPUs agree, the boot CPU's serves all and time is a pure reading. Else each
//! CPU has its own, and a value that all have passed keeps time from going back between them.

use super::{
    area,
    features::{CLOCK, CLOCK_STABLE, CLOCKSOURCE2, STEAL_TIME},
    msr,
};
use crate::{
    native,
    percpu::{self, CpuArea},
    pvclock::{TimeInfo, WallClock, ordered_tsc},
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

/// The boot CPU's clock page, needed before that CPU has data of its own.
static BOOT_CLOCK: BootClock = BootClock(TimeInfo::new());

/// Aligned so that it is in one page.
#[repr(C, align(32))]
struct BootClock(TimeInfo);

/// Written by the host when asked.
static WALL: Wall = Wall(WallClock::new());

/// Aligned so that it is in one page.
#[repr(C, align(16))]
struct Wall(WallClock);

static WALL_PHYSICAL: AtomicU64 = AtomicU64::new(0);
/// Unix time at system time 0, once it was asked for.
static WALL_BOOT_NS: AtomicU64 = AtomicU64::new(0);
static NEW_NUMBERS: AtomicBool = AtomicBool::new(false);

/// Registers the boot CPU's clock page. Time 0 is when the counter stood at `entry_tsc`. Whether there is a clock now.
pub(super) fn start(offered: u32, entry_tsc: u64, physical: &dyn Fn(u64) -> Option<u64>) -> bool {
    NEW_NUMBERS.store(offered & CLOCKSOURCE2 != 0, Ordering::Relaxed);
    let Some(clock) = of_image(&BOOT_CLOCK, physical) else { return false };
    register(clock);
    let Ok((snapshot, _)) = BOOT_CLOCK.0.read(|| ()) else { return false };
    let Some(hz) = snapshot.scale.ticks_per_second() else { return false };
    TSC_HZ.store(hz, Ordering::Relaxed);
    BASE_NS.store(snapshot.at_or_before(entry_tsc), Ordering::Relaxed);
    STABLE_COUNTS.store(CLOCK_STABLE.is_wanted(), Ordering::Relaxed);
    if CLOCK_STABLE.is_wanted() && snapshot.flags.tsc_is_stable() {
        CLOCK_STABLE.set_used();
    }
    WALL_PHYSICAL.store(of_image(&WALL, physical).unwrap_or(0), Ordering::Relaxed);
    CLOCK.set_used();
    true
}

/// The physical address of something in the image that is no larger than what its address is a multiple of: it is in one
/// page, and a page in one frame.
fn of_image<T>(part: &'static T, physical: &dyn Fn(u64) -> Option<u64>) -> Option<u64> {
    const { assert!(size_of::<T>() <= align_of::<T>()) };
    physical(core::ptr::from_ref(part).addr() as u64)
}

/// Registers a CPU's clock page; the boot CPU's was [`start`]'s.
pub(super) fn cpu_up(words: &'static CpuArea, cpu: u32) {
    if CLOCK.is_used()
        && cpu != 0
        && let Some(physical) = area::physical(words, &area::within(words).clock)
    {
        register(physical);
    }
    CPUS_KNOWN.store(true, Ordering::Release);
}

fn register(physical: u64) {
    let register = if NEW_NUMBERS.load(Ordering::Relaxed) { msr::SYSTEM_TIME_NEW } else { msr::SYSTEM_TIME };
    // SAFETY: the clock is offered; the host writes 32 bytes of atomics, which are nothing but its clock.
    unsafe { msr::write(register, physical | msr::ENABLE) };
}

/// The rate of the time-stamp counter in hertz, as the clock page tells it.
pub(super) fn tsc_hz() -> Option<u64> {
    Some(TSC_HZ.load(Ordering::Relaxed)).filter(|&hz| hz != 0)
}

/// Nanoseconds since the host's own beginning; 0 if its clock does not come to rest.
fn system_ns() -> u64 {
    let Ok((snapshot, tsc)) = BOOT_CLOCK.0.read(ordered_tsc) else { return 0 };
    if STABLE_COUNTS.load(Ordering::Relaxed) && snapshot.flags.tsc_is_stable() {
        return snapshot.at(tsc);
    }
    let now = match own_clock().map(|clock| clock.read(ordered_tsc)) {
        Some(Ok((own, tsc))) if own.scale.multiplier() != 0 => own.at(tsc),
        _ => snapshot.at(tsc),
    };
    LAST_NS.fetch_max(now, Ordering::Relaxed).max(now)
}

/// The page of the CPU that runs this, which the boot CPU does not fill; none before the first is up. Should the CPU
/// change between this and the reading, the other one's page is still read consistently, and `LAST_NS` makes up for the
/// rest.
fn own_clock() -> Option<&'static TimeInfo> {
    if !CPUS_KNOWN.load(Ordering::Acquire) {
        return None;
    }
    // SAFETY: GS leads to the data of this CPU from before the first `cpu_up` on, which is the first that a CPU does.
    Some(&area::within(unsafe { percpu::current() }).clock)
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
    let boot_ns = WALL.0.read_boot_unix_ns().unwrap_or(0);
    WALL_BOOT_NS.store(boot_ns, Ordering::Relaxed);
    boot_ns
}

/// The native timer, armed for so long from now: its own clock may drift from this one.
pub(super) extern "sysv64" fn timer_arm(deadline_ns: u64) {
    let delay_ns = (deadline_ns != u64::MAX).then(|| deadline_ns.saturating_sub(monotonic_ns()));
    native::irq::timer_arm_after(delay_ns);
}

/// Registers a CPU's steal time.
pub(super) fn register_steal_time(words: &'static CpuArea) {
    let physical = area::physical(words, &area::within(words).steal);
    let Some(physical) = physical.filter(|_| STEAL_TIME.is_wanted()) else { return };
    // SAFETY: it is offered; the host writes 64 bytes of atomics, which are nothing but its record.
    unsafe { msr::write(msr::STEAL_TIME, physical | msr::ENABLE) };
    STEAL_TIME.set_used();
}

pub(super) extern "sysv64" fn steal_ns(cpu: u32) -> u64 {
    area::of(cpu).map_or(0, |area| area.steal.read_ns())
}

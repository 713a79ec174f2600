//! The clocks as the rest of the kernel sees them, and their set-up.
//! Neighbours: `tsc` (the rate), `timer` (the queue), `devices` (which reads the date from a clock chip).
#![forbid(unsafe_code)]

use super::{calibrate, reference, timer, tsc};
use crate::{
    acpi,
    cpu::{Feature, features},
    irq::{apic, apic::LocalApic, dispatch, event_channel, vectors},
    sync::OnceCell,
};
use core::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};
use pv_ops::native::irq::TimerMode;

const NS_PER_S: u64 = 1_000_000_000;

/// A moment, in nanoseconds since the clock began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The moment `ns` nanoseconds after the clock began.
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the clock began.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// The time since then.
    pub fn elapsed(self) -> Duration {
        now() - self
    }
}

/// The end of time is never passed.
impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Zero when `earlier` is later.
impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A moment in the world: nanoseconds since 1970-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

impl UnixTime {
    /// Nanoseconds since the epoch.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// Whole seconds since the epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / NS_PER_S
    }
}

/// `2026-01-31 12:34:56 UTC`
impl fmt::Display for UnixTime {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        write!(out, "{} UTC", drivers::rtc::DateTime::from_unix(self.as_secs()))
    }
}

/// The time since the clock began. It never goes back.
pub fn now() -> Instant {
    Instant(pv_ops::monotonic_ns())
}

/// The date and time; `None` on a machine that does not know it. Without a hypervisor that tells, the first call asks the
/// clock chip.
pub fn wall() -> Option<UnixTime> {
    let ask_chip = || {
        crate::devices::read_clock();
        pv_ops::wall_ns()
    };
    pv_ops::wall_ns().or_else(ask_chip).map(UnixTime)
}

static RATE: OnceCell<tsc::Rate> = OnceCell::uninit();
static HAS_TIMER: OnceCell<()> = OnceCell::uninit();

/// The rate of the TSC; `None` before [`init`].
pub fn tsc_rate() -> Option<tsc::Rate> {
    RATE.try_get().ok().copied()
}

/// Whether something wakes at deadlines on this machine.
pub fn has_timer() -> bool {
    HAS_TIMER.is_initialized()
}

/// Begins to find out the counter's rate, which takes a millisecond where it must be measured.
pub(crate) fn begin() -> tsc::Measuring {
    tsc::begin(acpi::tables())
}

/// Sets the clock and the timer up. Interrupts are up already.
pub(crate) fn init(measuring: tsc::Measuring) {
    let rate = tsc::find(measuring, acpi::tables(), apic::local());
    let _ = RATE.try_init_once(|| rate);
    pv_ops::native::time::set_tsc_hz(rate.hz);
    let timer = match apic::local() {
        _ if event_channel::bind_timer(timer::expire) => {
            let _ = HAS_TIMER.try_init_once(|| ());
            "the hypervisor's one-shot event"
        }
        Some(apic) => init_timer(apic, rate.hz),
        None => "none, for there is no local APIC: sleepers must poll",
    };
    match rate.source {
        tsc::Source::Assumed | tsc::Source::LocalApic => log::warn!("{rate}; timer: {timer}"),
        _ => log::info!("{rate}; timer: {timer}"),
    }
}

/// Lets a further CPU have its timer; that of the local APIC is set up with the rest of it.
pub(crate) fn cpu_up() {
    event_channel::bind_timer(timer::expire);
}

/// The TSC deadline where the CPU has it, else a countdown whose clock is measured against the TSC. Says which.
fn init_timer(apic: &LocalApic, tsc_hz: u64) -> &'static str {
    let (mode, name) = if features().has(Feature::TscDeadline) {
        apic.use_tsc_deadline();
        (TimerMode::TscDeadline, "TSC deadline")
    } else {
        let Some(rate) = one_shot_rate(apic, tsc_hz) else {
            return "none, for the local APIC's stands still: sleepers must poll";
        };
        log::debug!("local APIC timer {}.{:03} MHz", rate.hz / 1_000_000, rate.hz / 1000 % 1000);
        apic.use_one_shot();
        (TimerMode::OneShot { ticks_per_second: rate.hz }, "local APIC countdown")
    };
    dispatch::handle(vectors::TIMER, "timer", timer::expire);
    pv_ops::native::irq::set_timer(mode);
    let _ = HAS_TIMER.try_init_once(|| ());
    name
}

/// A deadline that is missed by a little is armed for again: no need to measure long.
const ONE_SHOT_INTERVAL_NS: u64 = 200_000;

fn one_shot_rate(apic: &LocalApic, tsc_hz: u64) -> Option<calibrate::Measurement> {
    apic.start_count();
    let mut tsc = calibrate::Reference { read: &mut pv_ops::rdtsc, hz: tsc_hz, mask: u64::MAX };
    let rate = calibrate::measure(&mut || apic.counted().into(), &mut tsc, ONE_SHOT_INTERVAL_NS);
    apic.stop_count();
    rate.filter(|rate| rate.hz > reference::PIT_HZ / 100)
}

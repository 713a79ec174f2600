//! When each stage of the start was through, by the time-stamp counter: for whoever asks why a start takes so long.
//! `stages=port` on the command line has each end shown outside too, by a write of the stage's number to port 0x80: who runs
//! the guest can tell by it what happened in which stage.
//! Neighbours: `start` (whose stages they are), the probe (shows them).
#![forbid(unsafe_code)]

use core::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use crate::{cpu::port::Ports, time};

/// A stage of the start, named by what it brings up; each ends where the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Operations,
    Patched,
    Cpu,
    Memory,
    Interrupts,
    Time,
    Cpus,
    Devices,
}

/// Their names, in the order of [`Stage`].
const NAMES: [&str; 8] =
    ["operations", "call sites", "CPU", "memory", "interrupts", "time", "other CPUs", "devices"];

static ENDS: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

static SHOWN: AtomicBool = AtomicBool::new(false);

/// Takes from the command line whether ends are shown.
pub(crate) fn init(cmdline: &boot::CommandLine) {
    SHOWN.store(cmdline.get("stages") == Some("port"), Ordering::Relaxed);
}

/// This stage is through. The port shows 2 for the first, since the entry is before it.
pub(crate) fn done(stage: Stage) {
    ENDS[stage as usize].store(pv_ops::rdtsc(), Ordering::Relaxed);
    if SHOWN.load(Ordering::Relaxed) {
        Ports::PROGRESS.write_u8(0x80, stage as u8 + 2);
    }
}

/// Each stage with the time from the guest's entry to its end. None before the clock has a rate.
pub fn all() -> impl Iterator<Item = (&'static str, Duration)> {
    let hz = time::tsc_rate().map_or(0, |rate| rate.hz);
    let stages = NAMES.iter().zip(&ENDS).map(|(&name, end)| (name, end.load(Ordering::Relaxed)));
    core::iter::once(("entry", boot::main_tsc())).chain(stages).filter_map(move |(name, end)| {
        let ticks = u128::from(end.saturating_sub(boot::entry_tsc()));
        let ns = (ticks * 1_000_000_000).checked_div(u128::from(hz))?;
        Some((name, Duration::from_nanos(u64::try_from(ns).ok()?)))
    })
}

crate::kernel_test! {
    fn stages_end_one_after_the_other() {
        let ends: alloc::vec::Vec<_> = all().map(|(_, end)| end).collect();
        assert!(ends.is_sorted() && ends.iter().all(|end| *end > Duration::ZERO), "{ends:?}");
    }
}

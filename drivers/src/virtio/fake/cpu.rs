//! The CPU that a test plays: that of the test's thread.
#![forbid(unsafe_code)]

use std::cell::Cell;

use super::FakeHal;
use crate::virtio::block::Cpus;

/// Looks for answers by what it is given.
pub(crate) type Linger = fn(&mut dyn FnMut() -> bool);

/// What drivers are told of it.
#[derive(Clone, Copy)]
pub(crate) struct FakeCpu {
    pub(crate) number: u16,
    pub(crate) is_alone: bool,
    pub(crate) linger: Linger,
}

impl FakeCpu {
    /// The first one, which has other things to do.
    pub(crate) const BUSY: Self = Self { number: 0, is_alone: false, linger: |_| () };

    /// From now on this is the CPU.
    pub(crate) fn enter(self) {
        CPU.set(self);
    }
}

thread_local! {
    static CPU: Cell<FakeCpu> = const { Cell::new(FakeCpu::BUSY) };
}

impl Cpus for FakeHal {
    fn current() -> u16 {
        CPU.get().number
    }

    fn later(_: u32) {}

    fn is_alone() -> bool {
        CPU.get().is_alone
    }

    fn linger(mut found: impl FnMut() -> bool) {
        (CPU.get().linger)(&mut found);
    }
}

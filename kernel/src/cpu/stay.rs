//! Staying on a CPU: who holds a [`Stay`] is interrupted, but no other thread runs here and it runs nowhere else.
//! Neighbours: `irq::dispatch` (a handler stays as well), `task::scheduler` (what is put off until the end).
#![forbid(unsafe_code)]

use core::{marker::PhantomData, sync::atomic::Ordering};

use super::{PerCpu, percpu};
use crate::{irq::dispatch, sync::IrqState};

/// The thread that made it stays on its CPU while it lives.
#[derive(Debug)]
#[must_use = "the thread stays while this lives"]
pub struct Stay {
    _this_cpu: PhantomData<*const ()>,
}

/// Stays on this CPU.
pub fn stay() -> Stay {
    let _irq = IrqState::disable();
    percpu::current_or_boot().begin_stay();
    Stay { _this_cpu: PhantomData }
}

impl Drop for Stay {
    fn drop(&mut self) {
        let enabled = pv_ops::irq_flags() & super::RFLAGS_IF != 0;
        let _irq = IrqState::disable();
        if percpu::current_or_boot().end_stay() && enabled {
            dispatch::end();
        }
    }
}

impl PerCpu {
    /// Interrupts are disabled, here and in [`end_stay`](Self::end_stay).
    #[inline]
    pub(crate) fn begin_stay(&self) {
        self.stays.store(self.stays.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Whether what runs on this CPU is to stay: a handler is, and who holds a [`Stay`]. Interrupts are disabled.
    #[inline]
    pub(crate) fn stays(&self) -> bool {
        self.stays.load(Ordering::Relaxed) != 0
    }

    /// Whether it was the outermost.
    #[inline]
    pub(crate) fn end_stay(&self) -> bool {
        let stays = self.stays.load(Ordering::Relaxed) - 1;
        self.stays.store(stays, Ordering::Relaxed);
        stays == 0
    }
}

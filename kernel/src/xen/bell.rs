//! From an event to a task: rung by a handler, awaited by one task. And the channel of a ring that the toolstack made.
#![forbid(unsafe_code)]

use core::{
    future::poll_fn,
    sync::atomic::{AtomicU32, Ordering},
    task::{Poll, Waker},
};

use pv_ops::xen::{
    event_channel::{self, Port},
    hypercall::Errno,
    rings::Ring,
};

use crate::{irq, sync::IrqMutex};

/// Rung or not, and who waits. A ring while nobody waits is kept; many are one.
pub(super) struct Bell(IrqMutex<(bool, Option<Waker>)>);

impl Bell {
    /// Not rung.
    pub(super) const fn new() -> Self {
        Self(IrqMutex::new((false, None)))
    }

    /// Wakes who waits. For interrupt handlers.
    pub(super) fn ring(&self) {
        let waker = {
            let (rung, waker) = &mut *self.0.lock();
            *rung = true;
            waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until it is rung.
    pub(super) async fn wait(&self) {
        poll_fn(|cx| {
            let (rung, waker) = &mut *self.0.lock();
            if core::mem::take(rung) {
                return Poll::Ready(());
            }
            *waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// The channel of a ring, which has another number after the domain was restored.
pub(super) struct Line {
    port: AtomicU32,
    name: &'static str,
    handler: fn(),
}

impl Line {
    /// Without a channel; its events are to call `handler`.
    pub(super) const fn new(name: &'static str, handler: fn()) -> Self {
        Self { port: AtomicU32::new(0), name, handler }
    }

    /// Has the channel of `ring` from now on.
    ///
    /// # Errors
    /// What the hypervisor says.
    pub(super) fn bind(&self, ring: Ring) -> Result<(), Errno> {
        self.port.store(ring.port().0, Ordering::Relaxed);
        irq::event_channel::bind(ring.port(), self.name, self.handler)
    }

    /// Rings at the other end.
    pub(super) fn ring(&self) {
        // The other end may be gone: then nobody misses it.
        let _ = event_channel::send(Port(self.port.load(Ordering::Relaxed)));
    }
}

//! From an event to a task: rung by a handler, awaited by one task.
#![forbid(unsafe_code)]

use core::{
    future::poll_fn,
    task::{Poll, Waker},
};

use crate::sync::IrqMutex;

/// Rung or not, and who waits. A ring while nobody waits is kept; many are one.
#[derive(Default)]
pub(super) struct Bell(IrqMutex<(bool, Option<Waker>)>);

impl Bell {
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

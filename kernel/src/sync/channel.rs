//! Values from threads and tasks to others, through a queue of bounded length.
//! The same source is checked in every interleaving by the tests (`crate::interleave`).
//! Neighbours: `waiters` (who waits for a place or a value).
#![forbid(unsafe_code)]

use alloc::{collections::VecDeque, sync::Arc};
use core::fmt;

use super::{
    IrqMutex,
    atomic::{AtomicUsize, Ordering},
    waiters::Waiters,
};
use crate::task::OutOfMemory;

/// A channel that holds up to `capacity` values, at least one: the end that sends and the end that receives. Both can be
/// cloned.
///
/// # Errors
/// [`OutOfMemory`] when there is none for so many values.
pub fn bounded<T: Send>(capacity: usize) -> Result<(Sender<T>, Receiver<T>), OutOfMemory> {
    let mut queue = VecDeque::new();
    queue.try_reserve_exact(capacity.max(1)).map_err(|_| OutOfMemory)?;
    let shared = crate::task::memory::shared(Shared {
        queue: IrqMutex::new(queue),
        capacity: capacity.max(1),
        senders: AtomicUsize::new(1),
        receivers: AtomicUsize::new(1),
        places: Waiters::new(),
        values: Waiters::new(),
    })?;
    Ok((Sender(shared.clone()), Receiver(shared)))
}

struct Shared<T> {
    queue: IrqMutex<VecDeque<T>>,
    capacity: usize,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    /// Who waits for a place to send to, and who for a value.
    places: Waiters,
    values: Waiters,
}

/// Nobody will receive it: the value comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody receives any more")]
pub struct SendError<T>(pub T);

/// Why a value was not sent at once; it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<T> {
    /// No place is free.
    #[error("the channel is full")]
    Full(T),
    /// Nobody will receive it.
    #[error("nobody receives any more")]
    Closed(T),
}

/// The end that sends.
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Waits for a place, as a thread.
    ///
    /// # Errors
    /// The value, when nobody receives any more.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        let mut value = Some(value);
        self.0.places.block_until(|| self.offer(&mut value))
    }

    /// Waits for a place, as a task.
    ///
    /// # Errors
    /// The value, when nobody receives any more.
    pub async fn send_async(&self, value: T) -> Result<(), SendError<T>> {
        let mut value = Some(value);
        self.0.places.until(|| self.offer(&mut value)).await
    }

    /// Sends, if there is a place.
    ///
    /// # Errors
    /// The value, when there is none or nobody receives any more.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let mut value = Some(value);
        match (self.offer(&mut value), value) {
            (Some(Err(SendError(value))), _) => Err(TrySendError::Closed(value)),
            (None, Some(value)) => Err(TrySendError::Full(value)),
            _ => Ok(()),
        }
    }

    /// `None` while there is no place.
    fn offer(&self, value: &mut Option<T>) -> Option<Result<(), SendError<T>>> {
        let shared = &*self.0;
        if shared.receivers.load(Ordering::Acquire) == 0 {
            return value.take().map(|value| Err(SendError(value)));
        }
        let mut queue = shared.queue.lock();
        if queue.len() >= shared.capacity {
            return None;
        }
        queue.extend(value.take());
        drop(queue);
        shared.values.wake_one();
        Some(Ok(()))
    }
}

/// The end that receives.
pub struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    /// Waits for a value, as a thread; `None` when all are taken and nobody sends any more.
    pub fn recv(&self) -> Option<T> {
        self.0.values.block_until(|| self.take())
    }

    /// Waits for a value, as a task; `None` when all are taken and nobody sends any more.
    pub async fn recv_async(&self) -> Option<T> {
        self.0.values.until(|| self.take()).await
    }

    /// A value, if there is one.
    pub fn try_recv(&self) -> Option<T> {
        self.take().flatten()
    }

    /// `None` while there is no value and may be one.
    fn take(&self) -> Option<Option<T>> {
        let shared = &*self.0;
        // Before the look: a value that was sent before its sender went is seen.
        let closed = shared.senders.load(Ordering::Acquire) == 0;
        let value = shared.queue.lock().pop_front();
        if value.is_some() {
            shared.places.wake_one();
        }
        if value.is_some() || closed { Some(value) } else { None }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.0.receivers.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.values.wake_all();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if self.0.receivers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.places.wake_all();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Sender")
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Receiver")
    }
}

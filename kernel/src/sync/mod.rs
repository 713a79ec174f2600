//! Locks. [`IrqMutex`] for data that interrupt handlers share: it spins. The others let the thread, or the task, that
//! waits give its CPU to others: [`Mutex`], [`RwLock`], [`Condvar`], [`Semaphore`], [`Barrier`], [`channel`].
//!
//! Lock order, outermost first: blocking locks, task and run queues, timers, device tables, heap, device window, page
//! tables, frames, log. A lock further down never takes one further up, and no thread waits with one of the spinning
//! ones. `OnceCell` is for what is set once at boot: its `try_get` never blocks.
//! Files: `queued` (the spin lock's algorithm), `wait` (what it needs), `cell` (data behind a lock), `irq_mutex`,
//! `sleeping` (the blocking lock's algorithm), `waiters` (who waits for it), `stall` (reports of waits that take too long).

pub(crate) mod atomic;
mod cell;
pub mod channel;
mod condvar;
mod current;
mod irq_mutex;
mod mutex;
mod queued;
mod rw_lock;
mod semaphore;
mod sharing;
mod sleeping;
pub(crate) mod stall;
mod tests;
pub(crate) mod torture;
mod wait;
mod waiters;

pub use condvar::Condvar;
pub use conquer_once::spin::OnceCell;
pub use irq_mutex::{IrqGuard, IrqMutex, IrqState};
pub use mutex::{Mutex, MutexGuard};
pub use rw_lock::{ReadGuard, RwLock, WriteGuard};
pub use semaphore::{Barrier, Permit, Semaphore};

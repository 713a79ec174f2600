//! The spin lock for what interrupt handlers share.
//! Neighbours: `queued` (who waits, in which order), `cell` (the data).
#![forbid(unsafe_code)]

use core::{
    fmt,
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    cell::{Access, Guarded, Marked, Raw},
    queued::{Place, Queued},
    stall,
};
use crate::cpu;

/// A spin lock whose holder runs with interrupts disabled on its CPU, so that a handler which takes the same
/// lock cannot interrupt the holder and wait for it for ever. CPUs that wait get it in the order in which they came.
#[derive(Default)]
pub struct IrqMutex<T: ?Sized>(Guarded<Spin, T>);

/// The lock, and who has it.
struct Spin {
    queue: Queued,
    /// For reports: the holder's [`stall::mark`], the last one's if there is none.
    holder: AtomicU64,
}

static PLACES: [Place; cpu::MAX_CPUS] = [const { Place::new() }; cpu::MAX_CPUS];

impl Spin {
    const fn new() -> Self {
        Self { queue: Queued::new(), holder: AtomicU64::new(0) }
    }

    #[cold]
    fn wait(&self, mark: u64) {
        let cpu = cpu::this_cpu();
        stall::spins(mark);
        self.queue.wait(&PLACES, cpu, &|| stall::spins_on(cpu, self.holder.load(Ordering::Relaxed)));
    }
}

impl Default for Spin {
    fn default() -> Self {
        Self::new()
    }
}

impl Raw for Spin {
    #[inline(always)]
    fn lock(&self) {
        self.lock_as(stall::mark());
    }

    /// Notes who called what this is inlined into.
    #[inline(always)]
    fn try_lock(&self) -> bool {
        let locked = self.queue.try_lock();
        if locked {
            self.holder.store(stall::mark(), Ordering::Relaxed);
        }
        locked
    }

    #[inline]
    fn unlock(&self) {
        self.queue.unlock();
    }
}

impl Marked for Spin {
    #[inline(always)]
    fn lock_as(&self, mark: u64) {
        if !self.queue.try_lock_in_turn() {
            self.wait(mark);
        }
        self.holder.store(mark, Ordering::Relaxed);
    }
}

impl<T> IrqMutex<T> {
    /// A new, unlocked lock.
    pub const fn new(value: T) -> Self {
        Self(Guarded::new(Spin::new(), value))
    }
}

impl<T: ?Sized> IrqMutex<T> {
    /// Disables interrupts on this CPU and waits for the lock. Dropping the guard puts both back.
    ///
    /// A function of its own, whose caller is who has the lock in reports.
    #[inline(never)]
    pub fn lock(&self) -> IrqGuard<'_, T> {
        let irq = IrqState::disable();
        IrqGuard { value: self.0.lock_as(stall::mark()), _irq: irq }
    }

    /// Calls `act` with the lock held. It becomes part of what calls it: for the few places that are passed so often that a call and
    /// a return count.
    #[inline(always)]
    pub fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        let irq = IrqState::disable();
        act(&mut IrqGuard { value: self.0.lock_as(stall::mark_here()), _irq: irq })
    }

    /// As [`lock`](Self::lock), but gives up at once when the lock is taken: for panics and log lines.
    #[inline(never)]
    pub fn try_lock(&self) -> Option<IrqGuard<'_, T>> {
        let irq = IrqState::disable();
        self.0.try_lock().map(|value| IrqGuard { value, _irq: irq })
    }
}

impl<T: ?Sized> fmt::Debug for IrqMutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.0.raw.queue.is_locked() { "IrqMutex(locked)" } else { "IrqMutex" })
    }
}

/// Access to the data of an [`IrqMutex`]. The fields drop in order: first the lock, then the interrupt flag.
pub struct IrqGuard<'a, T: ?Sized> {
    value: Access<'a, Spin, T>,
    _irq: IrqState,
}

impl<T: ?Sized> fmt::Debug for IrqGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("IrqGuard")
    }
}

impl<T: ?Sized> Deref for IrqGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for IrqGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// Interrupts are disabled on this CPU while it lives; its drop restores what was there before.
#[derive(Debug)]
pub struct IrqState {
    #[cfg(target_os = "none")]
    flags: u64,
    /// The flag belongs to the CPU that saved it.
    _this_cpu: core::marker::PhantomData<*const ()>,
}

#[cfg(target_os = "none")]
impl IrqState {
    /// Saves the interrupt flag and disables interrupts.
    pub fn disable() -> Self {
        let flags = pv_ops::irq_flags();
        pv_ops::irq_disable();
        Self { flags, _this_cpu: core::marker::PhantomData }
    }
}

#[cfg(target_os = "none")]
impl Drop for IrqState {
    fn drop(&mut self) {
        pv_ops::irq_restore(self.flags);
    }
}

/// A host program, which a unit test is, has no interrupts.
#[cfg(not(target_os = "none"))]
impl IrqState {
    /// Does nothing.
    pub fn disable() -> Self {
        Self { _this_cpu: core::marker::PhantomData }
    }
}

/// Whoever drops it early means it, on the host too.
#[cfg(not(target_os = "none"))]
impl Drop for IrqState {
    fn drop(&mut self) {}
}

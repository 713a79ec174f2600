//! Locks for data that interrupt handlers share.
//!
//! Lock order, outermost first: task queues, device tables, heap, device window, page tables, frames, log. A lock
//! further down never takes one further up. `OnceCell` is for what is set once at boot: its `try_get` never blocks.
#![forbid(unsafe_code)]

use core::ops::{Deref, DerefMut};

pub use conquer_once::spin::OnceCell;

/// A spin lock whose holder runs with interrupts disabled on its CPU, so that a handler which takes the same
/// lock cannot interrupt the holder and wait for it for ever.
#[derive(Debug, Default)]
pub struct IrqMutex<T: ?Sized>(spin::Mutex<T>);

impl<T> IrqMutex<T> {
    /// A new, unlocked lock.
    pub const fn new(value: T) -> Self {
        Self(spin::Mutex::new(value))
    }
}

impl<T: ?Sized> IrqMutex<T> {
    /// Disables interrupts on this CPU and waits for the lock. Dropping the guard puts both back.
    pub fn lock(&self) -> IrqGuard<'_, T> {
        let irq = IrqState::disable();
        loop {
            if let Some(value) = self.0.try_lock() {
                return IrqGuard { value, _irq: irq };
            }
            // The holder may wait for this CPU's TLB.
            crate::cpu::tlb::poll();
            core::hint::spin_loop();
        }
    }

    /// As [`lock`](Self::lock), but gives up at once when the lock is taken: for panics and log lines.
    pub fn try_lock(&self) -> Option<IrqGuard<'_, T>> {
        let irq = IrqState::disable();
        self.0.try_lock().map(|value| IrqGuard { value, _irq: irq })
    }
}

/// Access to the data of an [`IrqMutex`]. The fields drop in order: first the lock, then the interrupt flag.
#[derive(Debug)]
pub struct IrqGuard<'a, T: ?Sized> {
    value: spin::MutexGuard<'a, T>,
    _irq: IrqState,
}

impl<T: ?Sized> Deref for IrqGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for IrqGuard<'_, T> {
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

//! Boxes whose allocation may fail.
//!
//! `Box::try_new` is not stable. What is: asking a `Vec` for room. So room is asked for, given back, and taken
//! at once by the box. Interrupts are off meanwhile, and what is given back goes to this CPU's own store, unless it is
//! large: so nobody comes between.
//! Neighbours: `executor`, whose `try_spawn` is built on these.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use crate::sync::IrqState;

/// No memory for one more task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for one more task")]
pub struct OutOfMemory;

/// `Box::new`, or the lack of memory.
pub(crate) fn boxed<T>(value: T) -> Result<Box<T>, OutOfMemory> {
    let _irq = IrqState::disable();
    room::<T>()?;
    Ok(Box::new(value))
}

/// `Arc::new`, or the lack of memory.
pub(crate) fn shared<T>(value: T) -> Result<Arc<T>, OutOfMemory> {
    let _irq = IrqState::disable();
    // An `Arc` allocates its two counters in front of the value.
    room::<(usize, usize, T)>()?;
    Ok(Arc::new(value))
}

fn room<T>() -> Result<(), OutOfMemory> {
    Vec::<T>::new().try_reserve_exact(1).map_err(|_| OutOfMemory)
}

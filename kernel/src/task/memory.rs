//! Boxes whose allocation may fail.
//!
//! `Box::try_new` is not stable. What is: asking a `Vec` for room. So room is asked for, given back, and taken
//! at once by the box. Nothing comes between: handlers do not allocate, and this CPU is the only one.
//! Neighbours: `executor`, whose `try_spawn` is built on these.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, sync::Arc, vec::Vec};

/// No memory for one more task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for one more task")]
pub struct OutOfMemory;

/// `Box::new`, or the lack of memory.
pub(super) fn boxed<T>(value: T) -> Result<Box<T>, OutOfMemory> {
    room::<T>()?;
    Ok(Box::new(value))
}

/// `Arc::new`, or the lack of memory.
pub(super) fn shared<T>(value: T) -> Result<Arc<T>, OutOfMemory> {
    // An `Arc` allocates its two counters in front of the value.
    room::<(usize, usize, T)>()?;
    Ok(Arc::new(value))
}

fn room<T>() -> Result<(), OutOfMemory> {
    Vec::<T>::new().try_reserve_exact(1).map_err(|_| OutOfMemory)
}

//! Threads that borrow from whoever starts them, who does not go on before they have ended: `std::thread::scope`.
//! Neighbours: `cpu::lend` (the borrowing), `super::Builder` (what a thread may be told).
#![forbid(unsafe_code)]

use core::{cell::Cell, fmt, marker::PhantomData};

use super::{Builder, JoinHandle};
use crate::{
    cpu::lend::{Lender, lending},
    task::{OutOfMemory, scheduler},
};

/// Where threads can be started that borrow what lives for `'scope`, among it what lives for `'env`, outside.
pub struct Scope<'scope, 'env: 'scope> {
    lender: &'scope Lender<'scope>,
    /// Both lifetimes are exactly what they are.
    exactly: PhantomData<(Cell<&'scope ()>, Cell<&'env ()>)>,
}

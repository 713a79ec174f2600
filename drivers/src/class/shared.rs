//! A driver with a lock around, for tasks and the interrupt handler.
#![forbid(unsafe_code)]

use core::task::Waker;

use super::{Requests, Submitted, Token};
use crate::hal::Lock;

/// A driver of a device with [`Requests`], called by one at a time; the names are the same.
pub trait Exclusive: Send {
    /// What is asked.
    type Request: Send;
    /// The answer, with the request's buffer.
    type Outcome: Send;

    /// Sends `request`, and calls `waker` when there is an answer, or room for it.
    fn submit(&mut self, request: Self::Request, waker: &Waker) -> Submitted<Self::Request, Self::Outcome>;

    /// Takes the answer.
    ///
    /// # Errors
    /// There is none yet: the token comes back.
    fn poll(&mut self, token: Token, waker: &Waker) -> Result<Self::Outcome, Token>;

    /// Nobody wants the answer.
    fn forget(&mut self, token: Token);
}

/// A driver with a lock around.
pub struct Shared<L>(pub L);

impl<L: Lock<Value: Exclusive>> Requests for Shared<L> {
    type Request = <L::Value as Exclusive>::Request;
    type Outcome = <L::Value as Exclusive>::Outcome;

    fn submit(&self, request: Self::Request, waker: &Waker) -> Submitted<Self::Request, Self::Outcome> {
        self.0.with(|driver| driver.submit(request, waker))
    }

    fn poll(&self, token: Token, waker: &Waker) -> Result<Self::Outcome, Token> {
        self.0.with(|driver| driver.poll(token, waker))
    }

    fn forget(&self, token: Token) {
        self.0.with(|driver| driver.forget(token));
    }
}

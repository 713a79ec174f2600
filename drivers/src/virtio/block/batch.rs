//! Many requests of one task at a disk: sent and answered under one lock, and looked for where they are awaited.
//! Neighbours: `queue` (one queue), `mod` (the disk), `class::InFlight` (what callers see).
#![forbid(unsafe_code)]

use core::task::Waker;

use super::{Block, Cpus};
use crate::class::{Batch, BlockRequest, Outcome};

impl<S: Cpus> Block<S> {
    /// As [`Requests::advance`](crate::class::Requests::advance).
    pub(super) fn advance_batch(&self, batch: &mut Batch<BlockRequest, Outcome>, waker: &Waker) {
        loop {
            // Of what goes alone it is told at once.
            let has_unsent = !batch.unsent.is_empty() && !batch.goes_one_by_one();
            let lingers = self.exchange(batch, waker);
            let again = batch.again.len();
            if let Some(number) = lingers {
                self.linger(number, batch);
            }
            self.look_for(batch, waker, has_unsent);
            // What has failed together is asked for again at once.
            if !batch.done.is_empty() || batch.again.len() <= again {
                return;
            }
        }
    }

    /// Takes the answers to what `batch` has in any queue, until there is one; else `waker` is called when there is one.
    fn look_for(&self, batch: &mut Batch<BlockRequest, Outcome>, waker: &Waker, has_unsent: bool) {
        for number in 0..self.queues() {
            if !batch.done.is_empty() {
                return;
            }
            if !batch.kept.are_some_in(number) {
                continue;
            }
            let mut take = || self.queue(number).with(|queue| queue.take_or_wait(number, batch, waker));
            if let Err(fault) = take() {
                self.fail(fault);
                // Nothing is believed any more, so that there is no fault to find.
                let _ = take();
            }
            // As in `poll`.
            if batch.done.is_empty() && !has_unsent {
                self.tell_of(number);
            }
        }
    }

    /// Takes the answers to what `batch` has in this CPU's queue, and sends what is unsent, as far as there is room. The device is told
    /// at the end of the round, or at once if that is much. Who is alone and has to wait for that queue alone gets its number, to
    /// [linger](Self::linger) at: then the device is told at once, and not to interrupt.
    fn exchange(&self, batch: &mut Batch<BlockRequest, Outcome>, waker: &Waker) -> Option<u16> {
        loop {
            let number = S::current() % self.queues();
            let lane = self.queue(number);
            let exchanged = lane.with(|queue| {
                if queue.requests.is_busy() {
                    queue.take(number, batch)?;
                }
                let (count, mut told) = queue.send(number, batch, waker);
                let is_last = count == 0 || batch.unsent.is_empty();
                let waits_here =
                    batch.done.is_empty() && !batch.kept.is_empty() && batch.kept.are_all_in(number);
                let lingers = is_last && waits_here && S::is_alone();
                if lingers {
                    queue.requests.hush();
                    told = told.or_else(|| queue.requests.take_notification());
                }
                self.ring(number, told);
                if count > 0 {
                    self.note(lane, count, told);
                }
                Ok((is_last, lingers))
            });
            match exchanged {
                Ok((true, lingers)) => return lingers.then_some(number),
                Ok((false, _)) => {}
                Err(fault) => self.fail(fault),
            }
        }
    }

    /// As [`Requests::abandon`](crate::class::Requests::abandon).
    pub(super) fn abandon_batch(&self, batch: &mut Batch<BlockRequest, Outcome>) {
        for number in (0..self.queues()).filter(|&number| batch.kept.are_some_in(number)) {
            self.attended(self.queue(number), |queue| queue.requests.forget_batch(batch.id));
        }
        batch.kept.clear();
    }

    /// Looks for answers to what `batch` has in queue `number`, until there is one or it is better to wait for an interrupt.
    fn linger(&self, number: u16, batch: &mut Batch<BlockRequest, Outcome>) {
        let lane = self.queue(number);
        let mut found = Ok(false);
        S::linger(|| {
            found = lane.with(|queue| queue.take(number, batch));
            found != Ok(false)
        });
        if let Err(fault) = found {
            self.fail(fault);
        }
    }
}

//! Timers: a waker is woken at its deadline, by the one-shot timer of a CPU. Nothing ticks while nobody waits.
//! Neighbours: `queue` (the order), `pv_ops::timer_arm` (the hardware), `task` (who sleeps).
#![forbid(unsafe_code)]

use super::queue::{Key, OutOfMemory, Queue};
use crate::{cpu, sync::IrqMutex};
use core::task::Waker;

/// A queue for each CPU.
static TIMERS: [IrqMutex<Queue<Waker>>; cpu::MAX_CPUS] =
    [const { IrqMutex::new(Queue::new()) }; cpu::MAX_CPUS];

/// No deadline.
const NEVER: u64 = u64::MAX;

/// A deadline that somebody waits for. Dropping it cancels.
#[derive(Debug)]
pub struct Timer {
    queue: usize,
    key: Key,
}

/// Wakes `waker` once [`super::now`] has reached `deadline_ns`, not before. A deadline in the past wakes as soon as
/// interrupts are enabled.
pub fn register(deadline_ns: u64, waker: Waker) -> Result<Timer, OutOfMemory> {
    let queue = this_queue();
    let mut timers = TIMERS[queue].lock();
    let key = timers.insert(deadline_ns, waker)?;
    if timers.next_deadline() == Some(deadline_ns) {
        pv_ops::timer_arm(deadline_ns);
    }
    Ok(Timer { queue, key })
}

impl Timer {
    /// Wakes `waker` instead. `false` when it is too late: the old one was woken.
    pub fn set_waker(&self, waker: &Waker) -> bool {
        match TIMERS[self.queue].lock().get_mut(self.key) {
            Some(place) => {
                place.clone_from(waker);
                true
            }
            None => false,
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // The hardware stays armed: at worst it fires once for nobody.
        let waker = TIMERS[self.queue].lock().remove(self.key);
        // A waker may free a task: not under the lock.
        drop(waker);
    }
}

/// Number of timers that are waited for, on all CPUs.
pub fn pending() -> usize {
    TIMERS.iter().map(|timers| timers.lock().len()).sum()
}

/// The handler of the timer interrupt: wakes who is due and arms for the next.
pub(super) fn expire() {
    let timers = &TIMERS[this_queue()];
    loop {
        let due = {
            let mut timers = timers.lock();
            let due = timers.pop_due(pv_ops::monotonic_ns());
            if due.is_none() {
                pv_ops::timer_arm(timers.next_deadline().unwrap_or(NEVER));
            }
            due
        };
        match due {
            Some(waker) => waker.wake(),
            None => return,
        }
    }
}

fn this_queue() -> usize {
    cpu::current().id() as usize
}

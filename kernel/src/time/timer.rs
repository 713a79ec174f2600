//! Timers: a waker is woken at its deadline, by the one-shot timer of a CPU. Nothing ticks while nobody waits.
//! Neighbours: `queue` (the order), `pv_ops::timer_arm` (the hardware), `task` (who sleeps).
#![forbid(unsafe_code)]

use super::{
    lead,
    queue::{Key, OutOfMemory, Queue},
};
use crate::{
    cpu,
    sync::{IrqMutex, IrqState},
};
use core::{
    sync::atomic::{AtomicU64, Ordering},
    task::Waker,
};
use spin::Once;

type Timers = IrqMutex<Queue<Waker>>;

/// A queue for each CPU, made when first asked for: until then all zeros, so that the file does not carry it.
static TIMERS: [Once<Timers>; cpu::MAX_CPUS] = [const { Once::new() }; cpu::MAX_CPUS];

/// No deadline.
const NEVER: u64 = u64::MAX;

/// A deadline that somebody waits for. Dropping it cancels.
#[derive(Debug)]
pub struct Timer {
    queue: usize,
    key: Key,
}

/// When the time slice of each CPU's thread is over: 0 when nobody asked, [`OVER`] once it was.
static SLICES: [AtomicU64; pv_ops::MAX_CPUS] = [const { AtomicU64::new(0) }; pv_ops::MAX_CPUS];
const OVER: u64 = u64::MAX;

/// Wakes `waker` once [`super::now`] has reached `deadline_ns`, not before. A deadline in the past wakes as soon as
/// interrupts are enabled.
pub fn register(deadline_ns: u64, waker: Waker) -> Result<Timer, OutOfMemory> {
    // The queue, and the timer that is armed, are those of one CPU.
    let _irq = IrqState::disable();
    let queue = this_queue();
    let mut timers = timers_of(queue).lock();
    let key = timers.insert(deadline_ns, waker)?;
    if timers.next_deadline() == Some(deadline_ns) {
        arm(Some(deadline_ns));
    }
    Ok(Timer { queue, key })
}

/// Has an interrupt come at `deadline_ns`, for a time slice of this CPU. Interrupts are disabled.
pub(crate) fn set_slice(deadline_ns: u64) {
    let timers = timers_of(this_queue()).lock();
    slice().store(deadline_ns.max(1), Ordering::Relaxed);
    if timers.next_deadline().is_none_or(|next_ns| next_ns > deadline_ns) {
        lead::is_exact();
        pv_ops::timer_arm(deadline_ns);
    }
}

/// Whether that time came since this was asked last. Interrupts are disabled.
pub(crate) fn take_slice_over() -> bool {
    slice().compare_exchange(OVER, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

fn slice() -> &'static AtomicU64 {
    &SLICES[cpu::current().id() as usize % SLICES.len()]
}

/// Arms for the earlier of the next timer and the end of the slice.
fn arm(next_ns: Option<u64>) {
    lead::is_exact();
    let slice_ns = Some(slice().load(Ordering::Relaxed)).filter(|&ns| ns != 0);
    pv_ops::timer_arm(next_ns.into_iter().chain(slice_ns).min().unwrap_or(NEVER));
}

/// The next deadline that somebody waits for on this CPU, unless the end of a slice comes before. Interrupts are disabled.
pub(super) fn next() -> Option<u64> {
    let deadline_ns = timers_of(this_queue()).lock().next_deadline()?;
    let slice_ns = slice().load(Ordering::Relaxed);
    (slice_ns == 0 || slice_ns >= deadline_ns).then_some(deadline_ns)
}

impl Timer {
    /// Wakes `waker` instead. `false` when it is too late: the old one was woken.
    pub fn set_waker(&self, waker: &Waker) -> bool {
        match timers_of(self.queue).lock().get_mut(self.key) {
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
        let waker = timers_of(self.queue).lock().remove(self.key);
        // A waker may free a task: not under the lock.
        drop(waker);
    }
}

/// Number of timers that are waited for, on all CPUs.
pub fn pending() -> usize {
    TIMERS.iter().filter_map(Once::get).map(|timers| timers.lock().len()).sum()
}

/// The handler of the timer interrupt: wakes who is due, notes the end of a slice, and arms for the next, but where a halt
/// was interrupted that does.
pub(super) fn expire() {
    let timers = timers_of(this_queue());
    if (1..=pv_ops::monotonic_ns()).contains(&slice().load(Ordering::Relaxed)) {
        slice().store(OVER, Ordering::Relaxed);
    }
    loop {
        let due = {
            let mut timers = timers.lock();
            let due = timers.pop_due(pv_ops::monotonic_ns());
            if due.is_none() && !lead::comes_to_halt() {
                arm(timers.next_deadline());
            }
            due
        };
        match due {
            Some(waker) => waker.wake(),
            None => return,
        }
    }
}

/// Wakes all who wait for a deadline on a CPU that has gone down: they find that it is too early, and wait here.
pub(crate) fn wake_all(cpu: u32) {
    while let Some(waker) = TIMERS.get(cpu as usize).and_then(|timers| timers.get()?.lock().pop_due(NEVER)) {
        waker.wake();
    }
}

/// Called with interrupts disabled, or for a queue that is there.
fn timers_of(queue: usize) -> &'static Timers {
    TIMERS[queue % TIMERS.len()].call_once(|| IrqMutex::new(Queue::new()))
}

fn this_queue() -> usize {
    cpu::current().id() as usize
}

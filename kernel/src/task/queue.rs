//! The threads that are ready on one CPU: a list for each priority.
//! Neighbours: `scheduler` (has one for each CPU), `list`.
#![forbid(unsafe_code)]

use alloc::sync::Arc;

use super::{
    list::List,
    thread::{Priority, Thread},
};

/// Every so many turns the least urgent thread has its own.
const FAIR_TURN: u64 = 16;

/// What is ready, and what runs. All zeros at first.
pub(super) struct RunQueue {
    levels: [List<Thread>; Priority::LEVELS],
    len: usize,
    /// Workers among them.
    workers: usize,
    turns: u64,
    /// What the CPU runs: held here, so that it lives while it runs.
    pub(super) current: Option<Arc<Thread>>,
}

impl RunQueue {
    pub(super) const fn new() -> Self {
        Self {
            levels: [const { List::new() }; Priority::LEVELS],
            len: 0,
            workers: 0,
            turns: 0,
            current: None,
        }
    }

    /// Threads that are ready.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Those of them that another CPU may take, now or when they have left this one.
    pub(super) fn movable(&self) -> usize {
        self.len - self.workers
    }

    /// How often a thread was picked, or looked for.
    pub(super) fn turns(&self) -> u64 {
        self.turns
    }

    /// Adds a thread behind those of its priority.
    pub(super) fn push(&mut self, thread: Arc<Thread>) {
        self.len += 1;
        self.workers += usize::from(thread.is_worker);
        self.levels[thread.priority as usize].push(thread);
    }

    /// Takes the thread whose turn it is.
    pub(super) fn pick(&mut self) -> Option<Arc<Thread>> {
        self.turns += 1;
        match self.turns % FAIR_TURN {
            0 => self.take(0..Priority::LEVELS, |_| true),
            _ => self.take((0..Priority::LEVELS).rev(), |_| true),
        }
    }

    /// Takes a thread that another CPU may go on with. Few stand before it that are not such: one worker, and who has not
    /// left its CPU yet.
    pub(super) fn steal(&mut self) -> Option<Arc<Thread>> {
        self.take((0..Priority::LEVELS).rev(), |thread| !thread.is_worker && thread.context.is_ready())
    }

    /// The first thread that is a `fit` one, by levels in this order.
    fn take(
        &mut self,
        mut order: impl Iterator<Item = usize>,
        fit: impl Fn(&Thread) -> bool,
    ) -> Option<Arc<Thread>> {
        let thread = order.find_map(|level| self.levels[level].take(&fit))?;
        self.len -= 1;
        self.workers -= usize::from(thread.is_worker);
        Some(thread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::switch::Context;
    use std::vec::Vec;

    fn thread(name: &str, priority: Priority) -> Arc<Thread> {
        let mut thread = Thread::adopted(name.into(), 0, false);
        thread.priority = priority;
        Arc::new(thread)
    }

    #[test]
    fn the_most_urgent_threads_take_turns() {
        let mut queue = RunQueue::new();
        queue.push(thread("low", Priority::Low));
        queue.push(thread("a", Priority::High));
        queue.push(thread("b", Priority::High));
        let mut order = Vec::new();
        for _ in 0..4 {
            let next = queue.pick().unwrap();
            order.push(next.name.clone());
            queue.push(next);
        }
        assert_eq!(order.concat(), "abab");
        assert_eq!(queue.len(), 3);
    }

    #[test]
    fn the_least_urgent_thread_is_not_forgotten() {
        let mut queue = RunQueue::new();
        queue.push(thread("low", Priority::Low));
        queue.push(thread("high", Priority::High));
        let turns = (0..10 * FAIR_TURN).filter(|_| {
            let next = queue.pick().unwrap();
            let is_low = next.priority == Priority::Low;
            queue.push(next);
            is_low
        });
        assert_eq!(turns.count(), 10);
    }

    #[test]
    fn a_context_that_is_still_in_use_is_not_stolen() {
        let mut queue = RunQueue::new();
        queue.push(thread("adopted, never left its CPU", Priority::Normal));
        assert_eq!(queue.movable(), 1);
        assert!(queue.steal().is_none());
        assert!(queue.pick().is_some() && queue.pick().is_none());
    }
    #[test]
    fn who_stands_behind_a_worker_is_stolen() {
        let thread = |name: &str, is_worker| {
            let mut thread = Thread::adopted(name.into(), 0, is_worker);
            thread.context = Context::suspended();
            Arc::new(thread)
        };
        let mut queue = RunQueue::new();
        for (name, is_worker) in [("worker", true), ("a", false), ("another worker", true), ("b", false)] {
            queue.push(thread(name, is_worker));
        }
        assert_eq!(queue.movable(), 2);
        let stolen: Vec<_> =
            core::iter::from_fn(|| queue.steal()).map(|thread| thread.name.clone()).collect();
        assert_eq!(stolen.concat(), "ab");
        assert_eq!((queue.len(), queue.movable()), (2, 0));
        assert!(queue.pick().is_some_and(|thread| thread.is_worker));
    }
}

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
    turns: u64,
    /// What the CPU runs: held here, so that it lives while it runs.
    pub(super) current: Option<Arc<Thread>>,
}

impl RunQueue {
    pub(super) const fn new() -> Self {
        Self { levels: [const { List::new() }; Priority::LEVELS], len: 0, turns: 0, current: None }
    }

    /// Threads that are ready.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How often a thread was picked, or looked for.
    pub(super) fn turns(&self) -> u64 {
        self.turns
    }

    /// Adds a thread behind those of its priority.
    pub(super) fn push(&mut self, thread: Arc<Thread>) {
        self.len += 1;
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

    /// Takes a thread that another CPU may go on with.
    pub(super) fn steal(&mut self) -> Option<Arc<Thread>> {
        self.take((0..Priority::LEVELS).rev(), |thread| !thread.is_worker && thread.context.is_ready())
    }

    /// The first thread of the first level, in this order, where it is a `fit` one.
    fn take(
        &mut self,
        order: impl Iterator<Item = usize>,
        fit: impl Fn(&Thread) -> bool,
    ) -> Option<Arc<Thread>> {
        for level in order {
            if self.levels[level].first().is_some_and(|thread| fit(thread)) {
                self.len -= 1;
                return self.levels[level].pop();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert!(queue.steal().is_none());
        assert!(queue.pick().is_some() && queue.pick().is_none());
    }
}

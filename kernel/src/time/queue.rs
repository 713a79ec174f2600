//! The timers of one CPU, earliest deadline first: a binary heap whose entries can be taken out in the middle.
//! Neighbours: `timer` (locks, wakers and the interrupt around it).
#![forbid(unsafe_code)]

use alloc::vec::Vec;

/// Names an entry of a [`Queue`]; never reused, so that a late cancel hits nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    slot: u32,
    generation: u32,
}

/// No memory for one more entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for one more timer")]
pub struct OutOfMemory;

/// Entries with deadlines in nanoseconds. Inserting and removing take logarithmic time.
#[derive(Debug)]
pub struct Queue<T> {
    /// Slot numbers as a binary heap over (deadline, sequence number).
    heap: Vec<u32>,
    slots: Vec<Slot<T>>,
    /// First slot of the chain of free ones.
    free: Option<u32>,
    next_sequence: u64,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Free { next: Option<u32> },
    Armed { order: Order, position: usize, value: T },
}

/// By deadline, then in the order of insertion.
type Order = (u64, u64);

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Queue<T> {
    /// An empty queue.
    pub const fn new() -> Self {
        Self { heap: Vec::new(), slots: Vec::new(), free: None, next_sequence: 0 }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// No entries.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<u64> {
        self.heap.first().and_then(|&slot| self.order(slot)).map(|(deadline, _)| deadline)
    }

    /// Adds `value`, due at `deadline_ns`.
    pub fn insert(&mut self, deadline_ns: u64, value: T) -> Result<Key, OutOfMemory> {
        self.heap.try_reserve(1).map_err(|_| OutOfMemory)?;
        let number = match self.free {
            Some(number) => number,
            None => {
                self.slots.try_reserve(1).map_err(|_| OutOfMemory)?;
                self.slots.push(Slot { generation: 0, state: State::Free { next: None } });
                u32::try_from(self.slots.len() - 1).map_err(|_| OutOfMemory)?
            }
        };
        let slot = self.slots.get_mut(number as usize).ok_or(OutOfMemory)?;
        if let State::Free { next } = slot.state {
            self.free = next;
        }
        let position = self.heap.len();
        let order = (deadline_ns, self.next_sequence);
        self.next_sequence += 1;
        slot.state = State::Armed { order, position, value };
        let generation = slot.generation;
        self.heap.push(number);
        self.rise(position);
        Ok(Key { slot: number, generation })
    }

    /// Takes an entry out. `None` when it is no longer there.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get(key.slot as usize)?;
        match slot.state {
            State::Armed { position, .. } if slot.generation == key.generation => self.take(position),
            _ => None,
        }
    }

    /// The value of an entry, to change it in place.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        match &mut slot.state {
            State::Armed { value, .. } if slot.generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Takes out the earliest entry whose deadline is `now_ns` or before.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<T> {
        if self.next_deadline()? > now_ns {
            return None;
        }
        self.take(0)
    }

    /// Takes out the entry at `position` of the heap.
    fn take(&mut self, position: usize) -> Option<T> {
        let number = self.heap.swap_remove(position);
        if position < self.heap.len() {
            self.moved(position);
            self.rise(position);
            self.sink(position);
        }
        let slot = self.slots.get_mut(number as usize)?;
        slot.generation = slot.generation.wrapping_add(1);
        let state = core::mem::replace(&mut slot.state, State::Free { next: self.free });
        self.free = Some(number);
        match state {
            State::Armed { value, .. } => Some(value),
            State::Free { .. } => None,
        }
    }

    fn order(&self, slot: u32) -> Option<Order> {
        match self.slots.get(slot as usize)?.state {
            State::Armed { order, .. } => Some(order),
            State::Free { .. } => None,
        }
    }

    fn order_at(&self, position: usize) -> Option<Order> {
        self.heap.get(position).and_then(|&slot| self.order(slot))
    }

    /// Notes in the slot that it now stands at `position`.
    fn moved(&mut self, position: usize) {
        if let Some(&number) = self.heap.get(position)
            && let Some(Slot { state: State::Armed { position: place, .. }, .. }) =
                self.slots.get_mut(number as usize)
        {
            *place = position;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.moved(a);
        self.moved(b);
    }

    fn rise(&mut self, mut position: usize) {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.order_at(position) >= self.order_at(parent) {
                break;
            }
            self.swap(position, parent);
            position = parent;
        }
    }

    fn sink(&mut self, mut position: usize) {
        loop {
            let earliest = [2 * position + 1, 2 * position + 2]
                .into_iter()
                .filter(|&child| child < self.heap.len())
                .min_by_key(|&child| self.order_at(child));
            match earliest {
                Some(child) if self.order_at(child) < self.order_at(position) => {
                    self.swap(child, position);
                    position = child;
                }
                _ => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn entries_with_the_same_deadline_leave_in_the_order_they_came() {
        let mut queue = Queue::new();
        for value in 0..20 {
            queue.insert(7, value).unwrap();
        }
        assert_eq!(queue.pop_due(6), None);
        assert_eq!(
            (0..20).map(|_| queue.pop_due(7).unwrap()).collect::<Vec<_>>(),
            (0..20).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_key_is_dead_once_its_entry_is_gone() {
        let mut queue = Queue::new();
        let first = queue.insert(1, 'a').unwrap();
        assert_eq!(queue.remove(first), Some('a'));
        let second = queue.insert(1, 'b').unwrap();
        assert_eq!((queue.remove(first), queue.get_mut(first)), (None, None));
        assert_eq!(queue.remove(second), Some('b'));
        assert!(queue.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Remove(usize),
        Pop(u64),
    }

    proptest! {
        /// Any mix of steps gives what a sorted map gives.
        #[test]
        fn the_queue_is_a_sorted_map(steps in prop::collection::vec(
            prop_oneof![
                (0u64..50).prop_map(Step::Insert),
                (0usize..64).prop_map(Step::Remove),
                (0u64..50).prop_map(Step::Pop),
            ], 0..200)) {
            let mut queue = Queue::new();
            let mut model = BTreeMap::new();
            let mut keys = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(deadline) => {
                        keys.push((queue.insert(deadline, number).unwrap(), (deadline, number)));
                        model.insert((deadline, number), number);
                    }
                    Step::Remove(index) if !keys.is_empty() => {
                        let (key, order) = keys[index % keys.len()];
                        prop_assert_eq!(queue.remove(key), model.remove(&order));
                    }
                    Step::Remove(_) => {}
                    Step::Pop(now) => {
                        let due = model.first_key_value().filter(|((deadline, _), _)| *deadline <= now);
                        let expected = due.map(|(order, _)| *order);
                        let value = expected.and_then(|order| model.remove(&order));
                        prop_assert_eq!(queue.pop_due(now), value);
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                let earliest = model.first_key_value().map(|((deadline, _), _)| *deadline);
                prop_assert_eq!(queue.next_deadline(), earliest);
            }
        }
    }
}

//! First in, first out, without memory of its own: each element has room for the link to the next.
//! So a handler can queue what it wakes, and an element can go from one CPU's list to another's.
//! Neighbours: `queue` and `executor` (whose lists these are).
#![forbid(unsafe_code)]

use alloc::sync::Arc;

/// The link to the next element. Touched only by whoever holds the lock of the list: its own lock is never waited for.
#[derive(Debug)]
pub(crate) struct Link<T>(spin::Mutex<Option<Arc<T>>>);

impl<T> Link<T> {
    pub(crate) const fn new() -> Self {
        Self(spin::Mutex::new(None))
    }
}

/// What can stand in one list at a time.
pub(crate) trait Linked: Sized {
    /// Its place for the link.
    fn link(&self) -> &Link<Self>;
}

/// The list. All zeros when empty.
#[derive(Debug)]
pub(crate) struct List<T> {
    first: Option<Arc<T>>,
    last: Option<Arc<T>>,
}

impl<T: Linked> List<T> {
    pub(crate) const fn new() -> Self {
        Self { first: None, last: None }
    }

    /// The element that came first.
    #[cfg(test)]
    fn first(&self) -> Option<&Arc<T>> {
        self.first.as_ref()
    }

    /// Adds an element that stands in no list.
    pub(crate) fn push(&mut self, element: Arc<T>) {
        match self.last.replace(element.clone()) {
            Some(last) => *last.link().0.lock() = Some(element),
            None => self.first = Some(element),
        }
    }

    /// Takes the element that came first.
    pub(crate) fn pop(&mut self) -> Option<Arc<T>> {
        let first = self.first.take()?;
        self.first = first.link().0.lock().take();
        if self.first.is_none() {
            self.last = None;
        }
        Some(first)
    }

    /// Takes the first element that is a `fit` one.
    pub(crate) fn take(&mut self, fit: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        if fit(self.first.as_deref()?) {
            return self.pop();
        }
        let mut before = self.first.clone()?;
        loop {
            let element = before.link().0.lock().clone()?;
            if !fit(&element) {
                before = element;
                continue;
            }
            let next = element.link().0.lock().take();
            if next.is_none() {
                self.last = Some(before.clone());
            }
            *before.link().0.lock() = next;
            return Some(element);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    struct Element(u32, Link<Element>);

    impl Linked for Element {
        fn link(&self) -> &Link<Self> {
            &self.1
        }
    }

    proptest! {
        /// Any mix of steps gives what a queue gives, from which some are taken out of turn; an element may come back once it
        /// has left.
        #[test]
        fn the_list_is_a_queue(steps in prop::collection::vec((0..3, 0_u32..8), 0..100)) {
            let mut list = List::new();
            let mut model = VecDeque::new();
            let mut outside: Vec<_> = (0..8).map(|number| Arc::new(Element(number, Link::new()))).collect();
            for (step, least) in steps {
                if step == 0 && let Some(element) = outside.pop() {
                    model.push_back(element.0);
                    list.push(element);
                } else if step == 1 {
                    let element = list.take(|element| element.0 >= least);
                    let at = model.iter().position(|&number| number >= least);
                    let expected = at.and_then(|at| model.remove(at));
                    prop_assert_eq!(element.as_ref().map(|element| element.0), expected);
                    outside.extend(element);
                } else if step == 2 {
                    let element = list.pop();
                    prop_assert_eq!(element.as_ref().map(|element| element.0), model.pop_front());
                    outside.extend(element);
                }
                prop_assert_eq!(list.first().map(|element| element.0), model.front().copied());
            }
        }
    }
}

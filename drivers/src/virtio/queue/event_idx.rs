//! When the other side wants to be told (VirtIO 1.3 §2.7.7.2, §2.7.10, §2.8.10).
#![forbid(unsafe_code)]

/// Whether an index that went from `old` to `new` has passed `event`: all of them wrap around at 65536.
#[doc(alias = "vring_need_event")]
pub(super) fn has_passed(event: u16, old: u16, new: u16) -> bool {
    // Steps from `old` that were made, and that it takes to leave `event` behind.
    new.wrapping_sub(old) > event.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Told exactly when one of the entries that were added is the one at `event`.
        #[test]
        fn an_index_is_passed_when_an_entry_at_it_was_added(event: u16, old: u16, added in 0u16..300) {
            let new = old.wrapping_add(added);
            let is_added = (0..added).any(|step| old.wrapping_add(step) == event);
            prop_assert_eq!(has_passed(event, old, new), is_added);
        }
    }
}

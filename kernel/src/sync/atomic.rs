//! The atomics of the algorithms whose source is compiled twice: with these for the guest, and with ones that try every
//! interleaving for the tests (`crate::interleave`). They name what they use `super::atomic`.
#![forbid(unsafe_code)]

pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

/// A constructor: `const` here, which the tests' atomics do not offer.
macro_rules! constructor {
    ($(#[$doc:meta])* $vis:vis fn $($function:tt)*) => {
        $(#[$doc])* $vis const fn $($function)*
    };
}
pub(crate) use constructor;

//! Values on their way through registers.

use crate::word::{Answer, Argument, Shutdown};
use core::sync::atomic::AtomicU8;

#[test]
fn every_shutdown_comes_back_from_its_word() {
    let exits = (0..=u8::MAX).map(Shutdown::Exit);
    for how in exits.chain([Shutdown::PowerOff, Shutdown::Reboot]) {
        assert_eq!(Shutdown::from_word(how.into_word()), how);
    }
}

#[test]
fn a_result_ignores_what_stands_above_it_in_the_register() {
    assert_eq!(u8::from_word(0xdead_beef_1234_5678), 0x78);
    assert_eq!(u16::from_word(0xdead_beef_1234_5678), 0x5678);
    assert_eq!(u32::from_word(0xdead_beef_1234_5678), 0x1234_5678);
    assert_eq!(Option::<u64>::from_word(u64::MAX), None);
    assert_eq!(Option::<u64>::from_word(0), Some(0));
}

#[test]
fn pointers_and_references_travel_as_addresses() {
    let (lock, entry) = (AtomicU8::new(0), 0_u64);
    assert_eq!((&lock).into_word(), (&raw const lock).addr() as u64);
    assert_eq!((&raw const entry).into_word(), (&raw const entry).addr() as u64);
}

//! Laws of the clock arithmetic.

use crate::{
    native,
    pvclock::{Restless, TimeInfo, WallClock},
    scale::Scale,
};
use core::sync::atomic::{AtomicU64, Ordering};
use proptest::prelude::*;
use std::sync::Arc;

const SECOND: u64 = 1_000_000_000;
const YEAR_S: u64 = 31_557_600;

/// A page as the host writes it, byte by byte: the layout is the documents', not the compiler's.
fn page(version: u32, tsc: u64, ns: u64, mul: u32, shift: i8, flags: u8) -> TimeInfo {
    let mut bytes = [0_u8; 32];
    bytes[..4].copy_from_slice(&version.to_le_bytes());
    bytes[8..16].copy_from_slice(&tsc.to_le_bytes());
    bytes[16..24].copy_from_slice(&ns.to_le_bytes());
    bytes[24..28].copy_from_slice(&mul.to_le_bytes());
    bytes[28] = shift as u8;
    bytes[29] = flags;
    // SAFETY: integers of the same size in all.
    unsafe { core::mem::transmute::<[u8; 32], TimeInfo>(bytes) }
}

/// msr.rst, MSR_KVM_SYSTEM_TIME_NEW, step by step as written there, in numbers that cannot overflow.
fn documented(delta: u64, mul: u32, shift: i8) -> u128 {
    let delta = u128::from(delta);
    let shifted = if shift >= 0 { delta << shift } else { delta >> -shift };
    (shifted * u128::from(mul)) >> 32
}

#[test]
fn a_hundred_years_of_ticks_do_not_overflow_and_stay_exact() {
    for hz in [1, 1_000, 1_193_182, 24_000_000, SECOND, 2_599_998_000, 5_000_000_000] {
        let scale = Scale::ticks_to_ns(hz).unwrap();
        let ns = scale.apply(100 * YEAR_S * hz);
        let error = ns.abs_diff(100 * YEAR_S * SECOND);
        assert!(error < 16 + SECOND / hz.min(SECOND), "{hz} Hz: off by {error} ns in 100 years");
        assert!(scale.apply(hz).abs_diff(SECOND) <= 1, "{hz} Hz: a second is a second");
    }
}

#[test]
fn no_frequency_no_scale() {
    assert_eq!(Scale::ticks_to_ns(0), None);
    assert_eq!(Scale::ns_to_ticks(0), None);
}

/// A recorded pair (2.3 GHz, mul 0xde9be02a, shift -1).
#[test]
fn a_real_host_s_page_reads_as_its_time() {
    let clock = page(2, 1_000_000, 5 * SECOND, 0xde9b_e02a, -1, 1);
    let (snapshot, ()) = clock.read(|| ()).unwrap();
    assert!(snapshot.flags.tsc_is_stable() && !snapshot.flags.guest_was_stopped());
    assert!(snapshot.tsc_hz().unwrap().abs_diff(2_300_000_000) < 10_000, "{:?}", snapshot.tsc_hz());
    assert_eq!(snapshot.at(1_000_000), 5 * SECOND);
    let later = snapshot.at(1_000_000 + 2_299_998_000);
    assert!(later.abs_diff(6 * SECOND) < 2_000, "{later}");
    assert_eq!(snapshot.at(0), 5 * SECOND, "a counter behind the page does not go back in time");
}

#[test]
fn a_page_that_stays_odd_is_given_up() {
    assert_eq!(page(3, 0, 0, 1, 0, 0).read(|| ()), Err(Restless));
    assert_eq!(page(2, 0, 0, 0, 0, 0).read(|| ()).unwrap().0.tsc_hz(), None);
}

#[test]
fn the_wall_clock_is_seconds_and_nanoseconds() {
    // SAFETY: integers of the same size in all.
    let clock = unsafe { core::mem::transmute::<[u32; 3], WallClock>([4, u32::MAX, 999_999_999]) };
    assert_eq!(clock.read_boot_unix_ns(), Ok(u64::from(u32::MAX) * SECOND + 999_999_999));
}

/// A host that updates all the time: what a reader gets was true at one moment.
#[test]
fn a_reader_never_sees_half_an_update() {
    let page = Arc::new(page(0, 0, 0, 0, 0, 0));
    let writer = {
        let page = page.clone();
        std::thread::spawn(move || {
            // SAFETY: the fields are atomics at these offsets; the other thread reads them as such.
            let field =
                |offset: usize| unsafe { &*Arc::as_ptr(&page).cast::<u8>().add(offset).cast::<AtomicU64>() };
            // SAFETY: as before.
            let version = unsafe { &*Arc::as_ptr(&page).cast::<core::sync::atomic::AtomicU32>() };
            for n in 1..=200_000_u64 {
                version.fetch_add(1, Ordering::AcqRel);
                field(8).store(n, Ordering::Release);
                field(16).store(n * 3, Ordering::Release);
                version.fetch_add(1, Ordering::Release);
            }
        })
    };
    while !writer.is_finished() {
        if let Ok((snapshot, ())) = page.read(|| ()) {
            assert_eq!(snapshot.system_time_ns, snapshot.tsc_timestamp * 3);
        }
    }
    writer.join().unwrap();
}

/// SDM vol. 3A §11.5.4: a count of 0 stops the timer, so "at once" is 1.
#[test]
fn an_initial_count_is_never_early_within_its_reach_and_never_zero_by_accident() {
    use native::irq::initial_count;
    assert_eq!(initial_count(u64::MAX, 5, 1_000_000), 0, "off");
    assert_eq!(initial_count(5, 5, 1_000_000), 1);
    assert_eq!(initial_count(0, 5, 1_000_000), 1, "in the past");
    assert_eq!(initial_count(SECOND + 1, 0, 1_000_000), 1_000_001, "rounded up");
    assert_eq!(initial_count(u64::MAX - 1, 0, u64::MAX), u32::MAX, "as far as it goes");
}

#[test]
fn native_time_begins_with_the_frequency_and_does_not_go_back() {
    super::hosted::patched();
    native::time::set_tsc_hz(0);
    native::time::set_tsc_hz(1_000_000_000);
    let first = crate::monotonic_ns();
    native::time::set_tsc_hz(1);
    let mut last = first;
    for _ in 0..1000 {
        let now = crate::monotonic_ns();
        assert!(now >= last);
        last = now;
    }
    assert!(last > 0);
}

/// Xen sets the TSC of a guest to 0 at its start, where its own clock's last stamp lies before.
#[test]
fn a_stamp_from_below_zero_is_as_old_as_it_says() {
    let clock = page(2, 1000_u64.wrapping_neg(), 5000, 1 << 31, 1, 0);
    assert_eq!(clock.now_ns(|| 0), Ok(6000));
    assert_eq!(clock.now_ns(|| 1000), Ok(7000));
    let (snapshot, ()) = clock.read(|| ()).unwrap();
    assert_eq!(snapshot.at_or_before(2000_u64.wrapping_neg()), 4000);
    assert_eq!(snapshot.at_or_before(0), 6000);
}

proptest! {
    #[test]
    fn a_scale_is_monotone(multiplier: u64, shift in 0..128_u32, a: u64, b: u64) {
        let scale = Scale::new(multiplier, shift);
        prop_assert!(scale.apply(a.min(b)) <= scale.apply(a.max(b)));
    }

    /// Less than a nanosecond more than the documented steps, since no bit is lost between them.
    #[test]
    fn guest_clock_scale_is_the_documented_arithmetic(delta: u64, mul: u32, shift in -31..=31_i8) {
        let documented = documented(delta, mul, shift);
        let ours = Scale::of_guest_clock(mul, shift).apply(delta);
        if documented < u128::from(u64::MAX) {
            prop_assert!((documented..=documented + 1).contains(&u128::from(ours)), "{documented} {ours}");
        } else {
            prop_assert_eq!(ours, u64::MAX);
        }
    }

    #[test]
    fn any_page_gives_a_time_not_before_its_own(version: u32, tsc: u64, ns: u64, mul: u32, shift: i8, flags: u8, now: u64) {
        let clock = page(version & !1, tsc, ns, mul, shift, flags);
        prop_assert!(clock.now_ns(|| now).unwrap() >= ns);
    }

    /// There and back: within two nanoseconds or a tick.
    #[test]
    fn deadlines_come_back_as_times(hz in 1_000_000..5_000_000_000_u64, ns in 0..100 * YEAR_S * SECOND) {
        let ticks = Scale::ns_to_ticks(hz).unwrap().apply(ns);
        let back = Scale::ticks_to_ns(hz).unwrap().apply(ticks);
        prop_assert!(ns.abs_diff(back) <= 16 + SECOND / hz.min(SECOND), "{ns} {back}");
    }
}

/// A KVM host that tells its rate in another way too: 2,299,998 kHz.
#[test]
fn the_rate_of_a_recorded_clock_page_is_the_hosts() {
    let rate = Scale::of_guest_clock(0xde9b_e02a, -1).ticks_per_second().unwrap();
    assert!(rate.abs_diff(2_299_998_000) < 1000, "{rate}");
    assert_eq!(Scale::of_guest_clock(0, 0).ticks_per_second(), None);
}

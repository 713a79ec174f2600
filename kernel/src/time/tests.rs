//! What only a running guest can show of clocks and timers.
#![forbid(unsafe_code)]
#![cfg(all(feature = "self-test", target_os = "none"))]

use super::{has_timer, now, timer, wall};
use crate::sync::{IrqMutex, IrqState};
use alloc::{sync::Arc, task::Wake, vec, vec::Vec};
use core::{task::Waker, time::Duration};

/// Notes when it is woken.
struct Note {
    name: u32,
    woken: Arc<IrqMutex<Vec<(u32, u64)>>>,
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.woken.lock().push((self.name, now().as_ns()));
    }
}

/// Waits until `woken` holds `wanted` notes, or far too long.
fn wait_for(woken: &IrqMutex<Vec<(u32, u64)>>, wanted: usize) -> Vec<(u32, u64)> {
    let start = now();
    while woken.lock().len() < wanted && start.elapsed() < Duration::from_secs(2) {
        core::hint::spin_loop();
    }
    woken.lock().clone()
}

fn waker(name: u32, woken: &Arc<IrqMutex<Vec<(u32, u64)>>>) -> Waker {
    Waker::from(Arc::new(Note { name, woken: woken.clone() }))
}

kernel_test! {
    fn the_clock_never_goes_back() {
        let mut last = now();
        let start = last;
        for _ in 0..100_000 {
            let next = now();
            assert!(next >= last, "{next:?} after {last:?}");
            last = next;
        }
        assert!(last > start, "it stands still");
    }
}

kernel_test! {
    fn timers_fire_in_the_order_of_their_deadlines_and_not_early() {
        if !has_timer() { crate::skip!("no timer on this machine") }
        let woken = Arc::new(IrqMutex::new(Vec::with_capacity(8)));
        // All are registered before the first can fire.
        let irq = IrqState::disable();
        let start = now().as_ns();
        let delays_us = [3000u64, 500, 2000, 0, 1000];
        let timers: Vec<_> = delays_us
            .iter()
            .map(|&us| timer::register(start + us * 1000, waker(us as u32, &woken)).expect("memory"))
            .collect();
        drop(irq);
        let woken = wait_for(&woken, delays_us.len());
        assert_eq!(woken.iter().map(|(us, _)| *us).collect::<Vec<_>>(), [0, 500, 1000, 2000, 3000]);
        for (us, at) in woken {
            assert!(at >= start + u64::from(us) * 1000, "{us} us: early, after {} ns", at - start);
        }
        drop(timers);
    }
}

kernel_test! {
    fn a_cancelled_timer_wakes_nobody() {
        if !has_timer() { crate::skip!("no timer on this machine") }
        let woken = Arc::new(IrqMutex::new(vec![]));
        let irq = IrqState::disable();
        let soon = now() + Duration::from_micros(500);
        let cancelled = timer::register(soon.as_ns(), waker(1, &woken)).expect("memory");
        let later = timer::register((soon + Duration::from_micros(500)).as_ns(), waker(2, &woken));
        drop(cancelled);
        drop(irq);
        assert_eq!(wait_for(&woken, 1).iter().map(|(name, _)| *name).collect::<Vec<_>>(), [2]);
        drop(later);
    }
}

kernel_test! {
    fn the_date_is_later_than_this_kernel_was_begun() {
        const YEAR_2020: u64 = 1_577_836_800;
        const YEAR_2200: u64 = 7_258_118_400;
        let Some(date) = wall() else { crate::skip!("no clock with a date on this machine") };
        assert!((YEAR_2020..YEAR_2200).contains(&date.as_secs()), "{date}");
    }
}

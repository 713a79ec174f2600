//! Small objects that interrupt handlers take and give back in the midst of threads that do the same.
//! Neighbours: `magazine` (what must stand that), `cpu::torture` (memory handed from CPU to CPU).
#![forbid(unsafe_code)]
#![cfg(all(feature = "self-test", target_os = "none"))]

use alloc::{boxed::Box, sync::Arc, task::Wake};
use core::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    task::Waker,
};

use crate::{
    cpu,
    sync::torture::everywhere,
    time::{self, timer},
};

/// Interrupts in all, however many CPUs share them.
const INTERRUPTS: u32 = 2000;

/// Takes some objects, marks them, and finds the marks before it gives them back.
fn exchange(mark: u64) {
    let taken: [Box<[u64; 8]>; 3] = core::array::from_fn(|nth| Box::new([mark + nth as u64; 8]));
    for (nth, words) in taken.iter().enumerate() {
        assert!(words.iter().all(|&word| word == mark + nth as u64), "CPU {}: {words:x?}", cpu::this_cpu());
    }
}

/// What a timer's interrupt does: it exchanges objects, and says so.
struct Handler {
    mark: u64,
    came: AtomicBool,
}

impl Wake for Handler {
    fn wake(self: Arc<Self>) {
        exchange(self.mark);
        self.came.store(true, SeqCst);
    }
}

crate::kernel_test! {
    fn objects_are_nobody_elses_while_interrupts_take_some() {
        static CAME: AtomicU32 = AtomicU32::new(0);
        if !time::has_timer() {
            crate::skip!("this machine has no timer");
        }
        everywhere(|number| {
            let mark = ((number as u64) << 32) + 1;
            let mut random = mark;
            loop {
                let nth = CAME.fetch_add(1, SeqCst);
                if nth >= INTERRUPTS {
                    return;
                }
                let handler = Arc::new(Handler { mark: u64::from(nth) << 8 | 1 << 63, came: AtomicBool::new(false) });
                random = random.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let deadline_ns = pv_ops::monotonic_ns() + (random >> 40) % 20_000;
                let timer = timer::register(deadline_ns, Waker::from(handler.clone())).unwrap();
                while !handler.came.load(SeqCst) {
                    exchange(mark);
                }
                drop(timer);
            }
        });
    }
}

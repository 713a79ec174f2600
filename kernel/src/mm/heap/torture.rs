//! Small objects that interrupt handlers take and give back in the midst of threads that do the same.
//! Neighbours: `magazine` (what must stand that), `cpu::torture` (memory handed from CPU to CPU).
#![forbid(unsafe_code)]
#![cfg(all(feature = "self-test", target_os = "none"))]

use alloc::{boxed::Box, sync::Arc, task::Wake};
use core::{
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    task::Waker,
};

use crate::{
    cpu::{self, percpu},
    sync::{IrqState, torture::everywhere},
    time::{self, timer},
};

/// Interrupts in all, however many CPUs share them.
const INTERRUPTS: u32 = 8000;
static CAME: AtomicU32 = AtomicU32::new(0);

/// Takes some objects, marks them, and finds the marks before it gives them back.
fn exchange(mark: u64) {
    let taken: [Box<[u64; 8]>; 3] = core::array::from_fn(|nth| Box::new([mark + nth as u64; 8]));
    for (nth, words) in taken.iter().enumerate() {
        assert!(words.iter().all(|&word| word == mark + nth as u64), "CPU {}: {words:x?}", cpu::this_cpu());
    }
}

/// A timer that exchanges objects in its interrupt, and sets the next.
struct Chain(u64);

impl Wake for Chain {
    fn wake(self: Arc<Self>) {
        let came = CAME.fetch_add(1, SeqCst);
        exchange(u64::from(came) << 8 | 1 << 63);
        if came < INTERRUPTS {
            Self(self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)).begin();
        }
    }
}

impl Chain {
    /// Interrupts are disabled.
    fn begin(self) {
        let deadline_ns = pv_ops::monotonic_ns() + (self.0 >> 40) % 20_000;
        // Never given up.
        core::mem::forget(timer::register(deadline_ns, Waker::from(Arc::new(self))));
    }
}

crate::kernel_test! {
    fn objects_are_nobody_elses_while_interrupts_take_some() {
        if !time::has_timer() {
            crate::skip!("this machine has no timer");
        }
        cpu::call_on(percpu::up(), &|| {
            let _irq = IrqState::disable();
            Chain(u64::from(cpu::this_cpu()) + 1).begin();
        });
        everywhere(|number| {
            let mut round = 0;
            while CAME.load(SeqCst) < INTERRUPTS {
                round += 1;
                exchange((number as u64) << 40 | round << 8);
            }
        });
    }
}

//! The 2-level ABI: a bit a channel in the shared page, a bit a word of them in each CPU's `vcpu_info` (xen.h).
//! Neighbours: `shared_info` (where the bits are), `fifo` (the other ABI), `mod` (who chooses).

use super::Port;
use crate::xen::shared_info::{self, EVENT_WORDS, VCPUS, VcpuInfo};
use core::sync::atomic::{AtomicU64, Ordering};

/// A bit a channel.
pub type Bits = [AtomicU64; EVENT_WORDS];

/// Which channels arrive where: the bits that came are the whole domain's.
static BOUND: [Bits; VCPUS] = [const { [const { AtomicU64::new(0) }; EVENT_WORDS] }; VCPUS];

fn place(port: Port) -> Option<(usize, u64)> {
    let word = port.0 as usize / 64;
    (word < EVENT_WORDS).then_some((word, 1 << (port.0 % 64)))
}

/// Lets `port` arrive at `vcpu`; `None` if this ABI has no such channel or CPU.
pub(super) fn bind(port: Port, vcpu: u32) -> Option<()> {
    let (word, bit) = place(port)?;
    BOUND.get(vcpu as usize)?[word].fetch_or(bit, Ordering::AcqRel);
    Some(())
}

/// Lets `port` arrive nowhere.
pub(super) fn unbind_all(port: Port) {
    let Some((word, bit)) = place(port) else { return };
    for bound in &BOUND {
        bound[word].fetch_and(!bit, Ordering::AcqRel);
    }
}

/// Lets no channel arrive anywhere.
pub(super) fn forget() {
    BOUND.iter().flatten().for_each(|word| word.store(0, Ordering::Release));
}

/// Holds `port` back.
pub(super) fn mask(port: Port) {
    if let Some((word, bit)) = place(port) {
        shared_info::get().evtchn_mask[word].fetch_or(bit, Ordering::AcqRel);
    }
}

/// Takes an event back that came while `port` was held back.
pub(super) fn take_back(port: Port) {
    if let Some((word, bit)) = place(port) {
        shared_info::get().evtchn_pending[word].fetch_and(!bit, Ordering::SeqCst);
    }
}

/// Calls `each` for what came for this CPU.
pub(super) fn scan(vcpu: u32, info: &VcpuInfo, each: &mut dyn FnMut(Port)) {
    let (shared, Some(bound)) = (shared_info::get(), BOUND.get(vcpu as usize)) else { return };
    scan_bits(&info.evtchn_pending_sel, &shared.evtchn_pending, &shared.evtchn_mask, bound, each);
}

/// The scan by itself: of the words that `selector` names, takes back every bit of `pending` that is not in `mask` and is
/// in `bound`, and tells it.
pub fn scan_bits(
    selector: &AtomicU64,
    pending: &Bits,
    mask: &Bits,
    bound: &Bits,
    each: &mut dyn FnMut(Port),
) {
    // Taken back before the words are read: Xen sets the word's bit first and then this one.
    let mut words = selector.swap(0, Ordering::SeqCst);
    while words != 0 {
        let word = words.trailing_zeros() as usize;
        words &= words - 1;
        let here = bound[word].load(Ordering::Acquire) & !mask[word].load(Ordering::SeqCst);
        let mut bits = pending[word].load(Ordering::SeqCst) & here;
        while bits != 0 {
            let bit = bits.trailing_zeros();
            bits &= bits - 1;
            // Taken back before it is told: one that comes while it is handled is a new one.
            pending[word].fetch_and(!(1 << bit), Ordering::SeqCst);
            each(Port(word as u32 * 64 + bit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{
        collections::BTreeSet,
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicU32},
        },
        thread,
        vec::Vec,
    };

    fn bits(ports: impl IntoIterator<Item = u32>) -> Bits {
        let bits = [const { AtomicU64::new(0) }; EVENT_WORDS];
        for port in ports {
            bits[port as usize / 64].fetch_or(1 << (port % 64), Ordering::Relaxed);
        }
        bits
    }

    fn ports() -> impl Strategy<Value = BTreeSet<u32>> {
        prop::collection::btree_set(0..4096_u32, 0..60)
    }

    proptest! {
        /// Told is what came, is let through and belongs to this CPU; the rest stays as it was.
        #[test]
        fn a_scan_tells_what_is_meant_for_this_cpu(came in ports(), masked in ports(), elsewhere in ports()) {
            let selector = AtomicU64::new(came.iter().fold(0, |words, port| words | 1 << (port / 64)));
            let pending = bits(came.iter().copied());
            let mask = bits(masked.iter().copied());
            let bound = bits((0..4096).filter(|port| !elsewhere.contains(port)));
            let mut told = Vec::new();
            scan_bits(&selector, &pending, &mask, &bound, &mut |port| told.push(port.0));
            let expected: Vec<u32> =
                came.iter().copied().filter(|port| !masked.contains(port) && !elsewhere.contains(port)).collect();
            prop_assert_eq!(&told, &expected);
            let left = bits(came.into_iter().filter(|port| !expected.contains(port)));
            for (word, left) in pending.iter().zip(left) {
                prop_assert_eq!(word.load(Ordering::Relaxed), left.into_inner());
            }
            prop_assert_eq!(selector.into_inner(), 0);
        }
    }

    /// Events raised by another CPU as Xen does it, while this one scans: none is lost.
    #[test]
    fn no_event_is_lost_while_it_is_scanned() {
        const ROUNDS: u32 = 20_000;
        struct Page {
            upcall: AtomicBool,
            selector: AtomicU64,
            pending: Bits,
            handled: [AtomicU32; 4],
        }
        let page = Arc::new(Page {
            upcall: AtomicBool::new(false),
            selector: AtomicU64::new(0),
            pending: bits([]),
            handled: [const { AtomicU32::new(0) }; 4],
        });
        let ports = [5, 63, 64, 4095];
        let xen = thread::spawn({
            let page = page.clone();
            move || {
                for round in 0..ROUNDS {
                    let which = round as usize % 4;
                    let port = ports[which];
                    let before = page.handled[which].load(Ordering::SeqCst);
                    let bit = 1_u64 << (port % 64);
                    assert_eq!(page.pending[port as usize / 64].fetch_or(bit, Ordering::SeqCst) & bit, 0);
                    let word = 1_u64 << (port / 64);
                    if page.selector.fetch_or(word, Ordering::SeqCst) & word == 0 {
                        page.upcall.store(true, Ordering::SeqCst);
                    }
                    if round % 3 == 0 {
                        while page.handled[which].load(Ordering::SeqCst) == before {
                            thread::yield_now();
                        }
                    } else {
                        while page.pending[port as usize / 64].load(Ordering::SeqCst) & bit != 0 {
                            thread::yield_now();
                        }
                    }
                }
            }
        });
        let (mask, bound) = (bits([]), bits(ports));
        let mut told = 0;
        while told < ROUNDS {
            if !page.upcall.swap(false, Ordering::SeqCst) {
                thread::yield_now();
                continue;
            }
            scan_bits(&page.selector, &page.pending, &mask, &bound, &mut |port| {
                told += 1;
                let which = ports.iter().position(|&known| known == port.0).unwrap();
                page.handled[which].fetch_add(1, Ordering::SeqCst);
            });
        }
        xen.join().unwrap();
        assert!(page.pending.iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }
}

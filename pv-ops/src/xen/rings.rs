//! The two rings that the toolstack gives every domain but dom0: console and xenstore. A PV guest finds them in its
//! start_info (xen.h), others in HVM parameters (hvm/params.h).
//! Neighbours: `pv::start`, `hvm` (who know which), `event_channel` (their bells).

use super::{abi::hvm, event_channel::Port, has_feature, is_dom0, memory, shared_info};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Xen translates this guest's frame numbers (features.h).
#[doc(alias = "XENFEAT_auto_translated_physmap")]
pub(super) const FEATURE_AUTO_TRANSLATED: u32 = 2;

/// A page that was shared with the toolstack before the guest began, and its bell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    frame: u64,
    port: Port,
}

impl Ring {
    /// Physical address of the page.
    pub fn address(&self) -> u64 {
        self.frame << 12
    }

    /// The channel on which both sides ring.
    pub fn port(&self) -> Port {
        self.port
    }

    fn new(frame: u64, port: u64) -> Option<Self> {
        let port = u32::try_from(port).ok().filter(|&port| port != 0)?;
        (frame != 0 && frame < 1 << 40).then_some(Self { frame, port: Port(port) })
    }
}

/// What a PV guest's start_info said; frame 0 is "none".
struct Told {
    frame: AtomicU64,
    port: AtomicU32,
}

static CONSOLE: Told = Told { frame: AtomicU64::new(0), port: AtomicU32::new(0) };
static XENSTORE: Told = Told { frame: AtomicU64::new(0), port: AtomicU32::new(0) };

impl Told {
    fn set(&self, frame: Option<u64>, port: u32) {
        self.frame.store(frame.unwrap_or(0), Ordering::Relaxed);
        self.port.store(port, Ordering::Relaxed);
    }

    fn get(&self) -> Option<Ring> {
        Ring::new(self.frame.load(Ordering::Relaxed), self.port.load(Ordering::Relaxed).into())
    }
}

/// Notes what start_info says: guest frames and event channels.
pub(super) fn set(console: (Option<u64>, u32), xenstore: (Option<u64>, u32)) {
    CONSOLE.set(console.0, console.1);
    XENSTORE.set(xenstore.0, xenstore.1);
}

/// The console's ring (io/console.h); dom0 has none.
pub fn console() -> Option<Ring> {
    find(&CONSOLE, hvm::CONSOLE_PFN, hvm::CONSOLE_EVTCHN)
}

/// Xenstore's ring (io/xs_wire.h); dom0 has none until a xenstored runs in it.
pub fn xenstore() -> Option<Ring> {
    find(&XENSTORE, hvm::STORE_PFN, hvm::STORE_EVTCHN)
}

fn find(told: &Told, frame: u32, port: u32) -> Option<Ring> {
    if !shared_info::is_mapped() || is_dom0() {
        return None;
    }
    if !has_feature(FEATURE_AUTO_TRANSLATED) {
        return told.get();
    }
    Ring::new(memory::hvm_param(frame).ok()?, memory::hvm_param(port).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_without_page_or_channel_is_none() {
        assert_eq!(Ring::new(0, 3), None);
        assert_eq!(Ring::new(5, 0), None);
        assert_eq!(Ring::new(1 << 40, 3), None);
        assert_eq!(Ring::new(5, 1 << 32), None);
        let ring = Ring::new(0xfeffc, 3).unwrap();
        assert_eq!((ring.address(), ring.port()), (0xfeff_c000, Port(3)));
    }
}

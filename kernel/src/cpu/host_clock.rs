//! The hypervisor's clock page: lent for one question.
//! Neighbours: `pv_ops::host_clock` (asks), `time::tsc` (wants to know).

use crate::{hypervisor, mm::frame};
use pv_ops::pvclock::TimeInfo;

/// The rate of the time stamp counter in Hz, if the hypervisor has a clock page that tells it.
pub fn tsc_hz() -> Option<u64> {
    let mut frame = frame::alloc(0).ok()?;
    frame.bytes().fill(0);
    let page = frame.as_ptr().cast::<TimeInfo>();
    // SAFETY:
    // 1. The frame is ours until the end of this function, aligned to 4096 and zeroed; zeros are a `TimeInfo`.
    // 2. It consists of atomics, so that the host may write it meanwhile.
    let page = unsafe { page.as_ref() };
    // SAFETY: `address` is where the page is in physical memory; the host has forgotten it when the call returns.
    unsafe { pv_ops::host_clock::tsc_hz(&hypervisor::detection().hypervisors, page, frame.address()) }
}

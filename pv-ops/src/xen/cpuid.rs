//! What Xen says of itself in CPUID (arch-x86/cpuid.h). Its leaves begin at any multiple of 0x100 from 0x4000_0000 on:
//! Viridian's come first where both are offered. Neighbour: `detect` (finds the base).

use crate::{
    detect::{Hypervisors, Reader},
    signature::XEN,
};

/// Leaf 3 from the base: the clock.
const TIME: u32 = 3;

/// Where Xen's leaves begin, if Xen is there and has the leaves that are needed.
pub(super) fn base(hypervisors: &Hypervisors) -> Option<u32> {
    hypervisors.find(XEN).filter(|found| found.max_leaf >= found.base + 2).map(|found| found.base)
}

/// The guest's TSC rate in hertz, as leaf 3 tells it in kHz.
pub(super) fn tsc_hz(read: Reader<'_>, base: u32) -> Option<u64> {
    let answer = read(base, 0);
    (answer.eax >= base + TIME).then(|| u64::from(read(base + TIME, 0).ecx) * 1000).filter(|&hz| hz != 0)
}

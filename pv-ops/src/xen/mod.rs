//! Xen as the host: what a guest asks of it by hypercall. `docs/xen.md` lists every hypercall with its purpose.
//!
//! Two backends: [`hvm`], `xen-pvh`, for a hardware-assisted guest, whose tables read as a diff against native, and
//! [`pv`], `xen-pv`, for one without any assistance. Reads in this order: `hypercall` (the way in) · `abi`,
//! `shared_info` (what is shared) · `cpuid` (what Xen says of itself) · `hvm`, `pv` · `time`, `sched`, `console`,
//! `memory`, `suspend` (bodies that both have), `vcpu` (PV's).

pub mod abi;
pub mod console;
pub mod cpuid;
pub mod event_channel;
pub mod grant_table;
pub mod hvm;
pub mod hypercall;
pub mod lock;
pub mod memory;
pub mod pv;
pub mod rings;
pub mod sched;
pub mod shared_info;
mod steal;
pub mod suspend;
pub mod time;
mod vcpu;

use abi::version;
use hypercall::{Answer, Number};

/// Xen's version: major, minor.
pub fn version() -> Option<(u16, u16)> {
    // SAFETY: returns a number.
    let word = unsafe { hypercall::call2(Number::XenVersion, version::VERSION.into(), 0) }.ok()?;
    Some(((word >> 16) as u16, word as u16))
}

/// Whether Xen offers this feature (features.h, `XENFEAT_*`).
pub fn has_feature(feature: u32) -> bool {
    let mut info = version::FeatureInfo { submap_idx: feature / 32, submap: 0 };
    // SAFETY: the struct is this command's, and all it does is to be filled.
    let answer: Answer = unsafe { hypercall::command(Number::XenVersion, version::GET_FEATURES, &mut info) };
    answer.is_ok() && info.submap >> (feature % 32) & 1 != 0
}

/// Whether this domain is dom0, the one with the machine's devices.
pub fn is_dom0() -> bool {
    has_feature(version::FEATURE_DOM0)
}

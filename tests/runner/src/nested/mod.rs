//! Real KVM between QEMU and the guest, all of it emulated: no /dev/kvm is needed.
//!
//! QEMU plays a machine with AMD's SVM, a Linux of ours (`linux`) boots in it and loads `kvm_amd`, and there a
//! machine monitor runs the guest ([`Host`], [`Guest`]). One Linux runs many guests, one after the other. Its boot is saved
//! once, later starts go on from there. KVM's own trace events are counted ([`Counts`]),
//! those of a start stage by stage ([`Exits`]). [`Rig`] is what is assembled, `init` the first process.

mod counts;
mod exits;
mod guest;
mod host;
mod rig;

pub use counts::Counts;
pub use exits::Exits;
pub use guest::Guest;
pub use host::Host;
pub use rig::Rig;

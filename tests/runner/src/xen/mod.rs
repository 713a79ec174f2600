//! Real Xen between QEMU and the guest, all of it emulated: no KVM is needed.
//!
//! Two machines. *Alone* (`machine::alone`): Xen boots the guest as dom0, about a second; the guest's status comes out
//! of QEMU as without Xen. *Beside a Linux dom0* ([`Dom0`], [`Domain`]): Debian's tools create the guest, with console,
//! xenstore and backends. Dom0's boot is saved once, later starts go on from there.
//!
//! [`Rig`] is what is assembled, on `linux`; `initramfs` is dom0's root, `dom0/init` its first process.

mod dom0;
mod domain;
mod initramfs;
mod machine;
mod rig;

pub use dom0::Dom0;
pub use domain::{Config, Domain};
pub use machine::alone;
pub use rig::Rig;

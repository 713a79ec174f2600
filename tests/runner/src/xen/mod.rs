//! Real Xen between QEMU and the guest, all of it emulated: no KVM is needed.
//!
//! Two machines. *Alone* (`machine::alone`): Xen boots the guest as dom0, about a second; the guest's status comes out
//! of QEMU as without Xen. *Beside a Linux dom0* ([`Dom0`], [`Domain`]): Debian's tools create the guest, with console,
//! xenstore and backends. Dom0's boot is saved once (`ready`), later starts go on from there.
//!
//! Assembling: `debian` (packages), `initramfs` (dom0's root; `cpio`, `libraries`, `modules`), [`Rig`] (the cache).
//! Talking: `port` (virtio ports of dom0), `channel` (commands in, answers out), `dom0/init` (the other end).

mod channel;
mod cpio;
mod debian;
mod linux;
mod domain;
mod escape;
mod initramfs;
mod libraries;
mod machine;
mod modules;
mod port;
mod ready;
mod rig;

pub use domain::{Config, Domain};
pub use escape::Escape;
pub use linux::Dom0;
pub use machine::alone;
pub use rig::Rig;

//! A Linux of our own in QEMU: made of Debian's packages, told what to do over a virtio port. Two rigs stand on it, the
//! one of Xen (Linux is dom0) and the one of nested KVM (Linux is the host).
//!
//! Assembling: `debian` (packages), `root` (the root file system; `cpio`, `libraries`, `modules`), `recipe` (the cache).
//! Running: `machine` (the Linux), `saved` (its state after booting). Talking: `port` (virtio ports), `channel` (commands
//! in, answers out), `nudge` (that it goes on), `rig.sh` (the other end), `escape` (a user's way out).

pub(crate) mod channel;
pub(crate) mod cpio;
mod debian;
mod escape;
mod libraries;
mod machine;
mod modules;
mod nudge;
mod port;
mod recipe;
mod root;
mod saved;

pub(crate) use escape::Escape;
pub(crate) use machine::{COMMAND, Linux, Setting};
pub(crate) use recipe::{Parts, Recipe, the_one_in};
pub(crate) use root::Root;

/// What the first process of every rig's Linux begins with.
pub(crate) const RIG: &str = include_str!("rig.sh");

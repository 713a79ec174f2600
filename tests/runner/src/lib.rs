//! The host tool: finds a compiler, builds guests, boots them, and proves things about them.
//!
//! `main.rs` is the command line; `command` has one file per subcommand; `tests/vm.rs` boots what only a machine can show.
//! The way of a guest: [`toolchain`] finds the compiler, [`guest`] builds and finishes the ELF, [`image`] puts it where
//! a machine boots from, [`qemu`] runs it, [`xen`] and [`nested`] put Xen and KVM between the two. [`proof`] checks the patched text of a running kernel. [`host`] is the rest.

pub mod bench;
pub mod command;
pub mod guest;
pub mod host;
pub mod image;
pub(crate) mod linux;
pub mod nested;
pub mod proof;
pub mod qemu;
pub mod toolchain;
pub(crate) mod vmm;
pub mod xen;

//! What is paravirtual: every operation that only a privileged kernel can do, declared once, given a body by the
//! backend of the hypervisor that is there, and patched into each place that uses it.
//!
//! The story in four steps:
//! 1. **declare** – [`mod@ops`]: name, meaning, registers of each op. Out of it come the struct that a backend fills
//!    in ([`PvOps`]) and the typed wrappers at this crate's root, each with a call site (`call`); `thunk` is the way
//!    from a site to a Rust function.
//! 2. **detect** – [`mod@detect`]: which hypervisors announce themselves ([`signature`]), which [`backend`] serves.
//! 3. **install** – [`install`] fills the [`table`]. Before that every op stops at the `ud2` of
//!    `pv_op_called_before_install`.
//! 4. **patch** – [`mod@patch`]: each call site ([`mod@sites`]) becomes the native instruction itself, or a direct
//!    call of the backend's code.
//!
//! ```text
//! before   ff 15 xx xx xx xx 90 90    call [rip + pv_ops_table + 8]; nop; nop
//! after    fa 0f 1f 80 00 00 00 00    cli; nop
//! ```
//!
//! Interrupt handlers, page tables and devices of the kernel call `pv_ops::irq_disable()` and the like and know no
//! hypervisor. The backends of this build: [`native`], [`kvm`], [`pvm`] and [`xen`].
#![no_std]

#[cfg(test)]
extern crate std;

#[macro_use]
mod call;
#[macro_use]
mod thunk;
#[macro_use]
mod declare;
mod console;
mod cpu_set;
mod descriptor;
mod word;

pub mod backend;
pub mod detect;
pub mod encode;
pub mod halt;
pub mod host_clock;
pub mod kvm;
pub mod native;
pub mod ops;
pub mod patch;
pub mod percpu;
pub mod pvclock;
pub mod pvm;
pub mod scale;
pub mod signature;
pub mod sites;
pub mod table;
pub mod xen;

pub use backend::{Backend, Environment};
pub use console::console_write;
pub use cpu_set::{AtomicCpuSet, CpuSet, MAX_CPUS};
pub use descriptor::{load_gdt, load_idt};
pub use detect::first;
pub use ops::*;
pub use patch::{Report, patch};
pub use sites::{OpStatus, Site, ops, sites};
pub use table::{InstallError, Op, Stage, install, stage};
pub use word::Shutdown;

#[cfg(test)]
mod tests;

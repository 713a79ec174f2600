//! Benchmarks that compare: the same devices in the same QEMU, under Pliant and under Debian's Linux, one after the other,
//! several times over.
//!
//! `block` is the disk's, `net` and `frames` the network's, `threads` that of CPUs, threads and memory. The Linux is assembled from Debian's packages (see `linux`), and measured by a small C program of
//! ours, which this machine's compiler makes.

mod block;
mod frames;
mod net;
mod rig;
mod threads;

pub use block::{Arguments, run};
pub use net::{NetArguments, run_net};
pub use threads::{ThreadsArguments, run_threads};

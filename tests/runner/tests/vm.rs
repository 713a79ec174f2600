//! What only a machine can show: every way in, every expected death, hostile input, the patched text.
//!
//! `cargo test FILTER` runs the rows whose name contains FILTER; `cargo test -p runner --test vm -- --list` names them.
//! A row that cannot run here is skipped with the reason. Each file under `vm/` is one kind of promise.

#[path = "vm/apps.rs"]
mod apps;
#[path = "vm/bare.rs"]
mod bare;
#[path = "vm/cpus.rs"]
mod cpus;
#[path = "vm/faults.rs"]
mod faults;
#[path = "vm/hostile.rs"]
mod hostile;
#[path = "vm/http.rs"]
mod http;
#[path = "vm/image.rs"]
mod image;
#[path = "vm/kvm.rs"]
mod kvm;
#[path = "vm/kvm_features.rs"]
mod kvm_features;
#[path = "vm/lab.rs"]
mod lab;
#[path = "vm/matrix.rs"]
mod matrix;
#[path = "vm/memory.rs"]
mod memory;
#[path = "vm/net.rs"]
mod net;
#[path = "vm/net_card.rs"]
mod net_card;
#[path = "vm/net_dhcp.rs"]
mod net_dhcp;
#[path = "vm/net_tools.rs"]
mod net_tools;
#[path = "vm/patching.rs"]
mod patching;
#[path = "vm/platforms.rs"]
mod platforms;
#[path = "vm/probe.rs"]
mod probe;
#[path = "vm/raw_socket.rs"]
mod raw_socket;
#[path = "vm/row.rs"]
mod row;
#[path = "vm/screen.rs"]
mod screen;
#[path = "vm/stalls.rs"]
mod stalls;
#[path = "vm/virtio_blk.rs"]
mod virtio_blk;
#[path = "vm/virtio_console.rs"]
mod virtio_console;
#[path = "vm/xen.rs"]
mod xen;
#[path = "vm/xen_disk.rs"]
mod xen_disk;

use std::process::ExitCode;

use libtest_mimic::Arguments;

/// Machines that run at the same time.
const AT_ONCE: usize = 2;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let rows = [
        platforms::rows(),
        xen_disk::rows(),
        cpus::rows(),
        xen::rows(),
        apps::rows(),
        bare::rows(),
        screen::rows(),
        faults::rows(),
        stalls::rows(),
        hostile::rows(),
        patching::rows(),
        kvm::rows(),
        probe::rows(),
        kvm_features::rows(),
        virtio_blk::rows(),
        virtio_console::rows(),
        matrix::rows(),
        memory::rows(),
        net::rows(),
        net_card::rows(),
        net_dhcp::rows(),
        net_tools::rows(),
        http::rows(),
    ];
    row::run(&arguments, rows.into_iter().flatten().collect())
}

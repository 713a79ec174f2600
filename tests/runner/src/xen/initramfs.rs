//! What the Linux beside Xen lives in: a root file system in memory with Xen's tools, and our own first process.

use std::path::Path;

use anyhow::Result;

use crate::linux::Root;

/// Our own files, by their place in dom0.
pub(super) const OWN_FILES: [(&str, &str); 4] = [
    ("init", include_str!("dom0/init")),
    ("etc/xen/scripts/block", include_str!("dom0/block")),
    ("etc/xen/scripts/vif-bridge", include_str!("dom0/vif-bridge")),
    ("etc/xen/xl.conf", include_str!("dom0/xl.conf")),
];
/// Where Debian keeps Xen's programs; they are also reached by `/bin`.
const XEN_PROGRAMS_IN: &str = "usr/lib/xen-4.17/bin";
const XEN_PROGRAMS: [&str; 6] =
    ["xl", "xenstored", "xenconsoled", "xenconsole", "xen-init-dom0", "libxl-save-helper"];
/// Links to one program or separate ones, depending on the release.
const XENSTORE_PROGRAMS: [&str; 7] = [
    "xenstore-exists",
    "xenstore-list",
    "xenstore-ls",
    "xenstore-read",
    "xenstore-rm",
    "xenstore-watch",
    "xenstore-write",
];
const BUSYBOX_APPLETS: &str = "sh awk base64 blockdev brctl cat chmod cp date dd dmesg echo env free grep head hexdump \
    ifconfig insmod ip kill ln losetup ls mkdir mknod mount mv nc od ping ps rm sed seq sleep stat sync tail tee touch \
    tr true uname wc";
const MODULES: [&str; 12] = [
    "xen_privcmd",
    "xenfs",
    "xen_evtchn",
    "xen_gntdev",
    "xen_gntalloc",
    "xen_blkback",
    "xen_netback",
    "loop",
    "bridge",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
];
const DIRECTORIES: [&str; 8] = [
    "run/xen",
    "run/xenstored",
    "run/lock",
    "var/lib/xen",
    "var/lib/xenstored",
    "var/log/xen/console",
    "var/lock",
    "etc/xen/auto",
];

/// Builds it from packages unpacked at `packages`.
///
/// # Errors
/// The packages do not hold what they should.
pub(super) fn build(packages: &Path) -> Result<Vec<u8>> {
    let mut root = Root::new(packages);
    root.busybox(BUSYBOX_APPLETS)?;
    for name in XEN_PROGRAMS {
        let path = format!("{XEN_PROGRAMS_IN}/{name}");
        root.program(&path, &path)?;
        root.archive.link(&format!("bin/{name}"), &format!("/{path}"));
    }
    for name in XENSTORE_PROGRAMS {
        root.program(&format!("usr/bin/{name}"), &format!("bin/{name}"))?;
    }
    root.modules(&MODULES)?;
    DIRECTORIES.iter().for_each(|directory| root.archive.directory(directory));
    root.archive.link("var/run", "/run");
    for (path, text) in OWN_FILES {
        root.archive.file(path, 0o755, text.into());
    }
    Ok(root.bytes())
}

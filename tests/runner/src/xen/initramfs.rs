//! What the Linux beside Xen lives in: a root file system in memory with Xen's tools, and our own first process.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::libraries::{self, Libraries};
use super::modules::Modules;

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
/// Asked for by name at run time: the C library ends a thread with it.
const LOADED_LATER: [&str; 2] = ["libgcc_s.so.1", LOADER];
const LOADER: &str = "ld-linux-x86-64.so.2";
const LIBRARIES_IN: &str = "lib/x86_64-linux-gnu";
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
const DIRECTORIES: [&str; 14] = [
    "proc",
    "sys",
    "dev",
    "tmp",
    "run/xen",
    "run/xenstored",
    "run/lock",
    "var/lib/xen",
    "var/lib/xenstored",
    "var/log/xen/console",
    "var/lock",
    "etc/xen/auto",
    "guest",
    "root",
];

/// Builds it from packages unpacked at `root`.
///
/// # Errors
/// The packages do not hold what they should.
pub(super) fn build(root: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    let mut libraries = Libraries::new();
    libraries::close(root, LOADED_LATER.map(str::to_owned).to_vec(), &mut libraries)?;

    archive.file("bin/busybox", 0o755, read(root, "bin/busybox")?);
    for applet in BUSYBOX_APPLETS.split_ascii_whitespace() {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    for name in XEN_PROGRAMS {
        let path = format!("{XEN_PROGRAMS_IN}/{name}");
        program(root, &path, &path, &mut archive, &mut libraries)?;
        archive.link(&format!("bin/{name}"), &format!("/{path}"));
    }
    for name in XENSTORE_PROGRAMS {
        program(root, &format!("usr/bin/{name}"), &format!("bin/{name}"), &mut archive, &mut libraries)?;
    }
    for (name, data) in libraries {
        archive.file(&format!("{LIBRARIES_IN}/{name}"), 0o755, data);
    }
    archive.link(&format!("lib64/{LOADER}"), &format!("/{LIBRARIES_IN}/{LOADER}"));

    let modules = Modules::below(&root.join("lib/modules"))?.in_order(&MODULES)?;
    let mut order = String::new();
    for module in modules {
        order.extend([module.name.as_str(), "\n"]);
        archive.file(&format!("lib/modules/{}.ko", module.name), 0o644, module.data);
    }
    archive.file("lib/modules/order", 0o644, order.into_bytes());

    DIRECTORIES.iter().for_each(|directory| archive.directory(directory));
    archive.link("var/run", "/run");
    archive.device("dev/console", 5, 1);
    archive.device("dev/null", 1, 3);
    for (path, text) in OWN_FILES {
        archive.file(path, 0o755, text.into());
    }
    Ok(archive.bytes())
}

fn program(
    root: &Path,
    from: &str,
    to: &str,
    archive: &mut Archive,
    libraries: &mut Libraries,
) -> Result<()> {
    let data = read(root, from)?;
    let needed = libraries::needed(&data).with_context(|| format!("{from} is no program"))?;
    libraries::close(root, needed, libraries)?;
    archive.file(to, 0o755, data);
    Ok(())
}

fn read(root: &Path, path: &str) -> Result<Vec<u8>> {
    let path = root.join(path);
    fs::read(&path).with_context(|| format!("no package brought {}", path.display()))
}

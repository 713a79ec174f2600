//! Programs and files of other projects that a command needs, and the Debian package each comes in.
//!
//! Missing ones are installed when that can be done without asking anyone; else one line says what to type.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use anyhow::{Result, bail};

use super::paths::in_path;
use super::process::{clean, run_with_progress};
use super::progress::Step;

/// Something that must be on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// A program's name, or the absolute path of a file or directory.
    pub what: &'static str,
    /// The Debian package that holds it.
    pub package: &'static str,
}

/// QEMU for x86-64.
pub const QEMU: Need = Need { what: "qemu-system-x86_64", package: "qemu-system-x86" };
/// UEFI firmware for QEMU.
pub const OVMF: Need = Need { what: "/usr/share/OVMF/OVMF_CODE_4M.fd", package: "ovmf" };
/// What a bootable ISO is made with.
pub const GRUB: [Need; 5] = [
    Need { what: "grub-mkrescue", package: "grub-common" },
    Need { what: "/usr/lib/grub/i386-pc", package: "grub-pc-bin" },
    Need { what: "/usr/lib/grub/x86_64-efi", package: "grub-efi-amd64-bin" },
    Need { what: "xorriso", package: "xorriso" },
    Need { what: "mformat", package: "mtools" },
];
/// What fetches and unpacks Debian's packages, of which the rigs of Xen and of nested KVM are made.
pub const DEBIAN: [Need; 3] = [
    Need { what: "apt-get", package: "apt" },
    Need { what: "dpkg-deb", package: "dpkg" },
    Need { what: "gzip", package: "gzip" },
];
/// What sets network devices up.
pub const IP: Need = Need { what: "ip", package: "iproute2" };
/// Asks whether somebody is there.
pub const PING: Need = Need { what: "ping", package: "iputils-ping" };
/// A client for the web.
pub const CURL: Need = Need { what: "curl", package: "curl" };
/// What counts answers of a web server, with as many connections as it is told.
pub const WRK: Need = Need { what: "wrk", package: "wrk" };
/// Moves bytes between a connection and its own input and output.
pub const NC: Need = Need { what: "nc", package: "netcat-openbsd" };
/// Looks for open ports, also in ways that no proper client has.
pub const NMAP: Need = Need { what: "nmap", package: "nmap" };
/// Measures how many bytes go through a connection.
pub const IPERF3: Need = Need { what: "iperf3", package: "iperf3" };
/// A server that gives addresses, among other things.
pub const BUSYBOX: Need = Need { what: "busybox", package: "busybox" };
/// What makes an ext4 file system.
pub const MKE2FS: Need = Need { what: "mke2fs", package: "e2fsprogs" };
/// What the tests and benchmarks of the network use of this machine.
pub const NETWORK: [Need; 9] = [IP, PING, CURL, WRK, NC, NMAP, IPERF3, BUSYBOX, MKE2FS];
/// A C compiler and the library, for the programs that Linux is measured with.
pub const CC: [Need; 2] =
    [Need { what: "cc", package: "gcc" }, Need { what: "/usr/include/stdio.h", package: "libc6-dev" }];
/// The debugger.
pub const GDB: Need = Need { what: "gdb", package: "gdb" };
/// The distribution's compiler with its library source, and a linker: used when the active toolchain cannot build guests.
pub const RUST: [Need; 4] = [
    Need { what: "/usr/bin/rustc", package: "rustc-web" },
    Need { what: "/usr/bin/cargo", package: "cargo-web" },
    Need { what: "/usr/lib/rustlib/src/rust/library/Cargo.lock", package: "rust-web-src" },
    LLD,
];
/// The linker, for toolchains that ship none.
pub const LLD: Need = Need { what: "lld", package: "lld" };
/// The clippy that belongs to [`RUST`].
pub const CLIPPY: Need = Need { what: "/usr/bin/cargo-clippy", package: "rust-web-clippy" };
/// Object tools for building the `bootloader` crate with [`RUST`].
pub const LLVM: Need = Need { what: "llvm-objcopy", package: "llvm" };

impl Need {
    /// Where it is, if it is there.
    pub fn find(&self) -> Option<PathBuf> {
        if self.what.starts_with('/') {
            return Some(PathBuf::from(self.what)).filter(|path| path.exists());
        }
        in_path(self.what)
    }
}

/// Makes sure that every need is met, installing packages where this process may.
///
/// # Errors
/// Something is missing and cannot be installed; the message holds the command that would.
pub fn require(needs: &[Need]) -> Result<()> {
    let missing = || -> Vec<Need> { needs.iter().copied().filter(|need| need.find().is_none()).collect() };
    if missing().is_empty() {
        return Ok(());
    }
    // One at a time: apt has its own lock, and fails on it.
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _one = INSTALLING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let (names, command) = describe(&missing);
    if in_path("apt-get").is_none() {
        bail!("missing: {names}. Install what your distribution calls them; on Debian: {command}");
    }
    if !is_root() {
        bail!("missing: {names}. To install: sudo sh -c '{command}'");
    }
    install(&missing)?;
    match needs.iter().find(|need| need.find().is_none()) {
        None => Ok(()),
        Some(need) => bail!("package {} is installed, but {} is not there", need.package, need.what),
    }
}

/// Why something of these needs is missing, where this process may not install it.
///
/// # Errors
/// It may, and cannot.
pub fn missing(needs: &[Need]) -> Result<Option<String>> {
    match require(needs) {
        Err(error) if !is_root() => Ok(Some(format!("{error:#}"))),
        result => result.map(|()| None),
    }
}

/// The missing things by name, and the one command that installs them.
fn describe(missing: &[Need]) -> (String, String) {
    let names: Vec<&str> = missing.iter().map(|need| need.what).collect();
    let command = format!("apt-get update && apt-get install -y {}", packages(missing).join(" "));
    (names.join(", "), command)
}

fn packages(needs: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = needs.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn install(missing: &[Need]) -> Result<()> {
    static UPDATED: OnceLock<()> = OnceLock::new();
    let packages = packages(missing);
    let step = Step::new(format!("installing {}", packages.join(" ")));
    let mut updated = Ok(String::new());
    if UPDATED.get().is_none() {
        // A source that cannot be reached matters only if a package is in it.
        updated = run_with_progress(apt().arg("update"), &step, last_line);
        UPDATED.get_or_init(|| ());
    }
    let mut command = apt();
    command.args(["install", "-y", "--no-install-recommends"]).args(packages);
    match (run_with_progress(&mut command, &step, last_line), updated) {
        (Ok(_), _) => Ok(()),
        (Err(error), Ok(_)) => Err(error),
        (Err(error), Err(before)) => Err(error.context(format!("{before:#}"))),
    }
}

fn apt() -> std::process::Command {
    let mut command = clean(Path::new("apt-get"));
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// What apt says, but for its errors, is progress.
fn last_line(line: &str) -> Option<String> {
    let error = line.starts_with("E:") || line.contains("error");
    (!error).then(|| line.chars().take(70).collect())
}

/// Whether this process may install packages.
pub fn is_root() -> bool {
    // SAFETY: geteuid(2) takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_command_names_each_package_once() {
        let twice = [GRUB[0], OVMF, GRUB[0]];
        let (names, command) = describe(&twice);
        assert_eq!(names, "grub-mkrescue, /usr/share/OVMF/OVMF_CODE_4M.fd, grub-mkrescue");
        assert_eq!(command, "apt-get update && apt-get install -y grub-common ovmf");
    }

    #[test]
    fn what_is_there_needs_nothing() {
        let shell = Need { what: "sh", package: "dash" };
        let root = Need { what: "/", package: "base-files" };
        assert!(require(&[shell, root]).is_ok());
        assert!(matches!(missing(&[shell, root]), Ok(None)));
    }
}

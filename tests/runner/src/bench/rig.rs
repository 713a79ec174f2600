//! The Linux that is measured beside Pliant.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::host::packages::{self, CC};
use crate::linux::{Linux, Recipe, Root, Setting, the_one_in};
use crate::qemu::{Line, Serial, Tee};

const PACKAGES: [&str; 1] = ["busybox-static"];
const INIT: &str = include_str!("init");
const BUSYBOX_APPLETS: &str =
    "sh awk blockdev cat chmod dd echo grep insmod ip ln ls mkdir mount read rm sleep sync true uname";
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_console", "virtio_net"];
/// Quick to boot, and as fast as it can be: no mitigations against other guests.
const KERNEL: &str = "console=ttyS0 quiet loglevel=4 mitigations=off nokaslr tsc=reliable no_timer_check \
    cryptomgr.notests panic=-1 rdinit=/init";

/// Boots it on so many CPUs, with what `more` adds to its line.
///
/// # Errors
/// A package cannot be had, or it does not boot.
pub(super) fn linux(memory: &str, cpus: u32, more: impl FnOnce(&mut Line)) -> Result<Linux> {
    let own = vec![INIT.to_owned(), include_str!("rig.rs").to_owned()];
    let recipe =
        Recipe { kind: "bench-rig", name: "the Linux to compare with", packages: &PACKAGES, own, assemble };
    let parts = recipe.get()?;
    let mut line = Line::bare("q35", "tcg", "max");
    line.equip(cpus, memory, Serial::Plain);
    line.option("-kernel", parts.file("vmlinuz"));
    line.option("-append", KERNEL);
    line.option("-initrd", parts.file("linux.cpio"));
    more(&mut line);
    Linux::boot_showing(
        &Setting { name: "the Linux to compare with", saved_in: "bench-ready", parts, line },
        Tee::Keep,
    )
}

fn assemble(packages: &Path, directory: &Path) -> Result<()> {
    let mut root = Root::new(packages);
    root.busybox(BUSYBOX_APPLETS)?;
    root.modules(&MODULES)?;
    root.archive.file("init", 0o755, INIT.into());
    fs::write(directory.join("linux.cpio"), root.bytes()).context("cannot write linux.cpio")?;
    let kernel = the_one_in(&packages.join("boot"), "vmlinuz-", "")?;
    fs::copy(&kernel, directory.join("vmlinuz")).context("cannot copy the kernel")?;
    Ok(())
}

/// Where [`install`] puts a program in Linux.
pub(super) const PROGRAM: &str = "/measure";

/// Has Linux keep `program`, to be executed.
///
/// # Errors
/// Linux does not answer.
pub(super) fn install(linux: &mut Linux, program: &[u8]) -> Result<()> {
    linux.put(program, PROGRAM)?;
    linux.run(&format!("chmod +x {PROGRAM}")).map(drop)
}

/// A program for Linux, whose source is `text`; compiled in `scratch`.
///
/// # Errors
/// A C compiler cannot be had, or the program does not compile.
pub(super) fn program(scratch: &Path, text: &str) -> Result<Vec<u8>> {
    packages::require(&CC)?;
    let (source, program) = (scratch.join("program.c"), scratch.join("program"));
    fs::write(&source, text)?;
    fs::write(scratch.join("linux.h"), include_str!("linux.h"))?;
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-static", "-o"]).arg(&program).arg(&source);
    let output = compiler.output().context("the C compiler")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(&program).context("the compiler made nothing")
}

//! `gdb`: boots a guest that waits, and gdb that stops it at the first line of the kernel.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use clap::Args;

use crate::guest::elf::Linked;
use crate::guest::{self, Profile};
use crate::host::packages::{self, GDB};
use crate::host::process::display;
use crate::image;
use crate::qemu::{Options, Platform, Serial, terminal};
use crate::toolchain::Toolchain;

/// Where gdb stops first.
const FIRST_STOP: &str = "kernel::start::kernel_main";

/// What to debug.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The application, a directory under apps/
    #[arg(default_value = "shell")]
    pub app: String,
    /// The way in
    #[arg(long, value_enum, default_value = "pvh")]
    pub on: Platform,
    /// The kernel command line
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub append: String,
    /// Print the two commands, run nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Starts QEMU with the machine held and gdb in the foreground; prints both commands when gdb is missing.
///
/// # Errors
/// Something is missing, or the guest does not build.
pub fn run(arguments: &Arguments) -> Result<u8> {
    image::require(arguments.on)?;
    let toolchain = Toolchain::find()?;
    let guest = guest::build(&toolchain, &arguments.app, Profile::Quick)?;
    let options = Options { gdb: true, append: arguments.append.clone(), ..Options::on(arguments.on) };
    let line = image::line(&toolchain, &guest, &options, Serial::Plain)?;

    let linked = Linked::parse(&std::fs::read(&guest.debug)?)?;
    let mut gdb = Command::new(GDB.what);
    gdb.arg("-q").arg(&guest.debug).args(["-ex", "target remote 127.0.0.1:1234"]);
    if let Some(address) = linked.address_of(FIRST_STOP) {
        // A hardware breakpoint: the text is not in memory yet when a loader brings it.
        gdb.args(["-ex", &format!("hbreak *{address:#x}"), "-ex", "continue"]);
    }
    if arguments.dry_run || GDB.find().is_none() && packages::require(&[GDB]).is_err() {
        println!("{line}\n{}", display(&gdb));
        return Ok(0);
    }
    let log = guest.elf.with_file_name(format!("{}.console", arguments.app));
    eprintln!("pliant: {line}\npliant: the guest's console goes to {}", log.display());
    let console = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let (program, words) = line.words().split_first().context("empty QEMU line")?;
    let mut qemu = Command::new(program);
    // gdb owns the terminal: Ctrl-C is for it.
    terminal::leave_interrupts_to_the_child();
    qemu.args(words).stdin(Stdio::null()).stdout(console).process_group(0);
    crate::host::process::die_with_parent(&mut qemu);
    let mut qemu = qemu.spawn().context("cannot start QEMU")?;
    let status = gdb.status().context("cannot start gdb");
    // It may have ended with the guest; what counts is that it is gone.
    let _ = qemu.kill();
    let _ = qemu.wait();
    Ok(u8::try_from(status?.code().unwrap_or(1)).unwrap_or(1))
}

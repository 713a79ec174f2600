//! `run`: builds a guest and boots it, its console on this terminal.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::guest::{self, Guest, Profile};
use crate::image;
use crate::linux::Escape;
use crate::nested;
use crate::qemu::{
    Accel, Ending, Finished, Line, Machine, Options, Platform, Running, Serial, Tee, megabytes, network,
    terminal,
};
use crate::toolchain::Toolchain;
use crate::xen::{self, Config, Dom0};

/// What to run and on what.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The application, a directory under apps/ (or a kernel under tests/kernels/)
    #[arg(default_value = "shell")]
    pub app: String,
    /// Compile it as it ships, smaller and faster, which takes longer
    #[arg(long, short)]
    pub release: bool,
    /// The way in
    #[arg(long, value_enum, default_value = "pvh")]
    pub on: Platform,
    /// The machine [default: q35; microvm on KVM]
    #[arg(long, value_enum)]
    pub machine: Option<Machine>,
    /// Who executes the guest's instructions [default: tcg; kvm on KVM]
    #[arg(long, value_enum)]
    pub accel: Option<Accel>,
    /// The processor model [default: the accelerator's best]
    #[arg(long)]
    pub cpu: Option<String>,
    /// Number of processors
    #[arg(long, visible_alias = "cpus", default_value_t = 1)]
    pub smp: u32,
    /// Size of memory
    #[arg(long, default_value = "256M")]
    pub memory: String,
    /// The kernel command line
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub append: String,
    /// Forward a port of this host, which is told, to this TCP port of the guest [default: those that the app serves]
    #[arg(long, value_name = "PORT")]
    pub forward: Vec<u16>,
    /// Give the guest a disk: a raw image
    #[arg(long, value_name = "FILE")]
    pub disk: Option<PathBuf>,
    /// A further option of our own machine monitor (`--machine vmm`), for example `--vmm=--without=pv-eoi`
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub vmm: Vec<String>,
    /// Show what nested KVM counted: exits, hypercalls, interrupts, ends of interrupts
    #[arg(long)]
    pub counts: bool,
    /// Wait for gdb on TCP port 1234 before the first instruction
    #[arg(long)]
    pub gdb: bool,
    /// Build, print the QEMU line, run nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Kill the guest after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

impl Default for Arguments {
    fn default() -> Self {
        let Options { platform, cpu, smp, memory, append, gdb, vmm, .. } = Options::default();
        let app = "shell".into();
        Self {
            app,
            release: false,
            on: platform,
            machine: None,
            accel: None,
            cpu,
            smp,
            memory,
            append,
            forward: Vec::new(),
            disk: None,
            gdb,
            vmm,
            counts: false,
            dry_run: false,
            timeout: None,
        }
    }
}

/// Builds, boots, and says how it ended.
///
/// # Errors
/// Something that building or running takes is missing, or the guest does not build.
pub fn run(arguments: &Arguments) -> Result<u8> {
    let options = options(arguments);
    image::require(options.platform)?;
    let toolchain = Toolchain::find()?;
    let profile = if arguments.release { Profile::Release } else { Profile::Quick };
    let guest = guest::build(&toolchain, &arguments.app, profile)?;
    let by_hand = std::io::stdin().is_terminal();
    if options.platform.is_beside_linux() {
        ensure!(
            !options.gdb && !arguments.dry_run,
            "`--gdb` and `--dry-run` go with guests that QEMU boots itself"
        );
        if by_hand {
            eprintln!("pliant: Ctrl-A X leaves");
        }
        let run = if options.platform.is_xen_domu() { beside_dom0 } else { nested_kvm };
        let finished = run(arguments, &guest, &options, by_hand)?;
        return Ok(report(arguments, &finished));
    }
    let serial = if by_hand { Serial::Terminal } else { Serial::Plain };
    let mut line = image::line(&toolchain, &guest, &options, serial)?;
    connect(arguments, &options, &mut line)?;
    if arguments.dry_run {
        println!("{line}");
        return Ok(0);
    }
    if by_hand {
        eprintln!("pliant: Ctrl-A X leaves; Ctrl-A C talks to QEMU and back");
    }
    eprintln!("pliant: {line}");
    if options.gdb {
        eprintln!("pliant: waiting for gdb: gdb {} -ex 'target remote :1234'", guest.debug.display());
    }
    let mut running = Running::start(&line, options.gdb, Tee::Show)?;
    let raw = terminal::Raw::enter();
    if let Some(input) = running.take_input() {
        terminal::feed(input, running.listener());
    }
    let finished = running.wait(arguments.timeout.map(Duration::from_secs))?;
    drop(raw);
    Ok(report(arguments, &finished))
}

/// Adds the disk that is asked for, and a network card if the guest serves a port.
fn connect(arguments: &Arguments, options: &Options, line: &mut Line) -> Result<()> {
    if let Some(disk) = &arguments.disk {
        let bus = if options.machine == Machine::Microvm { "device" } else { "pci" };
        line.drive("if=none,id=disk,format=raw,file=", disk);
        line.option("-device", format!("virtio-blk-{bus},drive=disk"));
        line.option("-global", "virtio-mmio.force-legacy=false");
    }
    let served = guest::served_ports(&arguments.app)?;
    let ports = if arguments.forward.is_empty() { &served } else { &arguments.forward };
    if ports.is_empty() {
        return Ok(());
    }
    // 8000 more than the guest's is easily remembered.
    let forward = |&guest: &u16| Ok((network::free_port(guest.checked_add(8000))?, guest));
    let forwards = ports.iter().map(forward).collect::<Result<Vec<_>>>()?;
    network::at_user(line, options.machine, &forwards, "");
    for (host, guest) in forwards {
        let scheme = if matches!(guest, 80 | 8080) { "http://" } else { "" };
        eprintln!("pliant: port {guest} of the guest is {scheme}127.0.0.1:{host} here");
    }
    Ok(())
}

/// Has Xen's tools run the guest, its console on this terminal.
fn beside_dom0(arguments: &Arguments, guest: &Guest, options: &Options, by_hand: bool) -> Result<Finished> {
    let config = Config::new(guest, options)?;
    let mut dom0 = Dom0::start(&xen::Rig::get()?, config.megabytes, Tee::Show)?;
    let domain = dom0.create(&config)?;
    let raw = terminal::Raw::enter();
    feed(by_hand, domain.input(), domain.listener());
    let finished = domain.wait(arguments.timeout.map(Duration::from_secs))?;
    drop(raw);
    if !matches!(finished.ending, Ending::Status(_) | Ending::PowerOff | Ending::Reset) {
        eprintln!("pliant: {}", dom0.last_words());
    }
    Ok(finished)
}

/// Has the KVM of a Linux in QEMU run the guest, its console on this terminal.
fn nested_kvm(arguments: &Arguments, guest: &Guest, options: &Options, by_hand: bool) -> Result<Finished> {
    let mut host = nested::Host::start(&nested::Rig::get()?, megabytes(&options.memory)?, Tee::Show)?;
    let guest = host.create(&guest.elf, options)?;
    eprintln!("pliant: in Linux in QEMU: {}", guest.line());
    let raw = terminal::Raw::enter();
    feed(by_hand, guest.input(), guest.listener());
    let finished = guest.wait(arguments.timeout.map(Duration::from_secs))?;
    drop(raw);
    Ok(finished)
}

/// What is typed here is typed there; a user at a terminal leaves by Ctrl-A X.
fn feed(by_hand: bool, to: impl Write + Send + 'static, listener: impl Fn(&str, Duration) + Send + 'static) {
    let leave = || {
        terminal::restore();
        std::process::exit(0);
    };
    if by_hand {
        terminal::feed(Escape::new(to, leave), listener);
    } else {
        terminal::feed(to, listener);
    }
}

/// Tells how it ended; returns the tool's exit code.
fn report(arguments: &Arguments, finished: &Finished) -> u8 {
    if !finished.console.is_empty() && !finished.console.ends_with('\n') {
        println!();
    }
    let note = match finished.ending {
        Ending::Reset if arguments.accel == Some(Accel::Kvm) || arguments.on.is_kvm() => {
            " (or a triple fault: KVM does not tell them apart)"
        }
        _ => "",
    };
    if arguments.counts {
        eprint!("{}", nested::Counts::read(&finished.said));
    }
    finished.said.lines().filter(|line| line.starts_with("vmm: ")).for_each(|line| eprintln!("{line}"));
    eprintln!(
        "pliant: {} ended after {:.2} s: {}{note}",
        arguments.app,
        finished.elapsed.as_secs_f32(),
        finished.ending
    );
    finished.ending.exit_code()
}

fn options(arguments: &Arguments) -> Options {
    Options {
        platform: arguments.on,
        machine: arguments.machine.unwrap_or(arguments.on.machine()),
        accel: arguments.accel.unwrap_or(arguments.on.accel()),
        cpu: arguments.cpu.clone(),
        smp: arguments.smp,
        memory: arguments.memory.clone(),
        append: arguments.append.clone(),
        gdb: arguments.gdb,
        vmm: arguments.vmm.clone(),
    }
}

//! On KVM: the host's where there is one, and real KVM in a Linux that QEMU emulates, on every machine.
//! Neighbour: `kvm_features` (each of KVM's features at work).

use std::time::Duration;

use runner::command::doctor;
use runner::host::packages::CURL;
use runner::qemu::{Ending, Machine, Options, Platform, network};

use crate::http::speaks_http;
use crate::image::Image;
use crate::lab;
use crate::matrix::{Offer, Transport, every_device_works_on, modern_mmio};
use crate::platforms::{says_hello, self_test};
use crate::row::{Row, Verdict};

/// The machines in which nested KVM runs guests.
const MACHINES: [(&str, Machine); 3] =
    [("q35", Machine::Q35), ("microvm", Machine::Microvm), ("vmm", Machine::Vmm)];
/// Memory of a guest.
const MEMORY: &str = "64M";

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row::new("kvm::hello", "hello", || with_kvm(Machine::Microvm, says_hello)),
        Row::new("kvm::hello_in_our_monitor", "hello", || with_kvm(Machine::Vmm, says_hello)),
        Row::new("kvm::self_test", "self_test", || with_kvm(Machine::Microvm, self_test)),
        Row::new("kvm::hello_on_q35", "hello", || with_kvm(Machine::Q35, says_hello)),
        Row::new("kvm::self_test_with_2_cpus", "self_test", || {
            with_kvm(Machine::Microvm, |options| self_test(&Options { smp: 2, ..options.clone() }))
        }),
        Row::new("kvm::a_guest_that_does_not_register_runs", "hello", || {
            with_kvm(Machine::Microvm, runs_unregistered)
        }),
        Row::new("kvm::registers_where_the_host_is_kvm_pvm", "shell", || {
            if !doctor::is_kvm_pvm() {
                return Ok(Verdict::Skipped("this host's KVM is not kvm-pvm".into()));
            }
            with_kvm(Machine::Microvm, interrupts_are_disabled_by_a_store)
        }),
    ];
    for (name, machine, transport) in
        [("q35", Machine::Q35, Transport::Pci), ("microvm", Machine::Microvm, Transport::Mmio)]
    {
        rows.push(Row::new(format!("kvm::every_device_works::{name}"), "devices", move || {
            with_kvm(machine, |options| every_device_works_on(Offer { transport, ..Offer::ALL }, options))
        }));
        rows.push(
            Row::new(format!("kvm::serves_http::{name}"), "http", move || with_kvm(machine, speaks_http))
                .with(&[CURL]),
        );
    }
    for (name, machine) in MACHINES {
        rows.push(Row::new(format!("kvm_nested::hello::{name}"), "hello", move || {
            says_hello(&on(machine, &[]))
        }));
        rows.push(Row::new(format!("kvm_nested::self_test::{name}"), "self_test", move || {
            self_test(&on(machine, &[]))
        }));
    }
    for (name, options) in [
        ("q35_with_2_cpus", Options { smp: 2, ..on(Machine::Q35, &[]) }),
        ("microvm_with_2_cpus", Options { smp: 2, ..on(Machine::Microvm, &[]) }),
        ("without_kvm_leaves", Options { smp: 2, ..on(Machine::Vmm, &["--hide-kvm"]) }),
        ("with_apic_ids_above_255", on(Machine::Vmm, &["--apic-ids=0,300"])),
    ] {
        rows.push(Row::new(format!("kvm_nested::self_test::{name}"), "self_test", move || {
            self_test(&options)
        }));
    }
    for (name, machine) in [("q35", Machine::Q35), ("microvm", Machine::Microvm)] {
        rows.push(Row::new(format!("kvm_nested::a_disk_is_rewritten::{name}"), "devices", move || {
            a_disk_is_rewritten(machine)
        }));
        rows.push(Row::new(format!("kvm_nested::serves_http::{name}"), "http", move || serves_http(machine)));
    }
    rows.push(Row::new("kvm_nested::endings_are_told_apart", "shell", endings_are_told_apart));
    rows
}

/// A small guest on nested KVM; `vmm` is for our own machine monitor.
pub(crate) fn on(machine: Machine, vmm: &[&str]) -> Options {
    let vmm = vmm.iter().map(|option| (*option).to_owned()).collect();
    Options { machine, vmm, memory: MEMORY.into(), ..Options::on(Platform::KvmNested) }
}

fn with_kvm(
    machine: Machine,
    body: impl FnOnce(&Options) -> anyhow::Result<Verdict>,
) -> anyhow::Result<Verdict> {
    match doctor::kvm() {
        Err(why) => Ok(Verdict::Skipped(why)),
        Ok(_) => body(&Options { machine, ..Options::on(Platform::Kvm) }),
    }
}

/// Everywhere the guest is KVM's, and where the host would let it register it stays emulated.
fn runs_unregistered(options: &Options) -> anyhow::Result<Verdict> {
    let run = lab::run("hello", &Options { append: "kvm=-pvm".into(), ..options.clone() })?;
    run.ended(&Ending::Status(0))?.says(&["kvm operations"])?.says(&["Hello"])?;
    Ok(Verdict::Kept)
}

/// The registered guest's `irq_disable` is one store to memory, and nothing else.
fn interrupts_are_disabled_by_a_store(options: &Options) -> anyhow::Result<Verdict> {
    let (mut running, line) = lab::start("shell", options)?;
    running.wait_for("kvm-pvm operations", 0, lab::PATIENCE)?;
    let at = running.wait_for(lab::PROMPT, 0, lab::PATIENCE)?;
    running.send(b"ops\r")?;
    let at = running.wait_for("irq_disable", at, lab::PATIENCE)?;
    running.wait_for("bytes 64 c6 04 25 00 00 00 00 00", at, lab::PATIENCE)?;
    running.send(b"exit\r")?;
    lab::finish(running, &line)?.ended(&Ending::Status(0))?;
    Ok(Verdict::Kept)
}

/// What a guest does last is known outside, in each of the monitors.
fn endings_are_told_apart() -> anyhow::Result<Verdict> {
    let deeds = [
        ("exit 7", Ending::Status(7)),
        ("poweroff", Ending::PowerOff),
        ("reboot", Ending::Reset),
        ("panic", Ending::Status(2)),
    ];
    for machine in [Machine::Vmm, Machine::Q35] {
        for (command, ending) in &deeds {
            let run = lab::run_nested("shell", &on(machine, &[]), |guest| {
                guest.wait_for(lab::PROMPT, 0, lab::PATIENCE)?;
                guest.send(format!("{command}\r").as_bytes())
            })?;
            run.ended(ending)?;
        }
    }
    Ok(Verdict::Kept)
}

/// A device whose interrupts KVM delivers: what the guest wrote to it is looked at, byte by byte.
fn a_disk_is_rewritten(machine: Machine) -> anyhow::Result<Verdict> {
    const DISK: &str = "/guest/disk";
    let transport = if machine == Machine::Q35 { Transport::Pci } else { Transport::Mmio };
    let image = Image::new(&format!("nested-{machine:?}"))?;
    let guest = lab::guest("devices")?;
    let run = lab::with_nested_host(|host| {
        host.write(&image.content, DISK)?;
        let running = host.create_with(&guest.elf, &on(machine, &[]), |line| {
            modern_mmio(line);
            line.option("-drive", format!("id=disk,if=none,format=raw,discard=unmap,file={DISK}"));
            line.option("-device", Offer { transport, ..Offer::ALL }.device("blk") + ",drive=disk");
        })?;
        let run = lab::finish_nested(running, |_| Ok(()))?;
        std::fs::write(&image.path, host.read(DISK)?)?;
        Ok(run)
    })?;
    run.ended(&Ending::Status(0))?;
    image.ends_as(&run, &image.rewritten())?;
    Ok(Verdict::Kept)
}

/// A network device whose interrupts KVM delivers; who asks is a program on the host of the guest.
fn serves_http(machine: Machine) -> anyhow::Result<Verdict> {
    const ASK: &str = "busybox ip link set lo up; busybox wget -q -O - http://127.0.0.1:8080/hello.txt";
    let guest = lab::guest("http")?;
    let answer = lab::with_nested_host(|host| {
        let mut running = host.create_with(&guest.elf, &on(machine, &[]), |line| {
            modern_mmio(line);
            network::at_user(line, machine, &[(8080, 80)], "");
        })?;
        running.wait_for("connections at once", 0, lab::PATIENCE)?;
        let answer = running.host(ASK)?;
        running.wait(Some(Duration::ZERO))?;
        Ok(answer)
    })?;
    anyhow::ensure!(answer == "Hello, world!", "{answer:?}");
    Ok(Verdict::Kept)
}

//! On KVM: the host's where there is one, and real KVM in a Linux that QEMU emulates, on every machine.
//! Neighbour: `kvm_features` (each of KVM's features at work).

use runner::command::doctor;
use runner::qemu::{Ending, Machine, Options, Platform};

use crate::lab;
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
        Row::new("kvm::self_test", "self_test", || {
            if doctor::is_kvm_pvm() {
                return Ok(Verdict::Skipped(
                    "kvm-pvm host: a guest that does not register with it is emulated, and would test for minutes".into(),
                ));
            }
            with_kvm(Machine::Microvm, self_test)
        }),
    ];
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
                guest.wait_for("app main after", 0, lab::PATIENCE)?;
                guest.send(format!("{command}\r").as_bytes())
            })?;
            run.ended(ending)?;
        }
    }
    Ok(Verdict::Kept)
}

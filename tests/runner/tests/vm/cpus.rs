//! Several CPUs: the kernel's own tests on two and four by every way in, on 64, and where only old tables tell of them.

use std::time::Duration;

use anyhow::ensure;
use runner::command::doctor;
use runner::qemu::{Accel, Ending, Machine, Options, Platform};

use crate::lab::{self, PATIENCE};
use crate::platforms::self_test;
use crate::row::{Row, Verdict};

/// Ways in, and a number of CPUs for each: both numbers everywhere would take twice as long and show the same.
const PLATFORMS: [(&str, Platform, Machine, u32); 8] = [
    ("pvh-q35", Platform::Pvh, Machine::Q35, 2),
    ("pvh-q35", Platform::Pvh, Machine::Q35, 4),
    ("pvh-pc", Platform::Pvh, Machine::Pc, 2),
    ("pvh-microvm", Platform::Pvh, Machine::Microvm, 4),
    ("bios", Platform::Bios, Machine::Q35, 2),
    ("uefi", Platform::Uefi, Machine::Q35, 4),
    ("multiboot2", Platform::Multiboot2, Machine::Q35, 2),
    ("multiboot2-uefi", Platform::Multiboot2Uefi, Machine::Q35, 2),
];

/// The shapes in which Xen runs the kernel.
const XEN: [(&str, Platform, u32); 4] = [
    ("xen-pv-dom0", Platform::XenPvDom0, 2),
    ("xen-pvh-dom0", Platform::XenPvhDom0, 2),
    ("xen-pv", Platform::XenPv, 4),
    ("xen-pvh", Platform::XenPvh, 2),
];

/// What breaks where CPUs do not keep out of each other's way, on the numbers of CPUs that the rows above leave out.
const TORTURE: &str = "test=torture::";
const TORTURED: [(&str, Platform, Machine, &[u32]); 14] = [
    ("pvh-q35", Platform::Pvh, Machine::Q35, &[8]),
    ("pvh-pc", Platform::Pvh, Machine::Pc, &[4]),
    ("pvh-microvm", Platform::Pvh, Machine::Microvm, &[2, 8]),
    ("bios", Platform::Bios, Machine::Q35, &[4]),
    ("uefi", Platform::Uefi, Machine::Q35, &[2]),
    ("multiboot2", Platform::Multiboot2, Machine::Q35, &[4]),
    ("multiboot2-uefi", Platform::Multiboot2Uefi, Machine::Q35, &[4]),
    ("xen-pv-dom0", Platform::XenPvDom0, Machine::Q35, &[4, 8]),
    ("xen-pvh-dom0", Platform::XenPvhDom0, Machine::Q35, &[4, 8]),
    ("xen-pv", Platform::XenPv, Machine::Q35, &[2, 8]),
    ("xen-pvh", Platform::XenPvh, Machine::Q35, &[4, 8]),
    ("kvm", Platform::Kvm, Machine::Microvm, &[2, 4]),
    ("kvm-nested-vmm", Platform::KvmNested, Machine::Vmm, &[2, 4, 8]),
    ("kvm-nested-q35", Platform::KvmNested, Machine::Q35, &[4]),
];

/// Many, on few CPUs of the host: what takes each CPU's turn again and again is left out.
const MANY: u32 = 64;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, platform, machine, smp) in PLATFORMS {
        let options = Options { machine, smp, ..Options::on(platform) };
        let disk = matches!(platform, Platform::Bios | Platform::Uefi);
        let row =
            Row::new(format!("cpus::self_test_on_{smp}::{name}"), "self_test", move || self_test(&options));
        rows.push(row.with_disk_image(disk));
    }
    for (name, platform, smp) in XEN {
        let options = Options { smp, memory: "64M".into(), ..Options::on(platform) };
        let row = Row::new(format!("cpus::self_test_on_{smp}::{name}"), "self_test", {
            let options = options.clone();
            move || self_test(&options)
        });
        rows.push(row);
        if platform.is_xen_domu() {
            rows.push(Row::new(format!("cpus::xl_vcpu_set::{name}"), "shell", move || vcpu_set(&options)));
        }
    }
    for (name, platform, machine, numbers) in TORTURED {
        for &smp in numbers {
            let options = Options { machine, smp, append: TORTURE.into(), ..Options::on(platform) };
            let small = platform.is_xen() || platform == Platform::KvmNested;
            let options = if small { Options { memory: "64M".into(), ..options } } else { options };
            let row = Row::new(format!("cpus::torture_on_{smp}::{name}"), "self_test", move || {
                match doctor::kvm() {
                    Err(why) if platform == Platform::Kvm => Ok(Verdict::Skipped(why)),
                    _ => self_test(&options),
                }
            });
            rows.push(row.with_disk_image(matches!(platform, Platform::Bios | Platform::Uefi)));
        }
    }
    rows.push(Row::new("cpus::torture_on_many", "self_test", || {
        self_test(&Options { smp: MANY, append: "test=sync::torture".into(), ..Options::default() })
    }));
    rows.push(Row::new("cpus::many", "self_test", || {
        self_test(&Options { smp: MANY, append: "test=cpu::".into(), ..Options::default() })
    }));
    for (name, machine) in [("microvm", Machine::Microvm), ("pc", Machine::Pc)] {
        let row = Row::new(format!("cpus::without_acpi_on_{name}"), "hello", move || without_acpi(machine));
        rows.push(row);
    }
    for (name, platform) in [
        ("pvh-q35", Platform::Pvh),
        ("xen-pv-dom0", Platform::XenPvDom0),
        ("xen-pvh-dom0", Platform::XenPvhDom0),
    ] {
        let name = format!("cpus::no_more_than_the_command_line_allows::{name}");
        rows.push(Row::new(name, "hello", move || limited(platform)));
    }
    for (name, machine, accel) in
        [("pvh-q35", Machine::Q35, Accel::Tcg), ("kvm-microvm", Machine::Microvm, Accel::Kvm)]
    {
        let name = format!("cpus::an_idle_guest_uses_no_cpu_of_the_host::{name}");
        rows.push(Row::new(name, "shell", move || idles(machine, accel)));
    }
    for (name, platform) in [("pvh-q35", Platform::Pvh), ("xen-pv-dom0", Platform::XenPvDom0)] {
        let name = format!("cpus::one_reports_when_all_panic::{name}");
        rows.push(Row::new(name, "panic_everywhere", move || all_panic(platform)));
    }
    rows.push(Row::new("cpus::self_test_by_kvm", "self_test", by_kvm));
    rows
}

/// `xl` takes CPUs away and gives them back; saved and restored meanwhile, the guest has as many as before.
fn vcpu_set(options: &Options) -> anyhow::Result<Verdict> {
    let all = options.smp;
    let run = lab::run_beside_dom0("shell", options, |domain| {
        domain.wait_for("app main after", 0, PATIENCE)?;
        for _ in 0..2 {
            let from = domain.written();
            domain.xl("vcpu-set", "1")?;
            for cpu in 1..all {
                domain.wait_for(&format!("CPU {cpu} is down"), from, PATIENCE)?;
            }
            let from = domain.written();
            domain.xl("vcpu-set --ignore-host", &all.to_string())?;
            for cpu in 1..all {
                domain.wait_for(&format!("CPU {cpu} is up"), from, PATIENCE)?;
            }
        }
        let from = domain.written();
        domain.save_and_restore()?;
        domain.wait_for("resumed in another domain", from, PATIENCE)?;
        domain.send(b"poweroff\r")
    })?;
    run.ended(&Ending::PowerOff)?;
    Ok(Verdict::Kept)
}

fn without_acpi(machine: Machine) -> anyhow::Result<Verdict> {
    let options = Options { machine, smp: 3, ..Options::default() };
    let (running, line) = lab::start_with("hello", &options, |line| {
        line.option("-machine", "acpi=off");
        // The firmware lists one CPU a socket.
        line.option("-smp", "3,sockets=3");
    })?;
    let run = lab::finish(running, &line)?;
    run.ended(&Ending::Status(0))?.says(&["no root pointer"])?.says(&["3 of 3 CPUs are up"])?;
    Ok(Verdict::Kept)
}

fn limited(platform: Platform) -> anyhow::Result<Verdict> {
    let options = Options { smp: 4, append: "cpus=3".into(), ..Options::on(platform) };
    let run = lab::run("hello", &options)?;
    run.ended(&Ending::Status(0))?.says(&["3 of 3 CPUs are up"])?.says(&["Hello"])?;
    if platform == Platform::Pvh {
        run.says(&["1 further CPU"])?;
    }
    Ok(Verdict::Kept)
}

/// A shell that waits for a key, on two CPUs: what its machine takes of the host's CPUs meanwhile is the machine's own.
fn idles(machine: Machine, accel: Accel) -> anyhow::Result<Verdict> {
    const LOOK: Duration = Duration::from_secs(3);
    if accel == Accel::Kvm
        && let Err(why) = doctor::kvm()
    {
        return Ok(Verdict::Skipped(why));
    }
    let (mut running, line) = lab::start("shell", &Options { machine, accel, smp: 2, ..Options::default() })?;
    running.wait_for("app main after", 0, PATIENCE)?;
    std::thread::sleep(LOOK);
    let before = running.host_time()?;
    std::thread::sleep(LOOK);
    let used = running.host_time()? - before;
    running.send(b"exit\r")?;
    let run = lab::finish(running, &line)?;
    run.ended(&Ending::Status(0))?;
    ensure!(used < LOOK / 10, run.failure(&format!("idle, it used {used:?} of the host's CPUs in {LOOK:?}")));
    Ok(Verdict::Kept)
}

fn all_panic(platform: Platform) -> anyhow::Result<Verdict> {
    let run = lab::run("panic_everywhere", &Options { smp: 4, ..Options::on(platform) })?;
    run.ended(&Ending::Status(2))?;
    let reports = run.console().matches("PANIC").count();
    ensure!(reports == 1, run.failure(&format!("{reports} CPUs reported")));
    run.backtrace_names("panic_everywhere")?;
    Ok(Verdict::Kept)
}

/// On an emulating host one test of each sort has to do.
fn by_kvm() -> anyhow::Result<Verdict> {
    if let Err(why) = doctor::kvm() {
        return Ok(Verdict::Skipped(why));
    }
    let test = if doctor::is_kvm_pvm() { "test=cpu::ipi" } else { "" };
    let options = Options {
        smp: 2,
        machine: Machine::Microvm,
        accel: Accel::Kvm,
        append: test.into(),
        ..Options::default()
    };
    self_test(&options)
}

//! The probe: on each platform a document with all that docs/probe.md promises.

use anyhow::{Context, ensure};
use runner::command::{doctor, probe};
use runner::qemu::{Ending, Machine, Options, Platform};
use serde_json::Value;

use crate::lab;
use crate::row::{Row, Verdict};

/// Keys of the document, and of what is in it, by version 2 of its schema.
const KEYS: [(&str, &[&str]); 7] = [
    (
        "boot",
        &[
            "protocol",
            "loader",
            "command_line",
            "memory_kib",
            "regions",
            "rsdp",
            "problems",
            "entry_to_probe_us",
            "stages",
        ],
    ),
    ("cpu", &["brand", "features", "cpus_up", "cpus_told"]),
    ("backend", &["name", "present_bit", "sites_inline", "sites_called", "features"]),
    (
        "clocks",
        &[
            "tsc_hz",
            "tsc_source",
            "compared_us",
            "monotonic_went_back",
            "tsc_differs_ppm",
            "wall",
            "stolen_ns",
        ],
    ),
    ("interrupts", &["local_apic", "local_apic_id", "event_channels", "io_apics", "counts"]),
    ("devices", &["acpi", "pci", "virtio", "xen", "xenstore", "grants"]),
    ("vmware", &[]),
];

pub(crate) fn rows() -> Vec<Row> {
    let pvh = |machine| Options { machine, ..Options::on(Platform::Pvh) };
    vec![
        row("microvm", "QEMU TCG", "native", move || pvh(Machine::Microvm)),
        row("q35_with_2_cpus", "QEMU TCG", "native", move || Options { smp: 2, ..pvh(Machine::Q35) }),
        Row::new("probe::pc_with_the_backdoor", "probe", move || {
            let document = document(&pvh(Machine::Pc))?;
            promised(&document, "QEMU TCG", "native")?;
            ensure!(
                document["vmware"]["version"] == 6,
                "QEMU's backdoor has version 6: {}",
                document["vmware"]
            );
            Ok(Verdict::Kept)
        }),
        row("xen-pvh-dom0", "Xen", "xen-pvh", || Options::on(Platform::XenPvhDom0)),
        row("xen-pv-dom0", "Xen", "xen-pv", || Options::on(Platform::XenPvDom0)),
        Row::new("probe::kvm_nested", "probe", || {
            let document = document(&Options::on(Platform::KvmNested))?;
            promised(&document, "KVM", "kvm")?;
            for name in ["clock", "steal-time", "pv-eoi", "pv-ipi", "pv-tlb-flush", "pv-unhalt", "async-pf"] {
                let feature = item(&document["backend"]["features"], "name", name)?;
                ensure!(feature["offered"] == true && feature["used"] == true, "{feature}");
            }
            item(&document["costs"], "operation", "hypercall")?;
            Ok(Verdict::Kept)
        }),
        Row::new("probe::kvm_nested_with_features_refused", "probe", || {
            let append = "kvm=-pv-eoi,-steal-time,nonsense".into();
            let document = document(&Options { append, ..Options::on(Platform::KvmNested) })?;
            promised(&document, "KVM", "kvm")?;
            for name in ["pv-eoi", "steal-time"] {
                let feature = item(&document["backend"]["features"], "name", name)?;
                ensure!(feature["refused"] == true && feature["used"] == false, "{feature}");
            }
            // Who runs is told with the steal time.
            let flush = item(&document["backend"]["features"], "name", "pv-tlb-flush")?;
            ensure!(flush["refused"] == false && flush["used"] == false, "{flush}");
            Ok(Verdict::Kept)
        }),
        Row::new("probe::kvm", "probe", || match doctor::kvm() {
            Err(why) => Ok(Verdict::Skipped(why)),
            Ok(_) => {
                let name = if doctor::is_kvm_pvm() { "kvm-pvm" } else { "kvm" };
                promised(&document(&Options::on(Platform::Kvm))?, "KVM", name).map(|()| Verdict::Kept)
            }
        }),
    ]
}

fn row(
    name: &'static str,
    hypervisor: &'static str,
    backend: &'static str,
    options: impl Fn() -> Options + Send + 'static,
) -> Row {
    Row::new(format!("probe::{name}"), "probe", move || {
        promised(&document(&options())?, hypervisor, backend).map(|()| Verdict::Kept)
    })
}

/// What a disk's backend in dom0 offers is in the document.
pub(crate) fn tells_of_the_disk(run: &lab::Run) -> anyhow::Result<()> {
    run.ended(&Ending::Status(0))?;
    let document = probe::read(run.console())?.1;
    let disk = item(&document["devices"]["xen"], "path", "device/vbd/51712")?;
    let offers = disk["features"].as_array().into_iter().flatten().filter_map(Value::as_str);
    ensure!(offers.clone().any(|offer| offer.starts_with("feature-")), "{disk}");
    Ok(())
}

fn document(options: &Options) -> anyhow::Result<Value> {
    let run = lab::run("probe", options)?;
    run.ended(&Ending::Status(0))?;
    Ok(probe::read(run.console())?.1)
}

/// All keys are there, and who runs the guest is who it is.
fn promised(document: &Value, hypervisor: &str, backend: &str) -> anyhow::Result<()> {
    ensure!(document["schema"] == "pliant-probe/2");
    for (part, keys) in KEYS {
        let object = document.get(part).with_context(|| format!("no {part}"))?;
        for key in keys {
            ensure!(object.get(key).is_some(), "no {part}.{key}");
        }
    }
    let found = item(&document["hypervisors"], "name", hypervisor)?;
    ensure!(found["leaves"].as_array().is_some_and(|leaves| leaves.len() >= 2), "{found}");
    ensure!(document["backend"]["name"] == backend, "{}", document["backend"]["name"]);
    ensure!(document["clocks"]["monotonic_went_back"] == 0, "{}", document["clocks"]);
    let costs = document["costs"].as_array().context("no costs")?;
    ensure!(costs.len() > 8, "{} costs", costs.len());
    for cost in costs {
        let cycles = ["cycles_least", "cycles_median", "cycles_most"].map(|key| cost[key].as_u64());
        ensure!(cycles.iter().all(Option::is_some) && cycles.is_sorted(), "{cost}");
        counted(cost).with_context(|| cost.to_string())?;
    }
    ensure!(document["deviations"].is_array());
    Ok(())
}

/// Instructions and nops are told together, and where there is a call they are not.
fn counted(cost: &Value) -> anyhow::Result<()> {
    let [form, instructions, nops] =
        ["form", "instructions", "nops"].map(|key| cost.get(key).with_context(|| format!("no {key}")));
    let (form, instructions, nops) = (form?, instructions?, nops?);
    ensure!(instructions.is_u64() == nops.is_u64() && instructions.is_null() == nops.is_null());
    let calls = form.as_str().is_none_or(|form| form.contains("call"));
    ensure!(instructions.is_null() || !calls, "counted where it calls");
    if cost["operation"] == "time stamp counter" {
        ensure!(form == "inline 0f 31" && instructions == 1 && nops == 1, "RDTSC is inline everywhere");
    }
    Ok(())
}

/// The object in a list whose `key` is `value`.
fn item<'a>(list: &'a Value, key: &str, value: &str) -> anyhow::Result<&'a Value> {
    let found = list.as_array().into_iter().flatten().find(|object| object[key] == value);
    found.with_context(|| format!("no {key} {value:?} in {list}"))
}

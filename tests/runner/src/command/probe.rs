//! `probe`: boots the `probe` app and shows what it found out; of several platforms side by side.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use super::doctor;
use crate::guest::{self, Guest, Profile};
use crate::image;
use crate::nested;
use crate::qemu::{Accel, Finished, Machine, Options, Platform, Running, Serial, Tee, megabytes};
use crate::toolchain::Toolchain;
use crate::xen::{self, Config, Dom0};

/// The lines around the document (apps/probe).
const BEGIN: &str = "-----BEGIN PLIANT PROBE-----";
const END: &str = "-----END PLIANT PROBE-----";
/// A guest that has not ended by then does not.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where to probe, and what to do with the result.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The way in
    #[arg(long, value_enum, default_value = "pvh")]
    pub on: Platform,
    /// The machine [default: q35; microvm on KVM]
    #[arg(long, value_enum)]
    pub machine: Option<Machine>,
    /// Who executes the guest's instructions [default: tcg; kvm on KVM]
    #[arg(long, value_enum)]
    pub accel: Option<Accel>,
    /// Number of processors
    #[arg(long, visible_alias = "cpus", default_value_t = 1)]
    pub smp: u32,
    /// The kernel command line
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub append: String,
    /// Every platform that this machine can play
    #[arg(long, conflicts_with_all = ["on", "machine", "accel"])]
    pub all: bool,
    /// Lay the platforms side by side instead of showing each
    #[arg(long)]
    pub compare: bool,
    /// Write the document there; of several platforms, an object with one for each
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Probes, shows, writes. A platform of `--all` that cannot be played is told and left out.
///
/// # Errors
/// The guest does not build; what was asked for alone cannot be played, or told nothing.
pub fn run(arguments: &Arguments) -> Result<u8> {
    let toolchain = Toolchain::find()?;
    let guest = guest::build(&toolchain, "probe", Profile::Release)?;
    let mut results = Vec::new();
    for (name, options) in platforms(arguments) {
        eprintln!("pliant: probing {name}");
        match Boot::new(&toolchain).probe(&guest, &options) {
            Ok((table, document)) => {
                if !arguments.compare {
                    println!("{table}");
                }
                results.push((name, document));
            }
            Err(error) if arguments.all => eprintln!("pliant: {name}: left out: {error:#}"),
            Err(error) => return Err(error.context(name)),
        }
    }
    ensure!(!results.is_empty(), "no platform could be probed");
    if arguments.compare {
        print!("{}", side_by_side(&results));
    }
    if let Some(file) = &arguments.json {
        let document = match results.len() {
            1 if !arguments.all => results.swap_remove(0).1,
            _ => Value::Object(results.into_iter().collect()),
        };
        fs::write(file, serde_json::to_string_pretty(&document)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(0)
}

fn platforms(arguments: &Arguments) -> Vec<(String, Options)> {
    let options = |on: Platform, machine: Option<Machine>, accel: Option<Accel>| Options {
        machine: machine.unwrap_or(on.machine()),
        accel: accel.unwrap_or(on.accel()),
        smp: arguments.smp,
        append: arguments.append.clone(),
        ..Options::on(on)
    };
    if !arguments.all {
        let Arguments { on, machine, accel, .. } = arguments;
        return vec![(on.name(), options(*on, *machine, *accel))];
    }
    let mut all = vec![
        ("microvm".to_owned(), options(Platform::Pvh, Some(Machine::Microvm), None)),
        ("q35".to_owned(), options(Platform::Pvh, Some(Machine::Q35), None)),
        ("pc".to_owned(), options(Platform::Pvh, Some(Machine::Pc), None)),
    ];
    if doctor::kvm().is_ok() {
        all.push(("kvm".to_owned(), options(Platform::Kvm, None, None)));
    }
    for on in [Platform::KvmNested, Platform::XenPvh, Platform::XenPv] {
        all.push((on.name(), options(on, None, None)));
    }
    all
}

/// Boots guests without showing them.
pub(super) struct Boot<'a> {
    toolchain: &'a Toolchain,
}

impl<'a> Boot<'a> {
    pub(super) fn new(toolchain: &'a Toolchain) -> Self {
        Self { toolchain }
    }

    /// Boots a guest and waits for its end.
    pub(super) fn run(&self, guest: &Guest, options: &Options) -> Result<Finished> {
        image::require(options.platform)?;
        if options.platform.is_xen_domu() {
            let config = Config::new(guest, options)?;
            let mut dom0 = Dom0::start(&xen::Rig::get()?, config.megabytes, Tee::Keep)?;
            return dom0.create(&config)?.wait(Some(PATIENCE));
        }
        if options.platform.is_beside_linux() {
            let mut host = nested::Host::start(&nested::Rig::get()?, megabytes(&options.memory)?, Tee::Keep)?;
            return host.create(&guest.elf, options)?.wait(Some(PATIENCE));
        }
        let line = image::line(self.toolchain, guest, options, Serial::Plain)?;
        Running::start(&line, false, Tee::Keep)?.wait(Some(PATIENCE))
    }

    /// The table as the guest printed it, and the document.
    fn probe(&self, guest: &Guest, options: &Options) -> Result<(String, Value)> {
        let finished = self.run(guest, options)?;
        read(&finished.console).with_context(|| format!("the guest ended: {}", finished.ending))
    }
}

/// Finds the document in what a guest said, and the table before it.
///
/// # Errors
/// There is none, or it is none.
pub fn read(console: &str) -> Result<(String, Value)> {
    let Some((before, rest)) = console.split_once(BEGIN) else { bail!("no document in what it said") };
    let (text, _) = rest.split_once(END).context("the document has no end")?;
    let document = serde_json::from_str(text.trim()).context("the document is no JSON")?;
    let table = before.find("schema: ").map_or("", |start| &before[start..]);
    Ok((table.replace('\r', ""), document))
}

/// A row a line of a comparison, a column a platform.
fn side_by_side(results: &[(String, Value)]) -> String {
    /// Columns are as wide.
    const WIDTH: usize = 16;
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.chars().take(WIDTH - 2).collect(),
        other => other.to_string(),
    };
    let row = |name: &str, cell: &dyn Fn(&Value) -> String| {
        let cells: String =
            results.iter().map(|(_, document)| format!("{:>WIDTH$}", cell(document))).collect();
        format!("{name:<26}{cells}\n")
    };
    let names: String = results.iter().map(|(name, _)| format!("{name:>WIDTH$}")).collect();
    let mut lines = format!("{:<26}{names}\n", "");
    lines += &row("hypervisor", &|document| text(&document["hypervisors"][0]["name"]));
    lines += &row("operations", &|document| text(&document["backend"]["name"]));
    lines += &row("entry to probe, us", &|document| text(&document["boot"]["entry_to_probe_us"]));
    lines += &row("local APIC", &|document| text(&document["interrupts"]["local_apic"]));
    let features = |document: &Value| named(document, &["backend", "features"], "name");
    for name in union(results, &features) {
        lines += &row(&name, &|document| match features(document).get(&name) {
            Some(feature) if feature["used"] == true => "used".into(),
            Some(feature) if feature["refused"] == true => "refused".into(),
            Some(feature) if feature["offered"] == true => "offered".into(),
            _ => "-".into(),
        });
    }
    lines += "cycles, median\n";
    let costs = |document: &Value| named(document, &["costs"], "operation");
    for name in union(results, &costs) {
        lines += &row(&format!("  {name}"), &|document| {
            costs(document).get(&name).map_or("-".into(), |cost| text(&cost["cycles_median"]))
        });
    }
    lines
}

/// The objects of a list by one of their members.
fn named(document: &Value, path: &[&str], key: &str) -> BTreeMap<String, Value> {
    let list = path.iter().fold(document, |value, step| &value[step]);
    let objects = list.as_array().into_iter().flatten();
    objects.filter_map(|object| Some((object[key].as_str()?.to_owned(), object.clone()))).collect()
}

/// All names that occur anywhere.
fn union(
    results: &[(String, Value)],
    names: &dyn Fn(&Value) -> BTreeMap<String, Value>,
) -> std::collections::BTreeSet<String> {
    results.iter().flat_map(|(_, document)| names(document).into_keys()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_found_between_its_lines() {
        let console = format!("log\r\nschema: x\r\n  a\r\n{BEGIN}\r\n{{\"schema\":\"x\"}}\r\n{END}\r\n");
        let (table, document) = read(&console).unwrap();
        assert_eq!((table.as_str(), &document["schema"]), ("schema: x\n  a\n", &Value::from("x")));
        assert!(read("nothing").is_err());
        assert!(read(&format!("{BEGIN}\n{{")).is_err());
        assert!(read(&format!("{BEGIN}\n{{\n{END}")).is_err());
    }

    #[test]
    fn platforms_stand_side_by_side_and_what_one_lacks_is_a_dash() {
        let document = |cost: &str| {
            serde_json::from_str(&format!(
                r#"{{"backend":{{"name":"kvm","features":[{{"name":"pv-eoi","used":true}}]}},"costs":[{cost}]}}"#
            ))
            .unwrap()
        };
        let table = side_by_side(&[
            ("one".into(), document(r#"{"operation":"CPUID","cycles_median":70}"#)),
            ("two".into(), document("")),
        ]);
        let row = |name: &str| {
            let line = table.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("CPUID"), ["CPUID", "70", "-"]);
        assert_eq!(row("pv-eoi"), ["pv-eoi", "used", "used"]);
        assert_eq!(row("hypervisor"), ["hypervisor", "-", "-"]);
    }
}

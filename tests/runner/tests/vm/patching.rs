//! The proof of the patching: the running kernel hands over its text, and it is what it should be, instruction by instruction.

use anyhow::Context;
use runner::guest::elf::Linked;
use runner::proof::Dump;
use runner::qemu::{Ending, Machine, Options, Platform};

use crate::lab;
use crate::row::{Row, Verdict};

/// Where `boot/link.ld` puts the table of pv-ops.
const TABLE: [&str; 2] = ["__pv_table_start", "__pv_table_end"];

pub(crate) fn rows() -> Vec<Row> {
    // To the serial line only: on a screen, thousands of lines scroll slowly.
    let append = "dump=text console=serial test=hypervisor";
    let on = |platform, machine| Options { machine, append: append.into(), ..Options::on(platform) };
    let pvh = on(Platform::Pvh, Machine::Microvm);
    // The loader puts the image elsewhere in physical memory there: patching goes by another road.
    let bios = on(Platform::Bios, Machine::Q35);
    vec![
        Row::new("patching::every_site_is_native_by_pvh", "self_test", move || is_patched(&pvh)),
        Row::new("patching::every_site_is_native_by_bios", "self_test", move || is_patched(&bios))
            .with_disk_image(true),
    ]
}

fn is_patched(options: &Options) -> anyhow::Result<Verdict> {
    let run = lab::run("self_test", options)?;
    run.ended(&Ending::Status(0))?;
    let dump = Dump::parse(run.console()).with_context(|| run.failure("no readable dump"))?;
    let linked = Linked::parse(&std::fs::read(lab::guest("self_test")?.debug)?)?;
    let [start, end] = TABLE.map(|name| linked.address_of(name));
    let table = start.context("no table in the image")?..end.context("the table has no end")?;
    let functions: Vec<u64> = linked.items.iter().filter(|item| item.code).map(|item| item.address).collect();
    let proven = dump.prove(table, &functions)?;
    let counted = format!(" {} inline, {} direct calls", proven.inline, proven.direct);
    run.says(&["call sites patched:", &counted])?;
    Ok(Verdict::Kept)
}

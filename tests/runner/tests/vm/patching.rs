//! The proof of the patching: the running kernel hands over its text, and it is what it should be, instruction by instruction.

use anyhow::Context;
use runner::guest::elf::Linked;
use runner::proof::{Allowed, Dump};
use runner::qemu::{Ending, Machine, Options, Platform};

use crate::lab::{self, PATIENCE, Run};
use crate::row::{Row, Verdict};

/// Where `boot/link.ld` puts the table of pv-ops.
const TABLE: [&str; 2] = ["__pv_table_start", "__pv_table_end"];

/// The last line of a dump.
const END: &str = "pv-dump end";

/// What a PV guest of Xen has in its text and never executes, or may: its kernel is in ring 3.
const ALLOWED_IN_RING_3: [Allowed; 18] = [
    Allowed { prefix: "pv_ops::native::", reason: "another backend's" },
    Allowed { prefix: "pv_ops::kvm::", reason: "another backend's" },
    Allowed { prefix: "pv_ops::pvm::", reason: "another backend's" },
    Allowed { prefix: "pv_ops::xen::hvm::", reason: "another backend's" },
    Allowed { prefix: "pv_ops::xen::pv::cpu::rdmsr", reason: "Xen emulates the few registers that it shows" },
    Allowed { prefix: "pv_ops::xen::pv::cpu::wrmsr", reason: "Xen emulates the few registers that it shows" },
    Allowed { prefix: "pv_ops::xen::pv::cpu::write_cr4", reason: "Xen emulates it, for OSXSAVE" },
    Allowed { prefix: "pv_ops::xen::pv::trap::iret", reason: "IRETQ from ring 3 to ring 3" },
    Allowed { prefix: "kernel::cpu::features::", reason: "XSETBV, which Xen emulates for who has OSXSAVE" },
    Allowed { prefix: "kernel::mm::text::image_physical", reason: "looks at the tables of other ways in" },
    Allowed { prefix: "boot::entry::enter_bootloader", reason: "another way in" },
    Allowed { prefix: "_start", reason: "another way in" },
    Allowed { prefix: "mb2_start32", reason: "another way in" },
    Allowed { prefix: "enter", reason: "another way in" },
    Allowed { prefix: "first", reason: "another way in" },
    Allowed { prefix: "refuse", reason: "the end of another way in" },
    Allowed { prefix: "no_long_mode_text", reason: "no instructions but text" },
    Allowed { prefix: "no_execute_disable_text", reason: "no instructions but text" },
];
/// dom0 has the machine's ports, and Xen carries these instructions out.
const PORT_OPS: [&str; 7] =
    ["port_in8", "port_in16", "port_in32", "port_out8", "port_out8_many", "port_out16", "port_out32"];

pub(crate) fn rows() -> Vec<Row> {
    // To the serial line only: on a screen, thousands of lines scroll slowly.
    let append = "dump=text console=serial test=hypervisor";
    let on = |platform, machine| Options { machine, append: append.into(), ..Options::on(platform) };
    let pvh = on(Platform::Pvh, Machine::Microvm);
    // The loader puts the image elsewhere in physical memory there: patching goes by another road.
    let bios = on(Platform::Bios, Machine::Q35);
    let (domu, dom0) = (on(Platform::XenPv, Machine::Q35), on(Platform::XenPvDom0, Machine::Q35));
    vec![
        Row::new("patching::every_site_is_native_by_pvh", "self_test", move || is_patched(&pvh)),
        Row::new("patching::every_site_is_native_by_bios", "self_test", move || is_patched(&bios))
            .with_disk_image(true),
        Row::new("patching::no_privilege_is_needed_as_a_xen_pv_domu", "self_test", move || {
            needs_no_privilege(&domu, &[])
        }),
        Row::new("patching::no_privilege_but_ports_is_needed_as_a_xen_pv_dom0", "self_test", move || {
            needs_no_privilege(&dom0, &PORT_OPS)
        }),
    ]
}

fn is_patched(options: &Options) -> anyhow::Result<Verdict> {
    proven(options).map(|_| Verdict::Kept)
}

/// Every site is a direct call or an inline form, and what is privileged is out of reach, but in sites of `ops`.
fn needs_no_privilege(options: &Options, ops: &[&str]) -> anyhow::Result<Verdict> {
    let (dump, linked) = proven(options)?;
    let found = dump.prove_unprivileged(&linked.items, &ALLOWED_IN_RING_3, ops)?;
    println!("{} privileged instructions out of reach, {} in sites", found.allowed, found.in_sites);
    Ok(Verdict::Kept)
}

fn proven(options: &Options) -> anyhow::Result<(Dump, Linked)> {
    let run = dumped(options)?;
    run.ended(&Ending::Status(0))?;
    let dump = Dump::parse(run.console()).with_context(|| run.failure("no readable dump"))?;
    let linked = Linked::parse(&std::fs::read(lab::guest("self_test")?.debug)?)?;
    let [start, end] = TABLE.map(|name| linked.address_of(name));
    let table = start.context("no table in the image")?..end.context("the table has no end")?;
    let functions: Vec<u64> = linked.items.iter().filter(|item| item.code).map(|item| item.address).collect();
    let proven = dump.prove(table, &functions)?;
    let counted = format!(" {} inline, {} direct calls", proven.inline, proven.direct);
    run.says(&["call sites patched:", &counted])?;
    Ok((dump, linked))
}

/// The guest waits for a key, so that no console loses what is still on its way.
fn dumped(options: &Options) -> anyhow::Result<Run> {
    if options.platform.is_xen_domu() {
        return lab::run_beside_dom0("self_test", options, |domain| {
            domain.wait_for(END, 0, PATIENCE)?;
            domain.send(b"\r")
        });
    }
    let (mut running, line) = lab::start("self_test", options)?;
    running.wait_for(END, 0, PATIENCE)?;
    running.send(b"\r")?;
    lab::finish(running, &line)
}

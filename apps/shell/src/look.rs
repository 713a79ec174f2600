//! Commands that show something.
#![forbid(unsafe_code)]

use alloc::{format, string::String};
use core::{fmt::Write, time::Duration};

use kernel::{
    app, cpu, hypervisor, irq,
    mm::{frame, heap},
    println,
    pv_ops::{self, sites::Installed},
    time,
};

/// What this guest is and what runs it.
pub(crate) fn info() {
    let boot = app::boot_info();
    let loader = if boot.loader.is_empty() { "an unnamed loader" } else { &boot.loader };
    println!("Pliant       {}", env!("CARGO_PKG_VERSION"));
    println!("booted by    {} from {loader}", boot.protocol);
    println!("command line {:?}", boot.cmdline.as_str());
    println!("host         {}, {} operations", hypervisor::name(), hypervisor::detection().backend.name);
    println!("CPU          {}", cpu::features::brand());
    println!("features     {}", cpu::features());
    println!("memory       {} MiB", boot.memory.usable_bytes() >> 20);
    println!("up           {:.3?}", Duration::from_nanos(pv_ops::monotonic_ns()));
    if let Some(rate) = time::tsc_rate() {
        println!("clock        {rate}");
    }
}

/// The memory map, the frame allocator and the heap.
pub(crate) fn memory() {
    for region in app::boot_info().memory.iter() {
        let kib = (region.end - region.start) >> 10;
        println!("{:#018x}..{:#018x} {kib:>10} KiB  {:?}", region.start, region.end, region.kind);
    }
    let frames = frame::statistics();
    let largest_kib = frames.largest_order.map_or(0, |order| 4u64 << order);
    println!(
        "frames: {} KiB, {} KiB free, largest block {largest_kib} KiB",
        frames.total_bytes() >> 10,
        frames.free_bytes() >> 10
    );
    let heap = heap::statistics();
    println!(
        "heap: {} KiB small, {} of {} KiB middle, {} KiB huge",
        heap.small_bytes >> 10,
        heap.arena_used_bytes >> 10,
        heap.arena_bytes >> 10,
        heap.huge_bytes >> 10
    );
}

/// Each operation, its sites, and what stands there.
pub(crate) fn operations() {
    println!("group  operation        sites  at each site");
    let mut sites = 0;
    for op in pv_ops::ops() {
        println!("{:<7}{:<17}{:>5}  {}", op.group, op.name, op.sites, form(op.form));
        sites += op.sites;
    }
    println!("{sites} sites, {} backend", hypervisor::detection().backend.name);
}

fn form(form: Installed) -> String {
    match form {
        Installed::Inline([]) => String::from("nothing"),
        Installed::Inline(bytes) => bytes.iter().fold(String::from("bytes"), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, " {byte:02x}");
            text
        }),
        Installed::Direct(target) => format!("call of {target:#x}"),
        Installed::Indirect(target) => format!("through the table to {target:#x}"),
        Installed::Nothing => String::from("a trap"),
    }
}

/// What the hypervisor offers beyond a machine, and what became of it.
pub(crate) fn features() {
    let features = hypervisor::features();
    for feature in &features {
        let state = match (feature.used, feature.offered, feature.refused) {
            (true, ..) => "used",
            (_, false, _) => "not offered",
            (.., true) => "refused by the command line",
            _ => "offered",
        };
        println!("  {:<18}{state}", feature.name);
    }
    if features.is_empty() {
        println!("none that the {} backend knows of", hypervisor::detection().backend.name);
    }
}

/// How often each interrupt came.
pub(crate) fn interrupts() {
    println!("vector  count       name");
    for count in irq::counts() {
        println!("  {:#04x}  {:<10}  {}", count.vector, count.total, count.name);
    }
}

/// What time it is, and how that is known.
pub(crate) fn clock() {
    println!("monotonic {:.6?}", Duration::from_nanos(pv_ops::monotonic_ns()));
    match time::wall() {
        Some(wall) => println!("wall      {wall}"),
        None => println!("wall      unknown: this machine has no clock"),
    }
    match time::tsc_rate() {
        Some(rate) => println!("rate      {rate}"),
        None => println!("rate      unknown"),
    }
    println!("stolen    {:.6?} from CPU 0", Duration::from_nanos(pv_ops::steal_ns(0)));
    println!("timer     {}", if time::has_timer() { "one-shot" } else { "none" });
}

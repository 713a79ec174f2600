//! The start of the guest, top-down: one call a stage, each using only what is already up.
//! Neighbours: `boot` (calls [`kernel_main`] from every way in), `app` (the last stage).
#![forbid(unsafe_code)]

use core::convert::Infallible;

use crate::{
    acpi, app, console,
    cpu::{self, physical::PhysicalMemory},
    devices, hypervisor, irq, log, mm, power,
    stages::{self, Stage, done},
    task, time,
};

boot::entry!(kernel_main, first: pv_ops::first);

/// Bytes of the stack that everything from [`run`] on uses, a guard page below it.
const STACK_BYTES: u64 = 128 << 10;

/// From the way in to the kernel's own memory, on the stack of the entry code.
fn kernel_main(info: &'static mut boot::Info) -> ! {
    stages::init(&info.cmdline);
    hypervisor::install(info);
    done(Stage::Operations);
    let info: &'static boot::Info = info;
    log::init(&info.cmdline);
    console::init(&info.cmdline);
    hypervisor::patch(info);
    check(info);
    done(Stage::Patched);
    cpu::init();
    irq::exceptions::init();
    done(Stage::Cpu);
    mm::init(info);
    mm::protect_pv_table();
    let Err::<Infallible, _>(error) = mm::run_on_new_stack(STACK_BYTES, info, run);
    ::log::error!("boot refused: no kernel stack: {error}");
    power::exit(power::BOOT_REFUSED)
}

/// From interrupts to the app, on the kernel's own stack.
fn run(info: &'static boot::Info) -> ! {
    done(Stage::Memory);
    hypervisor::cpu_up(0);
    task::init();
    acpi::init(&PhysicalMemory::default(), info.rsdp);
    // The counter that the clock goes by is measured while interrupts are brought up.
    let measuring = time::begin();
    irq::init(info);
    done(Stage::Interrupts);
    time::init(measuring);
    done(Stage::Time);
    cpu::smp::init(info);
    done(Stage::Cpus);
    devices::probe(info);
    mm::reclaim_loader_memory();
    done(Stage::Devices);
    app::run(info)
}

/// Tells how the guest was booted; with what cannot do it ends here.
fn check(info: &boot::Info) {
    let loader = if info.loader.is_empty() { "an unnamed loader" } else { info.loader.as_str() };
    ::log::info!("Pliant {}, booted by {} from {loader}", env!("CARGO_PKG_VERSION"), info.protocol);
    for problem in &info.problems {
        ::log::warn!("boot data: {problem}");
    }
    if let Err(problem) = info.check() {
        ::log::error!("boot refused: {problem}");
        power::exit(power::BOOT_REFUSED)
    }
}

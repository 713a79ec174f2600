//! One CPU: its segments, its own data, its features, and what touches it directly.
//! Neighbours: `pv_ops` (the privileged instructions), `irq` (exceptions and interrupts).

pub mod features;
pub mod gdt;
pub mod host_clock;
pub mod image;
pub mod percpu;
pub mod physical;
pub mod port;
pub mod probe;
pub mod random;
pub mod reset;
pub mod sections;
pub mod timer_ports;

pub use features::{Feature, features};
pub use percpu::{PerCpu, current};

/// Brings the boot CPU under our own tables: per-CPU data, segments, features. First thing after the patching;
/// the next is [`crate::irq::exceptions::init`], which lets faults be reported.
pub fn init() {
    let cpu = percpu::init_boot_cpu();
    gdt::load(cpu);
    features::enable();
    log::info!("CPU {}: {}, {}", cpu.id(), features::brand().as_str(), features());
}

//! CPUs: the segments, data and features of each, what touches them directly, and how the others are brought up.
//! Neighbours: `pv_ops` (the privileged instructions), `irq` (exceptions and interrupts).

pub mod features;
pub mod gdt;
pub mod host_clock;
pub mod image;
pub mod ipi;
pub mod percpu;
pub mod physical;
pub mod port;
pub mod probe;
pub mod random;
pub mod reset;
pub mod sections;
pub mod smp;
pub mod stop;
pub mod timer_ports;
pub mod tlb;
pub mod topology;
mod trampoline;

pub use features::{Feature, features};
pub use ipi::{call_on, kick};
pub use percpu::{PerCpu, current};
pub use pv_ops::{CpuSet, MAX_CPUS};

/// Brings the boot CPU under our own tables: per-CPU data, segments, features. First thing after the patching;
/// the next is [`crate::irq::exceptions::init`], which lets faults be reported.
pub fn init() {
    let cpu = percpu::init_boot_cpu();
    gdt::load(cpu);
    features::enable();
    log::info!("CPU {}: {}, {}", cpu.id(), features::brand().as_str(), features());
}

/// Sleeps until an interrupt has been handled. Interrupts are disabled by the caller, who has found nothing to do, and
/// enabled on return: none can slip in between. Meanwhile the CPU is not interrupted for TLB flushes.
pub fn sleep() {
    tlb::sleep();
    pv_ops::safe_halt();
    pv_ops::irq_disable();
    tlb::wake(current());
    pv_ops::irq_enable();
}

//! CPUs: the segments, data and features of each, what touches them directly, and how the others are brought up.
//! Neighbours: `pv_ops` (the privileged instructions), `irq` (exceptions and interrupts).

mod copy;
pub mod features;
pub(crate) mod fpu;
pub mod gdt;
pub mod host_clock;
pub mod image;
pub mod ipi;
pub(crate) mod lend;
mod mp_table;
pub(crate) mod nmi;
pub(crate) mod owned;
pub mod percpu;
pub mod physical;
pub mod port;
pub mod probe;
pub mod random;
pub mod reset;
pub mod sections;
pub mod smp;
mod stay;
pub mod stop;
pub(crate) mod switch;
mod tests;
pub mod timer_ports;
pub mod tlb;
pub mod topology;
mod torture;
mod trampoline;

pub use features::{Feature, features};
pub use ipi::{call_on, kick};
pub use percpu::{PerCpu, current, this_cpu};
pub use pv_ops::{CpuSet, MAX_CPUS};
pub use stay::{Stay, stay};

/// Interrupts are enabled: bit 9 of RFLAGS (Intel SDM vol. 3 §2.3).
pub(crate) const RFLAGS_IF: u64 = 1 << 9;

/// Brings the boot CPU under our own tables: per-CPU data, segments, features. First thing after the patching;
/// the next is [`crate::irq::exceptions::init`], which lets faults be reported.
pub fn init() {
    let cpu = percpu::init_boot_cpu();
    gdt::load(cpu);
    features::enable();
    log::info!("CPU {}: {}, {}", cpu.id(), features::brand().as_str(), features());
}

/// Sleeps until an interrupt has been handled. Interrupts are disabled by the caller, who has found nothing to do, and
/// on return: none can slip in before the sleep. Meanwhile the CPU is not interrupted for TLB flushes.
pub fn sleep() {
    tlb::sleep();
    pv_ops::safe_halt();
    pv_ops::irq_disable();
    tlb::wake(current());
}

/// Lets the interrupts in that wait, for a moment. They are disabled by the caller, and on return.
pub fn let_interrupts_in() {
    pv_ops::irq_enable();
    core::hint::spin_loop();
    pv_ops::irq_disable();
}

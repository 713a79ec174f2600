//! What operations cost: in cycles of the time-stamp counter the least, the median and the most of many; and how many
//! instructions, where nothing but these stands at the call sites.
//!
//! Each is done as the rest of the kernel does it, so that a hypervisor's own way is measured where there is one; what then
//! stands at its call sites is told beside it. Those that a hypervisor does not let a guest do are left out.

use alloc::{format, string::String, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::{
    acpi, cpu, irq,
    mm::{Caching, layout, mmio},
    pv_ops::{
        self,
        sites::{self, Found},
    },
};

use crate::document::{Value, object};

/// Samples at most, and cycles after which it is enough of them: some hosts emulate each instruction.
const SAMPLES: usize = 101;
const ENOUGH_CYCLES: u64 = 60_000_000;
/// Cheap operations are repeated between two looks at the counter.
const CHEAP: u64 = 64;

/// A port on which nobody listens: the one of POST codes.
const POST_CODE: u16 = 0x80;
/// IA32_APIC_BASE (SDM vol. 4, Table 2-2): every CPU with a local APIC has it, and reading it changes nothing.
const APIC_BASE: u32 = 0x1b;
/// IA32_KERNEL_GS_BASE: this kernel has no use for it.
const KERNEL_GS_BASE: u32 = 0xc000_0102;

/// Measures `operation`, done `repeat` times a sample.
fn sample(repeat: u64, mut operation: impl FnMut()) -> [u64; 3] {
    let mut samples = Vec::new();
    let mut spent = 0;
    let mut once = || {
        let start = pv_ops::rdtsc();
        for _ in 0..repeat {
            operation();
        }
        pv_ops::rdtsc().wrapping_sub(start)
    };
    // The first one fetches code and translations.
    spent += once();
    while samples.len() < SAMPLES && (samples.is_empty() || spent < ENOUGH_CYCLES) {
        let cycles = once();
        spent += cycles;
        samples.push(cycles / repeat);
    }
    spread(samples)
}

/// Least, median and most of some samples.
fn spread(mut samples: Vec<u64>) -> [u64; 3] {
    samples.sort_unstable();
    [samples[0], samples[samples.len() / 2], samples[samples.len() - 1]]
}

/// Of which ops an operation is made.
enum Made {
    /// Of nothing but these, one after the other.
    Only(&'static [&'static str]),
    /// Of these and of other things.
    With(&'static [&'static str]),
}
use Made::{Only, With};

/// What stands at the call sites of an op.
fn form(op: &str) -> Option<String> {
    Some(match sites::found(op)? {
        Found::Inline { bytes: [], .. } => "nothing".into(),
        Found::Inline { bytes, .. } => {
            bytes.iter().fold(String::from("inline"), |text, byte| text + &format!(" {byte:02x}"))
        }
        Found::Branch => "call".into(),
    })
}

/// How many instructions all of the ops take, and how many nops behind these; `None` if one is called.
fn instructions(ops: &[&str]) -> Option<[u64; 2]> {
    ops.iter().try_fold([0; 2], |[sum, nop_sum], op| match sites::found(op)? {
        Found::Inline { instructions, nops, .. } => Some([sum + instructions as u64, nop_sum + nops as u64]),
        Found::Branch => None,
    })
}

/// Measures everything that can be tried here.
pub(crate) fn measure() -> Value {
    let mut rows = Vec::new();
    let mut row = |name: &'static str, made: Made, [least, median, most]: [u64; 3]| {
        let (ops, exact) = match made {
            Only(ops) => (ops, instructions(ops)),
            With(ops) => (ops, None),
        };
        let forms: Option<Vec<String>> = ops.iter().map(|op| form(op)).collect();
        rows.push(object! {
            operation: name,
            form: forms.map(|forms| forms.join(", ")).filter(|form| !form.is_empty()),
            instructions: exact.map(|[instructions, _]| instructions),
            nops: exact.map(|[_, nops]| nops),
            cycles_least: least,
            cycles_median: median,
            cycles_most: most,
        });
    };
    row("time stamp counter", Only(&["rdtsc"]), sample(CHEAP, || _ = pv_ops::rdtsc()));
    row("clock", Only(&["monotonic_ns"]), sample(CHEAP, || _ = pv_ops::monotonic_ns()));
    row(
        "interrupts off and on",
        Only(&["irq_disable", "irq_enable"]),
        sample(CHEAP, || {
            pv_ops::irq_disable();
            pv_ops::irq_enable();
        }),
    );
    row("CPUID", Only(&["cpuid"]), sample(1, || _ = pv_ops::cpuid(0, 0)));
    if irq::apic::local().is_some() {
        // SAFETY: every CPU with a local APIC has this register; reading changes nothing.
        row("MSR read", Only(&["rdmsr"]), sample(1, || _ = unsafe { pv_ops::rdmsr(APIC_BASE) }));
        // SAFETY: every 64-bit CPU has this register; its own value goes back.
        let own = unsafe { pv_ops::rdmsr(KERNEL_GS_BASE) };
        // SAFETY: as above.
        row("MSR write", Only(&["wrmsr"]), sample(1, || unsafe { pv_ops::wrmsr(KERNEL_GS_BASE, own) }));
    }
    // SAFETY: no device answers at this port.
    row("port read", Only(&["port_in8"]), sample(1, || _ = unsafe { pv_ops::port_in8(POST_CODE) }));
    // SAFETY: as above: it shows a code on machines with a display for it.
    row("port write", Only(&["port_out8"]), sample(1, || unsafe { pv_ops::port_out8(POST_CODE, 0) }));
    if let Some(cycles) = device_memory() {
        row("device memory read", With(&[]), cycles);
    }
    // SAFETY: the root table in force.
    let load = || unsafe { pv_ops::write_cr3(pv_ops::read_cr3()) };
    row("CR3 load", Only(&["read_cr3", "write_cr3"]), sample(1, load));
    let page = &raw const rows_anchor as u64;
    row("TLB flush, one page", Only(&["flush_tlb_one"]), sample(1, || pv_ops::flush_tlb_one(page)));
    row("TLB flush, all", Only(&["flush_tlb"]), sample(1, pv_ops::flush_tlb));
    let others = cpu::percpu::others();
    if !others.is_empty() {
        row(
            "TLB flush, other CPUs",
            Only(&["flush_tlb_others"]),
            sample(1, || pv_ops::flush_tlb_others(&others, page, 4096)),
        );
        row("call on other CPUs", With(&["send_ipi_many"]), sample(1, || cpu::ipi::call_on(others, &|| ())));
    }
    if let Some([whole, ending]) = interrupt() {
        row("interrupt to itself", With(&["send_ipi"]), whole);
        row("its end and return", With(&["eoi"]), ending);
    }
    let far = pv_ops::monotonic_ns().saturating_add(3_600_000_000_000);
    row("timer arming", Only(&["timer_arm"]), sample(1, || pv_ops::timer_arm(far)));
    pv_ops::timer_arm(u64::MAX);
    row("page fault, survived", With(&[]), sample(1, || _ = cpu::probe::read_frame(layout::DEVICES - 4096)));
    row("yield to the host", Only(&["sched_yield"]), sample(1, pv_ops::sched_yield));
    if let Some((made, cycles)) = hypercall() {
        row("hypercall", made, cycles);
    }
    Value::List(rows)
}

/// An address in this image, mapped like its neighbours.
#[expect(non_upper_case_globals, reason = "it is named like what it anchors")]
static rows_anchor: u64 = 0;

/// A read of the HPET's or the first I/O APIC's registers.
fn device_memory() -> Option<[u64; 3]> {
    let tables = acpi::tables();
    let hpet = tables.hpet.as_ref().map(|hpet| hpet.address);
    let io_apic = || tables.madt.as_ref()?.io_apics.first().map(|io_apic| io_apic.address);
    let registers = mmio::device(hpet.or_else(io_apic)?, 64, Caching::Uncached).ok()?;
    Some(sample(1, || _ = registers.read_at::<u32>(0)))
}

/// From sending an interrupt to this CPU until the interrupted code goes on, and of that the part from its handler's end.
fn interrupt() -> Option<[[u64; 3]; 2]> {
    /// When the handler ended; 0 while it has not run.
    static ENDED: AtomicU64 = AtomicU64::new(0);
    /// Looks until it is given up.
    const PATIENCE: u64 = 100_000_000;
    irq::apic::local()?;
    let vector = irq::allocate("probe", || ENDED.store(pv_ops::rdtsc(), Ordering::Relaxed)).ok()?;
    let mut wholes = Vec::new();
    let mut endings = Vec::new();
    while wholes.len() < SAMPLES {
        ENDED.store(0, Ordering::Relaxed);
        let start = pv_ops::rdtsc();
        irq::send(cpu::current(), vector);
        let ended = (0..PATIENCE).map(|_| ENDED.load(Ordering::Relaxed)).find(|&ended| ended != 0)?;
        let now = pv_ops::rdtsc();
        wholes.push(now.wrapping_sub(start));
        endings.push(now.wrapping_sub(ended));
    }
    Some([wholes, endings].map(spread))
}

/// The cheapest call: KVM's poll for an interrupt, Xen's version.
fn hypercall() -> Option<(Made, [u64; 3])> {
    if pv_ops::kvm::hypercall::is_there() {
        return Some((With(&["hypercall"]), sample(1, pv_ops::kvm::hypercall::nothing)));
    }
    pv_ops::xen::version()?;
    Some((With(&[]), sample(1, || _ = pv_ops::xen::version())))
}

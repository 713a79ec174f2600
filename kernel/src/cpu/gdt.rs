//! Segments and the task state of a CPU (Intel SDM vol. 3 §3.4.5, §8.7), in the order that hypervisors know.
//! Neighbours: `percpu` (each CPU has its own), `irq::exceptions` (gives the fatal ones stacks of their own).

use super::PerCpu;
use core::{arch::asm, cell::UnsafeCell};
use x86_64::{
    VirtAddr,
    structures::{
        gdt::{Descriptor, DescriptorFlags},
        tss::TaskStateSegment,
    },
};

/// Selector of the kernel's 64-bit code.
pub const KERNEL_CODE: u16 = 0x10;
/// Selector of the kernel's data.
pub const KERNEL_DATA: u16 = 0x18;
/// Selector of user data.
pub const USER_DATA: u16 = 0x28 | 3;
/// Selector of the user's 64-bit code.
pub const USER_CODE: u16 = 0x30 | 3;
/// Selector of the task state segment.
pub const TASK_STATE: u16 = 0x40;

const ENTRIES: usize = TASK_STATE as usize / 8 + 2;

/// A stack that an exception gets whatever the stack pointer was: its place in the interrupt stack table,
/// counted from 1 as a gate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExceptionStack {
    /// #DF: most likely the stack is full.
    DoubleFault = 1,
    /// NMI: may come at any instruction.
    NonMaskable = 2,
    /// #MC: may come at any instruction.
    MachineCheck = 3,
}

impl ExceptionStack {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::DoubleFault, Self::NonMaskable, Self::MachineCheck];
}

/// GDT and TSS of one CPU. The CPU itself reads them at any time, and marks the TSS busy in the GDT.
#[derive(Debug)]
pub struct Descriptors {
    gdt: UnsafeCell<[u64; ENTRIES]>,
    tss: UnsafeCell<TaskStateSegment>,
}

// SAFETY: only `load` and `set_exception_stack` write, on the CPU that owns the tables or before it runs, and no reference
// to the contents is ever given out.
unsafe impl Sync for Descriptors {}

impl Descriptors {
    /// All zeros, so that the file does not carry them. [`load`] fills them in.
    pub(super) const fn new() -> Self {
        let mut tss = TaskStateSegment::new();
        tss.iomap_base = 0;
        Self { gdt: UnsafeCell::new([0; ENTRIES]), tss: UnsafeCell::new(tss) }
    }
}

/// Loads `cpu`'s own segments on the CPU that runs this, which must be that CPU.
pub(super) fn load(cpu: &'static PerCpu) {
    let tss = cpu.descriptors.tss.get();
    // SAFETY: the CPU does not use this table before `load_tr` below, and nobody else writes it.
    unsafe { (&raw mut (*tss).iomap_base).write_unaligned(size_of::<TaskStateSegment>() as u16) };
    // SAFETY: the TSS is in a static `PerCpu`: it stays where it is for ever.
    let Descriptor::SystemSegment(tss_low, tss_high) = (unsafe { Descriptor::tss_segment_unchecked(tss) })
    else {
        return;
    };
    let mut gdt = [0; ENTRIES];
    for (selector, descriptor) in [
        (KERNEL_CODE, DescriptorFlags::KERNEL_CODE64.bits()),
        (KERNEL_DATA, DescriptorFlags::KERNEL_DATA.bits()),
        (USER_DATA, DescriptorFlags::USER_DATA.bits()),
        (USER_CODE, DescriptorFlags::USER_CODE64.bits()),
        (TASK_STATE, tss_low),
        (TASK_STATE + 8, tss_high),
    ] {
        gdt[usize::from(selector / 8)] = descriptor;
    }
    let place = cpu.descriptors.gdt.get();
    // SAFETY: the CPU does not use this table before the next statement, and nobody else writes it.
    unsafe { place.write(gdt) };
    // SAFETY:
    // 1. The table is in a static `PerCpu` and stays valid; only the CPU writes to it from now on.
    // 2. It holds the kernel's flat segments at the selectors that are loaded below.
    unsafe { pv_ops::load_gdt(place.cast::<u64>(), (size_of::<[u64; ENTRIES]>() - 1) as u16) };
    // SAFETY: flat segments of the table just loaded, for ring 0.
    unsafe { pv_ops::load_segments(KERNEL_CODE, KERNEL_DATA) };
    // SAFETY: the descriptor at this selector is the available 64-bit TSS written above.
    unsafe { pv_ops::load_tr(TASK_STATE) };
}

/// The code segment that the CPU runs with.
pub fn code_selector() -> u16 {
    let selector;
    // SAFETY: reads a register.
    unsafe { asm!("mov {:x}, cs", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    selector
}

/// Gives `stack` of `cpu`, which runs this or does not run yet, the memory that ends at `top`.
///
/// # Safety
/// The memory below `top` is a stack that nothing else uses, mapped for as long as the kernel runs.
pub unsafe fn set_exception_stack(cpu: &PerCpu, stack: ExceptionStack, top: u64) {
    let tss = cpu.descriptors.tss.get();
    // SAFETY:
    // 1. Only this CPU, or who is about to start it, writes to its TSS, and an exception that reads the slot meanwhile reads 8 aligned bytes
    //    at once or uses the slot only once the gate names it, which is after this call.
    // 2. The index is 0 to 2, the table has 7 places.
    unsafe {
        (&raw mut (*tss).interrupt_stack_table[stack as usize - 1]).write_unaligned(VirtAddr::new(top))
    };
}

//! The native interrupt descriptor table, made from `vectors` (Intel SDM vol. 3 §6.10, §6.14.1).
//! Neighbours: `entry` (the stubs), `cpu::gdt` (code segment and stacks).

use super::{entry, vectors};
use crate::cpu::gdt::{self, ExceptionStack};
use core::cell::UnsafeCell;

/// A gate: 16 bytes.
type Gate = [u64; 2];

/// The table of all CPUs. The CPU reads it at every interrupt.
struct Idt(UnsafeCell<[Gate; 256]>);

// SAFETY: only `write` changes it, at boot, on one CPU with interrupts disabled.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; 256]));

/// An interrupt gate: 64-bit, present, interrupts disabled on entry.
const INTERRUPT_GATE: u64 = 0x8e00;

/// The gate for a handler at `handler`; `stack` is its place in the interrupt stack table or 0.
fn gate(handler: u64, stack: u64) -> Gate {
    let low = handler & 0xffff
        | u64::from(gdt::KERNEL_CODE) << 16
        | stack << 32
        | INTERRUPT_GATE << 32
        | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

/// Fills the table and loads it on this CPU. Nobody has a stack of his own yet.
pub(super) fn load() {
    for vector in 0..=u8::MAX {
        write(vector, 0);
    }
    load_as_is();
}

/// Loads the table, which is filled, on this CPU.
pub(super) fn load_as_is() {
    // SAFETY: every gate of the static table leads to a stub of `entry`, which handles any vector.
    unsafe { pv_ops::load_idt(IDT.0.get().cast(), (size_of::<[Gate; 256]>() - 1) as u16) };
}

/// Lets the exceptions that the list says so run on `stack`, whose memory is set in the TSS of every CPU.
pub(super) fn use_stack(stack: ExceptionStack) {
    for exception in vectors::EXCEPTIONS.iter().filter(|exception| exception.stack == Some(stack)) {
        write(exception.vector, stack as u64);
    }
}

fn write(vector: u8, stack: u64) {
    let handler = entry::stubs() + u64::from(vector) * entry::STUB_LEN;
    // SAFETY:
    // 1. The index is below 256, the length of the table.
    // 2. Boot only, interrupts disabled: an exception in between finds the old or the new half of a gate, and
    //    both halves agree but for the stack number, which is in one of them.
    unsafe { IDT.0.get().cast::<Gate>().add(usize::from(vector)).write_volatile(gate(handler, stack)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SDM vol. 3 figure 6-8.
    #[test]
    fn a_gate_holds_the_address_in_three_parts() {
        let [low, high] = gate(0xffff_ffff_8123_4567, 1);
        assert_eq!(low, 0x8123_8e01_0010_4567);
        assert_eq!(high, 0xffff_ffff);
    }
}

//! Exceptions and events: Xen's virtual trap table, made from the kernel's IDT, and the way back, seldom by hypercall.
//!
//! Xen builds the CPU's own frame on the guest's stack, and below it rcx and r11 (arch-x86/xen-x86_64.h). A small stub
//! per vector takes those two off and goes on to the kernel's native stub, so that one entry code serves all.

use super::{
    abi::{
        CALLBACKOP_REGISTER, CALLBACKTYPE_EVENT, CallbackRegister, FLAT_KERNEL_CS, FLAT_KERNEL_SS, TrapInfo,
    },
    irq::{IF, MASK, PENDING},
};
use crate::{
    descriptor::PseudoDescriptor,
    xen::hypercall::{self, Number},
};
use core::{
    arch::{global_asm, naked_asm},
    sync::atomic::{AtomicU64, Ordering},
};

const VECTORS: usize = 256;
/// Exceptions of the CPU; the rest of the vectors never come.
const EXCEPTIONS: usize = 32;
/// Bytes from one stub to the next.
const STUB_LEN: u64 = 16;
/// Events are masked on entry, as by an interrupt gate; and ring 3, where the kernel is, may raise it.
const FLAGS: u8 = 1 << 2 | 3;

/// Where each stub goes on: the kernel's handlers by vector.
static HANDLERS: [AtomicU64; VECTORS] = [const { AtomicU64::new(0) }; VECTORS];

unsafe extern "C" {
    fn pliant_xen_pv_stubs();
}

global_asm!(
    ".pushsection .text.xen_pv_entry, \"ax\", @progbits",
    ".balign 16",
    "pliant_xen_pv_stubs:",
    ".set pliant_xen_vector, 0",
    ".rept 256",
    ".balign {stub_len}",
    "pop rcx",
    "pop r11",
    "jmp qword ptr [rip + {handlers} + 8 * pliant_xen_vector]",
    ".set pliant_xen_vector, pliant_xen_vector + 1",
    ".endr",
    ".popsection",
    stub_len = const STUB_LEN,
    handlers = sym HANDLERS,
);

fn stub(vector: usize) -> u64 {
    pliant_xen_pv_stubs as *const () as u64 + vector as u64 * STUB_LEN
}

/// The handler of a gate (SDM vol. 3 figure 6-8); `None` if it is not present.
fn handler([low, high]: [u64; 2]) -> Option<u64> {
    const PRESENT: u64 = 1 << 47;
    (low & PRESENT != 0).then_some(low & 0xffff | low >> 32 & 0xffff_0000 | high << 32)
}

/// The trap table for the exceptions that have a handler; it ends with an empty entry.
fn trap_table(
    handlers: impl Fn(usize) -> Option<u64>,
    stub: impl Fn(usize) -> u64,
) -> [TrapInfo; EXCEPTIONS + 1] {
    let mut table = [TrapInfo::default(); EXCEPTIONS + 1];
    let present = (0..EXCEPTIONS).filter(|&vector| handlers(vector).is_some());
    for (entry, vector) in table.iter_mut().zip(present) {
        *entry = TrapInfo { vector: vector as u8, flags: FLAGS, cs: FLAT_KERNEL_CS, address: stub(vector) };
    }
    table
}

/// # Panics
/// When Xen refuses the table.
///
/// # Safety
/// As for [`load_idt`](crate::load_idt()).
pub(super) unsafe extern "sysv64" fn load_idt(descriptor: *const PseudoDescriptor) {
    // SAFETY: the caller's pseudo-descriptor.
    let (base, limit) = unsafe { descriptor.read_unaligned() }.parts();
    let gates: *const [u64; 2] = core::ptr::with_exposed_provenance(base as usize);
    for (vector, place) in HANDLERS.iter().enumerate().take((usize::from(limit) + 1) / 16) {
        // SAFETY: the gate is within the table's limit.
        place.store(handler(unsafe { gates.add(vector).read_volatile() }).unwrap_or(0), Ordering::Relaxed);
    }
    let table = trap_table(
        |vector| Some(HANDLERS[vector].load(Ordering::Relaxed)).filter(|&handler| handler != 0),
        stub,
    );
    let address = (&raw const table).expose_provenance() as u64;
    // SAFETY: a table with an end; every entry leads to a stub whose handler is set.
    if let Err(error) = unsafe { hypercall::call1(Number::SetTrapTable, address) } {
        panic!("trap table: {error}");
    }
}

/// Lets events come as this vector of the IDT that was loaded.
///
/// # Errors
/// What Xen says.
pub fn set_event_vector(vector: u8) -> Result<(), hypercall::Errno> {
    let mut register =
        CallbackRegister { kind: CALLBACKTYPE_EVENT, flags: 0, address: stub(usize::from(vector)) };
    // SAFETY: the struct is this command's; the stub goes on to the IDT's handler.
    unsafe { hypercall::command(Number::CallbackOp, CALLBACKOP_REGISTER, &mut register) }?;
    Ok(())
}

/// Instructions: Xen's `iret` (arch-x86/xen-x86_64.h, `struct iret_context`), which wants flags, rcx, r11 and rax below the
/// frame. The number is the operand `iret`.
macro_rules! hypercall_iret {
    () => {
        "push 0
        push rcx
        push r11
        push rax
        mov eax, {iret}
        syscall"
    };
}

/// The way back. Frame and code are in one ring, so the CPU's own `iretq` does it, without Xen: the event mask goes back
/// as IF in the frame says. Xen shows the kernel's CS as one of ring 0, which its ring 3 cannot return to. Only events
/// that came while they were held back need Xen's `iret`, which lets them in when nothing of this return is on the stack any
/// more.
///
/// An event that comes after the mask was cleared interrupts the rest of this return, and loses nothing by it. That an NMI
/// is over, which Xen does not see by this, is told by [`nmi_done`].
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn iret() {
    naked_asm!(
        "test byte ptr [rsp + {flags} + 1], {enabled}",
        "jz 2f",
        "cmp byte ptr gs:[{pending}], 0",
        "jne 4f",
        "mov byte ptr gs:[{mask}], 0",
        "cmp byte ptr gs:[{pending}], 0",
        "jne 4f",
        "jmp 3f",
        "2:",
        "mov byte ptr gs:[{mask}], 1",
        "3:",
        "or byte ptr [rsp + {cs}], 3",
        "iretq",
        "4:",
        hypercall_iret!(),
        flags = const 16,
        enabled = const IF >> 8,
        cs = const 8,
        mask = const MASK,
        pending = const PENDING,
        iret = const Number::Iret as u64,
    )
}

/// Tells Xen that an NMI of this CPU has been handled, so that the next may come: by its `iret` alone, to the next instruction.
pub(super) fn nmi_done() {
    // SAFETY: comes back as from a call, events held back as they are in a handler.
    unsafe { iret_to_caller() };
}

/// CS as Xen shows it to the kernel, and wants it back.
const KERNEL_CS: u16 = FLAT_KERNEL_CS & !3;

#[unsafe(naked)]
unsafe extern "sysv64" fn iret_to_caller() {
    naked_asm!(
        "mov rdx, rsp",
        "push {ss}",
        "push rdx",
        "push 2", // RFLAGS: events stay held back
        "push {cs}",
        "lea rax, [rip + 2f]",
        "push rax",
        hypercall_iret!(),
        "2: ret",
        ss = const FLAT_KERNEL_SS,
        cs = const KERNEL_CS,
        iret = const Number::Iret as u64,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_gives_its_handler_back() {
        assert_eq!(handler([0x8123_8e01_0010_4567, 0xffff_ffff]), Some(0xffff_ffff_8123_4567));
        assert_eq!(handler([0, 0]), None);
    }

    #[test]
    fn the_trap_table_has_what_the_idt_has_and_an_end() {
        let table =
            trap_table(|vector| (vector == 3 || vector == 14).then_some(1), |vector| vector as u64 * 16);
        assert_eq!(table[0], TrapInfo { vector: 3, flags: 7, cs: 0xe033, address: 48 });
        assert_eq!((table[1].vector, table[1].address), (14, 224));
        assert_eq!(table[2], TrapInfo::default());
        let full = trap_table(|_| Some(1), |_| 1);
        assert_eq!(full[EXCEPTIONS], TrapInfo::default());
    }
}

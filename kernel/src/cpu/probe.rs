//! Instructions that may fault and are allowed to: the fault becomes `None`.
//!
//! `attempt` notes the stack pointer in the CPU's data and calls the operation. When the operation faults,
//! the exception handler asks `recover`, which turns the frame so that `attempt` returns "faulted".
//! Neighbours: `irq::exceptions` (asks), `backtrace` (reads stacks that may be broken).

use super::{image, percpu};
use crate::mm::layout;
use core::{
    arch::{asm, naked_asm},
    mem::offset_of,
    sync::atomic::{AtomicBool, Ordering},
};

/// Exceptions are handled, so that probes can be tried.
static ARMED: AtomicBool = AtomicBool::new(false);

/// Exceptions are handled from now on.
pub(crate) fn arm() {
    ARMED.store(true, Ordering::Relaxed);
}

/// Reads a model-specific register; `None` when the CPU does not have it (#GP).
pub fn read_msr(index: u32) -> Option<u64> {
    extern "sysv64" fn operation(index: u64) -> u64 {
        // SAFETY: reading a register has no effect on memory; a fault is what `attempt` is for.
        unsafe { pv_ops::rdmsr(index as u32) }
    }
    attempt(operation, index.into())
}

/// The two words at a frame pointer: the caller's frame pointer and the return address. `None` when `address`
/// is not in memory that can be a stack, or is not mapped.
pub fn read_frame(address: u64) -> Option<[u64; 2]> {
    Some([read_stack_word(address)?, read_stack_word(address.checked_add(8)?)?])
}

/// Reads a word of a stack, the image's data or the direct map; never of a device.
fn read_stack_word(address: u64) -> Option<u64> {
    extern "sysv64" fn operation(address: u64) -> u64 {
        // SAFETY: an aligned read of a window where only memory is mapped; a fault is what `attempt` is for.
        unsafe { (address as *const u64).read_volatile() }
    }
    let memory =
        (layout::DIRECT_MAP..layout::DEVICES).contains(&address) || image::bounds().contains(&address);
    if !memory || !address.is_multiple_of(8) {
        return None;
    }
    attempt(operation, address)
}

/// The caller's frame pointer.
#[inline(always)]
pub fn frame_pointer() -> u64 {
    let frame;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) frame, options(nomem, nostack, preserves_flags)) };
    frame
}

/// The return address of the function that this is inlined into, which has a frame of its own.
#[cfg(target_os = "none")]
#[inline(always)]
pub fn return_address() -> u64 {
    let address;
    // SAFETY: reads the word above the saved frame pointer: guests are built with frame pointers, so that a return
    // address is there.
    unsafe { asm!("mov {}, [rbp + 8]", out(reg) address, options(readonly, nostack, preserves_flags)) };
    address
}

/// An address in what this is inlined into.
#[inline(always)]
pub fn instruction_pointer() -> u64 {
    let address;
    // SAFETY: reads a register.
    unsafe { asm!("lea {}, [rip]", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}

/// A host program may have no frame pointers.
#[cfg(not(target_os = "none"))]
pub fn return_address() -> u64 {
    0
}

/// Calls `operation(argument)`, which holds nothing that a drop would have to free; `None` when it faults.
fn attempt(operation: extern "sysv64" fn(u64) -> u64, argument: u64) -> Option<u64> {
    if !ARMED.load(Ordering::Relaxed) || !percpu::is_ready() {
        return None;
    }
    // A handler in between must not have its own faults taken for the operation's.
    let _irq = crate::sync::IrqState::disable();
    let mut result = 0;
    // SAFETY:
    // 1. GS is valid and exceptions are handled: checked above.
    // 2. `operation` is one of this file's: what it leaves behind when it is cut off is nothing.
    let done = unsafe { guarded(operation, argument, &mut result) };
    done.then_some(result)
}

/// Calls `operation` with a recovery point set.
#[unsafe(naked)]
unsafe extern "sysv64" fn guarded(
    operation: extern "sysv64" fn(u64) -> u64,
    argument: u64,
    result: &mut u64,
) -> bool {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdx",
        "mov qword ptr gs:[{recovery}], rsp",
        "mov rax, rdi",
        "mov rdi, rsi",
        "call rax",
        "mov qword ptr gs:[{recovery}], 0",
        "pop rdx",
        "mov qword ptr [rdx], rax",
        "mov eax, 1",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        recovery = const offset_of!(percpu::PerCpu, recovery),
    )
}

/// Where `guarded` goes on after a fault, with the stack pointer it noted.
#[unsafe(naked)]
extern "sysv64" fn faulted() {
    naked_asm!(
        "pop rdx",
        "xor eax, eax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Asked by the exception handler with the interrupted instruction and stack pointers. When a probe faulted,
/// turns them to where it goes on.
pub(crate) fn recover(instruction: &mut u64, stack: &mut u64) -> bool {
    let point = super::current().recovery.swap(0, Ordering::Relaxed);
    if point == 0 {
        return false;
    }
    *instruction = faulted as *const () as u64;
    *stack = point;
    true
}

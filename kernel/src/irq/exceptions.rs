//! The CPU's exceptions: which are survived, and the report about those which are not.
//!
//! A report never loops: a fault inside it gives one short line, a fault inside that resets the machine.
//! Neighbours: `vectors` (the list), `backtrace`, `cpu::probe` (faults that are expected), `power` (the end).

use super::{entry::Frame, idt, page_ready, vectors};
use crate::{
    backtrace::Backtrace,
    cpu::{self, fpu, gdt, gdt::ExceptionStack, nmi, probe, reset},
    mm::{OutOfMemory, map, stack},
    panic::Emergency,
    power, symbols,
};
use core::fmt::{self, Write};

/// Bytes of each exception's own stack: enough for a report.
const STACK_LEN: u64 = 16 << 10;

/// Handles exceptions from now on, still on the interrupted stack. Directly after `cpu::init`.
pub fn init() {
    idt::load();
    probe::arm();
}

/// Lets a further CPU handle them. Its stacks are there: [`give_stacks`].
pub(super) fn cpu_up() {
    idt::load_as_is();
}

/// Gives the exceptions that need one a stack of their own, guarded below. From `irq::init`, once there is memory.
pub(super) fn init_stacks() {
    match give_stacks(cpu::current()) {
        Ok(()) => ExceptionStack::ALL.into_iter().for_each(idt::use_stack),
        Err(error) => log::warn!("no stacks for exceptions: {error}: they will run on the interrupted one"),
    }
}

/// Gives those exceptions their stacks on `cpu`, which runs this or does not run yet.
///
/// # Errors
/// When memory is out: the CPU cannot be used then.
pub fn give_stacks(cpu: &cpu::PerCpu) -> Result<(), OutOfMemory> {
    for stack in ExceptionStack::ALL {
        let memory = map::stack(STACK_LEN)?;
        // SAFETY: the stack is fresh, and never freed because it is forgotten below.
        unsafe { gdt::set_exception_stack(cpu, stack, memory.top()) };
        core::mem::forget(memory);
    }
    Ok(())
}

/// Called by `dispatch` for vectors 0 to 31.
pub(super) fn handle(frame: &mut Frame) {
    match frame.vector as u8 {
        vectors::NMI if nmi::arrived(frame) => {}
        vectors::BREAKPOINT => log::debug!("breakpoint at {:#x}", frame.rip),
        vectors::PAGE_FAULT if page_ready::wait_for_host() => {}
        vectors::INVALID_OPCODE
        | vectors::STACK_FAULT
        | vectors::GENERAL_PROTECTION
        | vectors::PAGE_FAULT
            if probe::recover(&mut frame.rip, &mut frame.rsp) => {}
        vectors::DEVICE_NOT_AVAILABLE if fpu::first_use() => {}
        _ => die(frame),
    }
}

/// Reports and ends the guest.
fn die(frame: &Frame) -> ! {
    cpu::stop::others();
    let mut out = Emergency::default();
    let mut status = power::FATAL_EXCEPTION;
    match cpu::current().begin_report() {
        0 => {
            let report = Report { frame, fault_address: pv_ops::read_cr2() };
            let _ = write!(out, "\n{report}");
            let _ = write!(out, "{frame}backtrace:\n{}", Backtrace::of(frame.rip, frame.rbp));
            if crate::test::ended_by_panic(&mut out) {
                status = power::FAILURE;
            }
        }
        1 => {
            let (vector, rip) = (frame.vector, frame.rip);
            let _ = writeln!(out, "\nEXCEPTION {vector} at {rip:#x} while reporting one");
        }
        _ => reset::triple_fault(),
    }
    power::exit_silently(status)
}

/// What happened and where.
struct Report<'a> {
    frame: &'a Frame,
    fault_address: u64,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let Self { frame, fault_address } = self;
        let vector = frame.vector as u8;
        match vectors::exception(vector) {
            Some(exception) => write!(out, "EXCEPTION {} {}", exception.mnemonic, exception.name)?,
            None => write!(out, "EXCEPTION {vector} (reserved)")?,
        }
        if frame.error != 0 || vector == vectors::PAGE_FAULT {
            write!(out, ", error {:#x}", frame.error)?;
        }
        write!(out, " at {:#018x}", frame.rip)?;
        if let Some((name, offset)) = symbols::lookup(frame.rip) {
            write!(out, " {name}+{offset:#x}")?;
        }
        writeln!(out)?;
        match vector {
            vectors::PAGE_FAULT => {
                writeln!(out, "  {} {fault_address:#018x}", PageFault(frame.error))?;
                if let Some(guard) = stack::guard_at(*fault_address) {
                    writeln!(out, "  {guard}")?;
                }
            }
            // The push of the page fault's own frame failed: its address or the stack pointer tells where.
            vectors::DOUBLE_FAULT => {
                match stack::guard_at(*fault_address).or(stack::guard_at(frame.rsp.wrapping_sub(8))) {
                    Some(guard) => writeln!(out, "  double fault, probably kernel stack overflow: {guard}")?,
                    None => writeln!(out, "  last page fault at {fault_address:#018x}")?,
                }
            }
            _ if frame.error != 0 => writeln!(out, "  {}", SelectorError(frame.error))?,
            _ => {}
        }
        Ok(())
    }
}

/// The error code of a page fault (Intel SDM vol. 3 §4.7).
struct PageFault(u64);

impl fmt::Display for PageFault {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let bit = |number: u32| self.0 >> number & 1 != 0;
        let access = match (bit(4), bit(1)) {
            (true, _) => "execution",
            (false, true) => "write",
            (false, false) => "read",
        };
        let reason = match (bit(3), bit(0)) {
            (true, _) => "a reserved bit is set in the tables",
            (false, true) => "not allowed by the page's protection",
            (false, false) => "not mapped",
        };
        let mode = if bit(2) { "user" } else { "kernel" };
        write!(out, "{mode} {access}, {reason}:")
    }
}

/// The error code of #TS, #NP, #SS and #GP (§6.13).
struct SelectorError(u64);

impl fmt::Display for SelectorError {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let table = match self.0 >> 1 & 0b11 {
            0 => "GDT",
            2 => "LDT",
            _ => "IDT",
        };
        write!(out, "{table} entry {:#x}", self.0 >> 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fault_tells_access_and_reason() {
        assert_eq!(PageFault(0).to_string(), "kernel read, not mapped:");
        assert_eq!(PageFault(3).to_string(), "kernel write, not allowed by the page's protection:");
        assert_eq!(PageFault(0x14).to_string(), "user execution, not mapped:");
        assert_eq!(PageFault(9).to_string(), "kernel read, a reserved bit is set in the tables:");
    }

    #[test]
    fn the_report_names_exception_error_and_address() {
        let frame = Frame { vector: 14, error: 2, rip: 0x1234, ..Frame::default() };
        let report = Report { frame: &frame, fault_address: 0xdead_0000 }.to_string();
        assert_eq!(
            report,
            "EXCEPTION #PF page fault, error 0x2 at 0x0000000000001234\n  \
             kernel write, not mapped: 0x00000000dead0000\n"
        );
        let frame = Frame { vector: 13, error: 0x12, ..Frame::default() };
        let report = Report { frame: &frame, fault_address: 0 }.to_string();
        assert!(report.ends_with("  IDT entry 0x2\n"), "{report}");
    }
}

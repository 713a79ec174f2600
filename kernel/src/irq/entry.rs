//! From a vector to Rust and back: 256 small stubs, one common road (Intel SDM vol. 3 §6.14).
//!
//! The CPU pushes SS, RSP, RFLAGS, CS, RIP and, for some exceptions, an error code; the stub makes the error code
//! uniform and adds the vector, the common road saves all registers, and [`Frame`] is what then lies on the
//! stack. A frame like that of a call is put below, so that a backtrace walks on through the interruption.
//! Neighbours: `vectors` (what they mean), `idt` (who points to the stubs), `pv_ops::iret` (the way back).

use core::{arch::global_asm, fmt};

/// The interrupted state, as the common road saves it: it is put back when `dispatch` returns, with the changes
/// that were made to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs, reason = "the fields are the CPU's registers, named as they are")]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    /// The vector, written by the stub.
    pub vector: u64,
    /// The CPU's error code; 0 for vectors without one.
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// Bytes from one stub to the next.
pub const STUB_LEN: u64 = 16;

/// Vectors for which the CPU pushes an error code: #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX.
const WITH_ERROR_CODE: u32 =
    1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;

unsafe extern "C" {
    fn pliant_interrupt_stubs();
}

/// The address of the first stub.
pub fn stubs() -> u64 {
    pliant_interrupt_stubs as *const () as u64
}

global_asm!(
    ".pushsection .text.interrupt_entry, \"ax\", @progbits",
    ".balign 16",
    ".globl pliant_interrupt_stubs",
    "pliant_interrupt_stubs:",
    ".set pliant_vector, 0",
    ".rept 256",
    ".balign {stub_len}",
    ".set pliant_has_code, 0",
    ".if pliant_vector < 32",
    ".set pliant_has_code, ({with_error_code} >> pliant_vector) & 1",
    ".endif",
    ".if pliant_has_code == 0",
    ".byte 0x6a, 0", // push 0
    ".endif",
    ".byte 0x68", // push the vector
    ".long pliant_vector",
    "jmp {common}",
    ".set pliant_vector, pliant_vector + 1",
    ".endr",
    ".popsection",
    stub_len = const STUB_LEN,
    with_error_code = const WITH_ERROR_CODE,
    common = sym common,
);

/// Where all stubs meet. The stack pointer is a multiple of 16 here less 8: the CPU aligned it, then 7 words
/// were pushed.
#[unsafe(naked)]
unsafe extern "C" fn common() {
    core::arch::naked_asm!(
        "push rax",
        "push rbx",
        "push rcx",
        "push rdx",
        "push rbp",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "cld",
        "mov rdi, rsp",
        "push qword ptr [rsp + {rip}]", // the frame of a call made by the interrupted instruction
        "push rbp",
        "mov rbp, rsp",
        "call {dispatch}",
        "add rsp, 16",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rbp",
        "pop rdx",
        "pop rcx",
        "pop rbx",
        "pop rax",
        "add rsp, 16", // vector and error code
        pv_ops::iret!(),
        rip = const core::mem::offset_of!(Frame, rip),
        dispatch = sym super::dispatch::dispatch,
    )
}

/// Registers, four a line.
impl fmt::Display for Frame {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let registers = [
            ("rax", self.rax),
            ("rbx", self.rbx),
            ("rcx", self.rcx),
            ("rdx", self.rdx),
            ("rsi", self.rsi),
            ("rdi", self.rdi),
            ("rbp", self.rbp),
            ("rsp", self.rsp),
            ("r8 ", self.r8),
            ("r9 ", self.r9),
            ("r10", self.r10),
            ("r11", self.r11),
            ("r12", self.r12),
            ("r13", self.r13),
            ("r14", self.r14),
            ("r15", self.r15),
        ];
        for line in registers.chunks(4) {
            for (name, value) in line {
                write!(out, "  {name} {value:016x}")?;
            }
            writeln!(out)?;
        }
        let Self { rip, cs, ss, rflags, .. } = self;
        writeln!(out, "  rip {rip:016x}  cs {cs:#04x}  ss {ss:#04x}  rflags {rflags:#08x}")
    }
}

//! Interrupt vectors, declared once: the exceptions of the CPU (Intel SDM vol. 3 §6.15) and the kernel's own.
//! From this list `idt` makes the native interrupt descriptor table; a trap table for a hypervisor comes from the same.
#![forbid(unsafe_code)]

use crate::cpu::gdt::ExceptionStack;

/// An exception of the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its vector.
    pub vector: u8,
    /// The manual's mnemonic.
    pub mnemonic: &'static str,
    /// What it is called.
    pub name: &'static str,
    /// The stack it gets, if not the interrupted one.
    pub stack: Option<ExceptionStack>,
}

macro_rules! exceptions {
    ($($vector:literal $constant:ident $mnemonic:literal $name:literal $(on $stack:ident)?;)*) => {
        /// The exceptions, in the order of their vectors.
        pub const EXCEPTIONS: &[Exception] = &[$(Exception {
            vector: $vector,
            mnemonic: $mnemonic,
            name: $name,
            stack: exceptions!(@stack $($stack)?),
        }),*];
        $(
            #[doc = concat!("Vector of the ", $name, ".")]
            pub const $constant: u8 = $vector;
        )*
    };
    (@stack) => { None };
    (@stack $stack:ident) => { Some(ExceptionStack::$stack) };
}

exceptions! {
    0 DIVIDE_ERROR "#DE" "divide error";
    1 DEBUG "#DB" "debug exception";
    2 NMI "NMI" "non-maskable interrupt" on NonMaskable;
    3 BREAKPOINT "#BP" "breakpoint";
    4 OVERFLOW "#OF" "overflow";
    5 BOUND_RANGE "#BR" "bound range exceeded";
    6 INVALID_OPCODE "#UD" "invalid opcode";
    7 DEVICE_NOT_AVAILABLE "#NM" "device not available";
    8 DOUBLE_FAULT "#DF" "double fault" on DoubleFault;
    10 INVALID_TSS "#TS" "invalid task state segment";
    11 SEGMENT_NOT_PRESENT "#NP" "segment not present";
    12 STACK_FAULT "#SS" "stack fault";
    13 GENERAL_PROTECTION "#GP" "general protection fault";
    14 PAGE_FAULT "#PF" "page fault";
    16 FLOATING_POINT "#MF" "x87 floating-point error";
    17 ALIGNMENT_CHECK "#AC" "alignment check";
    18 MACHINE_CHECK "#MC" "machine check" on MachineCheck;
    19 SIMD_FLOATING_POINT "#XM" "SIMD floating-point error";
    20 VIRTUALIZATION "#VE" "virtualization exception";
    21 CONTROL_PROTECTION "#CP" "control protection exception";
    28 HYPERVISOR_INJECTION "#HV" "hypervisor injection exception";
    29 VMM_COMMUNICATION "#VC" "VMM communication exception";
    30 SECURITY "#SX" "security exception";
}

/// Vectors below are the CPU's exceptions.
pub const EXCEPTION_COUNT: u8 = 32;

/// Where the masked 8259 controllers are sent, so that a spurious interrupt of theirs is nobody's exception.
pub const PIC: core::ops::Range<u8> = 0x20..0x30;
/// Vectors for devices, given out by `allocate`. A higher number has the higher priority.
pub const DEVICES: core::ops::Range<u8> = 0x30..0xf0;
/// The local timer.
pub const TIMER: u8 = 0xf0;
/// From one CPU to another: look at what is asked of you.
pub const CPU_REQUEST: u8 = 0xf1;
/// The host tells that a page is there, by a vector that its interface knows of.
pub const PAGE_READY: u8 = pv_ops::backend::PAGE_READY_VECTOR;
/// The local APIC's own errors.
pub const APIC_ERROR: u8 = 0xfe;
/// Interrupts that went away before they were delivered. The low four bits are ones, as old APICs need.
pub const SPURIOUS: u8 = 0xff;

/// The exception at `vector`.
pub fn exception(vector: u8) -> Option<&'static Exception> {
    EXCEPTIONS.iter().find(|exception| exception.vector == vector)
}

/// What `vector` is for, if that is fixed.
pub fn name(vector: u8) -> Option<&'static str> {
    match vector {
        TIMER => Some("timer"),
        CPU_REQUEST => Some("CPU request"),
        APIC_ERROR => Some("APIC error"),
        SPURIOUS => Some("spurious"),
        _ if PIC.contains(&vector) => Some("spurious (PIC)"),
        _ => exception(vector).map(|exception| exception.name),
    }
}

//! The way into Xen: one instruction with a number in rax (arch-x86/xen-x86_64.h, "Hypercall interface").
//! Neighbours: `abi` (numbers and structs), and all of `xen`, which calls what is here.
//!
//! | guest | instruction | chosen by |
//! |---|---|---|
//! | PV | `syscall` | the way in: only Xen's PV loader hands over a start_info_t |
//! | PVH, HVM on AMD, Hygon | `vmmcall` | CPUID leaf 0, the CPU's maker |
//! | PVH, HVM on all others | `vmcall` | likewise |
//!
//! These are the instructions of Xen's hypercall page; the page itself is left out. It would have to be where Xen
//! can write it by physical address (which only some loaders let the image know), and every hypercall would be an
//! indirect call into code that is not in the image's text.

use core::{
    arch::asm,
    fmt,
    sync::atomic::{AtomicU8, Ordering},
};

/// The hypercalls that this guest makes (xen.h, `__HYPERVISOR_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
#[allow(missing_docs, reason = "the names are the header's; docs/xen.md tells what each is used for")]
pub enum Number {
    SetTrapTable = 0,
    MmuUpdate = 1,
    FpuTaskswitch = 5,
    MemoryOp = 12,
    Multicall = 13,
    UpdateVaMapping = 14,
    XenVersion = 17,
    ConsoleIo = 18,
    GrantTableOp = 20,
    VmAssist = 21,
    Iret = 23,
    VcpuOp = 24,
    SetSegmentBase = 25,
    MmuextOp = 26,
    SchedOp = 29,
    CallbackOp = 30,
    EventChannelOp = 32,
    PhysdevOp = 33,
    HvmOp = 34,
}

/// Xen refused: a positive error number (errno.h).
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Errno(pub u32);

impl Errno {
    /// Not permitted.
    #[doc(alias = "XEN_EPERM")]
    pub const PERMISSION: Self = Self(1);
    /// No such entry.
    #[doc(alias = "XEN_ENOENT")]
    pub const NO_ENTRY: Self = Self(2);
    /// To be tried again.
    #[doc(alias = "XEN_EAGAIN")]
    pub const AGAIN: Self = Self(11);
    /// No memory in Xen.
    #[doc(alias = "XEN_ENOMEM")]
    pub const NO_MEMORY: Self = Self(12);
    /// A bad address.
    #[doc(alias = "XEN_EFAULT")]
    pub const FAULT: Self = Self(14);
    /// Busy.
    #[doc(alias = "XEN_EBUSY")]
    pub const BUSY: Self = Self(16);
    /// It exists already.
    #[doc(alias = "XEN_EEXIST")]
    pub const EXISTS: Self = Self(17);
    /// A bad argument.
    #[doc(alias = "XEN_EINVAL")]
    pub const INVALID: Self = Self(22);
    /// No room.
    #[doc(alias = "XEN_ENOSPC")]
    pub const NO_SPACE: Self = Self(28);
    /// Xen does not know this hypercall, or it was never found out how to make one.
    #[doc(alias = "XEN_ENOSYS")]
    pub const NOT_IMPLEMENTED: Self = Self(38);
    /// The deadline has passed.
    #[doc(alias = "XEN_ETIME")]
    pub const TIME: Self = Self(62);

    fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::PERMISSION => "not permitted",
            Self::NO_ENTRY => "no such entry",
            Self::AGAIN => "try again",
            Self::NO_MEMORY => "no memory",
            Self::FAULT => "bad address",
            Self::BUSY => "busy",
            Self::EXISTS => "exists already",
            Self::INVALID => "invalid argument",
            Self::NO_SPACE => "no room",
            Self::NOT_IMPLEMENTED => "not implemented",
            Self::TIME => "deadline passed",
            _ => return None,
        })
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "Xen says: {name} (error {})", self.0),
            None => write!(f, "Xen says: error {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What Xen answers: a value or an error.
pub type Answer = Result<u64, Errno>;

/// The instruction that enters Xen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Form {
    /// None is known: every hypercall is "not implemented".
    None = 0,
    /// PV.
    Syscall = 1,
    /// Intel's and whoever implements its virtualization.
    Vmcall = 2,
    /// AMD's.
    Vmmcall = 3,
}

static FORM: AtomicU8 = AtomicU8::new(Form::None as u8);

/// Chooses the instruction; before any hypercall, once.
pub(super) fn set_form(form: Form) {
    FORM.store(form as u8, Ordering::Relaxed);
}

/// The instruction for an HVM guest on a CPU whose CPUID leaf 0 says this in EBX, EDX, ECX.
pub(super) fn form_of_vendor(ebx: u32, ecx: u32, edx: u32) -> Form {
    let mut vendor = [0; 12];
    for (place, word) in vendor.chunks_exact_mut(4).zip([ebx, edx, ecx]) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    match &vendor {
        b"AuthenticAMD" | b"HygonGenuine" => Form::Vmmcall,
        _ => Form::Vmcall,
    }
}

/// A hypercall with no argument.
///
/// # Safety
/// As for [`call5`].
#[inline]
pub unsafe fn call0(number: Number) -> Answer {
    // SAFETY: the caller's promise.
    unsafe { call5(number, [0; 5]) }
}

/// A hypercall with one argument.
///
/// # Safety
/// As for [`call5`].
#[inline]
pub unsafe fn call1(number: Number, a: u64) -> Answer {
    // SAFETY: the caller's promise.
    unsafe { call5(number, [a, 0, 0, 0, 0]) }
}

/// A hypercall with two arguments.
///
/// # Safety
/// As for [`call5`].
#[inline]
pub unsafe fn call2(number: Number, a: u64, b: u64) -> Answer {
    // SAFETY: the caller's promise.
    unsafe { call5(number, [a, b, 0, 0, 0]) }
}

/// A hypercall with three arguments.
///
/// # Safety
/// As for [`call5`].
#[inline]
pub unsafe fn call3(number: Number, a: u64, b: u64, c: u64) -> Answer {
    // SAFETY: the caller's promise.
    unsafe { call5(number, [a, b, c, 0, 0]) }
}

/// A hypercall with four arguments.
///
/// # Safety
/// As for [`call5`].
#[inline]
pub unsafe fn call4(number: Number, [a, b, c, d]: [u64; 4]) -> Answer {
    // SAFETY: the caller's promise.
    unsafe { call5(number, [a, b, c, d, 0]) }
}

/// A command of a hypercall whose argument is one struct in memory: `event_channel_op(EVTCHNOP_send, &send)`.
///
/// # Safety
/// `argument` is the struct of this command, as its header has it; what the command does is sound.
#[inline]
pub unsafe fn command<T>(number: Number, command: u32, argument: &mut T) -> Answer {
    let address = core::ptr::from_mut(argument).expose_provenance() as u64;
    // SAFETY: the caller's promise; the reference is valid for what Xen reads and writes of it.
    unsafe { call2(number, command.into(), address) }
}

/// One of several hypercalls that are made at once (xen.h).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[doc(alias = "multicall_entry")]
pub(super) struct Call {
    op: u64,
    result: u64,
    args: [u64; 6],
}
const _: () = assert!(size_of::<Call>() == 64);

impl Call {
    /// With four arguments; what a hypercall does not have is 0.
    pub(super) const fn new(number: Number, [a, b, c, d]: [u64; 4]) -> Self {
        Self { op: number as u64, result: 0, args: [a, b, c, d, 0, 0] }
    }
}

/// Makes hypercalls one after the other, all of them, for the price of one.
///
/// # Errors
/// Of the first that Xen refused.
///
/// # Safety
/// As for [`call5`], for each.
pub(super) unsafe fn multicall(calls: &mut [Call]) -> Result<(), Errno> {
    let (address, len) = (calls.as_mut_ptr().expose_provenance() as u64, calls.len() as u64);
    // SAFETY: the caller's promise; so many entries are there.
    unsafe { call2(Number::Multicall, address, len) }?;
    calls.iter().try_for_each(|call| answer(call.result).map(drop))
}

/// A hypercall with five arguments.
///
/// # Safety
/// 1. Addresses among the arguments are valid for what Xen reads and writes there, in the layout that it expects.
/// 2. What the hypercall does to memory, page tables and devices is sound.
#[inline]
pub unsafe fn call5(number: Number, [a, b, c, d, e]: [u64; 5]) -> Answer {
    let mut result = number as u64;
    // The registers of the arguments are Xen's to change, and `syscall` needs rcx and r11 for itself.
    macro_rules! enter {
        ($instruction:literal) => {
            // SAFETY:
            // 1. `set_form` was told that this instruction enters Xen here.
            // 2. Arguments and effect are the caller's promise; the stack is not touched.
            unsafe {
                asm!(
                    $instruction,
                    inlateout("rax") result, inlateout("rdi") a => _, inlateout("rsi") b => _,
                    inlateout("rdx") c => _, inlateout("r10") d => _, inlateout("r8") e => _,
                    out("rcx") _, out("r9") _, out("r11") _, options(nostack),
                )
            }
        };
    }
    match FORM.load(Ordering::Relaxed) {
        form if form == Form::Syscall as u8 => enter!("syscall"),
        form if form == Form::Vmcall as u8 => enter!("vmcall"),
        form if form == Form::Vmmcall as u8 => enter!("vmmcall"),
        _ => return Err(Errno::NOT_IMPLEMENTED),
    }
    answer(result)
}

/// Xen's errors are -1 to -4095.
fn answer(result: u64) -> Answer {
    match result.wrapping_neg() {
        error @ 1..=4095 => Err(Errno(error as u32)),
        _ => Ok(result),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_4095_numbers_are_errors() {
        assert_eq!(answer(0), Ok(0));
        assert_eq!(answer(-1_i64 as u64), Err(Errno::PERMISSION));
        assert_eq!(answer(-4095_i64 as u64), Err(Errno(4095)));
        assert_eq!(answer(-4096_i64 as u64), Ok(-4096_i64 as u64));
        assert_eq!(answer(4 << 16 | 17), Ok(0x4_0011));
    }

    #[test]
    fn amd_has_its_own_instruction() {
        let form = |vendor: &[u8; 12]| {
            let word = |at: usize| u32::from_le_bytes(vendor[at..at + 4].try_into().unwrap());
            form_of_vendor(word(0), word(8), word(4))
        };
        assert_eq!(form(b"AuthenticAMD"), Form::Vmmcall);
        assert_eq!(form(b"HygonGenuine"), Form::Vmmcall);
        assert_eq!(form(b"GenuineIntel"), Form::Vmcall);
        assert_eq!(form(b"CentaurHauls"), Form::Vmcall);
    }

    /// A host process, or a guest before set-up: nothing is entered.
    #[test]
    fn a_hypercall_before_set_up_is_an_error() {
        // SAFETY: no form is set in this process, so nothing is executed.
        assert_eq!(unsafe { call0(Number::XenVersion) }, Err(Errno::NOT_IMPLEMENTED));
    }
}

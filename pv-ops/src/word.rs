//! How the arguments and results of an op travel in registers.
//! Neighbours: `ops` (uses the types), `call` (moves the words).

use crate::cpu_set::CpuSet;
use core::{arch::x86_64::CpuidResult, sync::atomic::AtomicU8};

/// A type that appears in the signature of an op.
pub(crate) trait Typed {
    /// The type that a backend's function takes or returns for it (System V convention).
    type Abi: Copy;
}

/// An argument that fits one general register.
pub(crate) trait Argument: Typed {
    /// The register's content; the bits above the value are 0.
    fn into_word(self) -> u64;
}

/// A result that fits one general register.
pub(crate) trait Answer: Typed {
    /// The value in the register; bits above it are ignored.
    fn from_word(word: u64) -> Self;
}

macro_rules! integers {
    ($($ty:ty),*) => { $(
        impl Typed for $ty {
            type Abi = $ty;
        }
        impl Argument for $ty {
            #[inline(always)]
            fn into_word(self) -> u64 {
                u64::from(self)
            }
        }
        impl Answer for $ty {
            #[inline(always)]
            fn from_word(word: u64) -> Self {
                word as $ty
            }
        }
    )* };
}
integers!(u8, u16, u32, u64);

impl<T> Typed for *mut T {
    type Abi = *mut T;
}
impl<T> Argument for *mut T {
    #[inline(always)]
    fn into_word(self) -> u64 {
        self.expose_provenance() as u64
    }
}

impl<T> Typed for *const T {
    type Abi = *const T;
}
impl<T> Argument for *const T {
    #[inline(always)]
    fn into_word(self) -> u64 {
        self.expose_provenance() as u64
    }
}

impl Typed for &AtomicU8 {
    type Abi = *const AtomicU8;
}
impl Argument for &AtomicU8 {
    #[inline(always)]
    fn into_word(self) -> u64 {
        core::ptr::from_ref(self).expose_provenance() as u64
    }
}

impl Typed for &CpuSet {
    type Abi = *const CpuSet;
}
impl Argument for &CpuSet {
    #[inline(always)]
    fn into_word(self) -> u64 {
        core::ptr::from_ref(self).expose_provenance() as u64
    }
}

/// What an op that may not know its answer returns: `u64::MAX` stands for "unknown".
impl Typed for Option<u64> {
    type Abi = u64;
}
impl Answer for Option<u64> {
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        (word != u64::MAX).then_some(word)
    }
}

/// How the guest shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Switch the machine off.
    PowerOff,
    /// Start it anew.
    Reboot,
    /// End with a status that the host sees: 0 is success, at most 79.
    Exit(u8),
}

impl Shutdown {
    const POWER_OFF: u64 = 0;
    const REBOOT: u64 = 1;
    const EXIT: u64 = 0x100;
}

impl Typed for Shutdown {
    type Abi = u64;
}
impl Argument for Shutdown {
    fn into_word(self) -> u64 {
        match self {
            Shutdown::PowerOff => Shutdown::POWER_OFF,
            Shutdown::Reboot => Shutdown::REBOOT,
            Shutdown::Exit(status) => Shutdown::EXIT | u64::from(status),
        }
    }
}
impl Answer for Shutdown {
    fn from_word(word: u64) -> Self {
        match word {
            Shutdown::REBOOT => Shutdown::Reboot,
            exit if exit & Shutdown::EXIT != 0 => Shutdown::Exit(exit as u8),
            _ => Shutdown::PowerOff,
        }
    }
}

/// The four registers that CPUID fills, as a backend's function returns them (rax = ebx:eax, rdx = edx:ecx).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuidRegisters {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

impl Typed for CpuidResult {
    type Abi = CpuidRegisters;
}

impl From<CpuidResult> for CpuidRegisters {
    fn from(CpuidResult { eax, ebx, ecx, edx }: CpuidResult) -> Self {
        Self { eax, ebx, ecx, edx }
    }
}

//! What runs this guest: a scan of the CPUID leaves that hypervisors use, and the choice of a backend.
//! Neighbours: `signature` (who is who), `backend` (what each can say), the kernel's `hypervisor` (the caller).
//!
//! A hypervisor announces itself at leaf 0x4000_0000 by a signature of 12 bytes; one that pretends to be several
//! (Xen with Viridian, KVM with Hyper-V enlightenments) repeats itself 0x100 further (arch-x86/cpuid.h; Hyper-V TLFS
//! §2.4). The best interface need not be the first.

use crate::{
    backend::{Backend, Environment},
    kvm, native,
    ops::PvOps,
    pvm,
    signature::{Signature, Vendor},
    xen,
};
use core::arch::x86_64::CpuidResult;

/// Every backend of this build, best first; the last serves always.
pub static BACKENDS: &[&Backend] =
    &[&xen::pv::BACKEND, &xen::hvm::BACKEND, &pvm::BACKEND, &kvm::BACKEND, &native::BACKEND];

/// Every table from which their set-ups take ops. Call sites are as long as the longest inline form in any of them.
pub(crate) const TABLES: &[&PvOps] = &[
    &native::OPS,
    &native::OPS_X2APIC,
    &kvm::OPS,
    &kvm::OPS_X2APIC,
    &pvm::OPS,
    &xen::hvm::OPS,
    &xen::hvm::OPS_X2APIC,
    &xen::pv::OPS,
    &xen::pv::OPS_DOM0,
];

/// Reads CPUID: leaf, subleaf.
pub type Reader<'a> = &'a dyn Fn(u32, u32) -> CpuidResult;

/// Hypervisor leaves begin here, and repeat in steps (arch-x86/cpuid.h, `XEN_CPUID_FIRST_LEAF`).
pub const FIRST_LEAF: u32 = 0x4000_0000;
/// The last leaf that is looked at.
pub const LAST_LEAF: u32 = 0x4001_0000;
/// From one hypervisor's leaves to the next one's.
pub const LEAF_STEP: u32 = 0x100;
/// How many announcements are kept; real hypervisors make one or two.
pub const MAX_FOUND: usize = 8;

/// An announcement in CPUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The leaf with the signature: the hypervisor's other leaves count from here.
    pub base: u32,
    /// The highest leaf that it claims to have. Old KVM says 0 and means `base + 1` (Linux cpuid.rst).
    pub max_leaf: u32,
    /// Its name for machines.
    pub signature: Signature,
}

impl Found {
    /// Whose signature it is, if known.
    pub fn vendor(&self) -> Option<&'static Vendor> {
        self.signature.vendor()
    }
}

/// Who announces itself, in order of leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hypervisors {
    /// CPUID.1:ECX bit 31: a hypervisor says that it is there. Some are there and do not say so.
    pub present_bit: bool,
    found: [Option<Found>; MAX_FOUND],
    /// Announcements beyond the first [`MAX_FOUND`].
    pub dropped: u16,
}

impl Hypervisors {
    /// The announcements, lowest leaf first.
    pub fn iter(&self) -> impl Iterator<Item = &Found> {
        self.found.iter().flatten()
    }

    /// The first announcement with this signature.
    pub fn find(&self, signature: Signature) -> Option<&Found> {
        self.iter().find(|found| found.signature == signature)
    }

    /// Reads leaves from the first on, up to the second place in a row where nothing is: interfaces stand one behind the
    /// other without a gap, since each gets the next free place (Xen behind Viridian's leaves, KVM and QEMU's Xen behind
    /// Hyper-V's), and a hypervisor without a name leaves at most the first place empty. So a usual guest executes
    /// CPUID four times here, not 257 times, each of which is an exit. On a bare machine, where nothing is at the first
    /// leaf and the presence bit is clear, it is twice: the bit's leaf counts.
    pub fn scan(read: Reader<'_>) -> Self {
        let mut hypervisors = Self { present_bit: present_bit(read), found: [None; MAX_FOUND], dropped: 0 };
        let mut count = 0;
        let mut empty = 0;
        for base in (FIRST_LEAF..=LAST_LEAF).step_by(LEAF_STEP as usize) {
            match announcement(read, base) {
                // Without the bit only a signature that we know is believed: Intel CPUs answer a leaf that they do
                // not have with the data of their highest basic one (SDM vol. 2A, CPUID).
                Some(found) if hypervisors.present_bit || found.vendor().is_some() => {
                    match hypervisors.found.get_mut(count) {
                        Some(place) => *place = Some(found),
                        None => hypervisors.dropped += 1,
                    }
                    count += 1;
                    empty = 0;
                }
                _ => {
                    empty += 1;
                    if empty == 2 || !hypervisors.present_bit && count == 0 {
                        break;
                    }
                }
            }
        }
        hypervisors
    }
}

/// The hypervisor-present bit, reserved for this use by both makers (AMD APM vol. 3 §E.3.2). Every 64-bit CPU has the leaf.
fn present_bit(read: Reader<'_>) -> bool {
    read(1, 0).ecx >> 31 != 0
}

/// What is at this leaf, if it can be an announcement: a known signature, or a printable one with a maximum leaf
/// within its own block.
fn announcement(read: Reader<'_>, base: u32) -> Option<Found> {
    let answer = read(base, 0);
    let signature = Signature::of_registers(answer.ebx, answer.ecx, answer.edx);
    let found = Found { base, max_leaf: answer.eax, signature };
    let plausible = signature.is_printable() && (base..base + LEAF_STEP).contains(&answer.eax);
    (found.vendor().is_some() || plausible).then_some(found)
}

/// Before anything else, on the boot CPU: what a backend must do at once. Told how much higher the image is linked than it
/// lies in physical memory; returns the bits that every page must have in the entry's page tables.
pub extern "sysv64" fn first(image_offset: u64) -> u64 {
    let mut early = BACKENDS.iter().filter_map(|backend| backend.early.as_ref());
    early.find_map(|early| (early.enter)(image_offset)).unwrap_or(0)
}

/// Who reads CPUID: the instruction, or, where Xen's PV loader entered, Xen in its place, or, where a backend has changed
/// what the instruction says, that backend.
pub fn reader(xen_start_info: Option<u64>) -> Reader<'static> {
    match xen_start_info {
        Some(_) => &xen::pv::cpu::cpuid,
        None => pvm::reader().unwrap_or(&native::cpu::cpuid),
    }
}

/// What was found and chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Who announces itself.
    pub hypervisors: Hypervisors,
    /// The backend to install.
    pub backend: &'static Backend,
    /// `pv=` asked for something that cannot be; the backend was then chosen as if it had not.
    pub refused: Option<OverrideError>,
}

/// Why the wish of the command line was not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// A backend that cannot serve here: its hypervisor is not there, or another one leaves no choice.
    #[error("pv={0}: cannot serve here")]
    NotHere(&'static str),
    /// A name that means nothing.
    #[error("pv=: unknown name, expected native, kvm or xen")]
    Unknown,
}

/// Names that `pv=` may have.
const NAMES: [&str; 3] = ["native", "kvm", "xen"];

/// Finds out what runs this guest and chooses the backend: the one named by `pv` (the command line's `pv=`), else
/// the first whose hypervisor is there. Never fails: native serves always.
pub fn detect(environment: &Environment<'_>, pv: Option<&str>) -> Detection {
    let hypervisors = Hypervisors::scan(environment.cpuid);
    let serves = |backend: &&&'static Backend| (backend.detect)(&hypervisors, environment);
    let (forced, refused) = match pv.map(|name| forced(name, &serves)) {
        Some(Ok(backend)) => (Some(backend), None),
        Some(Err(error)) => (None, Some(error)),
        None => (None, None),
    };
    let backend = forced.or_else(|| BACKENDS.iter().find(serves).copied()).unwrap_or(&native::BACKEND);
    Detection { hypervisors, backend, refused }
}

/// The backend of this name, or the first that serves of the family `xen`: `xen-pvh` and others.
fn forced(
    name: &str,
    serves: &dyn Fn(&&&'static Backend) -> bool,
) -> Result<&'static Backend, OverrideError> {
    let known = NAMES.iter().find(|known| **known == name).ok_or(OverrideError::Unknown)?;
    let mut family = BACKENDS.iter().filter(|backend| backend.name.split('-').next() == Some(known));
    family.find(serves).copied().ok_or(OverrideError::NotHere(known))
}

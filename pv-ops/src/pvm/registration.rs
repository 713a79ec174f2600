//! From an emulated guest to one that runs on the CPU itself: a page for each CPU, told to the host by a register.
//! Neighbours: `irq` (what is in the page), `native::guarded` (registers that may not be there).
//!
//! The host runs the registered kernel in ring 3, so every page in force must be the user's, on every level: the entry's
//! tables are made so first (the entry code's own begin so), and the kernel's own come out of `pte_make` so.

use crate::{native::guarded, percpu::CpuArea};
use core::{
    arch::asm,
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

/// Reads as [`SIGNATURE`] on such a host; elsewhere it is not there, or reads as something else.
const MSR_SIGNATURE: u32 = 0x4b56_4d11;
/// "PVM", the last letter first.
const SIGNATURE: u64 = 0x4d_5650;
/// Takes the page's physical address; 0 ends the registration. From the next instruction on the CPU runs the kernel.
const MSR_FLAGS_PAGE: u32 = 0x4b56_4d10;
/// IA32_FS_BASE (SDM vol. 4, Table 2-2).
const FS_BASE: u32 = 0xc000_0100;

/// What the host reads and writes of a CPU; the address must be a page's.
#[repr(C, align(4096))]
struct FlagsPage {
    /// The interrupt flag.
    interrupts: AtomicU8,
    /// The host holds an interrupt back.
    pending: AtomicU8,
    _pad: [AtomicU8; 6],
    /// For a mode of registration that is not used.
    cr2: AtomicU64,
}

const PAGE: u64 = 4096;
const _: () = assert!(size_of::<FlagsPage>() as u64 == PAGE);

/// The boot CPU's; the others bring theirs ([`CpuArea::page`]).
static BOOT_PAGE: FlagsPage = FlagsPage {
    interrupts: AtomicU8::new(0),
    pending: AtomicU8::new(0),
    _pad: [const { AtomicU8::new(0) }; 6],
    cr2: AtomicU64::new(0),
};

/// The boot CPU is registered.
static IS_REGISTERED: AtomicBool = AtomicBool::new(false);

/// Whether the boot CPU is registered.
pub(super) fn is_registered() -> bool {
    IS_REGISTERED.load(Ordering::Relaxed)
}

/// Whether the host is such a one.
pub(super) fn is_there(read_msr: &dyn Fn(u32) -> Option<u64>) -> bool {
    read_msr(MSR_SIGNATURE) == Some(SIGNATURE)
}

/// Registers the boot CPU, whose page tables are the user's already; `false` if it stays as it was. `physical` gives the
/// physical address behind one of the image.
pub(super) fn register_boot_cpu(physical: &dyn Fn(u64) -> Option<u64>) -> bool {
    let address = core::ptr::from_ref(&BOOT_PAGE).addr() as u64;
    let Some(physical) = physical(address).filter(|physical| *physical != 0 && physical % PAGE == 0) else {
        return false;
    };
    // SAFETY: every 64-bit CPU has this register, and nothing uses FS; the page is a static.
    unsafe { write_msr(FS_BASE, address) };
    // SAFETY: the host reads and writes the first 16 bytes of the page, which are atomics.
    let registered = unsafe { guarded::write_msr(MSR_FLAGS_PAGE, physical) } && runs_in_ring_3();
    IS_REGISTERED.store(registered, Ordering::Relaxed);
    registered
}

/// Ends the registration of the boot CPU, the only one: its host emulates it again.
pub(super) fn unregister_boot_cpu() {
    // SAFETY: it is there: the boot CPU is registered. Nothing relies on the flags in the page yet.
    unsafe { write_msr(MSR_FLAGS_PAGE, 0) };
    IS_REGISTERED.store(false, Ordering::Relaxed);
}

/// Makes every page of the entry's tables, and every table, the user's, or the supervisor's; `false` where one cannot be reached.
pub(super) fn give_entry_pages(to_user: bool, entry_map: &Range<u64>) -> bool {
    let owner = if to_user { USER } else { 0 };
    let given = EntryTables { start: entry_map.start, end: entry_map.end, owner }.give(root(), 4).is_some();
    // SAFETY: the same tables again.
    unsafe { asm!("mov cr3, {}", in(reg) root(), options(nostack, preserves_flags)) };
    given
}

/// Registers the CPU that runs this, whose data is at `base`, and which begins, or begins anew. One for which there is no page
/// stops here: its interrupt flag would be nowhere.
///
/// # Safety
/// There is a settled [`CpuArea`] that stays.
pub(super) unsafe fn register_this_cpu(base: u64) {
    // SAFETY: every 64-bit CPU has this register; its reset has made it 0.
    if unsafe { read_msr(FS_BASE) } != 0 {
        return;
    }
    let area: *const CpuArea = core::ptr::with_exposed_provenance(base as usize);
    // SAFETY: the caller's promise.
    let (page, physical) = unsafe { &*area }.page();
    if page == 0 || physical == 0 {
        loop {
            // SAFETY: stops this CPU, whose interrupts were never enabled.
            unsafe { asm!("hlt", options(nomem, nostack)) };
        }
    }
    let flags: *const FlagsPage = core::ptr::with_exposed_provenance(page as usize);
    // A reset of the CPU alone leaves it registered, with the flag as it was.
    // SAFETY: a page for this and nothing else, which stays; all in it is atomic.
    unsafe { &*flags }.interrupts.store(0, Ordering::Relaxed);
    // SAFETY: every 64-bit CPU has this register, and nothing uses FS.
    unsafe { write_msr(FS_BASE, page) };
    // SAFETY: the boot CPU has this register, so this one has; the page is as above.
    unsafe { write_msr(MSR_FLAGS_PAGE, physical) };
}

/// What registration shows by: for the CPU itself the kernel is in ring 3.
fn runs_in_ring_3() -> bool {
    let code_segment: u16;
    // SAFETY: reads a register.
    unsafe { asm!("mov {:x}, cs", out(reg) code_segment, options(nomem, nostack, preserves_flags)) };
    code_segment & 3 == 3
}

/// # Safety
/// The register is there.
unsafe fn read_msr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's promise; reading changes nothing.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// # Safety
/// The register is there, and takes the value; what hangs on it stays sound.
unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

/// CR3 before there are ops.
fn root() -> u64 {
    let root;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr3", out(reg) root, options(nomem, nostack, preserves_flags)) };
    root
}

/// Bits of an entry (SDM vol. 3A §4.5), and the address in it.
const PRESENT: u64 = 1;
pub(super) const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const ENTRIES: u64 = 512;

/// The page tables of the entry, under the addresses at which it maps physical memory.
struct EntryTables {
    start: u64,
    end: u64,
    /// Whose every page becomes: bits [`USER`], or none.
    owner: u64,
}

impl EntryTables {
    /// Changes every entry of this table, and of those below it. `None` where a table cannot be reached.
    fn give(&self, table: u64, level: u32) -> Option<()> {
        let address = self.start.checked_add(table & ADDRESS)?;
        if address + PAGE > self.end {
            return None;
        }
        for index in 0..ENTRIES {
            let entry: *mut u64 = core::ptr::with_exposed_provenance_mut((address + index * 8) as usize);
            // SAFETY: a word of a table in force, which the entry maps here; nobody else changes it.
            let value = unsafe { entry.read_volatile() };
            if value & PRESENT == 0 {
                continue;
            }
            // SAFETY: as above. Nothing but the right of ring 3, where nothing of ours runs, is changed.
            unsafe { entry.write_volatile(value & !USER | self.owner) };
            if level > 1 && (level == 4 || value & LARGE == 0) {
                self.give(value, level - 1)?;
            }
        }
        Some(())
    }
}

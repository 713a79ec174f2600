//! From an emulated guest to one that runs on the CPU itself: a page for each CPU, told to the host by a register.
//! Neighbours: `irq` (what is in the page), `native::guarded` (registers that may not be there).
//!
//! The host runs the registered kernel in ring 3, so every page in force must be the user's, on every level: the entry's
//! tables are made so first, and the kernel's own come out of `pte_make` so.

use crate::{backend::Environment, native::guarded};
use core::{
    arch::asm,
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering},
};

/// Reads as [`SIGNATURE`] on such a host; elsewhere it is not there, or reads as something else.
const MSR_SIGNATURE: u32 = 0x4b56_4d11;
/// "PVM", the last letter first.
const SIGNATURE: u64 = 0x4d_5650;
/// Takes the page's physical address; 0 ends the registration. From the next instruction on the CPU runs the kernel.
const MSR_FLAGS_PAGE: u32 = 0x4b56_4d10;
/// IA32_FS_BASE (SDM vol. 4, Table 2-2).
const FS_BASE: u32 = 0xc000_0100;

/// CPUs that can register.
const CPUS: usize = 8;
const PAGE: u64 = 4096;

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

const _: () = assert!(size_of::<FlagsPage>() as u64 == PAGE);

static PAGES: [FlagsPage; CPUS] = [const {
    FlagsPage {
        interrupts: AtomicU8::new(0),
        pending: AtomicU8::new(0),
        _pad: [const { AtomicU8::new(0) }; 6],
        cr2: AtomicU64::new(0),
    }
}; CPUS];
/// Where they are in physical memory.
static PHYSICAL: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];
/// Pages that are taken.
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// Whether the host is such a one.
pub(super) fn is_there(read_msr: &dyn Fn(u32) -> Option<u64>) -> bool {
    read_msr(MSR_SIGNATURE) == Some(SIGNATURE)
}

/// Registers the boot CPU; `false` if it stays as it was.
pub(super) fn register_boot_cpu(environment: &Environment<'_>) -> bool {
    for (page, place) in PAGES.iter().zip(&PHYSICAL) {
        let address = core::ptr::from_ref(page).addr() as u64;
        let physical = (environment.image_physical)(address).filter(|physical| physical % PAGE == 0);
        place.store(physical.unwrap_or(0), Ordering::Relaxed);
    }
    let tables = EntryTables { start: environment.entry_map.start, end: environment.entry_map.end };
    tables.make_user(root(), 4).is_some() && register()
}

/// Registers the CPU that runs this, which begins, or begins anew. One for which there is no page stops here: its interrupt
/// flag would be nowhere.
pub(super) fn register_this_cpu() {
    // SAFETY: every 64-bit CPU has this register; its reset has made it 0.
    let begins = unsafe { read_msr(FS_BASE) } == 0;
    if begins && !find_again() && !register() {
        loop {
            // SAFETY: stops this CPU, whose interrupts were never enabled.
            unsafe { asm!("hlt", options(nomem, nostack)) };
        }
    }
}

/// A reset of the CPU alone leaves it registered: it has its page already.
fn find_again() -> bool {
    // SAFETY: the boot CPU has this register, so this one has.
    let physical = unsafe { read_msr(MSR_FLAGS_PAGE) };
    let mut pages = PAGES.iter().zip(&PHYSICAL);
    let Some((page, _)) = pages.find(|(_, place)| physical != 0 && place.load(Ordering::Relaxed) == physical)
    else {
        return false;
    };
    page.interrupts.store(0, Ordering::Relaxed);
    // SAFETY: every 64-bit CPU has this register, and nothing uses FS; the page is a static.
    unsafe { write_msr(FS_BASE, core::ptr::from_ref(page).addr() as u64) };
    true
}

fn register() -> bool {
    let index = TAKEN.fetch_add(1, Ordering::Relaxed) as usize;
    let (Some(page), Some(physical)) = (PAGES.get(index), PHYSICAL.get(index)) else { return false };
    let physical = physical.load(Ordering::Relaxed);
    if physical == 0 {
        return false;
    }
    // SAFETY: every 64-bit CPU has this register, and nothing uses FS; the page is a static.
    unsafe { write_msr(FS_BASE, core::ptr::from_ref(page).addr() as u64) };
    if index == 0 {
        // SAFETY: the host reads and writes the first 16 bytes of the page, which are atomics.
        if !unsafe { guarded::write_msr(MSR_FLAGS_PAGE, physical) } {
            return false;
        }
    } else {
        // SAFETY: as above; the boot CPU has this register, so this one has.
        unsafe { write_msr(MSR_FLAGS_PAGE, physical) };
    }
    is_registered()
}

/// In ring 3 for the CPU itself.
fn is_registered() -> bool {
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
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const ENTRIES: u64 = 512;

/// The page tables of the entry, under the addresses at which it maps physical memory.
struct EntryTables {
    start: u64,
    end: u64,
}

impl EntryTables {
    /// Makes every entry of this table, and of those below it, the user's. `None` where a table cannot be reached.
    fn make_user(&self, table: u64, level: u32) -> Option<()> {
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
            // SAFETY: as above. Nothing but the right of ring 3, where nothing runs, is added.
            unsafe { entry.write_volatile(value | USER) };
            if level > 1 && (level == 4 || value & LARGE == 0) {
                self.make_user(value, level - 1)?;
            }
        }
        Some(())
    }
}

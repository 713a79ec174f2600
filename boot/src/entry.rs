//! The entry code's Rust half: one function per protocol, called by `entry.s` on the boot stack.
//! Each reads the loader's data through the direct map and calls the kernel's main function, which
//! [`entry!`](crate::entry) names. Neighbours: `pvh`, `multiboot2`, `bootloader` read; `image` tells extents.

use crate::image::{self, STACK_BYTES};
use crate::memory_map::PAGE_SIZE;
use crate::physical::PhysicalMemory;
use crate::{DIRECT_MAP, Info, KERNEL_VMA, bootloader, multiboot2, pvh, xen_pv};
use bootloader_api::{BootInfo, BootloaderConfig};
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ops::Range;

/// What `entry.s` maps: physical memory below 4 GiB.
const MAPPED_BYTES: u64 = 1 << 32;
/// The size of the address range from [`DIRECT_MAP`] on that is kept for it.
const DIRECT_MAP_BYTES: u64 = 1 << 46;
/// What goes to isa-debug-exit when the guest refuses to boot: 16 + status 4.
const REFUSED: u32 = 16 + 4;

global_asm!(
    include_str!("headers.s"),
    vma = const KERNEL_VMA as i64,
    options(att_syntax)
);
global_asm!(
    include_str!("entry.s"),
    vma = const KERNEL_VMA as i64,
    direct_map_index = const DIRECT_MAP >> 39 & 511,
    image_index = const KERNEL_VMA >> 39 & 511,
    image_pdpt_index = const KERNEL_VMA >> 30 & 511,
    stack_bytes = const STACK_BYTES,
    refused = const REFUSED,
    entry_tsc = sym image::ENTRY_TSC,
    enter_pvh = sym enter_pvh,
    enter_multiboot2 = sym enter_multiboot2,
    enter_bootloader = sym enter_bootloader,
    enter_xen_pv = sym enter_xen_pv,
    options(att_syntax)
);

/// What the bootloader crate looks for in the file before it loads it.
#[used]
#[unsafe(link_section = ".bootloader-config")]
static BOOTLOADER_CONFIG: [u8; BootloaderConfig::SERIALIZED_LEN] = bootloader::CONFIG.serialize();

unsafe extern "Rust" {
    /// Defined by [`entry!`](crate::entry), which checks its type.
    #[link_name = "pliant_kernel_main"]
    safe static KERNEL_MAIN: fn(&'static mut Info) -> !;
}

extern "sysv64" fn enter_pvh(start_info: u64) -> ! {
    let image = image::physical();
    let memory = DirectMap { end: MAPPED_BYTES, image: image.clone() };
    start(pvh::read(&memory, start_info, &image))
}

extern "sysv64" fn enter_multiboot2(address: u64, magic: u32) -> ! {
    let image = image::physical();
    let memory = DirectMap { end: MAPPED_BYTES, image: image.clone() };
    start(multiboot2::read(&memory, magic, address, &image))
}

extern "sysv64" fn enter_bootloader(boot_info: &'static mut BootInfo) -> ! {
    // The loader maps all that its regions tell of, and 4 GiB at least. The image's frames are scattered.
    let end = boot_info.memory_regions.iter().map(|region| region.end).fold(MAPPED_BYTES, u64::max);
    let memory = DirectMap { end: end.min(DIRECT_MAP_BYTES), image: 0..0 };
    start(bootloader::read(&memory, read_cr3(), boot_info))
}

extern "sysv64" fn enter_xen_pv(start_info: u64) -> ! {
    let page: *const u8 = core::ptr::with_exposed_provenance(start_info as usize);
    // SAFETY: Xen maps the structure at the address that it leaves in RSI, on a page of its own, and writes it no more.
    let page = unsafe { core::slice::from_raw_parts(page, PAGE_SIZE as usize) };
    start(xen_pv::read(page, start_info, &image::physical()))
}

/// The place of the one [`Info`], for as long as the guest runs: it is too large to be moved around.
struct Place(UnsafeCell<MaybeUninit<Info>>);

// SAFETY: only `start` touches it, once, before there is a second CPU.
unsafe impl Sync for Place {}

static INFO: Place = Place(UnsafeCell::new(MaybeUninit::uninit()));

/// Control passes to the kernel.
fn start(info: Info) -> ! {
    let place = INFO.0.get();
    // SAFETY: every way in ends here, and only one is taken, once, on the one CPU that runs: nobody else has a
    // reference to `INFO`, and there will be no other.
    let place: &'static mut MaybeUninit<Info> = unsafe { &mut *place };
    let info = place.write(info);
    image::note_main();
    KERNEL_MAIN(info)
}

/// Physical memory as the entry code or the loader mapped it at [`DIRECT_MAP`].
struct DirectMap {
    /// Where the mapping ends.
    end: u64,
    /// The image, whose bytes change under a reader: nothing of the loader's may lie there.
    image: Range<u64>,
}

impl PhysicalMemory for DirectMap {
    fn bytes(&self, address: u64, len_bytes: u64) -> Option<&[u8]> {
        let end = address.checked_add(len_bytes).filter(|&end| end <= self.end)?;
        if address < self.image.end && self.image.start < end {
            return None;
        }
        let start = (DIRECT_MAP + address) as *const u8;
        // SAFETY:
        // 1. `address..end` is below `self.end`, and physical memory up to there is mapped readable at
        //    `DIRECT_MAP`: by `entry.s`, or by the bootloader crate as `bootloader::CONFIG` asks (whose reader
        //    checks that before it reads). What is no RAM there reads as something, and any byte is a `u8`.
        // 2. Only this CPU runs. It writes to the image and the boot stack in it, which the check above keeps
        //    out under PVH and Multiboot2; the bootloader crate keeps both apart from page tables and ramdisk,
        //    which are all that is read there.
        Some(unsafe { core::slice::from_raw_parts(start, len_bytes as usize) })
    }
}

/// The root of the page tables in use.
fn read_cr3() -> u64 {
    let cr3;
    // SAFETY: the entry code runs in ring 0, where this only reads a register.
    unsafe { asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags)) };
    cr3
}

//! How control arrives: every way into the image ends in one plain [`Info`], handed to the kernel.
//!
//! The bootloader crate (BIOS, UEFI), Multiboot2 (GRUB), PVH (QEMU `-kernel`, Xen) and Xen PV enter one and the same
//! ELF file, which `link.ld` lays out. The entry code brings the CPU into one state, whatever the way in; a reader
//! per protocol then turns the loader's data, which is trusted in nothing, into owned values.
//! `docs/boot.md` tells the whole story.
#![no_std]

pub mod bootloader;
pub mod cmdline;
pub mod e820;
#[cfg(target_os = "none")]
mod entry;
pub mod image;
pub mod info;
pub mod memory_map;
pub mod multiboot2;
pub mod page_walk;
pub mod physical;
pub mod problem;
pub mod pvh;
pub mod xen_pv;

pub use cmdline::CommandLine;
pub use image::{entry_tsc, image, main_tsc, stack};
pub use info::{Framebuffer, Info, Module, Protocol, XenPv};
pub use memory_map::{MemoryMap, Region, RegionKind};
pub use problem::Problem;

/// Where all physical memory is mapped, by every way in: at least RAM below 4 GiB.
pub const DIRECT_MAP: u64 = 0xffff_8800_0000_0000;
/// Where the image's link addresses count from: under PVH and Multiboot2 `physical = virtual - KERNEL_VMA`.
pub const KERNEL_VMA: u64 = 0xffff_ffff_8000_0000;

/// What is to be done before the loader's data is even looked at, on the ways in on which the page tables in force are the
/// entry code's own (PVH and Multiboot2). It is told how much higher the image is linked than it lies in physical memory,
/// finds all of the image writable, and returns the bits that every page must have in those tables.
pub type First = extern "sysv64" fn(image_offset: u64) -> u64;

/// Makes the function at `$main`, a `fn(&'static mut boot::Info) -> !`, the one that every way in ends in, and the [`First`]
/// at `$first` the one that comes before everything.
///
/// ```ignore
/// boot::entry!(start::kernel_main, first: start::first);
/// ```
#[macro_export]
macro_rules! entry {
    ($main:path, first: $first:path) => {
        const _: () = {
            #[unsafe(export_name = "pliant_kernel_first")]
            static KERNEL_FIRST: $crate::First = $first;
            #[unsafe(export_name = "pliant_kernel_main")]
            static KERNEL_MAIN: fn(&'static mut $crate::Info) -> ! = $main;
        };
    };
}

//! The `bootloader` crate's protocol: `bootloader_api::BootInfo` becomes [`Info`] (bootloader_api 0.11).
//! BIOS and UEFI disk images enter this way. The protocol has no command line; the ramdisk carries it.
//! Neighbours: `entry` calls `read`, `page_walk` finds what the loader gives as virtual addresses.
#![forbid(unsafe_code)]

use crate::info::{Framebuffer, Info, Protocol};
use crate::memory_map::{PAGE_SIZE, RegionKind};
use crate::physical::PhysicalMemory;
use crate::problem::{Problem, Structure};
use crate::{DIRECT_MAP, e820, page_walk};
use bootloader_api::config::{ApiVersion, Mapping};
use bootloader_api::info::{FrameBuffer, MemoryRegionKind, PixelFormat};
use bootloader_api::{BootInfo, BootloaderConfig};

/// What the loader reads from the image's section `.bootloader-config`: all physical memory at [`DIRECT_MAP`],
/// and the least stack, because the entry code has one of its own.
pub const CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = Some(Mapping::FixedAddress(DIRECT_MAP));
    config.kernel_stack_size = PAGE_SIZE;
    config
};

/// The first bytes of a ramdisk that carries a command line.
pub const COMMAND_LINE_MAGIC: [u8; 8] = *b"PLNTCMD1";
/// Bytes at the beginning of such a ramdisk that belong to the command line: magic, text, NUL, padding.
/// What follows, if anything, is the module.
pub const COMMAND_LINE_PAGE_BYTES: u64 = 4096;

/// Converts what the loader handed over. `memory` is the direct map, `cr3` names the loader's page tables.
///
/// Every fault of the data ends up in [`Info::problems`].
pub fn read(memory: &dyn PhysicalMemory, cr3: u64, boot_info: &BootInfo) -> Info {
    let mut info = Info::new(Protocol::Bootloader);
    info.set_loader(b"bootloader");
    check_version(&mut info, &boot_info.api_version);
    let found = boot_info.physical_memory_offset.into_option().unwrap_or(0);
    if found != DIRECT_MAP {
        // All memory is used through the direct map, so none can be.
        info.problem(Problem::DirectMapElsewhere { found, expected: DIRECT_MAP });
        return info;
    }
    read_memory_regions(&mut info, boot_info);
    info.set_rsdp(boot_info.rsdp_addr.into_option().unwrap_or(0));
    if let Some(address) = boot_info.ramdisk_addr.into_option() {
        read_ramdisk(&mut info, memory, cr3, address, boot_info.ramdisk_len);
    }
    if let Some(framebuffer) = boot_info.framebuffer.as_ref() {
        read_framebuffer(&mut info, memory, cr3, framebuffer);
    }
    info
}

fn check_version(info: &mut Info, found: &ApiVersion) {
    let expected = ApiVersion::default();
    let numbers =
        |version: &ApiVersion| [version.version_major(), version.version_minor(), version.version_patch()];
    if *found != expected {
        info.problem(Problem::OtherVersion { found: numbers(found), expected: numbers(&expected) });
    }
}

fn read_memory_regions(info: &mut Info, boot_info: &BootInfo) {
    let regions = &boot_info.memory_regions;
    if !e820::accept_entries(info, Structure::BootloaderMemoryMap, regions.len() as u64) {
        return;
    }
    for region in regions.iter() {
        let kind = match region.kind {
            MemoryRegionKind::Usable => RegionKind::Usable,
            MemoryRegionKind::Bootloader => RegionKind::Loader,
            MemoryRegionKind::UnknownBios(number) => e820::kind(number),
            MemoryRegionKind::UnknownUefi(number) => uefi_kind(number),
            _ => RegionKind::Reserved,
        };
        let (start, end) = (region.start, region.end);
        let result = match end.checked_sub(start) {
            // What the loader calls unknown is unknown to it, so that is no free memory, whatever its type.
            Some(len_bytes) if kind == RegionKind::Usable && region.kind != MemoryRegionKind::Usable => {
                info.memory.reserve(start, len_bytes, RegionKind::Reserved)
            }
            Some(len_bytes) => info.memory.insert(start, len_bytes, kind),
            None => Err(Problem::RegionBackwards { start, end }),
        };
        info.note(result);
    }
}

/// The kind of a UEFI memory type that the loader left alone (UEFI 2.10 §7.2.3, `EFI_MEMORY_TYPE`).
fn uefi_kind(number: u32) -> RegionKind {
    match number {
        8 => RegionKind::Bad,
        9 => RegionKind::AcpiReclaimable,
        10 => RegionKind::AcpiNvs,
        _ => RegionKind::Reserved,
    }
}

/// Splits the ramdisk into command line and module.
fn read_ramdisk(info: &mut Info, memory: &dyn PhysicalMemory, cr3: u64, address: u64, len_bytes: u64) {
    if len_bytes == 0 {
        return;
    }
    let unreachable = Problem::Unreachable { structure: Structure::Ramdisk, address, len_bytes };
    let Some(physical) = page_walk::translate(memory, cr3, address) else {
        return info.problem(unreachable);
    };
    let page = memory.bytes(physical, len_bytes.min(COMMAND_LINE_PAGE_BYTES));
    let Some(page) = page else {
        return info.problem(unreachable);
    };
    match page.strip_prefix(&COMMAND_LINE_MAGIC) {
        Some(text) => {
            info.set_cmdline(text);
            let rest = len_bytes.saturating_sub(COMMAND_LINE_PAGE_BYTES);
            info.add_module(physical.saturating_add(COMMAND_LINE_PAGE_BYTES), rest);
        }
        None => info.add_module(physical, len_bytes),
    }
}

fn read_framebuffer(info: &mut Info, memory: &dyn PhysicalMemory, cr3: u64, framebuffer: &FrameBuffer) {
    let found = framebuffer.info();
    let rgb_shift = match found.pixel_format {
        PixelFormat::Rgb => [0, 8, 16],
        PixelFormat::Bgr => [16, 8, 0],
        PixelFormat::Unknown { red_position, green_position, blue_position } => {
            [red_position, green_position, blue_position]
        }
        // Shades of grey are not drawn on.
        _ => return,
    };
    let virtual_address = framebuffer.buffer().as_ptr() as u64;
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let bytes_per_pixel = u8::try_from(found.bytes_per_pixel).unwrap_or(u8::MAX);
    let converted = Framebuffer {
        // 0, for an address that is not mapped, is refused with a message.
        address: page_walk::translate(memory, cr3, virtual_address).unwrap_or(0),
        width: number(found.width),
        height: number(found.height),
        pitch_bytes: number(found.stride.saturating_mul(found.bytes_per_pixel)),
        bytes_per_pixel,
        rgb_shift,
    };
    info.set_framebuffer(converted, bytes_per_pixel.saturating_mul(8));
}

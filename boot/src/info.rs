//! What every way in hands to the kernel: one struct of owned data, whatever the loader was.
//! Neighbours: `pvh`, `multiboot2` and `bootloader` fill it by the functions at the end of this file, which is
//! where modules, framebuffers and the like are checked for all of them.
#![forbid(unsafe_code)]

use crate::cmdline::CommandLine;
use crate::memory_map::{MemoryMap, PAGE_SIZE, PHYSICAL_LIMIT, RegionKind};
use crate::problem::Structure;
use core::ops::Range;

/// The protocol by which the loader entered the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The `bootloader` crate, from BIOS or UEFI (bootloader_api 0.11).
    Bootloader,
    /// Multiboot2, as GRUB loads it (Multiboot2 Specification 2.0).
    Multiboot2,
    /// PVH direct boot (Xen `docs/misc/pvh.pandoc`, `public/arch-x86/hvm/start_info.h`).
    Pvh,
    /// A PV guest of Xen (Xen `public/xen.h`).
    XenPv,
}

impl core::fmt::Display for Protocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Bootloader => "the bootloader crate's protocol",
            Self::Multiboot2 => "Multiboot2",
            Self::Pvh => "PVH",
            Self::XenPv => "Xen PV",
        })
    }
}

/// A linear framebuffer that the loader has already set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framebuffer {
    /// Physical address of the first pixel.
    pub address: u64,
    /// Visible pixels in a line.
    pub width: u32,
    /// Visible lines.
    pub height: u32,
    /// Bytes from one line to the next.
    pub pitch_bytes: u32,
    /// Bytes of one pixel: 3 or 4.
    pub bytes_per_pixel: u8,
    /// Bit position of red, green and blue (8 bits each) in a little-endian pixel.
    pub rgb_shift: [u8; 3],
}

/// A module (initial ram disk) that the loader placed in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// Physical address of its first byte.
    pub address: u64,
    /// Its length in bytes.
    pub len_bytes: u64,
}

/// What Xen gives a PV guest, for who makes hypercalls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XenPv {
    /// The address at which `struct start_info` is mapped.
    pub start_info: u64,
    /// Physical addresses set aside for the tables of a direct map of all memory; `Image` in the memory map.
    pub spare: core::ops::Range<u64>,
}

/// Modules kept at most; later ones are dropped with a message.
pub const MAX_MODULES: usize = 8;
/// Problems kept at most.
pub const MAX_PROBLEMS: usize = 8;

/// What the guest knows about its machine when Rust code begins.
#[derive(Debug)]
pub struct Info {
    /// The way in.
    pub protocol: Protocol,
    /// The loader's name, where it tells one, else empty.
    pub loader: heapless::String<32>,
    /// The kernel command line.
    pub cmdline: CommandLine,
    /// Physical address of the ACPI RSDP, where the loader tells it.
    pub rsdp: Option<u64>,
    /// All memory: sorted, not overlapping, page-aligned. The image, the modules and what the entry code
    /// still uses are [`RegionKind::Image`](crate::RegionKind) or `Module` or `Loader`, never `Usable`.
    pub memory: MemoryMap,
    /// Modules, in the loader's order.
    pub modules: heapless::Vec<Module, MAX_MODULES>,
    /// The framebuffer, if the loader set one up.
    pub framebuffer: Option<Framebuffer>,
    /// What only a PV guest of Xen has.
    pub xen_pv: Option<XenPv>,
    /// What was refused or repaired while reading the loader's data, to be logged once there is a log.
    pub problems: heapless::Vec<Problem, MAX_PROBLEMS>,
}

pub use crate::problem::Problem;

impl Info {
    /// Whether the guest can run at all with what the loader gave.
    ///
    /// # Errors
    /// [`Problem::NoUsableMemory`]: nothing is left to allocate from. [`Info::problems`] tells why.
    pub fn check(&self) -> Result<(), Problem> {
        if self.memory.usable_bytes() == 0 { Err(Problem::NoUsableMemory) } else { Ok(()) }
    }

    /// The physical address behind `virt`, an address of the image; `None` where the loader scattered the image.
    pub fn image_physical(&self, virt: u64) -> Option<u64> {
        let physical = virt.checked_sub(crate::KERNEL_VMA)?;
        // All others load the image in one piece, and their readers reserve it at that place.
        let in_one_piece = self.protocol != Protocol::Bootloader;
        (in_one_piece && self.memory.kind_at(physical) == Some(RegionKind::Image)).then_some(physical)
    }

    /// Adds a region that the hypervisor tells of, where the loader gave no memory map; `kind` is a number of
    /// `e820`. What is in use already stays so.
    pub fn add_memory(&mut self, start: u64, len_bytes: u64, kind: u32) {
        let result = self.memory.insert(start, len_bytes, crate::e820::kind(kind));
        self.note(result);
        self.problems.retain(|problem| *problem != Problem::NoMemoryMap);
    }

    /// An empty one, to be filled.
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            loader: heapless::String::new(),
            cmdline: CommandLine::new(),
            rsdp: None,
            memory: MemoryMap::new(),
            modules: heapless::Vec::new(),
            framebuffer: None,
            xen_pv: None,
            problems: heapless::Vec::new(),
        }
    }

    /// Notes a problem once; those beyond [`MAX_PROBLEMS`] are dropped.
    pub(crate) fn problem(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            let _ = self.problems.push(problem);
        }
    }

    /// Notes the problem, if there is one.
    pub(crate) fn note(&mut self, result: Result<(), Problem>) {
        if let Err(problem) = result {
            self.problem(problem);
        }
    }

    /// Takes over the command line from the loader's bytes.
    pub(crate) fn set_cmdline(&mut self, bytes: &[u8]) {
        let problems = &mut self.problems;
        self.cmdline = CommandLine::read(bytes, |problem| _ = problems.push(problem));
    }

    /// Takes over the loader's name: what of it is printable ASCII and fits.
    pub(crate) fn set_loader(&mut self, bytes: &[u8]) {
        let name = bytes.iter().take_while(|&&byte| byte != 0);
        for &byte in name.filter(|byte| byte.is_ascii_graphic() || **byte == b' ') {
            let _ = self.loader.push(char::from(byte));
        }
    }

    /// Takes over the RSDP's address, where 0 means that there is none.
    pub(crate) fn set_rsdp(&mut self, address: u64) {
        match address {
            0 => {}
            1..PHYSICAL_LIMIT => self.rsdp = Some(address),
            _ => self.problem(Problem::BadRsdp { address }),
        }
    }

    /// Takes the image, a range of physical addresses, out of the usable memory. Comes before any module.
    pub(crate) fn reserve_image(&mut self, image: &Range<u64>) {
        let len_bytes = image.end.saturating_sub(image.start);
        let result = self.memory.reserve(image.start, len_bytes, RegionKind::Image);
        self.note(result);
    }

    /// Takes over a module, if it is in free memory that no other module has.
    pub(crate) fn add_module(&mut self, address: u64, len_bytes: u64) {
        if len_bytes == 0 {
            return;
        }
        let free = |kind| matches!(kind, RegionKind::Usable | RegionKind::Loader | RegionKind::Module);
        let end = address.checked_add(len_bytes).filter(|&end| self.memory.covers(address, end, free));
        let overlaps = |other: &Module| {
            end.is_some_and(|end| address < other.address + other.len_bytes && other.address < end)
        };
        if end.is_none() || self.modules.iter().any(overlaps) {
            return self.problem(Problem::BadModule { address, len_bytes });
        }
        if self.modules.push(Module { address, len_bytes }).is_err() {
            let (found, limit) = (MAX_MODULES as u64 + 1, MAX_MODULES as u64);
            return self.problem(Problem::TooMany { structure: Structure::Modules, found, limit });
        }
        let result = self.memory.reserve(address, len_bytes, RegionKind::Module);
        self.note(result);
    }

    /// Takes over a framebuffer, if its geometry holds together and it lies over nothing that is in use.
    /// `bits_per_pixel` is that of the loader, for the message.
    pub(crate) fn set_framebuffer(&mut self, framebuffer: Framebuffer, bits_per_pixel: u8) {
        let Framebuffer { address, width, height, pitch_bytes, .. } = framebuffer;
        let in_use = |kind| matches!(kind, RegionKind::Image | RegionKind::Module | RegionKind::Loader);
        let free = |len_bytes: u64| {
            let end = address + len_bytes;
            !self
                .memory
                .iter()
                .any(|region| in_use(region.kind) && region.start < end && address < region.end)
        };
        match framebuffer.len_bytes() {
            Some(len_bytes) if free(len_bytes) => {
                let result = self.memory.reserve(address, len_bytes, RegionKind::Reserved);
                self.note(result);
                self.framebuffer = Some(framebuffer);
            }
            _ => {
                self.problem(Problem::BadFramebuffer { address, width, height, pitch_bytes, bits_per_pixel })
            }
        }
    }
}

/// Pixels in a line, and lines, that a framebuffer has at most.
const MAX_FRAMEBUFFER_SIDE: u32 = 16384;

impl Framebuffer {
    /// Bytes from the first pixel to the end of the last line, or `None` if the geometry contradicts itself.
    pub fn len_bytes(&self) -> Option<u64> {
        let sides = 1..=MAX_FRAMEBUFFER_SIDE;
        let bits = self.bytes_per_pixel.checked_mul(8).filter(|bits| matches!(bits, 24 | 32))?;
        let line = self.width.checked_mul(u32::from(self.bytes_per_pixel))?;
        let len_bytes = u64::from(self.pitch_bytes) * u64::from(self.height);
        let holds = sides.contains(&self.width)
            && sides.contains(&self.height)
            && line <= self.pitch_bytes
            && self.rgb_shift.iter().all(|&shift| shift <= bits - 8)
            && self.address >= PAGE_SIZE
            && self.address.checked_add(len_bytes)? <= PHYSICAL_LIMIT;
        holds.then_some(len_bytes)
    }
}

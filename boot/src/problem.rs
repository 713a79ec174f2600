//! What was refused or repaired in the loader's data: a small value that says what was found and what was
//! expected. It holds numbers only, so nothing that a loader wrote reaches a console unescaped.
//! Neighbours: `info` collects problems, the kernel logs them once it has a log.
#![forbid(unsafe_code)]

use core::fmt;

/// A structure that a loader hands over, by the name its specification gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// PVH `struct hvm_start_info`.
    StartInfo,
    /// PVH `struct hvm_memmap_table_entry[]`.
    StartInfoMemoryMap,
    /// PVH `struct hvm_modlist_entry[]`.
    StartInfoModules,
    /// The Multiboot2 boot information.
    Multiboot2Info,
    /// The Multiboot2 memory map tag (type 6).
    Multiboot2MemoryMap,
    /// The memory regions of `bootloader_api::BootInfo`.
    BootloaderMemoryMap,
    /// The module list, whatever the protocol.
    Modules,
    /// The command line, whatever the protocol.
    CommandLine,
    /// The ramdisk of `bootloader_api::BootInfo`.
    Ramdisk,
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartInfo => "hvm_start_info",
            Self::StartInfoMemoryMap => "hvm_start_info memory map",
            Self::StartInfoModules => "hvm_start_info module list",
            Self::Multiboot2Info => "multiboot2 information",
            Self::Multiboot2MemoryMap => "multiboot2 memory map tag",
            Self::BootloaderMemoryMap => "bootloader memory regions",
            Self::Modules => "module list",
            Self::CommandLine => "command line",
            Self::Ramdisk => "bootloader ramdisk",
        })
    }
}

/// One thing in the loader's data that was not as its specification demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A structure does not begin with its magic number; it is ignored.
    BadMagic {
        /// What should have been there.
        structure: Structure,
        /// The number found.
        found: u32,
        /// The number that its specification gives.
        expected: u32,
    },
    /// A structure lies, at least in part, where nothing is mapped or inside the image itself; it is ignored.
    Unreachable {
        /// What should have been there.
        structure: Structure,
        /// Its physical (bootloader ramdisk: virtual) address.
        address: u64,
        /// Its length in bytes.
        len_bytes: u64,
    },
    /// A structure is shorter than its specification allows; it is ignored.
    TooShort {
        /// Which one.
        structure: Structure,
        /// The length found, in bytes.
        found: u64,
        /// The least length, in bytes.
        expected: u64,
    },
    /// A structure holds more than is taken: bytes of a command line, modules, entries of a memory map.
    TooMany {
        /// Which one.
        structure: Structure,
        /// How many there are (for a command line that has no end: how many were looked at).
        found: u64,
        /// How many are taken.
        limit: u64,
    },
    /// The command line is not UTF-8 or holds control characters; each such byte became `?`.
    NotText {
        /// How many bytes were replaced.
        replaced: u32,
    },
    /// A tag reaches beyond the structure it is in, or is too short for its type; reading tags ended there.
    BadTag {
        /// The tag's type (Multiboot2 2.0 §3.6).
        tag: u32,
        /// Its offset in the structure, in bytes.
        offset: u32,
        /// The length it claims, in bytes.
        len_bytes: u32,
    },
    /// A memory region wraps around or passes 2^52, beyond which x86-64 has no physical memory. If usable, it
    /// was left out, else cut at 2^52.
    RegionOutOfRange {
        /// Its first byte.
        start: u64,
        /// Its length in bytes.
        len_bytes: u64,
    },
    /// A memory region or a module ends before it starts; it was left out.
    RegionBackwards {
        /// Its first byte.
        start: u64,
        /// Its end.
        end: u64,
    },
    /// The memory map needed more regions than it can hold; neighbours were joined and are reserved now.
    MemoryMapFull {
        /// How many regions it can hold.
        limit: u32,
    },
    /// The loader gave no memory map.
    NoMemoryMap,
    /// No page of memory is usable: the guest cannot run.
    NoUsableMemory,
    /// A module is not in usable memory, or overlaps the image or another module; it was dropped.
    BadModule {
        /// Its physical address.
        address: u64,
        /// Its length in bytes.
        len_bytes: u64,
    },
    /// The framebuffer's geometry contradicts itself, or it lies over memory in use; it was dropped.
    BadFramebuffer {
        /// Its physical address.
        address: u64,
        /// Pixels in a line.
        width: u32,
        /// Lines.
        height: u32,
        /// Bytes from line to line.
        pitch_bytes: u32,
        /// Bits of a pixel.
        bits_per_pixel: u8,
    },
    /// The RSDP's address is no physical address; it is ignored.
    BadRsdp {
        /// The address found.
        address: u64,
    },
    /// The loader did not map all memory where the image asked for it; no memory is used.
    DirectMapElsewhere {
        /// Where it is mapped; 0 if nowhere.
        found: u64,
        /// Where it should be.
        expected: u64,
    },
    /// The loader speaks another version of its protocol than the image.
    OtherVersion {
        /// The loader's version: major, minor, patch.
        found: [u16; 3],
        /// The version that the image is built for.
        expected: [u16; 3],
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::BadMagic { structure, found, expected } => {
                write!(f, "{structure} ignored: magic {found:#010x}, expected {expected:#010x}")
            }
            Self::Unreachable { structure, address, len_bytes } => {
                write!(
                    f,
                    "{structure} ignored: {len_bytes} bytes at {address:#x} are not all in mapped memory of its own"
                )
            }
            Self::TooShort { structure, found, expected } => {
                write!(f, "{structure} ignored: {found} bytes long, expected at least {expected}")
            }
            Self::TooMany { structure, found, limit } => {
                write!(f, "{structure} too long: {found} found, {limit} are taken at most")
            }
            Self::NotText { replaced } => {
                write!(f, "command line: {replaced} bytes are no printable UTF-8 text and became '?'")
            }
            Self::BadTag { tag, offset, len_bytes } => {
                write!(
                    f,
                    "multiboot2 tag {tag} at offset {offset}: bad length {len_bytes}, the rest is ignored"
                )
            }
            Self::RegionOutOfRange { start, len_bytes } => {
                write!(f, "memory region at {start:#x} of {len_bytes:#x} bytes passes 2^52: not used")
            }
            Self::RegionBackwards { start, end } => {
                write!(f, "memory region or module {start:#x}..{end:#x} ends before it starts: ignored")
            }
            Self::MemoryMapFull { limit } => {
                write!(f, "memory map needs more than {limit} regions: neighbours were joined and reserved")
            }
            Self::NoMemoryMap => f.write_str("the loader gave no memory map"),
            Self::NoUsableMemory => f.write_str("no usable memory: expected at least one free 4 KiB page"),
            Self::BadModule { address, len_bytes } => {
                write!(
                    f,
                    "module at {address:#x} of {len_bytes:#x} bytes dropped: not all in free memory of its own"
                )
            }
            Self::BadFramebuffer { address, width, height, pitch_bytes, bits_per_pixel } => write!(
                f,
                "framebuffer at {address:#x} dropped: {width}x{height}, {bits_per_pixel} bits a pixel, \
                 {pitch_bytes} bytes a line do not fit together or lie over memory in use"
            ),
            Self::BadRsdp { address } => {
                write!(f, "RSDP ignored: {address:#x} is no physical address")
            }
            Self::DirectMapElsewhere { found, expected } => {
                write!(
                    f,
                    "physical memory is mapped at {found:#x}, expected {expected:#x}: no memory is used"
                )
            }
            Self::OtherVersion { found: [a, b, c], expected: [x, y, z] } => {
                write!(f, "loader speaks bootloader_api {a}.{b}.{c}, expected {x}.{y}.{z}")
            }
        }
    }
}

impl core::error::Error for Problem {}

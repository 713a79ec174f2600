//! The descriptor of a backend: how it is recognised, its ops, and what else it can tell the kernel.
//! Neighbours: `detect` (the ordered list of backends), `table` (installs one), `native`, `xen` (those there are).

use crate::{
    detect::{Hypervisors, Reader},
    native,
    ops::PvOps,
};
use core::ops::Range;

/// One way to run: natively, or as a guest of one hypervisor.
pub struct Backend {
    /// The name, as the log says it.
    pub name: &'static str,
    /// Whether this backend can serve here, judged by what the hypervisors found say and by their feature leaves.
    pub detect: fn(&Hypervisors, &Environment<'_>) -> bool,
    /// Every table from which `setup` may choose. Call sites are as long as the longest inline form in any of them.
    pub tables: &'static [&'static PvOps],
    /// Prepares the backend on the boot CPU, before any of its ops runs, and gives its ops: one of its tables, or a
    /// mixture of several where the host offers only a part.
    pub setup: fn(&Environment<'_>, &Hypervisors) -> PvOps,
    /// What the kernel can ask of it besides the ops.
    pub services: Services,
}

/// What the kernel tells a backend about the way in.
pub struct Environment<'a> {
    /// Reads CPUID.
    pub cpuid: Reader<'a>,
    /// Reads a model-specific register that may not be there, before there are exception handlers.
    pub read_msr: &'a dyn Fn(u32) -> Option<u64>,
    /// The physical address behind an address of the image; `None` where the loader does not let it be known.
    pub image_physical: &'a dyn Fn(u64) -> Option<u64>,
    /// The addresses at which physical memory is mapped at entry, physical address 0 first.
    pub entry_map: Range<u64>,
    /// The address of Xen's `start_info`, where Xen's PV loader entered.
    pub xen_start_info: Option<u64>,
    /// Physical addresses of memory that was set aside for a backend to build page tables in.
    pub spare: Range<u64>,
    /// The time-stamp counter when the guest was entered: time 0.
    pub entry_tsc: u64,
    /// Tells what the command line says under a key, if anything.
    pub option: &'a dyn Fn(&str, &mut dyn FnMut(&str)),
}

impl Environment<'_> {
    /// Nothing is known but the CPU's own answers.
    pub const NATIVE: Environment<'static> = Environment {
        cpuid: &native::cpu::cpuid,
        read_msr: &|_| None,
        image_physical: &|_| None,
        entry_map: 0..0,
        xen_start_info: None,
        spare: 0..0,
        entry_tsc: 0,
        option: &|_, _| (),
    };
}

/// A region of physical memory, as a hypervisor tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Physical address of its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// Its kind by the numbers of ACPI 6.5 §15, table 15.1; 1 is usable.
    pub kind: u32,
}

/// Where in a CPU's own data, at this distance from the base of GS, the backend keeps an address of its own: 8 bytes,
/// 0 until [`Services::cpu_up`] ran on that CPU. Inline forms have it in their text.
pub const CPU_SLOT: u64 = 16;

/// Something that a hypervisor offers, or could, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name, as the command line has it.
    pub name: &'static str,
    /// The hypervisor offers it.
    pub offered: bool,
    /// The command line does not want it.
    pub refused: bool,
    /// This guest uses it.
    pub used: bool,
}

/// What a hypervisor can tell or wants to be told, each in its time. All may be asked of any backend.
#[derive(Clone, Copy)]
pub struct Services {
    /// Tells every region of memory, if the hypervisor has a map that the loader does not give. At boot, on the boot
    /// CPU only.
    pub memory_map: fn(each: &mut dyn FnMut(Region)),
    /// The rate of the time-stamp counter in hertz, if told.
    pub tsc_hz: fn() -> Option<u64>,
    /// The kernel's own page tables are in force: what the backend shares with its host is mapped anew by `map`, which
    /// takes a physical address of a page and gives an address.
    pub map_pages: fn(map: &dyn Fn(u64) -> Option<*mut u8>),
    /// The CPU that runs this, of this number, has its own data, segments and exception handlers: what it shares with
    /// the host is registered. Called once on each CPU, interrupts disabled.
    pub cpu_up: fn(cpu: u32),
    /// Stops another CPU for good, wherever it is. Where there is none, an interrupt that cannot be masked does it.
    pub stop_cpu: Option<fn(cpu: u32)>,
    /// Tells every feature that the backend knows of.
    pub features: fn(each: &mut dyn FnMut(Feature)),
    /// What is wrong with the command line's words for this backend, if anything.
    pub complaint: fn() -> Option<&'static str>,
    /// The page tables in force after set-up stay in force: they map all memory, and only the hypervisor could
    /// build others. The kernel changes in them what it wants otherwise.
    pub keeps_entry_tables: bool,
}

impl Services {
    /// Nothing to tell.
    pub const NONE: Self = Self {
        memory_map: |_| (),
        tsc_hz: || None,
        map_pages: |_| (),
        cpu_up: |_| (),
        stop_cpu: None,
        features: |_| (),
        complaint: || None,
        keeps_entry_tables: false,
    };
}

impl core::fmt::Debug for Backend {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Backend({})", self.name)
    }
}

impl PartialEq for Backend {
    /// A backend is itself: names are unique.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

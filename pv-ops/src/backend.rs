//! The descriptor of a backend: how it is recognised, its ops, and what else it can tell the kernel.
//! Neighbours: `detect` (the ordered list of backends), `table` (installs one), `native`, `xen` (those there are).

use crate::{
    detect::{Hypervisors, Reader},
    native,
    ops::PvOps,
    percpu::CpuArea,
};
use core::ops::Range;

/// One way to run: natively, or as a guest of one hypervisor.
pub struct Backend {
    /// The name, as the log says it.
    pub name: &'static str,
    /// Whether this backend can serve here, judged by what the hypervisors found say and by their feature leaves.
    pub detect: fn(&Hypervisors, &Environment<'_>) -> bool,
    /// Prepares the backend on the boot CPU, before any of its ops runs, and puts its ops in the place of native's: those
    /// of one of its tables ([`detect::TABLES`](crate::detect)), or of several where the host offers only a part.
    pub setup: fn(&Environment<'_>, &Hypervisors, &mut PvOps),
    /// What the kernel can ask of it besides the ops.
    pub services: Services,
    /// What it does before anything else, if it must.
    pub early: Option<Early>,
}

/// What a backend does before detection, on the ways in that allow it ([`first`](crate::first)).
pub struct Early {
    /// Told how much higher the image is linked than it lies in physical memory; says, if there was something to do, which
    /// bits every page must have in the entry's page tables from then on.
    pub enter: fn(image_offset: u64) -> Option<u64>,
    /// Another backend was chosen: all is as if `enter` had done nothing.
    pub leave: fn(&Environment<'_>),
}

/// Tells the second what the command line says under a key, if anything.
pub type Options<'a> = &'a dyn Fn(&str, &mut dyn FnMut(&str));

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
    pub option: Options<'a>,
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

/// The vector by which the host tells that a page is there ([`Services::page_ready`]). The kernel has a handler for it before
/// interrupts are enabled.
pub const PAGE_READY_VECTOR: u8 = 0xf3;
/// The token that stands for every page.
pub const ALL_PAGES: u32 = u32::MAX;

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

/// See [`Services::start_cpu`]. What it is told must be there for a CPU that does not run.
pub type StartCpu = unsafe fn(cpu: u32, start: &CpuStart) -> bool;

/// How a CPU begins.
#[derive(Clone, Copy, Debug)]
pub struct CpuStart {
    /// Its stack pointer, a multiple of 16.
    pub stack: u64,
    /// What it calls.
    pub entry: extern "sysv64" fn(u64) -> !,
    /// For `entry`.
    pub argument: u64,
    /// The CPU's own data, for GS.
    pub area: &'static CpuArea,
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
    /// The CPU that runs this, of this number, has its own data, segments and exception handlers, and memory is up: what
    /// it shares with the host is registered. Called once on each CPU, the boot CPU too, interrupts disabled.
    pub cpu_up: fn(cpu: u32),
    /// CPUs that the backend can serve.
    pub max_cpus: u32,
    /// Each CPU but the boot CPU must have a page for its host before it starts ([`CpuArea::give_page`]).
    pub cpu_pages: bool,
    /// How many CPUs there are, if the hypervisor counts them and starts them itself: [`start_cpu`](Self::start_cpu).
    pub cpu_count: fn() -> Option<u32>,
    /// Starts the CPU with this number: it calls `entry` with `argument`, interrupts disabled, on the stack that ends at
    /// `stack`, with GS at `area`, or goes on where it went down. Whether the hypervisor does it. Where there is none,
    /// the local APIC's messages start CPUs.
    pub start_cpu: Option<StartCpu>,
    /// Stops another CPU for good, wherever it is. Where there is none, an interrupt that cannot be masked does it.
    pub stop_cpu: Option<fn(cpu: u32)>,
    /// Interrupts another CPU even where interrupts are disabled. Where there is none, a message of the local APIC does it.
    pub send_nmi: Option<fn(cpu: u32)>,
    /// Such an interrupt of this CPU has been handled, and the next may come: for a host that does not see it by the way back.
    pub nmi_done: fn(),
    /// Whether the page fault that this CPU is taking is no fault but a page that the host is fetching: then its token, once.
    pub page_fault: fn() -> Option<u32>,
    /// The token of a page that is there now; [`ALL_PAGES`] stands for all. For the handler of [`PAGE_READY_VECTOR`].
    pub page_ready: fn() -> Option<u32>,
    /// Whether a device's message can name a CPU by 15 bits of its APIC ID, the upper 7 of them in bits 5 to 11 of the
    /// address.
    pub has_long_message_ids: fn() -> bool,
    /// Tells every feature that the backend knows of.
    pub features: fn(each: &mut dyn FnMut(Feature)),
    /// What is wrong with the command line's words for this backend, if anything.
    pub complaint: fn() -> Option<&'static str>,
    /// The page tables in force after set-up stay in force: they map all memory, and only the hypervisor could
    /// build others. The kernel changes in them what it wants otherwise.
    pub keeps_entry_tables: bool,
    /// Changed pages that are better flushed one by one than with all others.
    pub flush_limit: usize,
}

impl Services {
    /// Nothing to tell.
    pub const NONE: Self = Self {
        memory_map: |_| (),
        tsc_hz: || None,
        map_pages: |_| (),
        cpu_up: |_| (),
        max_cpus: crate::MAX_CPUS as u32,
        cpu_pages: false,
        cpu_count: || None,
        start_cpu: None,
        stop_cpu: None,
        send_nmi: None,
        nmi_done: || (),
        page_fault: || None,
        page_ready: || None,
        has_long_message_ids: || false,
        features: |_| (),
        complaint: || None,
        keeps_entry_tables: false,
        flush_limit: 32,
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

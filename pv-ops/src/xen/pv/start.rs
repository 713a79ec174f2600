//! Set-up of a PV guest: from the tables that Xen's builder made, which map the image and what lies behind it, to a
//! direct map of all the guest's memory, which is what every other way in begins with (xen.h, "Domain start-up").
//! Neighbours: `boot::xen_pv` (reads the same start_info and sets frames for tables aside), `mmu` (what changes them).

use super::{
    abi::{MAGIC, PHYSDEVOP_SET_IOPL, SetIopl, StartInfo},
    cpu, irq, mmu,
    p2m::{self, ACCESSED, DIRTY, NO_EXECUTE, PAGE, PRESENT, WRITABLE},
    suspend,
};
use crate::{
    backend::Environment,
    detect::Hypervisors,
    native,
    ops::PvOps,
    percpu::HOST_WORDS,
    xen::{
        self, console, cpuid,
        hypercall::{self, Form, Number},
        rings, shared_info, steal, time,
    },
};
use core::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

const ENTRIES: u64 = 512;
/// Tables of level 2 and 1 for the page at a fixed address.
const FIXED_TABLES: u64 = 2;

/// A page of the image behind which each table is filled before Xen gets it.
#[repr(C, align(4096))]
struct Window([AtomicU64; ENTRIES as usize]);

static WINDOW: Window = Window([const { AtomicU64::new(0) }; ENTRIES as usize]);

pub(super) fn setup(environment: &Environment<'_>, hypervisors: &Hypervisors, ops: &mut PvOps) {
    native::setup(environment, hypervisors, ops);
    hypercall::set_form(Form::Syscall);
    match prepare(environment, hypervisors) {
        Ok(table) => *ops = *table,
        Err(reason) => xen::sched::refuse(reason),
    }
}

fn prepare(environment: &Environment<'_>, hypervisors: &Hypervisors) -> Result<&'static PvOps, &'static str> {
    let address = environment.xen_start_info.ok_or("no start_info\n")?;
    let start_info: *const StartInfo = core::ptr::with_exposed_provenance(address as usize);
    // SAFETY: Xen's PV loader, which alone enters this way, mapped the struct there.
    let start_info = unsafe { &*start_info };
    if !start_info.magic.starts_with(MAGIC) {
        return Err("start_info has another magic than xen-3\n");
    }
    let physical =
        |virt| (environment.image_physical)(virt).ok_or("start_info leads outside of the boot image\n");
    let shared = shared_info::address();
    let image = shared - physical(shared)?;
    let root = physical(start_info.pt_base)?;
    mmu::init(start_info.mfn_list, start_info.nr_pages, environment.entry_map.start, root);
    share(shared, physical(shared)?, start_info.shared_info)?;
    let builders = root / PAGE..root / PAGE + start_info.nr_pt_frames;
    let spare = environment.spare.start / PAGE..environment.spare.end / PAGE;
    build_direct_map(environment.entry_map.start, start_info.nr_pages, root, image, &builders, &spare)?;
    mmu::set_list(physical(start_info.mfn_list)? / PAGE);
    mmu::tell_list(shared_info::get());
    suspend::set_start_info(physical(address)? / PAGE);

    cpu::set_gs_base(irq::SHARED_PAGE - HOST_WORDS as u64);

    let read = environment.cpuid;
    if let Some(base) = cpuid::base(hypervisors) {
        time::start(environment.entry_tsc, read, base);
    }
    if xen::is_dom0() {
        allow_ports()?;
        return Ok(&super::OPS_DOM0);
    }
    rings::set(
        (mmu::guest_frame(start_info.console_mfn), start_info.console_evtchn),
        (mmu::guest_frame(start_info.store_mfn), start_info.store_evtchn),
    );
    if let Some(pfn) = mmu::guest_frame(start_info.console_mfn) {
        let page =
            core::ptr::with_exposed_provenance_mut((environment.entry_map.start + pfn * PAGE) as usize);
        // SAFETY: Xen's builder gave this frame of ours to be the ring; the direct map just built has it.
        unsafe { console::set_ring(page, start_info.console_evtchn, root) };
    }
    Ok(&super::OPS)
}

/// Puts Xen's shared page in the place of the image's own.
fn share(virt: u64, physical: u64, machine: u64) -> Result<(), &'static str> {
    // SAFETY: the page of the image that is nobody's but Xen's.
    unsafe { mmu::map_page(virt, machine / PAGE, true) }
        .map_err(|_| "Xen did not let its shared page be mapped\n")?;
    // SAFETY: as above; the direct map, which does not exist yet, will show Xen's page too.
    unsafe { mmu::replace_frame(physical / PAGE, machine / PAGE) };
    shared_info::set_mapped();
    Ok(())
}

/// How many tables of one level serve `count` tables or pages of the level below.
fn tables_for(count: u64) -> u64 {
    count.div_ceil(ENTRIES)
}

/// Builds tables in `spare` that map every frame at `direct_map`, and hooks them into the root at once: Xen checks the
/// whole tree then. `builders` are the frames of the tables in force.
fn build_direct_map(
    direct_map: u64,
    frames: u64,
    root: u64,
    image: u64,
    builders: &Range<u64>,
    spare: &Range<u64>,
) -> Result<(), &'static str> {
    let counts =
        [tables_for(frames), tables_for(tables_for(frames)), tables_for(tables_for(tables_for(frames)))];
    let needed: u64 = counts.iter().sum::<u64>() + FIXED_TABLES;
    if counts[2] != 1 || spare.end.saturating_sub(spare.start) < needed {
        return Err("too few frames were set aside for the direct map\n");
    }
    let tables = spare.start..spare.start + needed;
    for pfn in tables.clone() {
        let mfn = mmu::machine_frame(pfn).ok_or("a frame that was set aside does not exist\n")?;
        // The builder maps only so much behind the image.
        // SAFETY: the frame is nobody's until it is a table.
        if unsafe { mmu::map_page(image + pfn * PAGE, mfn, false) }.is_err() {
            break;
        }
    }
    let leaf = |pfn: u64| {
        let is_table = builders.contains(&pfn) || tables.contains(&pfn);
        let writable = if is_table { 0 } else { WRITABLE };
        p2m::make(p2m::address(pfn) | PRESENT | ACCESSED | DIRTY | NO_EXECUTE | writable, mmu::machine_frame)
    };
    let table = |pfn: u64| p2m::make(p2m::address(pfn) | PRESENT | WRITABLE | ACCESSED, mmu::machine_frame);
    let [ones, twos, _] = counts;
    let first_two = tables.start + ones;
    let three = first_two + twos;
    for index in 0..ones {
        fill(tables.start + index, |entry| {
            Some(index * ENTRIES + entry).filter(|&pfn| pfn < frames).map(leaf)
        })?;
    }
    for index in 0..twos {
        let one = |entry| Some(index * ENTRIES + entry).filter(|&one| one < ones);
        fill(first_two + index, |entry| one(entry).map(|one| table(tables.start + one)))?;
    }
    fill(three, |entry| (entry < twos).then(|| table(first_two + entry)))?;
    // The page that has a fixed address: in the slot behind the image's, which the builder left empty.
    let shared = physical_of_shared(image) / PAGE;
    let index = |level: u32| irq::SHARED_PAGE >> (12 + 9 * (level - 1)) & (ENTRIES - 1);
    let (fixed_two, fixed_one) = (three + 1, three + 2);
    fill(fixed_one, |entry| (entry == index(1)).then(|| leaf(shared)))?;
    fill(fixed_two, |entry| (entry == index(2)).then(|| table(fixed_one)))?;
    restore_window(image)?;

    let slot = direct_map >> 39 & (ENTRIES - 1);
    let machine = |pfn| mmu::machine_frame(pfn).ok_or("a table is not in the guest's memory\n");
    let image_three = mmu::guest_frame(root_entry(root + image, index(4)) / PAGE)
        .ok_or("the image's tables are not the guest's\n")?;
    let hooks = [
        (machine(root / PAGE)? * PAGE + slot * 8, table(three)),
        (machine(image_three)? * PAGE + index(3) * 8, table(fixed_two)),
    ];
    for (entry, value) in hooks {
        // SAFETY: the slot is empty, and nothing but this tree will ever be there.
        unsafe { mmu::update(entry, value) }.map_err(|_| "Xen refused the direct map\n")?;
    }
    Ok(())
}

/// Where the image has the place of the shared page, physically.
fn physical_of_shared(image: u64) -> u64 {
    shared_info::address() - image
}

/// The machine address in an entry of the root, which is mapped at `root`.
fn root_entry(root: u64, index: u64) -> u64 {
    let root: *const u64 = core::ptr::with_exposed_provenance(root as usize);
    // SAFETY: Xen's builder mapped the table readable, and the index is below its 512 entries.
    (unsafe { root.add(index as usize).read_volatile() }) & p2m::ADDRESS
}

/// Fills the table in frame `pfn` through the window.
fn fill(pfn: u64, entry: impl Fn(u64) -> Option<u64>) -> Result<(), &'static str> {
    let mfn = mmu::machine_frame(pfn).ok_or("a frame that was set aside does not exist\n")?;
    // SAFETY: the window is nobody else's, and neither is the frame.
    unsafe { mmu::map_page(window(), mfn, true) }.map_err(|_| "Xen did not let a new table be mapped\n")?;
    for (index, place) in WINDOW.0.iter().enumerate() {
        place.store(entry(index as u64).unwrap_or(0), Ordering::Relaxed);
    }
    Ok(())
}

fn window() -> u64 {
    (&raw const WINDOW).addr() as u64
}

/// Puts the window's own frame back: no table is mapped writable afterwards.
fn restore_window(image: u64) -> Result<(), &'static str> {
    let own =
        mmu::machine_frame((window() - image) / PAGE).ok_or("the image is not in the guest's memory\n")?;
    // SAFETY: as it was.
    unsafe { mmu::map_page(window(), own, true) }.map_err(|_| "Xen did not let the window be closed\n")?;
    Ok(())
}

/// What every virtual CPU has of its own besides the memory that it shares.
pub(super) fn cpu_up(cpu: u32) {
    steal::cpu_up(cpu);
    if xen::is_dom0() {
        // The first one could: this one can.
        let _ = allow_ports();
    }
}

/// Lets dom0 use ports on this virtual CPU: `in` and `out` trap then, and Xen carries them out.
fn allow_ports() -> Result<(), &'static str> {
    let mut argument = SetIopl { iopl: 1 };
    // SAFETY: the struct is this command's; what a port does is up to who uses it.
    let allowed = unsafe { hypercall::command(Number::PhysdevOp, PHYSDEVOP_SET_IOPL, &mut argument) };
    allowed.map(drop).map_err(|_| "Xen refused the I/O privilege level\n")
}

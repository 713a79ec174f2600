//! The first stage: what runs this guest, which backend serves it, and its operations in every call site.
//! Neighbours: `pv_ops` (does all of it), `mm::text` (lets it write the code).
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::{fmt, ptr::NonNull};

use pv_ops::{
    Environment, Report,
    backend::{Feature, Services},
    detect::{self, Detection, Hypervisors},
};

use crate::{
    mm::{self, Caching, layout, map},
    sync::OnceCell,
};

static DETECTION: OnceCell<Detection> = OnceCell::uninit();

/// Finds out what runs this guest and installs a backend's operations. Nothing may come before: not even the
/// console can be written to without them. A memory map that the loader did not give is asked of the hypervisor.
pub fn install(info: &mut boot::Info) {
    let xen_start_info = info.xen_pv.as_ref().map(|xen| xen.start_info);
    let environment = Environment {
        cpuid: detect::reader(xen_start_info),
        read_msr: &pv_ops::native::guarded::read_msr,
        image_physical: &|virt| mm::text::image_physical(info, virt),
        entry_map: layout::direct_map(0)..layout::direct_map(layout::ENTRY_MAP_LEN_BYTES),
        xen_start_info,
        spare: info.xen_pv.as_ref().map_or(0..0, |xen| xen.spare.clone()),
        entry_tsc: boot::entry_tsc(),
        option: &|key, tell| info.cmdline.get(key).into_iter().for_each(tell),
    };
    let detection = detect::detect(&environment, info.cmdline.get("pv"));
    DETECTION.init_once(|| detection);
    // It fails only once call sites are patched, which comes after.
    let _ = pv_ops::install(detection.backend, &environment, &detection.hypervisors);
    if info.memory.usable_bytes() == 0 {
        (services().memory_map)(&mut |region| info.add_memory(region.start, region.len_bytes, region.kind));
    }
}

/// What the hypervisor can tell besides its operations.
///
/// # Panics
/// Before [`install`].
pub fn services() -> Services {
    detection().backend.services
}

/// Maps anew what the backend shares with its host: the kernel's own page tables are in force now.
pub fn map_pages() {
    (services().map_pages)(&|physical| {
        let pages = map::device(physical, layout::PAGE_SIZE, Caching::WriteBack);
        pages.map(NonNull::as_ptr).map(<*mut _>::cast).ok()
    });
}

/// Lets the backend register what this CPU shares with its host: its own data, segments and exceptions are in force.
/// Interrupts are disabled.
pub fn cpu_up(cpu: u32) {
    (services().cpu_up)(cpu);
}

/// Every feature of the host that the backend knows of, and what became of it.
pub fn features() -> Vec<Feature> {
    let mut features = Vec::new();
    (services().features)(&mut |feature| features.push(feature));
    features
}

/// Patches the call sites for the installed backend, and tells what was found and done.
///
/// # Panics
/// When a site cannot be patched: the image is not what the compiler made.
pub fn patch(info: &boot::Info) {
    let report = mm::text::patch(info);
    let detection = detection();
    if let Some(error) = detection.refused {
        log::warn!("{error}");
    }
    if let Some(complaint) = (services().complaint)() {
        log::warn!("{complaint}");
    }
    log::info!("{}: {} operations, {}", name(), detection.backend.name, Patched(&report));
    for (site, refusal) in report.refusals.iter().flatten() {
        log::error!("call site at {:#x}: {refusal}", site.address);
    }
    assert!(report.refused == 0, "{} of {} call sites cannot be patched", report.refused, report.sites);
}

/// What was found out about the host.
///
/// # Panics
/// Before [`install`].
pub fn detection() -> &'static Detection {
    DETECTION.try_get().expect("asked for the hypervisor before it was looked for")
}

/// Who runs this guest, in words: every hypervisor that announces itself, in order.
///
/// # Panics
/// Before [`install`].
pub fn name() -> impl fmt::Display {
    Name(&detection().hypervisors)
}

struct Name(&'static Hypervisors);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hypervisors = self.0;
        let mut between = "";
        for found in hypervisors.iter() {
            match found.vendor() {
                Some(vendor) => write!(f, "{between}{}", vendor.name)?,
                None => write!(f, "{between}unknown hypervisor {}", found.signature)?,
            }
            between = " + ";
        }
        match (between.is_empty(), hypervisors.present_bit) {
            (true, true) => f.write_str("a hypervisor without a name"),
            (true, false) => f.write_str("no hypervisor"),
            (false, _) => Ok(()),
        }
    }
}

struct Patched<'a>(&'a Report);

impl fmt::Display for Patched<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { sites, inline, calls, .. } = self.0;
        write!(f, "{sites} call sites patched: {inline} inline, {calls} direct calls")
    }
}

crate::kernel_test! {
    fn every_call_site_of_this_image_is_patched() {
        let patched = |op: pv_ops::OpStatus| op.sites == 0 || !matches!(op.form, pv_ops::sites::Installed::Indirect(_));
        assert!(pv_ops::ops().all(patched));
        assert_eq!(pv_ops::table::stage(), pv_ops::table::Stage::Patched);
    }
}

crate::kernel_test! {
    fn a_hypervisor_that_sets_its_bit_is_named() {
        let hypervisors = &detection().hypervisors;
        if !hypervisors.present_bit {
            crate::skip!("CPUID says that there is no hypervisor");
        }
        assert!(hypervisors.iter().any(|found| found.vendor().is_some()));
    }
}

//! The first stage: what runs this guest, which backend serves it, and its operations in every call site.
//! Neighbours: `pv_ops` (does all of it), `mm::text` (lets it write the code).
#![forbid(unsafe_code)]

use core::fmt;

use pv_ops::{
    Report,
    detect::{self, Detection, Hypervisors},
    native,
};

use crate::{mm, sync::OnceCell};

static DETECTION: OnceCell<Detection> = OnceCell::uninit();

/// Finds out what runs this guest and installs a backend's operations. Nothing may come before: not even the
/// console can be written to without them.
pub fn install(cmdline: &boot::CommandLine) {
    let detection = detect::detect(&native::cpu::cpuid, cmdline.get("pv"));
    DETECTION.init_once(|| detection);
    // It fails only once call sites are patched, which comes after.
    let _ = pv_ops::install(detection.backend);
    native::time::start_at(boot::entry_tsc());
}

/// Patches the call sites for the installed backend, and tells what was found and done.
///
/// # Panics
/// When a site cannot be patched: the image is not what the compiler made.
pub fn patch() {
    let report = mm::text::patch();
    let detection = detection();
    if let Some(error) = detection.refused {
        log::warn!("{error}");
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

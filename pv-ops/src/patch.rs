//! Rewrites every call site for the installed backend: validate, write, read back, serialise.
//! Neighbours: `encode` (what to write), `sites` (where), `table` (for which backend).
//!
//! A site is rewritten only if all is as expected: inside the text, a known op, that op's length, and in memory
//! exactly the indirect call that the compiler emitted. Whatever else is found is left alone and reported: the site
//! goes on through the table if it is one.
//!
//! One CPU patches, before the others start, with interrupts off: nobody runs a half-written site. Patching happens
//! once; a second time every site would be refused anyway, so that is said in one word ([`Report::done_before`]).

use crate::{
    encode::{EncodeError, Form, SiteBytes, encode, nops, unpatched},
    ops::OPS,
    sites::{Found, Site, sites},
    table::{self, Body, COUNT, Class, OpInfo, SITE_LENGTHS, Stage},
};
use core::ops::Range;

/// Why a site was left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its address is not in the text of this image.
    #[error("not in the text")]
    OutsideText,
    /// No op has this index.
    #[error("no op has index {0}")]
    UnknownOp(usize),
    /// The record's length is not that of the op's sites.
    #[error("{found} bytes long, expected {expected}")]
    Length {
        /// As recorded.
        found: usize,
        /// As this op's sites are.
        expected: usize,
    },
    /// In memory is something else than the indirect call through this op's slot.
    #[error("other bytes than the expected call")]
    UnexpectedBytes,
    /// The backend's form does not fit.
    #[error("{0}")]
    Encode(EncodeError),
    /// The bytes read back are not those written: the alias is not the same memory.
    #[error("read back other bytes than written")]
    NotWritten,
}

/// How many refused sites a report keeps in detail.
pub const REFUSALS: usize = 8;

/// What patching did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Sites found in this image.
    pub sites: usize,
    /// Of them now native or backend instructions in place.
    pub inline: usize,
    /// Of them now direct calls or jumps.
    pub calls: usize,
    /// Of them left alone.
    pub refused: usize,
    /// Patched sites of each op, by index in [`OPS`].
    pub per_op: [u16; COUNT],
    /// The first refused sites with the reason.
    pub refusals: [Option<(Site, Refusal)>; REFUSALS],
    /// Nothing was done, since it had been done before, or since no backend is installed.
    pub done_before: bool,
}

impl Report {
    const EMPTY: Report = Report {
        sites: 0,
        inline: 0,
        calls: 0,
        refused: 0,
        per_op: [0; COUNT],
        refusals: [None; REFUSALS],
        done_before: false,
    };

    /// How many ops have at least one patched site.
    pub fn ops(&self) -> usize {
        self.per_op.iter().filter(|count| **count > 0).count()
    }

    fn refuse(&mut self, site: Site, refusal: Refusal) {
        if let Some(place) = self.refusals.get_mut(self.refused) {
            *place = Some((site, refusal));
        }
        self.refused += 1;
    }
}

/// Patches every call site of this image for the installed backend.
///
/// `alias` gives for an address in the text an address at which the same bytes can be written, 32 bytes on from there
/// too. It must not use an op itself.
///
/// # Safety
/// 1. A backend is installed and this is its CPU: what is patched in runs from now on.
/// 2. `alias` keeps its promise, and nobody else runs or writes this image's text meanwhile.
pub unsafe fn patch(alias: impl Fn(*const u8) -> *mut u8) -> Report {
    if table::stage() != Stage::Installed {
        return Report { done_before: true, ..Report::EMPTY };
    }
    let mut report = Report::EMPTY;
    let flags = crate::irq_flags();
    crate::irq_disable();
    let text = text();
    for site in sites() {
        report.sites += 1;
        // SAFETY: the caller's promises.
        match unsafe { patch_site(site, &text, &alias) } {
            Ok(form) => {
                report.per_op[site.op] = report.per_op[site.op].saturating_add(1);
                match form {
                    Form::Inline(_) => report.inline += 1,
                    Form::Call(_) | Form::Jump(_) => report.calls += 1,
                }
            }
            Err(refusal) => report.refuse(site, refusal),
        }
    }
    serialise();
    table::set_patched();
    crate::irq_restore(flags);
    report
}

/// # Safety
/// As for [`patch`].
pub(crate) unsafe fn patch_site(
    site: Site,
    text: &Range<usize>,
    alias: &impl Fn(*const u8) -> *mut u8,
) -> Result<Form<'static>, Refusal> {
    let (info, body) = check(site, text)?;
    let address = site.address as u64;
    let slot = table::slot_address(site.op) as u64;
    let before = unpatched(address, site.length, info.class == Class::Jump, slot).map_err(Refusal::Encode)?;
    if !holds(site.address, &before) {
        return Err(Refusal::UnexpectedBytes);
    }
    let (form, after) = choose(address, site.length, info.class, body).map_err(Refusal::Encode)?;
    let target = alias(core::ptr::with_exposed_provenance(site.address));
    // SAFETY: `alias` gives writable memory for the site (caller's promise 2), and the source is another's array.
    unsafe { core::ptr::copy_nonoverlapping(after.as_ptr(), target, after.len()) };
    if holds(site.address, &after) {
        return Ok(form);
    }
    // An alias that is right for a part only has torn the site: make it whole again.
    // SAFETY: as above.
    unsafe { core::ptr::copy_nonoverlapping(before.as_ptr(), target, before.len()) };
    Err(Refusal::NotWritten)
}

/// What is in memory at a site, if it is what [`patch`] writes there for the installed backend.
pub(crate) fn found(site: Site) -> Option<Found> {
    let (info, body) = check(site, &text()).ok()?;
    let (form, after) = choose(site.address as u64, site.length, info.class, body).ok()?;
    if !holds(site.address, &after) {
        return None;
    }
    Some(match (form, body.inline) {
        (Form::Inline(bytes), Some(inline)) => Found::Inline {
            bytes,
            instructions: inline.instructions.into(),
            nops: nops(site.length - bytes.len()),
        },
        _ => Found::Branch,
    })
}

/// The op of a site that is in the text, with the length of that op's sites, and its body.
fn check(site: Site, text: &Range<usize>) -> Result<(&'static OpInfo, Body), Refusal> {
    let info = OPS.get(site.op).ok_or(Refusal::UnknownOp(site.op))?;
    let body = table::body(site.op).ok_or(Refusal::UnknownOp(site.op))?;
    let expected = SITE_LENGTHS[site.op];
    if site.length != expected {
        return Err(Refusal::Length { found: site.length, expected });
    }
    if !text.contains(&site.address) || text.end - site.address < site.length {
        return Err(Refusal::OutsideText);
    }
    Ok((info, body))
}

/// The backend's bytes if they fit, else a branch to its code.
fn choose(
    address: u64,
    length: usize,
    class: Class,
    body: Body,
) -> Result<(Form<'static>, SiteBytes), EncodeError> {
    let code = body.code as *const () as u64;
    let branch = if class == Class::Jump { Form::Jump(code) } else { Form::Call(code) };
    let form = match body.bytes() {
        Some(bytes) if bytes.len() <= length => Form::Inline(bytes),
        _ => branch,
    };
    Ok((form, encode(address, length, form)?))
}

/// Whether these bytes are in the text at `address`, looked at anew each time.
fn holds(address: usize, bytes: &[u8]) -> bool {
    let text: *const u8 = core::ptr::with_exposed_provenance(address);
    bytes.iter().enumerate().all(|(offset, byte)| {
        // SAFETY: the caller checked that `bytes.len()` bytes from `address` are text of this image.
        let found = unsafe { text.add(offset).read_volatile() };
        found == *byte
    })
}

/// Makes this CPU forget instructions that it fetched before (SDM vol. 3A §9.1.3, self-modifying code). What a backend
/// has in the place of CPUID serialises too: it enters the hypervisor and returns.
fn serialise() {
    core::hint::black_box(crate::cpuid(0, 0));
}

/// The text of this image, by the linker's symbols.
pub(crate) fn text() -> Range<usize> {
    #[cfg(target_os = "none")]
    unsafe extern "C" {
        #[link_name = "__text_start"]
        static START: u8;
        #[link_name = "__text_end"]
        static END: u8;
    }
    // A test runs in a process, which its linker delimits by other names.
    #[cfg(not(target_os = "none"))]
    unsafe extern "C" {
        #[link_name = "__executable_start"]
        static START: u8;
        #[link_name = "etext"]
        static END: u8;
    }
    (&raw const START).addr()..(&raw const END).addr()
}

//! The call sites of this image, and what each op has become: for the patcher, the shell and the tests.
//! Neighbours: `call` (pushes the records), `patch`.

use crate::{
    backend::Backend,
    patch,
    table::{self, COUNT, OpInfo, SITE_LENGTHS, Stage},
};

/// One record of the section `pv_sites`, as `call_site!` lays it out.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    /// The site's address minus this field's.
    distance: i32,
    op: u16,
    length: u8,
    reserved: u8,
}

const _: () = assert!(size_of::<Record>() == 8 && align_of::<Record>() == 4);

unsafe extern "C" {
    // Of the linker script, or of the linker itself for a section with such a name.
    static __start_pv_sites: Record;
    static __stop_pv_sites: Record;
}

/// A call site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    /// Where its first byte runs.
    pub address: usize,
    /// Its length in bytes.
    pub length: usize,
    /// The op's index in [`OPS`](crate::ops::OPS); larger only in a broken image.
    pub op: usize,
}

impl Site {
    /// What the site's op is.
    pub fn info(&self) -> Option<&'static OpInfo> {
        crate::ops::OPS.get(self.op)
    }

    /// What is in memory there now; `None` if it is not what the patcher writes for the installed backend.
    pub fn found(&self) -> Option<Found> {
        patch::found(*self)
    }
}

/// What is in memory at a patched call site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The op itself.
    Inline {
        /// The bytes of its instructions.
        bytes: &'static [u8],
        /// How many these are.
        instructions: usize,
        /// How many instructions that do nothing fill the site behind them.
        nops: usize,
    },
    /// A direct call of the backend's code, or a jump there.
    Branch,
}

/// What is in memory at the first call site of an op, by its name.
pub fn found(op: &str) -> Option<Found> {
    sites().find(|site| site.info().is_some_and(|info| info.name == op))?.found()
}

/// Every call site of this image, in link order.
pub fn sites() -> impl Iterator<Item = Site> {
    records().iter().map(|record| Site {
        address: (&raw const record.distance).addr().wrapping_add_signed(record.distance as isize),
        length: usize::from(record.length),
        op: usize::from(record.op),
    })
}

fn records() -> &'static [Record] {
    let start = &raw const __start_pv_sites;
    let bytes = (&raw const __stop_pv_sites).addr().saturating_sub(start.addr());
    // SAFETY: between the two symbols the linker put the section `pv_sites`, which holds nothing but records (every
    // one is pushed by `call_site!` or `iret!`, 8 bytes at a multiple of 4) and is never written.
    unsafe { core::slice::from_raw_parts(start, bytes / size_of::<Record>()) }
}

/// What the sites of an op do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// They trap: no backend is installed.
    Nothing,
    /// They go through the table to this address.
    Indirect(usize),
    /// These bytes are in their place.
    Inline(&'static [u8]),
    /// They call (or jump to) this address directly.
    Direct(usize),
}

/// An op with what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpStatus {
    /// Its name, which is also its wrapper's.
    pub name: &'static str,
    /// Its group: irq, cpu, mmu, time, lock, sched.
    pub group: &'static str,
    /// What its sites do; sites that the patcher refused still go through the table.
    pub form: Installed,
    /// How many sites this image has.
    pub sites: usize,
}

/// Every op of the table with what became of it.
pub fn ops() -> impl Iterator<Item = OpStatus> {
    let mut counts = [0usize; COUNT];
    for site in sites() {
        if let Some(count) = counts.get_mut(site.op) {
            *count += 1;
        }
    }
    crate::ops::OPS.iter().enumerate().map(move |(op, info)| OpStatus {
        name: info.name,
        group: info.group,
        form: installed_form(op),
        sites: counts[op],
    })
}

fn installed_form(op: usize) -> Installed {
    let Some(body) = table::body(op) else { return Installed::Nothing };
    let code = body.code as *const () as usize;
    match (table::stage(), body.bytes()) {
        (Stage::Patched, Some(bytes)) if bytes.len() <= SITE_LENGTHS[op] => Installed::Inline(bytes),
        (Stage::Patched, _) => Installed::Direct(code),
        _ => Installed::Indirect(code),
    }
}

/// The installed backend.
pub fn backend() -> Option<&'static Backend> {
    table::installed()
}

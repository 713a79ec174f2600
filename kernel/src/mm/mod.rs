//! Memory: physical frames, page tables, the kernel's address space, stacks and the heap.
//!
//! Reads in this order: `layout` (what lies where) · `plan` (what to do with the loader's memory map) · `early`
//! (the first tables and the hand-over) · `frame` (who owns which frame) · `page_table`, `tables` (the
//! algorithm; the live tree through pv-ops) · `map` (the interface) · `stack` · `heap`.
//! Lock order, outermost first: heap, device window, page tables, frames.
//!
//! Every page is writable or executable, never both, under all its addresses together: see [`Protection`].

pub(crate) mod balloon;
pub mod dma;
pub mod early;
pub mod frame;
pub mod heap;
mod image;
pub mod layout;
pub mod map;
pub mod mmio;
pub mod page_table;
mod plan;
mod registers;
pub mod shared;
pub mod stack;
mod tables;
pub mod text;
pub mod window;

use core::sync::atomic::AtomicBool;

use crate::sync::IrqMutex;

pub use self::{
    early::{protect_pv_table, reclaim_loader_memory},
    frame::{Frame, OutOfMemory},
    page_table::{Caching, Level, MapError, Protection},
    stack::{guard_at, run_on_new_stack},
};

/// Takes over the memory of the machine: frames, page tables of our own, and with them the heap. Where memory
/// does not suffice the boot is refused with a message and exit status 4.
pub fn init(info: &boot::Info) {
    match early::take_over(info) {
        Ok(report) => {
            // Before the next line: the console may be among it.
            crate::hypervisor::map_pages();
            log::info!("{report}");
        }
        Err(refused) => {
            log::error!("boot refused: {refused}");
            crate::power::exit(crate::power::BOOT_REFUSED)
        }
    }
}

/// Lets a further CPU see memory as the boot CPU does.
pub(crate) fn cpu_up() {
    registers::cpu_up();
}

/// This CPU goes down: what it keeps at hand is for the others. Interrupts are disabled.
pub(crate) fn cpu_down() {
    heap::trim_own();
}

/// What a CPU keeps at hand, so that taking and giving back memory seldom needs what all share. Its own locks are
/// hardly ever waited for: others take them only to collect what lies idle.
#[derive(Debug)]
pub struct Local {
    frames: IrqMutex<frame::SpareFrames>,
    /// Used by that CPU alone, without a lock.
    magazines: heap::Magazines,
    /// It was asked to empty them.
    trims: AtomicBool,
}

impl Local {
    /// Nothing at hand.
    pub(crate) const fn new() -> Self {
        Self {
            frames: IrqMutex::new(frame::SpareFrames::EMPTY),
            magazines: heap::no_magazines(),
            trims: AtomicBool::new(false),
        }
    }
}

/// What the CPU that runs this keeps at hand.
#[inline]
fn local() -> &'static Local {
    crate::cpu::percpu::current_or_boot().memory()
}

/// What every CPU keeps at hand.
fn locals() -> impl Iterator<Item = &'static Local> {
    crate::cpu::percpu::all().map(crate::cpu::PerCpu::memory)
}

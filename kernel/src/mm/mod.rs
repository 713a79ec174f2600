//! Memory: physical frames, page tables, the kernel's address space, stacks and the heap.
//!
//! Reads in this order: `layout` (what lies where) · `plan` (what to do with the loader's memory map) · `early`
//! (the first tables and the hand-over) · `frame` (who owns which frame) · `page_table`, `tables` (the
//! algorithm; the live tree through pv-ops) · `map` (the interface) · `stack` · `heap`.
//! Lock order, outermost first: heap, device window, page tables, frames.
//!
//! Every page is writable or executable, never both, under all its addresses together: see [`Protection`].

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

/// Which of the per-CPU parts this CPU uses.
fn cpu_slot() -> usize {
    crate::cpu::percpu::this_cpu() as usize % layout::CPU_SLOTS
}

//! The pair of 8259 controllers of a PC: sent to vectors of its own and masked for good (Intel 8259A datasheet).
//! Neighbours: `ioapic` (what is used instead), `vectors::PIC`.

use super::vectors;

const MASTER_COMMAND: u16 = 0x20;
const MASTER_DATA: u16 = 0x21;
const SLAVE_COMMAND: u16 = 0xa0;
const SLAVE_DATA: u16 = 0xa1;

/// ICW1: initialise, ICW4 follows.
const ICW1: u8 = 0x11;
/// ICW3: the slave is on line 2 of the master.
const MASTER_ICW3: u8 = 1 << 2;
const SLAVE_ICW3: u8 = 2;
/// ICW4: 8086 mode.
const ICW4: u8 = 1;
const ALL_LINES: u8 = 0xff;

/// Moves the controllers away from the vectors of exceptions and masks all their lines. Harmless where there are
/// none.
pub(super) fn disable() {
    let first = vectors::PIC.start;
    for (port, value) in [
        (MASTER_COMMAND, ICW1),
        (SLAVE_COMMAND, ICW1),
        (MASTER_DATA, first),
        (SLAVE_DATA, first + 8),
        (MASTER_DATA, MASTER_ICW3),
        (SLAVE_DATA, SLAVE_ICW3),
        (MASTER_DATA, ICW4),
        (SLAVE_DATA, ICW4),
        (MASTER_DATA, ALL_LINES),
        (SLAVE_DATA, ALL_LINES),
    ] {
        // SAFETY: these ports belong to the interrupt controllers on every PC, and only this module uses them.
        unsafe { pv_ops::port_out8(port, value) };
    }
}

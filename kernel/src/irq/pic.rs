//! The pair of 8259 controllers of a PC: masked for good (Intel 8259A datasheet).
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

/// Masks all lines. Before that, unless there is a local APIC, whose pin for them is masked (`apic`), it moves the controllers
/// away from the vectors of exceptions: what they send without a line reaches the CPU. Harmless where there are none.
pub(super) fn disable(behind_local_apic: bool) {
    let first = vectors::PIC.start;
    let moved = [
        (MASTER_COMMAND, ICW1),
        (SLAVE_COMMAND, ICW1),
        (MASTER_DATA, first),
        (SLAVE_DATA, first + 8),
        (MASTER_DATA, MASTER_ICW3),
        (SLAVE_DATA, SLAVE_ICW3),
        (MASTER_DATA, ICW4),
        (SLAVE_DATA, ICW4),
    ];
    let masked = [(MASTER_DATA, ALL_LINES), (SLAVE_DATA, ALL_LINES)];
    for (port, value) in moved.into_iter().filter(|_| !behind_local_apic).chain(masked) {
        // SAFETY: these ports belong to the interrupt controllers on every PC, and only this module uses them.
        unsafe { pv_ops::port_out8(port, value) };
    }
}

//! The pair of 8259 controllers of a PC: sent to vectors of its own and masked for good (Intel 8259A datasheet). And the
//! 8254's channel that ticks into them, which firmware leaves running: a host whose guest does nothing would go on counting
//! its ticks, 18 a second.
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

/// 8254: its control port, the data port of channel 0 (Intel 8254 datasheet).
const PIT_CONTROL: u16 = 0x43;
const PIT_CHANNEL_0: u16 = 0x40;
/// Channel 0, low then high byte, mode 0: it ticks once more, after the largest count, which is 0.
const CHANNEL_0_MODE_0: u8 = 0b0011_0000;

/// Moves the controllers away from the vectors of exceptions, masks all their lines and stops the ticks. Harmless where there are
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
        (PIT_CONTROL, CHANNEL_0_MODE_0),
        (PIT_CHANNEL_0, 0),
        (PIT_CHANNEL_0, 0),
    ] {
        // SAFETY: these ports belong to the interrupt controllers and their timer on every PC, and only this module uses them.
        unsafe { pv_ops::port_out8(port, value) };
    }
}

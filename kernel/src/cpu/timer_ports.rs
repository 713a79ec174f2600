//! I/O ports of the timers that a PC may have: the 8254 and the ACPI PM timer.
//! Neighbours: `time::reference` (who counts with them), `port` (ports lent to drivers).

/// 8254 data ports of channels 0 and 2 and its control port (Intel 8254 datasheet).
const CHANNEL_0: u16 = 0x40;
const CHANNEL_2: u16 = 0x42;
const CONTROL: u16 = 0x43;
/// Channel 2, low then high byte, mode 0, binary.
const CHANNEL_2_MODE_0: u8 = 0b1011_0000;
/// Channel 0, as above: it ticks once more.
const CHANNEL_0_MODE_0: u8 = 0b0011_0000;
/// Latch the count of channel 2.
const LATCH_CHANNEL_2: u8 = 0b1000_0000;
/// System control port B: bit 0 opens the gate of channel 2, bit 1 connects the speaker.
const CONTROL_B: u16 = 0x61;
const GATE: u8 = 1 << 0;
const SPEAKER: u8 = 1 << 1;

/// Lets channel 2 count down from 65535, without a sound.
pub fn pit_start() {
    let control_b = input(CONTROL_B);
    output(CONTROL_B, control_b & !(GATE | SPEAKER) | GATE);
    output(CONTROL, CHANNEL_2_MODE_0);
    output(CHANNEL_2, 0xff);
    output(CHANNEL_2, 0xff);
}

/// The count of channel 2. All ones, always, where there is no such timer.
pub fn pit_count() -> u16 {
    output(CONTROL, LATCH_CHANNEL_2);
    u16::from_le_bytes([input(CHANNEL_2), input(CHANNEL_2)])
}

/// Stops channel 2.
pub fn pit_stop() {
    output(CONTROL_B, input(CONTROL_B) & !(GATE | SPEAKER));
}

/// Ends the ticks of channel 0 that firmware leaves running: the host of a guest that does nothing would count on, 18 a second.
pub fn pit_end_ticks() {
    output(CONTROL, CHANNEL_0_MODE_0);
    output(CHANNEL_0, 0);
    output(CHANNEL_0, 0);
}

/// The count of the ACPI PM timer at `port`, which the FADT names.
pub fn pm_timer_count(port: u16) -> u32 {
    // SAFETY: reading a port that the firmware gives as a counter (ACPI 6.5 §4.8.3.3) changes nothing.
    unsafe { pv_ops::port_in32(port) }
}

fn input(port: u16) -> u8 {
    // SAFETY: the four ports above are the timer's on every PC; reading them moves no memory.
    unsafe { pv_ops::port_in8(port) }
}

fn output(port: u16, value: u8) {
    // SAFETY: as above; channel 2 drives the speaker only, which stays disconnected, and the line of channel 0 is masked.
    unsafe { pv_ops::port_out8(port, value) }
}

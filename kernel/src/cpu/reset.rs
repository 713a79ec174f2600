//! The last writes of a machine: what switches it off or resets it, as safe calls that do not come back.
//! Neighbours: `crate::power` (the order in which they are tried), `acpi::power` (where the writes come from).

use crate::{
    acpi::{fadt::Register, power::Write},
    mm::{Caching, mmio},
};

/// The i8042's command port and its command "pulse output line 0", which is the CPU's reset line.
const I8042_COMMAND: u16 = 0x64;
const I8042_PULSE_RESET: u8 = 0xfe;
/// The reset control register of Intel chipsets (82371AB and later): bit 1 hard reset, bit 2 does it.
const RESET_CONTROL: u16 = 0xcf9;
const RESET_CONTROL_HARD: u8 = 1 << 1;
const RESET_CONTROL_RESET: u8 = 1 << 2;

/// Does one write that ACPI told: a power-off or reset register. Returns if it did nothing (yet).
pub fn acpi(write: &Write) {
    match write.register {
        Register::Port(port) => acpi_port(port, write),
        Register::Memory(address) => acpi_memory(address, write),
    }
}

fn acpi_port(port: u16, write: &Write) {
    if write.len_bytes == 2 {
        let old = match write.keep {
            0 => 0,
            // SAFETY: reading a PM1 control register has no side effect (ACPI 6.5 §4.8.3.2.1).
            _ => unsafe { pv_ops::port_in16(port) },
        };
        // SAFETY: the port is a power register of a checked ACPI table. That it touches no memory of ours is
        // what the firmware promises, and the firmware's word is what every access to a device rests on.
        unsafe { pv_ops::port_out16(port, old & write.keep | write.value) }
    } else {
        // SAFETY: as above.
        unsafe { pv_ops::port_out8(port, write.value as u8) }
    }
}

fn acpi_memory(address: u64, write: &Write) {
    let done = match mmio::device(address, write.len_bytes.into(), Caching::Uncached) {
        Err(_) => None,
        Ok(mut register) if write.len_bytes == 1 => {
            register.write(0, write.value as u8);
            Some(())
        }
        Ok(register) => register.into_words::<u16>().map(|mut register| {
            let old = register.read(0);
            register.write(0, old & write.keep | write.value);
        }),
    };
    if done.is_none() {
        log::warn!("the power register at {address:#x} cannot be mapped");
    }
}

/// Pulses the CPU's reset line through the keyboard controller. Returns where there is none.
pub fn i8042_pulse() {
    // SAFETY: resets the machine or, without an i8042, does nothing.
    unsafe { pv_ops::port_out8(I8042_COMMAND, I8042_PULSE_RESET) }
}

/// Asks the chipset for a hard reset. Returns where there is no such register.
pub fn chipset() {
    // SAFETY: prepares the reset; nothing else reads this register.
    unsafe { pv_ops::port_out8(RESET_CONTROL, RESET_CONTROL_HARD) }
    // SAFETY: resets the machine or, without the register, does nothing.
    unsafe { pv_ops::port_out8(RESET_CONTROL, RESET_CONTROL_HARD | RESET_CONTROL_RESET) }
}

/// Takes away the interrupt table and raises an exception: the CPU shuts down, which every PC takes as a reset
/// (SDM vol. 3A §6.15, interrupt 8).
pub fn triple_fault() -> ! {
    static EMPTY: [u8; 8] = [0; 8];
    pv_ops::irq_disable();
    // SAFETY: the table is empty on purpose: from here on the CPU does nothing but shut down.
    unsafe { pv_ops::load_idt(EMPTY.as_ptr(), 0) }
    // SAFETY: raises #UD, whose handler does not exist any more; never returns.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}

//! The ends of a guest: exit with a status, power off, reboot.
//!
//! Each tries what the hypervisor offers, then what ACPI tells, then what PCs have had for ever, and says so.
//! Neighbours: `pv_ops::shutdown`, `acpi::power` (registers), `cpu::reset` (the writes).
#![forbid(unsafe_code)]

use pv_ops::Shutdown;

use crate::{
    acpi::{self, fadt::Register, power::Write},
    cpu::reset,
};

/// The run was a success.
pub const SUCCESS: u8 = 0;
/// Tests failed, or the app did.
pub const FAILURE: u8 = 1;
/// The kernel or the app panicked.
pub const PANIC: u8 = 2;
/// An exception that nobody handles.
pub const FATAL_EXCEPTION: u8 = 3;
/// The loader's data was hostile or not enough.
pub const BOOT_REFUSED: u8 = 4;

/// How long a power register may take until the next way is tried.
const PATIENCE_NS: u64 = 200_000_000;

/// Ends the guest with `status`. QEMU with `isa-debug-exit` ends with `(16 + status) << 1 | 1`, success being 33.
/// Without a channel for the status the guest is switched off.
pub fn exit(status: u8) -> ! {
    end_with(status);
    log::warn!("nobody takes the exit status {status}: switching off");
    off()
}

/// As [`exit`], but takes no lock and says nothing: for panics and fatal exceptions. A power register in memory is
/// left alone, as mapping it would need the page tables; such a machine halts.
pub fn exit_silently(status: u8) -> ! {
    end_with(status);
    let in_memory = |write: &Write| matches!(write.register, Register::Memory(_));
    acpi::power().off.iter().filter(|write| !in_memory(write)).for_each(reset::acpi);
    halt()
}

fn end_with(status: u8) {
    crate::console::flush();
    pv_ops::shutdown(Shutdown::Exit(status));
}

/// Switches the machine off.
pub fn off() -> ! {
    log::info!("power off");
    crate::console::flush();
    pv_ops::shutdown(Shutdown::PowerOff);
    let writes = &acpi::power().off;
    if writes.is_empty() {
        log::warn!("neither the hypervisor nor ACPI offers a power off");
    } else {
        writes.iter().for_each(reset::acpi);
        wait();
        log::warn!("the machine is still on after ACPI's power off");
    }
    log::info!("halted: it can be switched off from outside");
    halt()
}

/// Restarts the machine.
pub fn reboot() -> ! {
    log::info!("reboot");
    crate::console::flush();
    pv_ops::shutdown(Shutdown::Reboot);
    if let Some(write) = &acpi::power().reset {
        reset::acpi(write);
        wait();
        log::warn!("ACPI's reset register did nothing: trying the keyboard controller");
    }
    reset::i8042_pulse();
    wait();
    log::warn!("the keyboard controller did nothing: trying the chipset");
    reset::chipset();
    wait();
    log::warn!("the chipset did nothing: triple fault");
    crate::console::flush();
    reset::triple_fault()
}

/// Gives a register time to act. Without a clock the time is short, but some.
fn wait() {
    let start_ns = pv_ops::monotonic_ns();
    for _ in 0..1_000_000 {
        if pv_ops::monotonic_ns().saturating_sub(start_ns) > PATIENCE_NS {
            break;
        }
        core::hint::spin_loop();
    }
}

/// Nothing more happens on this CPU.
fn halt() -> ! {
    pv_ops::irq_disable();
    loop {
        pv_ops::halt();
    }
}

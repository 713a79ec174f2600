//! The processor and the end of the guest, by `sched_op` (sched.h).
//! Neighbours: `abi::sched` (commands), `hvm` (the ops).

use super::{
    abi::sched,
    hypercall::{self, Number},
};
use crate::{
    native,
    word::{Answer, Shutdown},
};

/// Added to the guest's status: reasons below are Xen's own.
const EXIT_BASE: u32 = 16;

pub(super) extern "sysv64" fn sched_yield() {
    // SAFETY: gives the processor away for a while.
    let _ = unsafe { hypercall::call2(Number::SchedOp, sched::YIELD.into(), 0) };
}

/// Ends a domain that cannot even begin, and says why on Xen's console, where a domU is not heard.
pub(super) fn refuse(reason: &str) -> ! {
    super::console::write_to_xen(reason.as_bytes());
    loop {
        let mut argument = sched::Shutdown { reason: sched::REASON_CRASH };
        // SAFETY: the struct is this command's; it is the end.
        let _ = unsafe { hypercall::command(Number::SchedOp, sched::SHUTDOWN, &mut argument) };
    }
}

/// A domU ends with a reason that the toolstack shows. dom0's end is the machine's: the status goes to the debug exit
/// port, if it has one; a restart and a power-off are Xen's to do.
pub(super) extern "sysv64" fn shutdown(how: u64) {
    let reason = match Shutdown::from_word(how) {
        Shutdown::PowerOff => sched::REASON_POWER_OFF,
        Shutdown::Reboot => sched::REASON_REBOOT,
        Shutdown::Exit(status) if super::is_dom0() => return native::sched::debug_exit(status),
        Shutdown::Exit(status) => EXIT_BASE + u32::from(status),
    };
    super::console::drain();
    let mut argument = sched::Shutdown { reason };
    // SAFETY: the struct is this command's; the end was asked for.
    let _ = unsafe { hypercall::command(Number::SchedOp, sched::SHUTDOWN, &mut argument) };
}

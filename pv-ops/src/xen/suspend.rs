//! A life ends and the next begins: the domain is saved, and goes on in another domain, perhaps of another machine
//! (sched.h, `SHUTDOWN_suspend`). Memory and CPU come along. What Xen keeps for a domain does not: event channels, grant
//! table, the shared page, timers, what the rings are reached by.
//! Neighbours: `pv::suspend`, `hvm` (the shared page), `time`, `rings`; the kernel's `xen::suspend`, who does the rest;
//! `grant_table::set_up` (the table, for who has one).

use super::{
    abi::sched,
    console, has_feature, hvm,
    hypercall::{self, Errno, Number},
    pv,
    rings::{self, FEATURE_AUTO_TRANSLATED},
    time,
};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// The same: it was not to be, or a copy was made. Channels are as before.
    Same,
    /// The next: there are no event channels but the toolstack's, and no grant table.
    Next,
}

/// Lets the domain be saved, and returns when it goes on. The clock stands still meanwhile. No event comes from here on
/// until channels are made and let through. For the boot CPU, the others being down.
///
/// # Errors
/// What Xen says; nothing has changed then.
#[doc(alias = "SCHEDOP_shutdown")]
pub fn suspend() -> Result<Life, Errno> {
    let flags = crate::irq_flags();
    crate::irq_disable();
    let life = suspend_quietly();
    crate::irq_restore(flags);
    life
}

fn suspend_quietly() -> Result<Life, Errno> {
    let is_translated = has_feature(FEATURE_AUTO_TRANSLATED);
    let now_ns = time::monotonic_ns();
    let ready = if is_translated { Ok(0) } else { pv::suspend::leave() };
    let argument = sched::Shutdown { reason: sched::REASON_SUSPEND };
    let address = (&raw const argument).expose_provenance() as u64;
    let answer = ready.and_then(|start_info| {
        // SAFETY: the struct is this command's; the third argument is the frame that the toolstack looks for. What is
        // not there in the next life nobody uses before it is made again below.
        unsafe { hypercall::call3(Number::SchedOp, sched::SHUTDOWN.into(), address, start_info) }
    });
    let life = if answer == Ok(0) { Life::Next } else { Life::Same };
    let again = match (is_translated, life) {
        (true, Life::Same) => Ok(()),
        (true, Life::Next) => hvm::map_again(),
        (false, _) => pv::suspend::come_back(life),
    };
    if again.is_err() {
        super::sched::refuse("the shared page cannot be had again\n");
    }
    if life == Life::Next {
        time::go_on(now_ns);
        if let Some(ring) = rings::console() {
            console::set_port(ring.port().0);
        }
    }
    answer.map(|_| life)
}

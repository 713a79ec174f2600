//! Interrupts that nothing holds back (NMI): to stop a CPU, or to ask it where it is.
//! Neighbours: `stop` (stops), `task::heartbeat` (asks), `irq::exceptions` (where they arrive), `pv_ops::backend::Services`
//! (how a hypervisor sends them).

use super::{percpu, stop};
use crate::{
    hypervisor,
    irq::{apic, entry::Frame},
};
use pv_ops::AtomicCpuSet;
use spin::Once;

/// CPUs that were asked and have not answered.
static ASKED: AtomicCpuSet = AtomicCpuSet::new();
/// What they do then, on a stack that may be anybody's: without a lock, without memory.
static ANSWER: Once<fn(&Frame)> = Once::new();
/// Times that is looked whether the answer was given.
const LOOKS: u32 = 10_000_000;

/// Interrupts another CPU, whatever it does. Whether there is a way to.
///
/// # Safety
/// The handler makes sense of it.
pub(super) unsafe fn send(cpu: u32) -> bool {
    if let Some(send) = hypervisor::services().send_nmi {
        send(cpu);
        return true;
    }
    let id = pv_ops::native::irq::apic_id(cpu);
    if let Some(id) = id {
        // SAFETY: the caller's promise.
        unsafe { apic::send_nmi(id) };
    }
    id.is_some()
}

/// Has another CPU call `answer` with its registers, wherever it is; whether it did, before long. Everybody asks for the same.
pub(crate) fn ask(cpu: u32, answer: fn(&Frame)) -> bool {
    ANSWER.call_once(|| answer);
    if ASKED.contains(cpu) {
        // One that did not answer is not asked again.
        return false;
    }
    ASKED.insert(cpu);
    // SAFETY: `arrived` finds what it is for.
    if !unsafe { send(cpu) } {
        return false;
    }
    (0..LOOKS).any(|_| {
        core::hint::spin_loop();
        !ASKED.contains(cpu)
    })
}

/// Such an interrupt has come. Whether somebody sent it; if it was sent to stop this CPU, that is done here.
pub(crate) fn arrived(frame: &Frame) -> bool {
    stop::on_nmi();
    let this = percpu::this_cpu();
    let asked = ASKED.contains(this);
    if asked {
        if let Some(answer) = ANSWER.get() {
            answer(frame);
        }
        ASKED.remove(this);
        (hypervisor::services().nmi_done)();
    }
    asked
}

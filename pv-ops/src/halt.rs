//! Halts that lose no wake-up.
//!
//! `safe_halt` lets interrupts in and halts. One that were handled between the two would have brought what the CPU then sleeps
//! past: after STI none comes before the next instruction is over (SDM vol. 2B, STI). But where STI is only a store to memory
//! ([`pvm`]) one may, and where QEMU 7.2's TCG emulates SVM, too: VMRUN does not bring back the interrupt shadow in which an
//! interrupt of the hypervisor's own has ended the guest's turn, so that the hypervisor's next one comes before HLT.
//! So each handler first has the interrupted code step over a HLT that it has not reached. Neighbours: [`native`], [`pvm`] (whose
//! ops these are).

use crate::{native, pvm};

/// Where the HLT of each `safe_halt` stands.
fn halts() -> [u64; 2] {
    [native::irq::HALT, pvm::irq::HALT].map(|(function, length)| function as *const () as u64 + length)
}

/// Leads `rip`, where an interrupt has come, past a HLT that was to wait for it. For the handlers of all interrupts.
#[inline]
pub fn step_over(rip: &mut u64) {
    if halts().contains(rip) {
        // HLT is one byte.
        *rip += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_before_the_halt_is_its_end() {
        const HLT: u8 = 0xf4;
        const RET: u8 = 0xc3;
        for halt in halts() {
            let code = core::ptr::with_exposed_provenance::<[u8; 2]>(halt as usize);
            // SAFETY: two bytes of a function's text.
            assert_eq!(unsafe { code.read_unaligned() }, [HLT, RET]);
            for rip in halt - 9..halt + 3 {
                let mut next = rip;
                step_over(&mut next);
                assert_eq!(next, if rip == halt { halt + 1 } else { rip });
            }
        }
    }
}

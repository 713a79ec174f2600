//! The time that Xen took from a virtual CPU: it wanted to run, and something else ran (vcpu.h,
//! `struct vcpu_runstate_info`). Xen writes the area at each switch of the CPU's state.
//! Neighbours: `percpu` (the memory of the area), `hvm`, `pv` (the op).

use super::{
    abi::vcpu,
    hypercall::{self, Number},
    vcpu::INFO_WORDS,
};
use crate::{cpu_set::MAX_CPUS, percpu};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};

/// The area, behind the CPU's `vcpu_info`, by words: the state (a word of 32 bits), since when, and nanoseconds in each state.
mod word {
    use super::INFO_WORDS;
    pub(super) const STATE: usize = INFO_WORDS;
    pub(super) const ENTRY_TIME: usize = STATE + 1;
    /// Ready to run, but nothing runs it (`RUNSTATE_runnable`).
    pub(super) const RUNNABLE: usize = STATE + 3;
    /// Neither asleep nor ready: paused from outside (`RUNSTATE_offline`).
    pub(super) const OFFLINE: usize = STATE + 5;
}

/// In the word of the entry time: Xen is about to change the area. Only if asked for.
#[doc(alias = "XEN_RUNSTATE_UPDATE")]
const UPDATING: u64 = 1 << 63;
/// `vm_assist`: switch on (xen.h).
#[doc(alias = "VMASST_CMD_enable")]
const ENABLE: u64 = 0;
/// [`UPDATING`] is wanted.
#[doc(alias = "VMASST_TYPE_runstate_update_flag")]
const RUNSTATE_UPDATE_FLAG: u64 = 5;
/// Looks at an area that changes; Xen's change is a few stores.
const TRIES: u32 = 10_000;

type Area = [AtomicU64; 32];

/// Where the areas are; null before [`cpu_up`].
static AREAS: [AtomicPtr<Area>; MAX_CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];

/// As [`Services::cpu_up`](crate::backend::Services::cpu_up), and called as such alone: has Xen tell how virtual CPU
/// `cpu`, which runs this, is scheduled. Where Xen does not, no time is stolen.
pub(super) fn cpu_up(cpu: u32) {
    let Some(place) = AREAS.get(cpu as usize) else { return };
    // SAFETY: Xen tells more of the same area. It may not know this.
    let _ = unsafe { hypercall::call2(Number::VmAssist, ENABLE, RUNSTATE_UPDATE_FLAG) };
    // SAFETY: the CPU's own data is in force (`Services::cpu_up`).
    let area: &'static Area = unsafe { percpu::current() }.host();
    let argument =
        vcpu::RegisterRunstateMemoryArea { address: area[word::STATE..].as_ptr().expose_provenance() as u64 };
    let address = (&raw const argument).expose_provenance() as u64;
    let command = vcpu::REGISTER_RUNSTATE_MEMORY_AREA.into();
    // SAFETY: the struct is this command's; the area has room, stays for good, and is atomic.
    if unsafe { hypercall::call3(Number::VcpuOp, command, cpu.into(), address) }.is_ok() {
        place.store(core::ptr::from_ref(area).cast_mut(), Ordering::Release);
    }
}

/// Of any CPU, by any other; 0 if it is not known.
pub(super) extern "sysv64" fn steal_ns(cpu: u32) -> u64 {
    let area = AREAS.get(cpu as usize).map_or(core::ptr::null_mut(), |area| area.load(Ordering::Acquire));
    // SAFETY: null, or an area that `cpu_up` found to be there for good.
    unsafe { area.as_ref() }.and_then(read).unwrap_or(0)
}

/// A consistent look: the entry time is the same before and after, and no change is under way.
fn read(area: &Area) -> Option<u64> {
    for _ in 0..TRIES {
        let before = area[word::ENTRY_TIME].load(Ordering::Acquire);
        let stolen = [word::RUNNABLE, word::OFFLINE].map(|word| area[word].load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        if before & UPDATING == 0 && before == area[word::ENTRY_TIME].load(Ordering::Relaxed) {
            return Some(stolen[0].saturating_add(stolen[1]));
        }
        core::hint::spin_loop();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, thread};

    fn area(words: [u64; 6]) -> Area {
        let mut area = [const { AtomicU64::new(0) }; 32];
        for (place, word) in area[word::STATE..].iter_mut().zip(words) {
            *place = AtomicU64::new(word);
        }
        area
    }

    #[test]
    fn stolen_is_what_was_neither_run_nor_slept() {
        assert_eq!(read(&area([0, 77, 1000, 20, 3000, 4])), Some(24));
        assert_eq!(read(&area([0, 77, 0, u64::MAX, 0, 4])), Some(u64::MAX));
    }

    #[test]
    fn an_area_that_is_being_changed_for_ever_tells_nothing() {
        assert_eq!(read(&area([0, 77 | UPDATING, 1000, 20, 3000, 4])), None);
    }

    #[test]
    fn a_cpu_that_no_area_was_made_for_was_never_kept_waiting() {
        assert_eq!([steal_ns(0), steal_ns(127), steal_ns(128), steal_ns(u32::MAX)], [0; 4]);
    }

    /// Xen's order of stores: flag up, times, flag down with the new entry time.
    #[test]
    fn a_look_during_changes_never_mixes_two_of_them() {
        let shared = Arc::new(area([0; 6]));
        let writer = thread::spawn({
            let area = shared.clone();
            move || {
                for round in 1..200_000_u64 {
                    area[word::ENTRY_TIME].store(round | UPDATING, Ordering::Relaxed);
                    fence(Ordering::Release);
                    area[word::RUNNABLE].store(round * 1000, Ordering::Relaxed);
                    area[word::OFFLINE].store(round, Ordering::Relaxed);
                    area[word::ENTRY_TIME].store(round, Ordering::Release);
                }
            }
        });
        while !writer.is_finished() {
            if let Some(stolen) = read(&shared) {
                assert!(stolen.is_multiple_of(1001), "{stolen} is of two changes");
            }
        }
        writer.join().unwrap();
    }
}

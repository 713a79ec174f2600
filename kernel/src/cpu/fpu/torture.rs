//! Threads that carry the widest registers there are from CPU to CPU, while CPUs go down and come up.
//! Neighbour: `fpu` (saves and loads them).
#![cfg(all(feature = "self-test", target_os = "none"))]

use super::{COMPONENTS, bit};
use crate::{
    cpu::{percpu, smp, this_cpu},
    thread::{self, JoinHandle},
    time,
};
use alloc::vec::Vec;
use core::{
    arch::asm,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    time::Duration,
};

/// XCR0 enables the upper halves of sixteen registers.
const AVX: u32 = 1 << 2;

/// Registers by what the CPU has: of AVX-512 an old one, a new one and a mask, of AVX one, of SSE one.
#[derive(Clone, Copy, Debug)]
enum Registers {
    Avx512,
    Avx,
    Sse,
}

impl Registers {
    fn here() -> Self {
        match COMPONENTS.load(Relaxed) {
            has if has & bit::AVX512 == bit::AVX512 => Self::Avx512,
            has if has & AVX != 0 => Self::Avx,
            _ => Self::Sse,
        }
    }

    /// Has every part of them hold `value`.
    fn fill(self, value: u64) {
        match self {
            // SAFETY: here and below: XCR0 enables them; the compiler uses none of these registers.
            Self::Avx512 => unsafe {
                asm!(
                    "vpbroadcastq zmm3, {0}", "vpbroadcastq zmm29, {0}", "kmovw k1, {0:e}",
                    in(reg) value, options(nomem, nostack),
                );
            },
            // SAFETY: as above.
            Self::Avx => unsafe {
                asm!(
                    "vmovq xmm3, {0}", "vpunpcklqdq xmm3, xmm3, xmm3", "vinsertf128 ymm3, ymm3, xmm3, 1",
                    in(reg) value, options(nomem, nostack),
                );
            },
            // SAFETY: as above; every CPU in long mode has SSE2.
            Self::Sse => unsafe {
                asm!("movq xmm3, {0}", "punpcklqdq xmm3, xmm3", in(reg) value, options(nomem, nostack));
            },
        }
    }

    /// The uppermost part of each.
    fn upper(self) -> [u64; 3] {
        let (one, two, mask): (u64, u64, u64);
        match self {
            // SAFETY: as in `fill`.
            Self::Avx512 => unsafe {
                asm!(
                    "vextracti64x4 ymm6, zmm3, 1", "vextracti128 xmm6, ymm6, 1", "vpsrldq xmm6, xmm6, 8", "vmovq {0}, xmm6",
                    "vextracti64x4 ymm6, zmm29, 1", "vextracti128 xmm6, ymm6, 1", "vmovq {1}, xmm6",
                    "kmovw {2:e}, k1",
                    out(reg) one, out(reg) two, out(reg) mask, options(nomem, nostack),
                );
            },
            // SAFETY: as in `fill`.
            Self::Avx => unsafe {
                asm!(
                    "vextractf128 xmm6, ymm3, 1", "vpsrldq xmm6, xmm6, 8", "vmovq {0}, xmm6", "vmovq {1}, xmm3",
                    "mov {2}, {1}",
                    out(reg) one, out(reg) two, out(reg) mask, options(nomem, nostack),
                );
            },
            // SAFETY: as in `fill`.
            Self::Sse => unsafe {
                asm!(
                    "movq {1}, xmm3", "movdqa xmm6, xmm3", "psrldq xmm6, 8", "movq {0}, xmm6", "mov {2}, {1}",
                    out(reg) one, out(reg) two, out(reg) mask, options(nomem, nostack),
                );
            },
        }
        [one, two, mask & 0xffff]
    }
}

crate::kernel_test! {
    fn registers_go_with_their_thread_from_cpu_to_cpu() {
        static STOP: AtomicBool = AtomicBool::new(false);
        static MOVED: AtomicU32 = AtomicU32::new(0);
        const TURNS: u32 = 50;
        let (all, registers) = (percpu::up(), Registers::here());
        if all.len() == 1 {
            crate::skip!("there is one CPU");
        }
        let work = |number: u64| move || {
            let mut round = 0;
            while !STOP.load(Relaxed) {
                round += 1;
                let (value, before) = (number << 32 | round, this_cpu());
                registers.fill(value);
                for _ in 0..TURNS {
                    thread::yield_now();
                    if this_cpu() != before {
                        MOVED.fetch_add(1, Relaxed);
                        break;
                    }
                }
                assert_eq!(registers.upper(), [value, value, value & 0xffff], "thread {number}, CPU {before}");
            }
        };
        let threads: Vec<_> = (1..=u64::from(2 * all.len().min(8))).map(|number| thread::spawn(work(number))).collect();
        log::info!("registers: {registers:?}");
        let start = time::now();
        // Who waits for a CPU that goes down goes on elsewhere.
        while MOVED.load(Relaxed) < 10 {
            assert!(start.elapsed() < Duration::from_secs(60), "no thread has moved: {MOVED:?}");
            smp::down(1).unwrap();
            thread::sleep(Duration::from_millis(1));
            smp::up(1).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        STOP.store(true, Relaxed);
        threads.into_iter().for_each(JoinHandle::join);
    }
}

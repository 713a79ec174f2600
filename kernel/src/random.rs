//! Random bytes for the guest, from one generator that is seeded when somebody first asks.
//!
//! The generator is ChaCha20 (crate `chacha20`). Its seed mixes what there is: a virtio entropy source, RDSEED or RDRAND, and the jitter of
//! the time stamp counter, so that it is as good as the best of them. It is mixed anew every [`RESEED_BYTES`] bytes.
//! Neighbours: `devices::entropy`, `cpu::random` (where seeds come from).
#![forbid(unsafe_code)]

use alloc::{boxed::Box, vec::Vec};
use core::task::Waker;

use chacha20::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};
use drivers::class::Submitted;

use crate::{
    cpu,
    devices::{self, entropy::Source},
    sync::IrqMutex,
};

/// Bytes given out on one seed.
pub const RESEED_BYTES: usize = 1 << 20;
/// Bytes made with the lock held.
const PIECE_BYTES: usize = 256;
/// Bytes asked of a virtio source for a seed.
const SOURCE_BYTES: usize = 64;
/// How long a virtio source may take for them: it is asked before anybody gets a random byte.
const SOURCE_NS: u64 = 200_000_000;
/// Times that the jitter is sampled: a bit each would be as many as a seed has.
const JITTER_SAMPLES: usize = 256;

struct Generator {
    rng: ChaCha20Rng,
    /// Bytes until it is seeded anew.
    left: usize,
}

static GENERATOR: IrqMutex<Option<Box<Generator>>> = IrqMutex::new(None);

/// Fills `bytes` with random ones, fit for keys. The first call seeds the generator, which may take a moment and must not
/// be made in an interrupt handler.
pub fn fill(bytes: &mut [u8]) {
    for piece in bytes.chunks_mut(PIECE_BYTES) {
        loop {
            let mut generator = GENERATOR.lock();
            if let Some(generator) = generator.as_mut().filter(|generator| generator.left >= piece.len()) {
                generator.left -= piece.len();
                generator.rng.fill_bytes(piece);
                break;
            }
            let old = generator.as_mut().map(|generator| {
                let mut seed = [0; 32];
                generator.rng.fill_bytes(&mut seed);
                seed
            });
            // Nobody waits for the lock while a seed is gathered: two may do it at the same time, and the later one counts.
            drop(generator);
            let new = Box::new(Generator { rng: ChaCha20Rng::from_seed(seed(old)), left: RESEED_BYTES });
            *GENERATOR.lock() = Some(new);
        }
    }
}

/// A random number.
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// What a seed is mixed in.
struct Pool([u8; 32]);

impl Pool {
    /// Mixes `bytes` in: whoever does not know all that went in knows nothing of what comes out.
    fn mix(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.0.len()) {
            self.0.iter_mut().zip(piece).for_each(|(mixed, byte)| *mixed ^= byte);
            ChaCha20Rng::from_seed(self.0).fill_bytes(&mut self.0);
        }
    }
}

/// A seed from all that there is, and from the generator before.
fn seed(old: Option<[u8; 32]>) -> [u8; 32] {
    let mut pool = Pool([0; 32]);
    let mut sources = Vec::new();
    if let Some(old) = old {
        pool.mix(&old);
    } else if let Some(source) = devices::entropy::sources().first() {
        match ask(source) {
            Some(bytes) => {
                pool.mix(&bytes);
                sources.push(source.name().into());
            }
            None => log::warn!("random: {} does not answer", source.name()),
        }
    }
    for _ in 0..4 {
        if let Some((number, instruction)) = cpu::random::number() {
            pool.mix(&number.to_le_bytes());
            if !sources.iter().any(|source| source == instruction) {
                sources.push(alloc::string::String::from(instruction));
            }
        }
    }
    for _ in 0..JITTER_SAMPLES {
        // How long the mixing takes differs from time to time, and the counter is its clock.
        pool.mix(&pv_ops::rdtsc().to_le_bytes());
    }
    if old.is_none() {
        match sources.is_empty() {
            false => log::info!("random: seeded by {} and jitter", sources.join(", ")),
            true => log::warn!("random: seeded by jitter alone: give the guest a virtio-rng device"),
        }
    }
    pool.0
}

/// Bytes of a virtio source, waited for in place: who asks need not be a task.
fn ask(source: &Source) -> Option<Vec<u8>> {
    let buffer = devices::buffer(SOURCE_BYTES).ok()?;
    let Submitted::Sent(mut token) = source.submit(buffer, Waker::noop()) else { return None };
    let deadline = pv_ops::monotonic_ns() + SOURCE_NS;
    loop {
        source.look();
        match source.poll(token, Waker::noop()) {
            Ok(outcome) => {
                let len = outcome.result.ok()?;
                return outcome.buffer?.bytes().get(..len).map(Vec::from);
            }
            Err(unanswered) if pv_ops::monotonic_ns() < deadline => token = unanswered,
            Err(unanswered) => {
                source.forget(unanswered);
                return None;
            }
        }
        core::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_that_is_mixed_in_changes_the_seed() {
        let mixed = |bytes: &[u8]| {
            let mut pool = Pool([0; 32]);
            pool.mix(bytes);
            pool.0
        };
        let seeds: std::collections::HashSet<_> = (0..512)
            .map(|bit: usize| {
                let mut bytes = [0; 64];
                bytes[bit / 8] |= 1 << (bit % 8);
                mixed(&bytes)
            })
            .collect();
        assert_eq!(seeds.len(), 512);
    }
}

crate::kernel_test! {
    /// Across several seeds, and never the same twice.
    fn random_bytes_do_not_repeat() {
        let mut bytes = alloc::vec![0; 2 * RESEED_BYTES / 8];
        let mut seen = Vec::new();
        for _ in 0..10 {
            fill(&mut bytes);
            seen.push(bytes[..16].to_vec());
            let ones: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
            // Half of two million bits, twenty standard deviations aside.
            assert!(ones.abs_diff(bytes.len() as u32 * 4) < 15_000, "{ones} ones in {} bytes", bytes.len());
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 10);
        assert_ne!(number(), number());
    }
}

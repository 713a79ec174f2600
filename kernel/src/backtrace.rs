//! Who called whom: walks the frame pointers of a stack (System V AMD64 ABI §3.2.2; the image is built with
//! `force-frame-pointers`). Interrupt entries leave a frame like a call, so the walk goes on through them.
//! Neighbours: `cpu::probe` (reads a stack that may be broken), `symbols` (names), `panic`, `irq::exceptions`.
#![forbid(unsafe_code)]

use crate::{cpu::probe, symbols};
use core::fmt;

/// Lines printed at most.
const MAX_LINES: usize = 48;
/// Frames walked at most.
const MAX_FRAMES: usize = 10_000;

/// A backtrace that is walked while it is printed: it needs no memory.
#[derive(Clone, Copy, Debug)]
pub struct Backtrace {
    /// The code address where it happened, if known.
    instruction: Option<u64>,
    /// The frame pointer from which to walk.
    frame: u64,
}

impl Backtrace {
    /// From the caller on.
    #[inline(always)]
    pub fn here() -> Self {
        Self { instruction: None, frame: probe::frame_pointer() }
    }

    /// From an interrupted instruction and its frame pointer (RIP, RBP).
    pub fn of(instruction: u64, frame: u64) -> Self {
        Self { instruction: Some(instruction), frame }
    }
}

/// `  #0 0xffffffff80201234 kernel::mm::f+0x12`, one line a frame. A frame that repeats, as in endless recursion, takes
/// one line and the number of its repetitions.
impl fmt::Display for Backtrace {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let first = self.instruction.map(|address| (address, address));
        // A return address may be the first byte after its function, when that ends in a call which never
        // returns: the name is that of the byte before.
        let callers = walk(self.frame, probe::read_frame).map(|address| (address, address - 1));
        let mut frames = first.into_iter().chain(callers).take(MAX_FRAMES).peekable();
        let mut number = 0;
        for _ in 0..MAX_LINES {
            let Some((address, inside)) = frames.next() else { break };
            write!(out, "  #{number} {address:#018x}")?;
            if let Some((name, offset)) = symbols::lookup(inside) {
                write!(out, " {name}+{:#x}", offset + (address - inside))?;
            }
            number += 1;
            let first_number = number;
            while frames.next_if(|next| next.0 == address).is_some() {
                number += 1;
            }
            match number - first_number {
                0 => writeln!(out)?,
                again => writeln!(out, " ({again} more times)")?,
            }
        }
        Ok(())
    }
}

/// The return addresses from `frame` on. `read` gives the two words at a frame pointer: the caller's frame
/// pointer and the return address. The walk ends at a null or misaligned pointer, at one that does not lead
/// towards older frames on the same stack (a switch to another stack is followed once each), and where
/// `read` fails.
fn walk(mut frame: u64, read: impl Fn(u64) -> Option<[u64; 2]>) -> impl Iterator<Item = u64> {
    let mut switches = 0;
    core::iter::from_fn(move || {
        if frame == 0 || !frame.is_multiple_of(8) {
            return None;
        }
        let [caller, address] = read(frame)?;
        if address == 0 {
            return None;
        }
        if caller <= frame || caller - frame > MAX_FRAME_LEN {
            switches += 1;
            if switches > MAX_SWITCHES {
                return None;
            }
        }
        frame = caller;
        Some(address)
    })
}

/// A longer distance between two frames is a switch to another stack.
const MAX_FRAME_LEN: u64 = 1 << 20;
/// Task, interrupt, double fault: no deeper nest of stacks is right.
const MAX_SWITCHES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn trace(start: u64, frames: &[(u64, u64, u64)]) -> Vec<u64> {
        let memory: HashMap<u64, [u64; 2]> =
            frames.iter().map(|&(at, caller, address)| (at, [caller, address])).collect();
        walk(start, |at| memory.get(&at).copied()).take(100).collect()
    }

    #[test]
    fn the_walk_follows_callers_to_the_outermost_frame() {
        assert_eq!(trace(0x1000, &[(0x1000, 0x1040, 1), (0x1040, 0x1100, 2), (0x1100, 0, 3)]), [1, 2, 3]);
    }

    #[test]
    fn the_walk_ends_at_memory_that_cannot_be_read() {
        assert_eq!(trace(0x1000, &[(0x1000, 0x1040, 1)]), [1]);
        assert_eq!(trace(0x1001, &[(0x1001, 0x1040, 1)]), []);
        assert_eq!(trace(0x1000, &[(0x1000, 0x1040, 0)]), [], "a null return address");
    }

    #[test]
    fn a_loop_of_frames_ends() {
        assert_eq!(trace(0x1000, &[(0x1000, 0x1000, 1)]).len(), MAX_SWITCHES);
        assert!(trace(0x1000, &[(0x1000, 0x1040, 1), (0x1040, 0x1000, 2)]).len() <= 2 * MAX_SWITCHES + 1);
    }
}

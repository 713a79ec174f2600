//! Where text goes: the devices, the early console before them, and the ring that remembers.
#![forbid(unsafe_code)]

use alloc::boxed::Box;

use drivers::class::Console;

/// What sort of device a console is; the command line chooses by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line to somewhere else; takes over from the early console.
    Serial = 0,
    /// A screen of this machine, and its keyboard.
    Screen = 1,
    /// A console that the hypervisor offers, found when somebody looks for it.
    Hypervisor = 2,
}

/// How many kinds there are.
pub(super) const KINDS: usize = 3;

/// Devices at most; a further one is left out.
const MAX_DEVICES: usize = 4;

/// All output. Its empty state is all zeros, so that it costs no room in the image file.
pub(super) struct Outputs {
    devices: heapless::Vec<(Box<dyn Console>, Kind), MAX_DEVICES>,
    /// By [`Kind`]: not wanted.
    silent: [bool; KINDS],
    /// A serial device is there, which most likely is the one that the early console wrote to.
    early_is_over: bool,
    ring: Ring,
}

impl Outputs {
    pub(super) const fn new() -> Self {
        Self {
            devices: heapless::Vec::new(),
            silent: [false; KINDS],
            early_is_over: false,
            ring: Ring::new(),
        }
    }

    /// Silences the kinds that are not chosen.
    pub(super) fn choose(&mut self, chosen: [bool; KINDS]) {
        self.silent = chosen.map(|chosen| !chosen);
    }

    pub(super) fn is_chosen(&self, kind: Kind) -> bool {
        !self.silent[kind as usize]
    }

    pub(super) fn add(&mut self, mut console: Box<dyn Console>, kind: Kind) {
        if kind != Kind::Serial {
            self.ring.halves().into_iter().for_each(|half| console.write(half));
        }
        if self.devices.push((console, kind)).is_ok() && kind == Kind::Serial {
            self.early_is_over = true;
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.ring.write(bytes);
        if !self.early_is_over && self.is_chosen(Kind::Serial) {
            pv_ops::console_write(bytes);
        }
        for (console, _) in &mut self.devices {
            console.write(bytes);
        }
    }

    /// Writes to what the early console does not reach.
    pub(super) fn write_past_early(&mut self, bytes: &[u8]) {
        for (console, _) in self.devices.iter_mut().filter(|(_, kind)| *kind != Kind::Serial) {
            console.write(bytes);
        }
    }

    pub(super) fn flush(&mut self) {
        self.devices.iter_mut().for_each(|(console, _)| console.flush());
    }

    /// Appends what the devices have received, at most `burst` bytes of each, as far as there is room.
    pub(super) fn read<const N: usize>(&mut self, received: &mut heapless::Vec<u8, N>, burst: usize) {
        for (console, _) in &mut self.devices {
            for byte in core::iter::from_fn(|| console.read()).take(burst) {
                if received.push(byte).is_err() {
                    return;
                }
            }
        }
    }
}

/// Bytes of output that are remembered.
const RING_BYTES: usize = 8192;

/// The last [`RING_BYTES`] bytes that were written.
struct Ring {
    bytes: [u8; RING_BYTES],
    /// Where the next byte goes.
    next: usize,
    /// The ring has been round once: what follows `next` is old, not empty.
    full: bool,
}

impl Ring {
    const fn new() -> Self {
        Self { bytes: [0; RING_BYTES], next: 0, full: false }
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.bytes[self.next] = byte;
            self.next = (self.next + 1) % RING_BYTES;
            self.full |= self.next == 0;
        }
    }

    /// The content from the oldest byte on, in two parts. Once lines have been lost it begins after a line end.
    fn halves(&self) -> [&[u8]; 2] {
        let (new, old) = self.bytes.split_at(self.next);
        if !self.full {
            return [new, &[]];
        }
        match old.iter().position(|&byte| byte == b'\n') {
            Some(end) => [&old[end + 1..], new],
            None => [&[], &new[new.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1)..]],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_ring_keeps_the_last_whole_lines(lines in prop::collection::vec(0..1000usize, 0..40)) {
            let text: Vec<u8> = lines.iter().flat_map(|&len| [vec![b'a' + (len % 26) as u8; len], vec![b'\n']].concat()).collect();
            let mut ring = Ring::new();
            text.chunks(100).for_each(|chunk| ring.write(chunk));
            let kept = ring.halves().concat();
            prop_assert!(text.ends_with(&kept));
            prop_assert!(kept.len() == text.len() || kept.len() > RING_BYTES - 1002);
            let before = text.len() - kept.len();
            prop_assert!(before == 0 || text[before - 1] == b'\n');
        }
    }
}

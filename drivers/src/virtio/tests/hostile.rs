//! What a hostile device does, whatever it is.
#![forbid(unsafe_code)]

use crate::virtio::fake::Player;

/// Writes a word somewhere into the ring, which place and which word `value` says.
pub(crate) fn scribble(player: &Player, value: u32) {
    let bytes = ring_bytes(player);
    let offset = u64::from(value >> 16) % (bytes / 2) * 2;
    player.hal.set_u16(player.at.descriptors + offset, value as u16);
}

/// Bytes of the ring: the areas lie in one piece, that of the device last.
fn ring_bytes(player: &Player) -> u64 {
    let at = player.at;
    let device_bytes = if player.packed { 4 } else { 6 + 8 * u64::from(at.size) };
    at.device - at.descriptors + device_bytes
}

/// Answers the next buffer with `bytes`, if the driver offers one; for rings that were not scribbled over.
pub(crate) fn fill(player: &mut Player, bytes: &[u8]) {
    let Some(chain) = player.take() else { return };
    let Some(&(address, len, is_write)) = chain.parts.first() else { return };
    let len = if is_write { bytes.len().min(len as usize) } else { 0 };
    player.hal.write(address, &bytes[..len]);
    player.finish(&chain, len as u32);
}

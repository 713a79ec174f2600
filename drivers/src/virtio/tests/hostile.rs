//! What a hostile device does, whatever it is; `script` has more of it.
#![forbid(unsafe_code)]

use crate::virtio::fake::Player;
pub(super) use crate::virtio::script::scribble;

/// Answers the next buffer with `bytes`, if the driver offers one; for rings that were not scribbled over.
pub(crate) fn fill(player: &mut Player, bytes: &[u8]) {
    let Some(chain) = player.take() else { return };
    let Some(&(address, len, is_write)) = chain.parts.first() else { return };
    let len = if is_write { bytes.len().min(len as usize) } else { 0 };
    player.hal.write(address, &bytes[..len]);
    player.finish(&chain, len as u32);
}

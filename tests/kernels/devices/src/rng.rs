//! Fills two buffers from the entropy source, and seeds the guest's generator from it.
#![forbid(unsafe_code)]

use alloc::{format, string::String, vec::Vec};

use kernel::{devices, random};

use crate::{buffer, done};

/// Does it; an error is the first thing that went wrong.
pub(crate) async fn run() -> Result<(), String> {
    let source = devices::entropy::sources().into_iter().next().ok_or("no entropy source")?;
    let mut pieces = Vec::new();
    for _ in 0..2 {
        let outcome = source.read(buffer()?).await;
        let len = *outcome.result.as_ref().map_err(|error| format!("entropy: {error}"))?;
        pieces.push(done(outcome, "entropy")?.bytes()[..len.min(64)].to_vec());
    }
    let is_random = pieces[0] != pieces[1] && pieces.iter().all(|piece| piece.iter().any(|&byte| byte != 0));
    if !is_random {
        return Err("the entropy source repeats itself".into());
    }
    kernel::println!("entropy: two pieces of {} bytes differ", pieces[0].len());
    if random::number() == random::number() {
        return Err("the generator repeats itself".into());
    }
    Ok(())
}

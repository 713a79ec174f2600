//! Uses the paravirtual devices that `app.want=` names, so that the host can compare what it sees of them: `disk`, `rng`,
//! `port`, `ports`, `balloon`, with commas. Status 0 if each was there and nothing failed.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod balloon;
mod disk;
mod port;
mod ports;
mod queues;
mod rng;

use alloc::{format, string::String};

use drivers::class::Outcome;
use drivers::dma::DmaBuffer;
use kernel::devices;

kernel::app!(main);

/// Bytes of a buffer.
const BLOCK_BYTES: usize = 4096;

async fn main() -> Result<(), String> {
    for want in argument("want").unwrap_or("disk").split(',') {
        match want {
            "disk" => disk::run().await?,
            "cancel" => disk::cancel().await?,
            "growth" => disk::growth().await?,
            "discard" => disk::discard().await?,
            "queues" => queues::run().await?,
            "rng" => rng::run().await?,
            "port" => port::run().await?,
            "ports" => ports::run().await?,
            "balloon" => balloon::run().await?,
            "hvc" => port::talk().await?,
            "touch" => balloon::touch().await?,
            "hog" => balloon::hog().await?,
            _ => return Err(format!("app.want={want} is unknown")),
        }
    }
    Ok(())
}

/// The value of `app.KEY=`.
fn argument(key: &str) -> Option<&'static str> {
    kernel::app::args().find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// The value of `app.KEY=` as a number.
fn number(key: &str) -> Option<u64> {
    argument(key).and_then(|value| value.parse().ok())
}

fn buffer() -> Result<DmaBuffer, String> {
    devices::buffer(BLOCK_BYTES).map_err(|error| format!("{error}"))
}

/// The buffer of a request that succeeded; an empty one if it had none.
fn done(outcome: Outcome, what: &str) -> Result<DmaBuffer, String> {
    outcome.result.map_err(|error| format!("{what}: {error}"))?;
    match outcome.buffer {
        Some(buffer) => Ok(buffer),
        None => devices::buffer(1).map_err(|error| format!("{error}")),
    }
}

//! Two ports of one device: what comes through one goes back through it, and the host may close one and take it away while
//! the other goes on.
#![forbid(unsafe_code)]

use alloc::{format, string::String};
use core::time::Duration;

use kernel::{
    devices::console::{self, Port},
    task,
};

/// Bytes of each thing the host says.
const WORD_BYTES: usize = 4;
/// How often a port's state is looked at.
const LOOK: Duration = Duration::from_millis(1);

pub(crate) async fn run() -> Result<(), String> {
    let one = console::open("one").await.ok_or("no port called one")?;
    let two = console::open("two").await.ok_or("no port called two")?;
    until(|| is_open(&one) && is_open(&two)).await;
    kernel::println!("ports: both are open");
    // What is for the one stays with it however long nobody reads it.
    answer(&two).await?;
    answer(&one).await?;
    until(|| !is_open(&one)).await;
    kernel::println!("ports: one is closed");
    until(|| one.info().is_none()).await;
    let refused = one.write_all(b"lost").await.is_err();
    kernel::println!("ports: one is gone, and takes nothing: {refused}");
    answer(&two).await?;
    // What is said may still be on its way to the host, whose threads end with the machine.
    until(|| !is_open(&two)).await;
    Ok(())
}

fn is_open(port: &Port) -> bool {
    port.info().is_some_and(|info| info.host_is_open)
}

async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        task::sleep(LOOK).await;
    }
}

/// Sends a word back behind the port's name.
async fn answer(port: &Port) -> Result<(), String> {
    let (mut word, mut have) = ([0; WORD_BYTES], 0);
    while have < word.len() {
        have += port.read(&mut word[have..]).await.map_err(|error| format!("ports: {error}"))?;
    }
    let name = port.info().map(|info| info.name).unwrap_or_default();
    for bytes in [name.as_bytes(), &word] {
        port.write_all(bytes).await.map_err(|error| format!("ports: {error}"))?;
    }
    Ok(())
}

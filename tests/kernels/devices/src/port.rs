//! Sends what comes through a port back, each byte changed; and talks on the console that the hypervisor offers.
#![forbid(unsafe_code)]

use alloc::{format, string::String, vec};

use kernel::{console, devices};

/// The port that the host is to give.
const NAME: &str = "echo";
/// Each byte comes back with these bits turned over.
const CHANGE: u8 = 0x5a;

/// Echoes: eight bytes tell how many come, then these.
pub(crate) async fn run() -> Result<(), String> {
    let port = devices::console::open(NAME).await.ok_or("no port called echo")?;
    let mut head = [0; 8];
    let mut have = 0;
    while have < head.len() {
        have += port.read(&mut head[have..]).await.map_err(|error| format!("port: {error}"))?;
    }
    let mut left = u64::from_le_bytes(head);
    let total = left;
    let mut bytes = vec![0; 4096];
    while left > 0 {
        let room = bytes.len().min(left as usize);
        let count = port.read(&mut bytes[..room]).await.map_err(|error| format!("port: {error}"))?;
        bytes[..count].iter_mut().for_each(|byte| *byte ^= CHANGE);
        port.write_all(&bytes[..count]).await.map_err(|error| format!("port: {error}"))?;
        left -= count as u64;
    }
    let counts = port.counts();
    kernel::println!(
        "port: {total} bytes echoed, {} requests, {} notifications, {} interrupts",
        counts.requests,
        counts.notifications,
        counts.interrupts
    );
    port.set_open(false);
    Ok(())
}

/// Answers a line on the hypervisor's console.
pub(crate) async fn talk() -> Result<(), String> {
    if !devices::console::attach().await {
        return Err("no console".into());
    }
    kernel::println!("hvc: who is there?");
    let name = console::read_line().await.map_err(|error| format!("{error}"))?;
    kernel::println!("hvc: hello {name}");
    Ok(())
}

//! Small services for the host to talk to: echo on port 7 (TCP and UDP), sink on 9, source on 19, iperf3 on 5201, the end on 1.
//! `app.connect=ADDRESS:PORT` has the guest open a connection, `app.resolve=NAME` ask for a name. Status 0 if nothing
//! failed. `app.raw=` is for the card without protocols.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod iperf;
mod raw;
mod services;

use alloc::{format, string::String, vec};
use core::net::SocketAddr;

use drivers::class::net::{Control, MacAddress};
use embedded_io_async::{Read, Write};
use kernel::{
    net::{self, Options, TcpListener, TcpStream},
    println, spawn,
};

kernel::app!(main);

async fn main() -> Result<(), String> {
    if let Some((_, what)) = kernel::app::args().find(|(key, _)| *key == "raw") {
        return raw::run(what).await;
    }
    let status = net::up().await.map_err(|error| format!("{error}"))?;
    println!("net: {status}");
    control()?;
    for (key, value) in kernel::app::args() {
        match key {
            "connect" => connect(value).await?,
            "resolve" => {
                let addresses = net::resolve(value).await.map_err(|error| format!("{value}: {error}"))?;
                println!("net: {value} is {addresses:?}");
            }
            _ => {}
        }
    }
    drop(spawn(services::echo()));
    drop(spawn(services::sink()));
    drop(spawn(services::source()));
    drop(spawn(services::echo_datagrams()));
    drop(spawn(iperf::serve()));
    let mut end = TcpListener::bind(1, Options::default()).map_err(|error| format!("{error}"))?;
    println!("net: ready");
    drop(end.accept().await);
    let counts = net::card().map_err(|error| format!("{error}"))?.counts();
    println!(
        "net: {} received, {} sent, {} dropped, {} notifications, {} interrupts",
        counts.received, counts.sent, counts.dropped, counts.notifications, counts.interrupts
    );
    Ok(())
}

/// Tells the card everything that it may be told.
fn control() -> Result<(), String> {
    let card = net::card().map_err(|error| format!("{error}"))?;
    let mac = card.info().mac;
    let groups = [MacAddress([0x01, 0, 0x5e, 0, 0, 1]), MacAddress([0x33, 0x33, 0, 0, 0, 1])];
    let all = [
        Control::Promiscuous(true),
        Control::Promiscuous(false),
        Control::Multicast(&groups),
        Control::AllMulticast(true),
        Control::Vlan(7, true),
        Control::Vlan(7, false),
        Control::Mac(MacAddress([2, 0, 0, 0, 0, 9])),
        Control::Mac(mac),
    ];
    let taken = all.into_iter().filter(|command| card.control(*command).is_ok()).count();
    println!("net: {taken} commands of {} taken", all.len());
    Ok(())
}

/// Opens a connection, says something, and tells what comes back; by the traits that other crates know.
async fn connect(to: &str) -> Result<(), String> {
    async fn talk<S: Read + Write>(stream: &mut S, answer: &mut [u8]) -> Result<usize, S::Error> {
        stream.write_all(b"hello from the guest\n").await?;
        stream.flush().await?;
        stream.read(answer).await
    }
    let address: SocketAddr = to.parse().map_err(|_| format!("app.connect={to}: expected ADDRESS:PORT"))?;
    let mut stream =
        TcpStream::connect(address, Options::default()).await.map_err(|error| format!("{to}: {error}"))?;
    let mut answer = vec![0; 100];
    let len = talk(&mut stream, &mut answer).await.map_err(|error| format!("{to}: {error}"))?;
    println!("net: {to} answers {:?}", String::from_utf8_lossy(&answer[..len]).trim_end());
    Ok(())
}

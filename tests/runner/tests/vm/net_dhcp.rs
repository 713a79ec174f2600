//! Addresses by DHCP (RFC 2131) and by the command line: what the guest took over, and that it finds its way out by the router
//! that it was told.
//!
//! The server is QEMU's own network, which is in a namespace with a tap: what is behind the tap is behind the router.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use runner::qemu::network::{self, HOST};
use runner::qemu::{Machine, Options};

use crate::lab::PATIENCE;
use crate::net::{Guest, Offer, at_tap};
use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        at_tap("dhcp::gives_address_router_and_names_pci", "net", || a_server_gives(Machine::Q35)),
        at_tap("dhcp::gives_address_router_and_names_mmio", "net", || a_server_gives(Machine::Microvm)),
        at_tap("dhcp::is_not_asked_where_an_address_is_said", "net", an_address_is_said),
    ]
}

/// Takes one connection, and says something to who opens it.
fn listen() -> Result<(u16, JoinHandle<Result<String>>)> {
    let listener = TcpListener::bind((HOST, 0))?;
    let port = listener.local_addr()?.port();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut said = [0; 21];
        stream.read_exact(&mut said)?;
        stream.write_all(b"hello from behind the router\n")?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    });
    Ok((port, answering))
}

/// Starts the guest on QEMU's network; its port 1 is forwarded to a port of this host.
fn start(machine: Machine, append: &str) -> Result<(Guest, u16)> {
    let port = network::free_port(None)?;
    let options = Options { machine, append: append.into(), ..Options::default() };
    let offer = Offer { machine, ..Offer::ALL };
    let guest =
        Guest::start(&options, |line| network::at_user(line, machine, &[(port, 1)], &offer.device()))?;
    Ok((guest, port))
}

fn a_server_gives(machine: Machine) -> Result<()> {
    let (port, answering) = listen()?;
    let (guest, end) = start(machine, &format!("app.connect={HOST}:{port}"))?;
    guest.wait_for("net: ready", 0)?;
    drop(TcpStream::connect((Ipv4Addr::LOCALHOST, end)).context("the guest's port 1")?);
    let run = guest.end_by_itself()?;
    let said = answering.join().map_err(|_| anyhow::anyhow!("the listener panicked"))??;
    ensure!(said == "hello from the guest\n", "the guest says {said:?}");
    // What QEMU's server gives, documented with `-netdev user`.
    run.says(&["net: 10.0.2.15/24 by DHCP of 10.0.2.2 for 86400 s"])?;
    run.says(&["net: fe80::", "10.0.2.15/24; out by 10.0.2.2", "; names by 10.0.2.3"])?;
    run.says(&["answers \"hello from behind the router\""])?;
    Ok(())
}

/// Another one than the server would give.
fn an_address_is_said() -> Result<()> {
    let (port, answering) = listen()?;
    let append = format!("net.ip=10.0.2.99/24 net.gateway=10.0.2.2 app.connect={HOST}:{port}");
    // What is forwarded goes to the address that the server would give, so nobody can end this one from outside.
    let (guest, _) = start(Machine::Q35, &append)?;
    guest.wait_for("net: ready", 0)?;
    let said = answering.join().map_err(|_| anyhow::anyhow!("the listener panicked"))??;
    ensure!(said == "hello from the guest\n", "the guest says {said:?}");
    guest.wait_for("10.0.2.99/24; out by 10.0.2.2", 0)?;
    let console = guest.console();
    ensure!(!console.contains("DHCP"), "a server was asked:\n{console}");
    Ok(())
}

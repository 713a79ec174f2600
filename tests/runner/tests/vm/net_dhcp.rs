//! Addresses by DHCP (RFC 2131) and by the command line: what the guest took over, and that it finds its way out by the router
//! that it was told.
//!
//! Two servers: QEMU's own network, which is in a namespace with a tap, so that what is behind the tap is behind the router; and
//! one at the tap itself, whose leases last for seconds.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use runner::host::{packages::BUSYBOX, paths};
use runner::qemu::network::{self, HOST, TAP};
use runner::qemu::{Machine, Options};

use crate::lab::PATIENCE;
use crate::net::{Guest, Offer, answer_once, at_tap};
use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        at_tap("dhcp::gives_address_router_and_names_pci", "net", || a_server_gives(Machine::Q35)),
        at_tap("dhcp::gives_address_router_and_names_mmio", "net", || a_server_gives(Machine::Microvm)),
        at_tap("dhcp::a_lease_is_renewed_and_another_one_asked_for", "net", a_lease_is_renewed)
            .with(&[BUSYBOX]),
        at_tap("dhcp::is_not_asked_where_an_address_is_said", "net", an_address_is_said),
    ]
}

const ANSWER: &str = "hello from behind the router";

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
    let (port, answered) = answer_once(ANSWER)?;
    let (guest, end) = start(machine, &format!("app.connect={HOST}:{port}"))?;
    guest.wait_for("net: ready", 0)?;
    drop(TcpStream::connect((Ipv4Addr::LOCALHOST, end)).context("the guest's port 1")?);
    let run = guest.end_by_itself()?;
    answered()?;
    // What QEMU's server gives, documented with `-netdev user`.
    run.says(&["net: 10.0.2.15/24 by DHCP of 10.0.2.2 for 86400 s"])?;
    run.says(&["net: fe80::", "10.0.2.15/24; out by 10.0.2.2", "; names by 10.0.2.3"])?;
    run.says(&["answers", ANSWER])?;
    Ok(())
}

/// Another one than the server would give.
fn an_address_is_said() -> Result<()> {
    let (port, answered) = answer_once(ANSWER)?;
    let append = format!("net.ip=10.0.2.99/24 net.gateway=10.0.2.2 app.connect={HOST}:{port}");
    // What is forwarded goes to the address that the server would give, so nobody can end this one from outside.
    let (guest, _) = start(Machine::Q35, &append)?;
    guest.wait_for("net: ready", 0)?;
    answered()?;
    guest.wait_for("10.0.2.99/24; out by 10.0.2.2", 0)?;
    let console = guest.console();
    ensure!(!console.contains("DHCP"), "a server was asked:\n{console}");
    Ok(())
}

/// A server at the tap that gives one address for [`LEASE_SECONDS`], and what it says.
struct Server {
    child: Child,
    said: Receiver<String>,
    directory: PathBuf,
}

/// Renewed after half of it (RFC 2131 §4.4.5).
const LEASE_SECONDS: u32 = 6;

impl Server {
    fn start(gives: Ipv4Addr) -> Result<Self> {
        let directory = paths::output_directory().join(format!("dhcp-{gives}-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let (file, leases) = (directory.join("conf"), directory.join("leases"));
        let given = format!("start {gives}\nend {gives}\nmax_leases 1\n");
        let lasts = format!("min_lease 1\noption lease {LEASE_SECONDS}\nlease_file {}\n", leases.display());
        let network =
            format!("interface {TAP}\npidfile\noption subnet 255.255.255.0\noption router {HOST}\n");
        std::fs::write(&file, [given, lasts, network].concat())?;
        std::fs::write(&leases, [])?;
        let mut child =
            Command::new(BUSYBOX.what).args(["udhcpd", "-f"]).arg(&file).stderr(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stderr.take().context("no pipe")?).lines();
        let (sender, said) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { child, said, directory })
    }

    /// Waits until it says `text`.
    fn says(&self, text: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line =
                self.said.recv_timeout(left).with_context(|| format!("the server never says {text:?}"))?;
            if line.contains(text) {
                return Ok(());
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended by itself is no harm, nor are two small files.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Kept while the server renews it, gone when nobody does, asked for anew until somebody answers.
fn a_lease_is_renewed() -> Result<()> {
    let [first, second] = [50, 60].map(|number| Ipv4Addr::new(192, 0, 2, number));
    let server = Server::start(first)?;
    let guest =
        Guest::start(&Options::default(), |line| network::at_tap(line, Machine::Q35, &Offer::ALL.device()))?;
    guest.wait_for(&format!("net: {first}/24 by DHCP of {HOST} for {LEASE_SECONDS} s"), 0)?;
    for _ in 0..3 {
        server.says(&format!("sending ACK to {first}"))?;
    }
    let console = guest.console();
    ensure!(!console.contains("is over"), "a lease that was renewed is given up:\n{console}");
    drop(server);
    let at = guest.wait_for(&format!("net: the lease of {first} is over"), 0)?;
    let _server = Server::start(second)?;
    guest.wait_for(&format!("net: {second}/24 by DHCP"), at)?;
    drop(TcpStream::connect((second, 1)).context("the guest's port 1")?);
    guest.end_by_itself()?;
    Ok(())
}

//! The network: what the host's own tools make of a guest that serves.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use runner::host::packages::IP;
use runner::qemu::network::{self, GUEST, GUEST6, HOST};
use runner::qemu::{Ending, Line, Machine, Options, Running};
use serde_json::json;

use crate::lab::{self, PATIENCE, Run};
use crate::row::{Row, Verdict};

/// Bytes of a bulk transfer.
const BULK_BYTES: usize = 16 << 20;

/// How the card is offered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) machine: Machine,
    pub(crate) packed: bool,
    pub(crate) offloads: bool,
    pub(crate) event_idx: bool,
}

impl Offer {
    pub(crate) const ALL: Self =
        Self { machine: Machine::Q35, packed: false, offloads: true, event_idx: true };

    fn name(self) -> String {
        let Self { machine, packed, offloads, event_idx } = self;
        let transport = if machine == Machine::Microvm { "mmio" } else { "pci" };
        let ring = if packed { "packed" } else { "split" };
        let offloads = if offloads { "offloads" } else { "no_offloads" };
        let event = if event_idx { "event_idx" } else { "no_event_idx" };
        format!("virtio_net::{transport}_{ring}_{offloads}_{event}")
    }

    pub(crate) fn device(self) -> String {
        let on = |yes| if yes { "on" } else { "off" };
        let (packed, event_idx, all) = (on(self.packed), on(self.event_idx), on(self.offloads));
        let offloads = ["csum", "guest_csum", "gso", "guest_tso4", "guest_tso6", "host_tso4", "host_tso6"];
        let offloads: String = offloads.iter().map(|offload| format!(",{offload}={all}")).collect();
        format!(",packed={packed},event_idx={event_idx},mrg_rxbuf={all}{offloads}")
    }

    pub(crate) fn options(self) -> Options {
        Options { machine: self.machine, append: network::tap_cmdline(), ..Options::default() }
    }
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for machine in [Machine::Q35, Machine::Microvm] {
        for packed in [false, true] {
            for offloads in [true, false] {
                for event_idx in [true, false] {
                    let offer = Offer { machine, packed, offloads, event_idx };
                    rows.push(at_tap(offer.name(), "net", move || bytes_go_both_ways(offer)));
                }
            }
        }
    }
    rows.extend([
        at_tap("net::names_are_resolved", "net", names_are_resolved),
        at_tap("net::the_guest_opens_connections", "net", the_guest_opens_connections),
        at_tap("net::a_cable_that_is_pulled_may_come_back", "net", a_cable_may_come_back),
        at_tap("net::a_guest_that_starts_tells_where_it_is", "net", a_guest_that_starts_tells_where_it_is),
        at_tap("net::a_moved_guest_tells_where_it_is", "net", a_moved_guest_tells_where_it_is),
    ]);
    rows
}

/// A row with a network of its own.
pub(crate) fn at_tap(
    name: impl Into<String>,
    guest: &'static str,
    body: impl FnOnce() -> Result<()> + Send + 'static,
) -> Row {
    let body = move || match network::without_tap() {
        Some(reason) => Ok(Verdict::Skipped(reason)),
        None => network::in_namespace(body).map(|()| Verdict::Kept),
    };
    Row::new(name, guest, body).with(&[IP])
}

/// A guest that runs at the tap.
pub(crate) struct Guest {
    running: Running,
    line: Line,
}

impl Guest {
    /// Starts guest `net` with the cards that are added.
    pub(crate) fn start(options: &Options, add: impl FnOnce(&mut Line)) -> Result<Self> {
        let (running, line) = lab::start_with("net", options, add)?;
        Ok(Self { running, line })
    }

    /// Starts it at the tap, and waits until it serves.
    pub(crate) fn ready(offer: Offer, append: &str) -> Result<Self> {
        let mut options = offer.options();
        options.append = format!("{} {append}", options.append);
        let guest = Self::start(&options, |line| network::at_tap(line, offer.machine, &offer.device()))?;
        guest.wait_for("net: ready", 0)?;
        Ok(guest)
    }

    /// Waits until it says `text`, behind byte `from` of what it has said; tells where that ends.
    pub(crate) fn wait_for(&self, text: &str, from: usize) -> Result<usize> {
        self.running.wait_for(text, from, PATIENCE)
    }

    /// What it has said.
    pub(crate) fn console(&self) -> String {
        self.running.console()
    }

    /// Ends it by its port 1.
    pub(crate) fn end(self) -> Result<Run> {
        drop(connect(GUEST, 1)?);
        self.end_by_itself()
    }

    /// Waits for its end.
    pub(crate) fn end_by_itself(self) -> Result<Run> {
        let run = lab::finish(self.running, &self.line)?;
        run.ended(&Ending::Status(0))?;
        Ok(run)
    }
}

fn connect(address: impl Into<IpAddr>, port: u16) -> Result<TcpStream> {
    let address = SocketAddr::new(address.into(), port);
    let stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("{address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Bytes in which no two pieces are alike (the linear congruence of Numerical Recipes).
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 7u32;
    let step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

/// Bulk through the echo, into the sink, out of the source, datagrams; IPv4 and IPv6.
fn bytes_go_both_ways(offer: Offer) -> Result<()> {
    let guest = Guest::ready(offer, "")?;
    let sent = noise(BULK_BYTES);
    for address in [IpAddr::from(GUEST), IpAddr::from(GUEST6)] {
        echo(address, &sent)?;
        sink(address, &sent)?;
        source(address)?;
        datagrams(address)?;
    }
    let run = guest.end()?;
    let told = [(offer.packed, ", packed"), (offer.event_idx, ", event index")];
    for (_, feature) in told.iter().filter(|(is_on, _)| *is_on) {
        run.says(&["virtio-net", feature])?;
    }
    run.says(&["net: 8 commands of 8 taken"])?.says(&["net: ", " 0 dropped"])?;
    let line = run.console().lines().find(|line| line.contains(" notifications, ")).unwrap_or_default();
    println!("{}: {line}", offer.name());
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    let mut next = || numbers.next().with_context(|| run.failure("the guest tells no counts"));
    let (received, sent, _, notifications, interrupts) = (next()?, next()?, next()?, next()?, next()?);
    ensure!(
        notifications < received + sent && interrupts < received + sent,
        run.failure("more notifications or interrupts than frames")
    );
    let frames = (2 * 4 * BULK_BYTES / 1448) as u64;
    if offer.offloads {
        ensure!(received + sent < frames / 2, run.failure("segments were not cut and joined by the card"));
    } else {
        ensure!(received + sent > frames / 2, run.failure("fewer frames than the bytes need"));
    }
    Ok(())
}

pub(crate) fn echo(address: IpAddr, sent: &[u8]) -> Result<()> {
    let mut stream = connect(address, 7)?;
    let mut back = Vec::new();
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone()?;
        let writer = scope.spawn(move || {
            writer.write_all(sent)?;
            writer.shutdown(Shutdown::Write)
        });
        stream.read_to_end(&mut back).context("reading the echo")?;
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        anyhow::Ok(())
    })?;
    ensure!(back == sent, "{address} echoes {} bytes that are not the {} sent", back.len(), sent.len());
    Ok(())
}

fn sink(address: IpAddr, sent: &[u8]) -> Result<()> {
    let mut stream = connect(address, 9)?;
    stream.write_all(sent)?;
    stream.shutdown(Shutdown::Write)?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    let hash = sent
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let expected = format!("{} {hash:016x}", sent.len());
    ensure!(said.trim() == expected, "{address} took {said:?}, not {expected}");
    Ok(())
}

fn source(address: IpAddr) -> Result<()> {
    let mut stream = connect(address, 19)?;
    writeln!(stream, "{BULK_BYTES}")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    // What is sent repeats after 251 * 256 bytes.
    let expected = |at: usize| (at % (251 * 256) / 251 + at % (251 * 256)) as u8;
    let wrong = bytes.iter().enumerate().find(|(at, byte)| **byte != expected(*at));
    ensure!(bytes.len() == BULK_BYTES && wrong.is_none(), "{address} gave {} bytes, {wrong:?}", bytes.len());
    Ok(())
}

/// Datagrams may be lost anywhere: each is sent until it comes back.
fn datagrams(address: IpAddr) -> Result<()> {
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect((address, 7))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    for len in [1, 100, 1400] {
        let sent = noise(len);
        let deadline = Instant::now() + PATIENCE;
        let mut back = [0; 2000];
        loop {
            socket.send(&sent)?;
            match socket.recv(&mut back) {
                Ok(received) if back[..received] == sent => break,
                _ => ensure!(Instant::now() < deadline, "{address} does not echo {len} bytes"),
            }
        }
    }
    Ok(())
}

/// Runs a program of the host; its output, if it succeeds.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}\n{said}{errors}", arguments.join(" "), output.status);
    }
    Ok(said)
}

/// A server that knows one name, with an address of each kind.
fn names_are_resolved() -> Result<()> {
    let server = UdpSocket::bind((HOST, 53))?;
    server.set_read_timeout(Some(PATIENCE))?;
    let answering = std::thread::spawn(move || -> Result<()> {
        for _ in 0..2 {
            let mut question = [0; 512];
            let (len, from) = server.recv_from(&mut question)?;
            // The same with the flag of an answer, and one record: the question's name, its type, class 1, 60 s, address.
            let mut answer = question[..len].to_vec();
            answer[2] |= 0x80;
            answer[7] = 1;
            let kind = question[len - 3];
            answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60]);
            match kind {
                1 => answer.extend([0, 4, 198, 51, 100, 7]),
                _ => {
                    answer.extend([0, 16]);
                    answer.extend(network::HOST6.octets());
                }
            }
            server.send_to(&answer, from)?;
        }
        Ok(())
    });
    let guest = Guest::ready(Offer::ALL, &format!("net.dns={HOST} app.resolve=www.example.org"))?;
    answering.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    guest.end()?.says(&["net: www.example.org is [198.51.100.7, 2001:db8::1]"])?;
    Ok(())
}

/// Answers one connection of the guest's with `line`. Tells the port, and how to see that the guest has said its own line.
pub(crate) fn answer_once(line: &'static str) -> Result<(u16, impl FnOnce() -> Result<()>)> {
    const HELLO: &[u8] = b"hello from the guest\n";
    let listener = TcpListener::bind((HOST, 0))?;
    let port = listener.local_addr()?.port();
    let answering = std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut said = [0; HELLO.len()];
        stream.read_exact(&mut said)?;
        writeln!(stream, "{line}")?;
        ensure!(said == HELLO, "the guest says {:?}", String::from_utf8_lossy(&said));
        Ok(())
    });
    Ok((port, move || answering.join().map_err(|_| anyhow::anyhow!("the listener panicked"))?))
}

fn the_guest_opens_connections() -> Result<()> {
    let (port, answered) = answer_once("hello from the host")?;
    let guest = Guest::ready(Offer::ALL, &format!("app.connect={HOST}:{port}"))?;
    answered()?;
    guest.end()?.says(&["answers \"hello from the host\""])?;
    Ok(())
}

fn a_cable_may_come_back() -> Result<()> {
    let guest = Guest::ready(Offer::ALL, "")?;
    let device = guest.running.ask("query-rx-filter", &json!({}))?[0]["name"].clone();
    guest.running.ask("set_link", &json!({ "name": device, "up": false }))?;
    let at = guest.wait_for("virtio-net: link down", 0)?;
    guest.running.ask("set_link", &json!({ "name": device, "up": true }))?;
    guest.wait_for("virtio-net: link up", at)?;
    echo(GUEST.into(), &noise(1000))?;
    guest.end()?;
    Ok(())
}

/// QEMU asks for it, as after a migration (§5.1.6.5.4).
fn a_moved_guest_tells_where_it_is() -> Result<()> {
    let guest = Guest::ready(Offer::ALL, "")?;
    let raw = crate::raw_socket::RawSocket::open(network::TAP)?;
    let wish = json!({ "initial": 50, "max": 500, "rounds": 3, "step": 100 });
    guest.running.ask("announce-self", &wish)?;
    hear_where_it_is(&raw)?;
    guest.end()?;
    Ok(())
}

/// Whoever was looking for it need not ask again.
fn a_guest_that_starts_tells_where_it_is() -> Result<()> {
    let raw = crate::raw_socket::RawSocket::open(network::TAP)?;
    let guest = Guest::ready(Offer::ALL, "")?;
    hear_where_it_is(&raw)?;
    guest.end()?;
    Ok(())
}

fn hear_where_it_is(raw: &crate::raw_socket::RawSocket) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let frame = raw.receive(Duration::from_millis(200))?;
        // An ARP reply to all, from the guest's address.
        let is_it = frame.starts_with(&[0xff; 6])
            && frame.get(12..14) == Some(&[8, 6])
            && frame.get(20..22) == Some(&[0, 2])
            && frame.get(28..32) == Some(&GUEST.octets());
        if is_it {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the guest tells nobody where it is");
    }
}

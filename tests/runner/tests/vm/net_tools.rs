//! The network as the tools of the host see it, and what none of them should see: scans, noise.
//! Neighbours: `net` (bytes, whole and unchanged), `raw_socket` (how frames are thrown).

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use runner::host::packages::{IPERF3, NC, NMAP, PING};
use runner::qemu::network::{self, GUEST, GUEST6};

use crate::lab::PATIENCE;
use crate::net::{Guest, Offer, at_tap, echo, noise, tool};
use crate::row::Row;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        at_tap("net::ping_is_answered_by_both_protocols", "net", ping_is_answered).with(&[PING]),
        at_tap("net::nc_gets_back_what_it_sends", "net", nc_gets_back_what_it_sends).with(&[NC]),
        at_tap("net::iperf3_loses_no_byte", "net", iperf3_loses_no_byte).with(&[IPERF3]),
        at_tap("net::nmap_finds_what_is_open_and_leaves_it_serving", "net", nmap_finds_what_is_open)
            .with(&[NMAP]),
        at_tap("net::a_port_scan_and_random_frames_leave_it_serving", "net", random_frames_leave_it_serving),
    ]
}

fn ping_is_answered() -> Result<()> {
    let guest = Guest::ready(Offer::ALL, "")?;
    for address in [GUEST.to_string(), GUEST6.to_string()] {
        for bytes in ["0", "56", "1400"] {
            tool("ping", &["-c", "3", "-i", "0.2", "-W", "20", "-s", bytes, &address])?;
        }
    }
    guest.end()?;
    Ok(())
}

/// A file through the echo, by a client that somebody else wrote: by both versions of IP, and as datagrams.
fn nc_gets_back_what_it_sends() -> Result<()> {
    let guest = Guest::ready(Offer::ALL, "")?;
    let sent = noise(3 << 20);
    for address in [GUEST.to_string(), GUEST6.to_string()] {
        let back = pipe("nc", &["-N", &address, "7"], &sent)?;
        ensure!(
            back == sent,
            "{address}: {} bytes come back that are not the {} sent",
            back.len(),
            sent.len()
        );
        // It waits for a second after the last datagram.
        let back = pipe("nc", &["-u", "-w", "1", &address, "7"], b"a datagram")?;
        ensure!(back == b"a datagram", "{address}: {back:?}");
    }
    guest.end()?;
    Ok(())
}

/// So many bytes to the guest, from it, through several connections: what the one end sent, the other got.
fn iperf3_loses_no_byte() -> Result<()> {
    let guest = Guest::ready(Offer::ALL, "")?;
    let (v4, v6) = (GUEST.to_string(), GUEST6.to_string());
    for more in [&[][..], &["-R"], &["-P", "4"], &["-P", "3", "-R"]] {
        for address in [&v4, &v6] {
            let all = [&["-J", "-n", "16M", "-c", address][..], more].concat();
            let said = tool("iperf3", &all)?;
            let told: serde_json::Value = serde_json::from_str(&said)?;
            let bytes = |who: &str| told["end"][who]["bytes"].as_u64();
            let (sent, received) = (bytes("sum_sent"), bytes("sum_received"));
            let is_right = match more.contains(&"-R") {
                // The guest goes on until it is told that it is enough: what is on its way then, nobody takes.
                true => received >= Some(16 << 20) && sent >= received,
                false => received >= Some(16 << 20) && sent == received,
            };
            ensure!(is_right, "{more:?} {address}: {sent:?} bytes sent, {received:?} received");
        }
    }
    guest.end()?;
    Ok(())
}

/// What a program of the host writes for `input`.
fn pipe(program: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut command = Command::new(program);
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), output.status);
        Ok(output.stdout)
    })
}

/// Scans as they are done in earnest: with half a handshake, with flags that no proper client sends, of datagram ports,
/// of protocols, and one that guesses what runs there.
fn nmap_finds_what_is_open() -> Result<()> {
    let guest = Guest::ready(Offer::ALL, "")?;
    let scan = |arguments: &[&str]| -> Result<String> {
        // Port 1 would end the guest.
        let all = [&["-n", "-Pn", "--reason", "--host-timeout", "100s", "-T4"][..], arguments].concat();
        tool("nmap", &all)
    };
    let open = |said: &str| -> Vec<u16> {
        let ports = said.lines().filter(|line| line.contains("/tcp") && line.contains(" open "));
        ports.filter_map(|line| line.split('/').next()?.parse().ok()).collect()
    };
    let target = GUEST.to_string();
    for arguments in [&["-sS", "-p2-5000"][..], &["-sT", "-p2-1000"]] {
        let said = scan(&[arguments, &[&target]].concat())?;
        ensure!(open(&said) == [7, 9, 19], "{said}");
    }
    let said = scan(&["-6", "-sS", "-p2-1000", &GUEST6.to_string()])?;
    ensure!(open(&said) == [7, 9, 19], "{said}");
    for kind in ["-sF", "-sN", "-sX", "-sA", "-sM", "-sW"] {
        scan(&[kind, "-p2-100", &target])?;
    }
    scan(&["-sU", "-p1-50", &target])?;
    scan(&["-sO", "-p1-60", &target])?;
    scan(&["-O", "-f", "-p7,9,80", &target])?;
    let sent = noise(1 << 20);
    for address in [IpAddr::from(GUEST), IpAddr::from(GUEST6)] {
        echo(address, &sent)?;
    }
    guest.end()?;
    Ok(())
}

/// Connections to many ports, then frames of noise: with nothing right, with the guest's address, and with headers that
/// are right as far as they go.
fn random_frames_leave_it_serving() -> Result<()> {
    let guest = Guest::ready(Offer::ALL, "")?;
    let mut open = Vec::new();
    // Port 1 would end the guest.
    for port in 2..1500 {
        let address = SocketAddr::new(GUEST.into(), port);
        if TcpStream::connect_timeout(&address, PATIENCE).is_ok() {
            open.push(port);
        }
    }
    ensure!(open == [7, 9, 19], "open ports: {open:?}");
    let raw = crate::raw_socket::RawSocket::open(network::TAP)?;
    let mut random = noise(4 << 20).into_iter().cycle();
    for number in 0..20_000usize {
        let len = 14 + random.by_ref().take(2).fold(0, |len, byte| len << 3 ^ usize::from(byte)) % 1400;
        let mut frame: Vec<u8> = random.by_ref().take(len.max(60)).collect();
        if number % 4 > 0 {
            frame[..6].copy_from_slice(&[0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        }
        match number % 8 {
            2 | 3 => frame[12..14].copy_from_slice(&[0x08, 0x06]),
            4 | 5 => {
                // IPv4, TCP or UDP or ICMP, to the guest.
                let total = (frame.len() - 14) as u16;
                frame[12..17].copy_from_slice(&[0x08, 0, 0x45, 0, (total >> 8) as u8]);
                frame[17] = total as u8;
                frame[20..22].fill(0);
                frame[23] = [6, 17, 1, 2][number / 8 % 4];
                frame[26..34].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
                frame[24..26].fill(0);
                let sum = checksum(&frame[14..34]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            6 | 7 => {
                // IPv6, of any kind, to the guest.
                let len = (frame.len() - 54) as u16;
                frame[12..18].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
                frame[18..20].copy_from_slice(&len.to_be_bytes());
                frame[20] = [0, 6, 17, 43, 44, 58, 60, 99][number / 8 % 8];
                frame[22..38].copy_from_slice(&network::HOST6.octets());
                frame[38..54].copy_from_slice(&GUEST6.octets());
            }
            _ => {}
        }
        raw.send(&frame)?;
    }
    let sent = noise(1 << 20);
    for address in [IpAddr::from(GUEST), IpAddr::from(GUEST6)] {
        echo(address, &sent)?;
    }
    guest.end()?;
    Ok(())
}

/// The checksum of IPv4's header (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}

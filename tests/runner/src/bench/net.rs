//! `bench-net`: requests, round trips and bulk bytes over a virtio network card, from Pliant and from Linux, in turn.
//!
//! All guests run at the same time, each at a tap of its own in one network namespace, and are asked one after the other,
//! several times over; who is not asked is idle. Pliant is two guests: `http`, and `net` for echo and bulk.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::{frames, rig};
use crate::guest::{self, Profile};
use crate::host::packages::{self, CC, IP, WRK};
use crate::image;
use crate::qemu::{Line, Machine, Options, Running, Scratch, Serial, Tee, network};
use crate::toolchain::Toolchain;

const MEMORY: &str = "256M";
const PATIENCE: Duration = Duration::from_secs(120);
const BULK_BYTES: usize = 64 << 20;
const ROUND_TRIPS: u32 = 2000;
const CONNECTIONS: u32 = 300;

/// How it is measured.
#[derive(Args, Clone, Debug)]
pub struct NetArguments {
    /// Rounds; the medians are shown
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// Seconds of requests for each case in each round
    #[arg(long, default_value_t = 2)]
    pub seconds: u32,
    /// More properties of the virtio-net devices, such as `packed=on`
    #[arg(long, default_value = "")]
    pub device: String,
}

/// What is measured: its name, and whether more is better.
const CASES: [(&str, bool); 7] = [
    ("HTTP, 1 connection, requests/s", true),
    ("HTTP, 16 connections, requests/s", true),
    ("connect, GET, close, µs", false),
    ("echo of 64 bytes, µs", false),
    ("host to guest, MB/s", true),
    ("guest to host, MB/s", true),
    ("start to first answer (Linux: to its first process), ms", false),
];

/// Runs it and prints the table.
///
/// # Errors
/// A machine does not run, this needs root, or a program that measures cannot be had.
pub fn run_net(arguments: &NetArguments) -> Result<u8> {
    packages::require(&[&[IP, WRK][..], &CC].concat())?;
    let toolchain = Toolchain::find()?;
    let http = guest::build(&toolchain, "http", Profile::Release)?;
    let net = guest::build(&toolchain, "net", Profile::Release)?;
    let scratch = Scratch::new()?;
    let program = rig::program(&scratch.0, include_str!("linux_net.c"))?;
    let of_frames = guest::build(&toolchain, "bench_net", Profile::Release)?;
    let frames_program = rig::program(&scratch.0, include_str!("linux_frames.c"))?;
    let more = if arguments.device.is_empty() { String::new() } else { format!(",{}", arguments.device) };
    let mut by_frames = frames::Results::new();
    network::in_namespace(|| {
        network::add_tap(1)?;
        (0..arguments.rounds)
            .try_for_each(|_| frames::round(&toolchain, &of_frames, &frames_program, &more, &mut by_frames))
    })?;
    let mut results: [[Vec<f64>; 2]; CASES.len()] = Default::default();
    network::in_namespace(|| {
        let options = |tap| Options {
            memory: MEMORY.into(),
            append: format!("log=warn {}", network::cmdline(tap)),
            ..Options::default()
        };
        let start = |guest, tap: u8| -> Result<Running> {
            let options = options(tap);
            let mut line = image::line(&toolchain, guest, &options, Serial::Plain)?;
            at(&mut line, tap, &more);
            Running::start(&line, false, Tee::Keep)
        };
        (1..3).try_for_each(network::add_tap)?;
        let begun = Instant::now();
        let mut linux = rig::linux(MEMORY, 1, |line| at(line, 2, &more))?;
        results[6][1].push(begun.elapsed().as_secs_f64() * 1000.0);
        rig::install(&mut linux, &program)?;
        let address = network::guest(2);
        linux.run(&format!(
            "ip link set lo up; ip link set eth0 up; ip addr add {address}/24 dev eth0; \
             ({} >/dev/null 2>&1 </dev/null 3>&- &)",
            rig::PROGRAM
        ))?;
        first_answer(2)?;
        let begun = Instant::now();
        let _http = start(&http, 0)?;
        first_answer(0)?;
        results[6][0].push(begun.elapsed().as_secs_f64() * 1000.0);
        let _net = start(&net, 1)?;
        connect(1, 7)?;
        for round in 0..arguments.rounds {
            eprintln!("round {} of {}", round + 1, arguments.rounds);
            for (who, taps) in [(0, [0, 1]), (1, [2, 2])] {
                let [web, plain] = taps;
                results[0][who].push(requests(web, 1, arguments.seconds)?);
                results[1][who].push(requests(web, 16, arguments.seconds)?);
                results[2][who].push(connections(web)?);
                results[3][who].push(round_trip(plain)?);
                results[4][who].push(into_guest(plain)?);
                results[5][who].push(out_of_guest(plain)?);
            }
        }
        Ok(())
    })?;
    print(&mut results);
    frames::print(&by_frames);
    Ok(0)
}

fn at(line: &mut Line, tap: u8, more: &str) {
    network::at_tap_number(line, Machine::Q35, tap, more);
}

fn connect(tap: u8, port: u16) -> Result<TcpStream> {
    connect_within(tap, port, Duration::from_secs(1))
}

/// As often as needed, each time for so long: a first segment that nobody has taken is sent again after a second.
fn connect_within(tap: u8, port: u16, patience: Duration) -> Result<TcpStream> {
    let address = SocketAddr::new(network::guest(tap).into(), port);
    let begun = Instant::now();
    loop {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) if begun.elapsed() > PATIENCE => return Err(error).context(address.to_string()),
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Waits until the guest answers a request.
fn first_answer(tap: u8) -> Result<()> {
    get(connect_within(tap, 80, Duration::from_millis(20))?)
}

fn get(mut stream: TcpStream) -> Result<()> {
    stream.write_all(b"GET /hello.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    ensure!(answer.ends_with(b"Hello, world!"), "{}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Requests a second, by wrk.
fn requests(tap: u8, connections: u32, seconds: u32) -> Result<f64> {
    let url = format!("http://{}/hello.txt", network::guest(tap));
    let mut wrk = Command::new(WRK.what);
    wrk.args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}"), &url]);
    let output = wrk.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let line = said.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    Ok(line.with_context(|| format!("wrk says: {said}"))?.trim().parse()?)
}

/// Microseconds for a connection with one request, from its beginning to its end.
fn connections(tap: u8) -> Result<f64> {
    let begun = Instant::now();
    for _ in 0..CONNECTIONS {
        get(connect(tap, 80)?)?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(CONNECTIONS))
}

/// Microseconds until 64 bytes are back.
fn round_trip(tap: u8) -> Result<f64> {
    let mut stream = connect(tap, 7)?;
    let mut bytes = [7; 64];
    let begun = Instant::now();
    for _ in 0..ROUND_TRIPS {
        stream.write_all(&bytes)?;
        stream.read_exact(&mut bytes)?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(ROUND_TRIPS))
}

fn rate(begun: Instant) -> f64 {
    BULK_BYTES as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

fn into_guest(tap: u8) -> Result<f64> {
    let mut stream = connect(tap, 9)?;
    let piece = vec![0xa5; 64 << 10];
    let begun = Instant::now();
    for _ in 0..BULK_BYTES / piece.len() {
        stream.write_all(&piece)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    ensure!(said.split_whitespace().next() == Some(&BULK_BYTES.to_string()), "the guest took {said:?}");
    Ok(rate(begun))
}

fn out_of_guest(tap: u8) -> Result<f64> {
    let mut stream = connect(tap, 19)?;
    writeln!(stream, "{BULK_BYTES}")?;
    let mut piece = vec![0; 256 << 10];
    let begun = Instant::now();
    let mut total = 0;
    loop {
        match stream.read(&mut piece)? {
            0 => break,
            read => total += read,
        }
    }
    ensure!(total == BULK_BYTES, "the guest gave {total} bytes");
    Ok(rate(begun))
}

fn print(results: &mut [[Vec<f64>; 2]; CASES.len()]) {
    println!("| | Pliant | Linux | times better |\n|---|---|---|---|");
    for ((name, more_is_better), [pliant, linux]) in CASES.iter().zip(results) {
        let [pliant, linux] = [pliant, linux].map(|values| {
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        });
        let ratio = if *more_is_better { pliant / linux } else { linux / pliant };
        println!("| {name} | {pliant:.0} | {linux:.0} | {ratio:.1} |");
    }
}

//! The web server, asked by curl and by clients that are less polite.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use runner::host::packages::{CURL, MKE2FS, WRK};
use runner::host::paths;
use runner::qemu::{Line, Machine, Options, Running, network};

use crate::lab::{self, PATIENCE};
use crate::net::{at_tap, noise, tool};
use crate::row::{Row, Verdict};

pub(crate) fn rows() -> Vec<Row> {
    let large = Options::default;
    let small = || Options { machine: Machine::Microvm, memory: "8M".into(), ..Options::default() };
    vec![
        Row::new("http::curl_gets_files_parts_and_errors", "http", move || speaks_http(&large()))
            .with(&[CURL]),
        Row::new("http::runs_in_8m", "http", move || speaks_http(&small())).with(&[CURL]),
        // QEMU's own network takes one new connection at a time.
        at_tap("http::serves_300_clients_at_once", "http", move || serves_many(&large(), 300)),
        at_tap("http::serves_60_clients_at_once_in_8m", "http", move || serves_many(&small(), 60)),
        at_tap("http::wrk_with_200_connections_finds_no_error", "http", move || bears_load(&large(), 200))
            .with(&[WRK]),
        at_tap("http::wrk_with_30_connections_finds_no_error_in_8m", "http", move || {
            bears_load(&small(), 30)
        })
        .with(&[WRK]),
        Row::new("http::files_of_a_disk_arrive_unchanged_on_pci", "http", move || serves_a_disk(&large()))
            .with(&[CURL, MKE2FS]),
        Row::new("http::files_of_a_disk_arrive_unchanged_in_8m", "http", move || serves_a_disk(&small()))
            .with(&[CURL, MKE2FS]),
    ]
}

/// A server that runs, at a port of this host.
struct Server {
    running: Running,
    address: SocketAddr,
}

impl Server {
    fn start(options: &Options, more: impl FnOnce(&mut Line)) -> Result<Self> {
        let port = network::free_port(None)?;
        let (running, _) = lab::start_with("http", options, |line| {
            network::at_user(line, options.machine, &[(port, 80)], "");
            more(line);
        })?;
        running.wait_for("connections at once", 0, PATIENCE)?;
        Ok(Self { running, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) })
    }

    fn at_tap(options: &Options) -> Result<Self> {
        let options = Options { append: network::tap_cmdline(), ..options.clone() };
        let add = |line: &mut Line| network::at_tap(line, options.machine, "");
        let (running, _) = lab::start_with("http", &options, add)?;
        running.wait_for("connections at once", 0, PATIENCE)?;
        Ok(Self { running, address: SocketAddr::from((network::GUEST, 80)) })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What curl gets for `path`, asked with `arguments`.
    fn curl(&self, arguments: &[&str], path: &str) -> Result<String> {
        let url = self.url(path);
        tool("curl", &[&["-sS", "--max-time", "100"], arguments, &[&url]].concat())
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// All that comes for `bytes`, until the server ends the connection.
    fn say(&self, bytes: &[u8]) -> Result<String> {
        let mut stream = self.connect()?;
        stream.write_all(bytes)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// What it answers to whom, and how it refuses.
pub(crate) fn speaks_http(options: &Options) -> Result<Verdict> {
    let server = Server::start(options, |_| ())?;
    let starts = |answer: &str, with: &str| -> Result<()> {
        ensure!(answer.starts_with(with), "expected {with:?}, not {answer:?}");
        Ok(())
    };
    let has = |answer: &str, part: &str| -> Result<()> {
        ensure!(answer.contains(part), "no {part:?} in {answer:?}");
        Ok(())
    };
    has(&server.curl(&["-f"], "/")?, "<h1>It works</h1>")?;
    ensure!(server.curl(&["-f"], "/hello.txt?query")? == "Hello, world!");
    ensure!(server.curl(&["-f", "--path-as-is"], "/%68ello.txt")? == "Hello, world!");
    has(&server.curl(&["-I"], "/hello.txt")?, "Content-Length: 13\r\n")?;
    // Parts (RFC 9110 §14).
    for (range, part, told) in [("0-3", "Hell", "0-3"), ("7-", "world!", "7-12"), ("-6", "world!", "7-12")] {
        let answer = server.curl(&["-i", "-r", range], "/hello.txt")?;
        starts(&answer, "HTTP/1.1 206 ")?;
        has(&answer, &format!("Content-Range: bytes {told}/13\r\n"))?;
        ensure!(answer.ends_with(&format!("\r\n\r\n{part}")), "{answer:?}");
    }
    has(&server.curl(&["-i", "-r", "13-"], "/hello.txt")?, "Content-Range: bytes */13\r\n")?;
    starts(&server.curl(&["-i", "-r", "13-"], "/hello.txt")?, "HTTP/1.1 416 ")?;
    starts(&server.curl(&["-i", "-r", "5-2"], "/hello.txt")?, "HTTP/1.1 200 ")?;
    // Errors.
    starts(&server.curl(&["-i"], "/nothing")?, "HTTP/1.1 404 ")?;
    starts(&server.curl(&["-i"], "/disk/nothing")?, "HTTP/1.1 404 ")?;
    let answer = server.curl(&["-i", "-X", "DELETE"], "/")?;
    starts(&answer, "HTTP/1.1 405 ")?;
    has(&answer, "Allow: GET, HEAD\r\n")?;
    starts(&server.curl(&["-i", "-X", "GET", "-d", "content"], "/")?, "HTTP/1.1 413 ")?;
    starts(&server.say(b"nonsense\r\n\r\n")?, "HTTP/1.1 400 ")?;
    starts(&server.say(b"GET / HTTP/1.1\r\n\r\n")?, "HTTP/1.1 400 ")?;
    starts(&server.say(b"GET /../x HTTP/1.1\r\nHost: x\r\n\r\n")?, "HTTP/1.1 400 ")?;
    starts(&server.say(b"GET / HTTP/9.9\r\nHost: x\r\n\r\n")?, "HTTP/1.1 505 ")?;
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nLong: {}\r\n\r\n", "x".repeat(10_000));
    starts(&server.say(long.as_bytes())?, "HTTP/1.1 431 ")?;
    // Connections that go on (RFC 9112 §9.3), and those that do not.
    let two = format!("{}\n", server.url("/hello.txt"));
    let both = server.curl(&["-v", "--stderr", "-", two.trim()], "/hello.txt")?;
    has(&both, "Re-using existing connection")?;
    let one = "GET /hello.txt HTTP/1.1\r\nHost: x\r\n";
    let answers = server.say(format!("{one}\r\n{one}\r\n{one}Connection: close\r\n\r\n").as_bytes())?;
    ensure!(answers.matches("HTTP/1.1 200 OK").count() == 3, "{answers:?}");
    starts(&server.say(b"GET / HTTP/1.0\r\n\r\n")?, "HTTP/1.1 200 ")?;
    Ok(Verdict::Kept)
}

/// All connect first, then all ask, twice.
fn serves_many(options: &Options, clients: usize) -> Result<()> {
    let server = Server::at_tap(options)?;
    let mut streams = (0..clients).map(|_| server.connect()).collect::<Result<Vec<_>>>()?;
    for round in 0..2 {
        for stream in &mut streams {
            stream.write_all(b"GET /hello.txt HTTP/1.1\r\nHost: x\r\n\r\n")?;
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let mut answer = Vec::new();
            while !answer.ends_with(b"Hello, world!") {
                let mut piece = [0; 1000];
                let read =
                    stream.read(&mut piece).with_context(|| format!("client {number}, round {round}"))?;
                ensure!(read > 0, "client {number} of {clients} is sent away in round {round}");
                answer.extend_from_slice(&piece[..read]);
            }
        }
    }
    // Those who go make room for others.
    drop(streams);
    for _ in 0..clients {
        let mut stream = server.connect()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains("It works"), "{answer:?}");
    }
    drop(server.running);
    Ok(())
}

/// As many requests as a load generator can ask for some seconds: each is answered, none with an error.
fn bears_load(options: &Options, connections: u32) -> Result<()> {
    let server = Server::at_tap(options)?;
    let said = tool(
        "wrk",
        &["-t2", &format!("-c{connections}"), "-d3", "--timeout", "60", &server.url("/hello.txt")],
    )?;
    // What went wrong is told only if something did.
    ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let requests = said.lines().find_map(|line| line.trim().split_once(" requests in "));
    let requests: u32 = requests.with_context(|| said.clone())?.0.parse()?;
    ensure!(requests >= connections, "{said}");
    // Who comes afterwards is served as well.
    ensure!(server.say(b"GET /hello.txt HTTP/1.0\r\n\r\n")?.ends_with("Hello, world!"));
    Ok(())
}

/// A directory and the file system made of it; both go when the row is over.
struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn serves_a_disk(options: &Options) -> Result<Verdict> {
    let name = format!("http-{:?}-{}", options.machine, std::process::id());
    let disk = Disk(paths::output_directory().join("disks").join(name));
    let (root, image) = (disk.0.join("root"), disk.0.join("image"));
    fs::create_dir_all(root.join("deep/er"))?;
    let large = noise(5 << 20);
    fs::write(root.join("large.bin"), &large)?;
    fs::write(root.join("deep/er/small.txt"), "small")?;
    fs::write(root.join("empty"), "")?;
    let (root, image) = (root.display().to_string(), image.display().to_string());
    tool("mke2fs", &["-q", "-t", "ext4", "-d", &root, &image, "16M"])?;
    let server = Server::start(options, |line| {
        let bus = if options.machine == Machine::Microvm { "device" } else { "pci" };
        line.drive("if=none,id=disk,format=raw,readonly=on,file=", image.as_ref());
        line.option("-device", format!("virtio-blk-{bus},drive=disk"));
    })?;
    let get = |path: &str, range: &str| -> Result<Vec<u8>> {
        let to = disk.0.join("got");
        let to_text = to.display().to_string();
        server.curl(&["-f", "-o", &to_text, "-r", range], path)?;
        Ok(fs::read(to)?)
    };
    ensure!(get("/disk/large.bin", "0-")? == large, "the large file arrives changed");
    ensure!(get("/disk/large.bin", "4000000-4100000")? == large[4_000_000..=4_100_000], "a part is another");
    ensure!(get("/disk/deep/er/small.txt", "0-")? == b"small");
    for (path, status) in [("/disk/empty", "200"), ("/disk/deep", "404"), ("/disk/deep/none", "404")] {
        let answer = server.curl(&["-i"], path)?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer:?}");
    }
    // Several at once share the blocks.
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| -> Result<usize> {
                    let mut stream = server.connect()?;
                    stream.write_all(b"GET /disk/large.bin HTTP/1.0\r\n\r\n")?;
                    let mut answer = Vec::new();
                    stream.read_to_end(&mut answer)?;
                    ensure!(answer.ends_with(&large), "one of four arrives changed");
                    Ok(answer.len())
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?.map(|_| ())
        })
    })?;
    Ok(Verdict::Kept)
}

//! A QEMU that runs: its console, its end. Dropping it kills it.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use wait_timeout::ChildExt;

use super::Ending;
use super::ending::Traces;
use super::line::Line;
use super::qmp::Monitor;
use crate::host::process::{clean, die_with_parent, quote};

/// How often a waiting tool looks whether QEMU stopped the machine by itself.
const LOOK: Duration = Duration::from_millis(100);

/// Whether the guest's console is shown while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tee {
    /// On our standard output.
    Show,
    /// Only kept.
    Keep,
}

/// A running QEMU.
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    console: Arc<Console>,
    readers: Vec<JoinHandle<()>>,
    errors: Arc<Mutex<Vec<u8>>>,
    /// QEMU's; our own monitor has none.
    monitor: Option<Monitor>,
    scratch: Scratch,
    started: Instant,
    last_words: &'static [(&'static str, Ending)],
}

/// Adds to `line` what we watch QEMU by.
fn watch(line: &mut Line, held: bool, scratch: &Scratch) -> Result<Monitor> {
    let socket = scratch.0.join("qmp");
    let monitor = Monitor::listen(&socket, !held)?;
    line.option("-qmp", format!("unix:{}", socket.display()));
    line.option("-d", "cpu_reset");
    line.option("-D", scratch.reset_log());
    if !held {
        line.flag("-S");
    }
    Ok(monitor)
}

/// A run that is over.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// Everything the guest wrote to its serial line; bytes that are no UTF-8 are replaced.
    pub console: String,
    /// From the start of the machine monitor to its end.
    pub elapsed: Duration,
    /// What the guest's machine monitor wrote to its standard error.
    pub said: String,
}

/// What a guest has written so far, and whether that is all.
#[derive(Default)]
pub(crate) struct Console {
    state: Mutex<(Vec<u8>, bool)>,
    changed: Condvar,
}

impl Running {
    /// Starts QEMU, adding to `line` what we watch it by; the guest starts at once unless `held` for gdb.
    ///
    /// # Errors
    /// QEMU is not there, or the directory for temporary files cannot be written.
    pub fn start(line: &Line, held: bool, tee: Tee) -> Result<Self> {
        let scratch = Scratch::new()?;
        let mut line = line.clone();
        let monitor = if line.is_qemu { Some(watch(&mut line, held, &scratch)?) } else { None };
        let (program, arguments) = line.words().split_first().context("empty QEMU line")?;
        let mut command = clean(Path::new(program));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        die_with_parent(&mut command);
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", program.to_string_lossy()))?;
        let console = Arc::new(Console::default());
        let errors = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let console = Arc::clone(&console);
            readers.push(thread::spawn(move || console.fill(stdout, tee)));
        }
        if let Some(mut stderr) = child.stderr.take() {
            let errors = Arc::clone(&errors);
            readers.push(thread::spawn(move || {
                let mut bytes = Vec::new();
                // A broken pipe ends it like the end of the file does.
                let _ = stderr.read_to_end(&mut bytes);
                if let Ok(mut errors) = errors.lock() {
                    *errors = bytes;
                }
            }));
        }
        let input = child.stdin.take();
        let (started, last_words) = (Instant::now(), line.last_words);
        Ok(Self { child, input, console, readers, errors, monitor, scratch, started, last_words })
    }

    /// Takes the guest's input away, for a thread that feeds it.
    pub fn take_input(&mut self) -> Option<ChildStdin> {
        self.input.take()
    }

    /// Types `bytes` on the guest's console.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(input) = &mut self.input else { bail!("the guest's input was taken away") };
        input.write_all(bytes).and_then(|()| input.flush()).context("QEMU does not take input any more")
    }

    /// Presses keys of the machine's keyboard one after the other, by QEMU's names (`a`, `ret`, `spc`).
    ///
    /// # Errors
    /// QEMU knows no such key, or is gone.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            let key = json!({ "type": "qcode", "data": key });
            self.qemu()?.execute("send-key", &json!({ "keys": [key], "hold-time": 20 }))?;
            // QEMU lets go of the key only after the hold time, and swallows one that is pressed before.
            thread::sleep(Duration::from_millis(60));
        }
        Ok(())
    }

    /// What the machine's display shows, as a portable pixmap (PPM, 3 bytes a pixel).
    ///
    /// # Errors
    /// The machine has no display, or QEMU is gone.
    pub fn screenshot(&self) -> Result<Vec<u8>> {
        let file = self.scratch.0.join("screen.ppm");
        self.qemu()?.execute("screendump", &json!({ "filename": file }))?;
        fs::read(&file).context("QEMU wrote no screenshot")
    }

    /// Has QEMU execute a command of its machine protocol, and returns the answer.
    ///
    /// # Errors
    /// QEMU refuses it, or is gone.
    pub fn ask(&self, command: &str, arguments: &serde_json::Value) -> Result<serde_json::Value> {
        self.qemu()?.ask(command, arguments)
    }

    /// Bytes of memory that the host has given this QEMU and not taken back: `VmRSS` of Linux's proc(5).
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        Ok(kib.context("the process has no VmRSS")? << 10)
    }

    /// Time of the host's CPUs that this QEMU has taken, in all its threads: the first field of `schedstat` (Linux
    /// `scheduler/sched-stats.rst`).
    ///
    /// # Errors
    /// QEMU is gone, or the host does not tell.
    pub fn host_time(&self) -> Result<Duration> {
        let mut total = Duration::ZERO;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let said = fs::read_to_string(thread?.path().join("schedstat"))?;
            let ns = said.split_whitespace().next().and_then(|word| word.parse().ok());
            total += Duration::from_nanos(ns.context("the host does not tell the time of threads")?);
        }
        Ok(total)
    }

    /// Waits until the console has `text` at or after byte `from`; returns the place behind it.
    ///
    /// # Errors
    /// The guest ended or the time is over before that.
    pub fn wait_for(&self, text: &str, from: usize, timeout: Duration) -> Result<usize> {
        self.console.wait_for(text, from, timeout)
    }

    /// Writes the state of the machine, which [may be saved](Line::may_be_saved), to `file` for `-incoming`, and ends QEMU.
    ///
    /// # Errors
    /// QEMU cannot, or not within `timeout`.
    pub fn save(self, file: &Path, timeout: Duration) -> Result<()> {
        // While it runs, TCG marks memory as changed before it changes it: what is copied in between has the old content.
        self.qemu()?.execute("stop", &json!({}))?;
        let target = format!("exec:cat >{}", quote(&file.display().to_string()));
        self.qemu()?.execute("migrate", &json!({ "uri": target }))?;
        let deadline = Instant::now() + timeout;
        loop {
            match self.qemu()?.ask("query-migrate", &json!({}))?["status"].as_str() {
                Some("completed") => return Ok(()),
                Some(status @ ("failed" | "cancelled")) => bail!("saving the machine's state: {status}"),
                _ if Instant::now() >= deadline => bail!("saving the machine's state takes too long"),
                _ => thread::sleep(LOOK),
            }
        }
    }

    fn qemu(&self) -> Result<&Monitor> {
        self.monitor.as_ref().context("only QEMU takes commands")
    }

    /// The ending that the console tells of, if QEMU does not.
    fn told(&self) -> Option<Ending> {
        let console = self.console.lock();
        let said = |(words, _): &&(&str, Ending)| find(&console.0, words.as_bytes()).is_some();
        self.last_words.iter().find(said).map(|(_, ending)| ending.clone())
    }

    /// What the serial line has brought so far.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&self.console.lock().0).into_owned()
    }

    /// Waits for a moment to type: a line with `text`, or a console that has spoken and then fallen silent.
    pub fn listener(&self) -> impl Fn(&str, Duration) + Send + use<> {
        self.console.listener()
    }

    /// Waits for the end, no longer than `timeout`, and cleans up.
    ///
    /// # Errors
    /// The operating system cannot wait for the process.
    pub fn wait(mut self, timeout: Option<Duration>) -> Result<Finished> {
        let deadline = timeout.map(|timeout| self.started + timeout);
        let mut traces = Traces::default();
        loop {
            if let Some(status) = self.child.wait_timeout(LOOK).context("cannot wait for QEMU")? {
                traces.code = status.code();
                break;
            }
            let stopped = self.monitor.as_ref().and_then(|monitor| monitor.said().stopped);
            let told = self.told();
            let over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if stopped.is_some() || told.is_some() || over {
                self.kill();
                traces.timeout = timeout.filter(|_| stopped.is_none() && told.is_none());
                (traces.stopped, traces.told) = (stopped, told);
                break;
            }
        }
        let elapsed = self.started.elapsed();
        for reader in self.readers.drain(..) {
            // A panic there was printed there.
            let _ = reader.join();
        }
        traces.shutdown = self.monitor.as_mut().and_then(|monitor| monitor.finish().shutdown);
        traces.triple_fault = self.scratch.saw_triple_fault();
        traces.errors = self
            .errors
            .lock()
            .map(|errors| String::from_utf8_lossy(&errors).into_owned())
            .unwrap_or_default();
        traces.hear_vmm();
        let console = String::from_utf8_lossy(&self.console.lock().0).into_owned();
        Ok(Finished { ending: traces.ending(), console, elapsed, said: traces.errors })
    }

    fn kill(&mut self) {
        // Both fail only when the child is gone already, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Console {
    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<u8>, bool)> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// As [`Running::wait_for`].
    pub(crate) fn wait_for(&self, text: &str, from: usize, timeout: Duration) -> Result<usize> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            let seen = state.0.get(from..).unwrap_or_default();
            if let Some(at) = find(seen, text.as_bytes()) {
                return Ok(from + at + text.len());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.1 || left.is_zero() {
                let why = if state.1 { "the guest ended" } else { "time is over" };
                bail!(
                    "{why} and the console has no {text:?}; it has:\n{}",
                    String::from_utf8_lossy(&state.0)
                );
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// As [`Running::listener`].
    pub(crate) fn listener(self: &Arc<Self>) -> impl Fn(&str, Duration) + Send + use<> {
        let console = Arc::clone(self);
        move |text, silence| {
            let mut seen = 0;
            let mut state = console.lock();
            while !state.1
                && find(&state.0, text.as_bytes()).is_none()
                && (seen == 0 || seen != state.0.len())
            {
                seen = state.0.len();
                state = match console.changed.wait_timeout_while(state, silence, |state| {
                    !state.1
                        && (seen == 0 || seen == state.0.len())
                        && find(&state.0, text.as_bytes()).is_none()
                }) {
                    Ok((state, _)) => state,
                    Err(poisoned) => poisoned.into_inner().0,
                };
            }
        }
    }

    /// Everything so far.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.lock().0.clone()
    }

    /// Keeps what comes from `from` until its end.
    pub(crate) fn fill(&self, mut from: impl Read, tee: Tee) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if tee == Tee::Show {
                let mut out = std::io::stdout().lock();
                // A reader that went away must not stop the guest.
                let _ = out.write_all(&buffer[..count]).and_then(|()| out.flush());
            }
            self.lock().0.extend_from_slice(&buffer[..count]);
            self.changed.notify_all();
        }
        self.lock().1 = true;
        self.changed.notify_all();
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}

/// A directory for sockets and the reset log; removed with its owner.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pliant-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    fn reset_log(&self) -> PathBuf {
        self.0.join("cpu-resets")
    }

    fn saw_triple_fault(&self) -> bool {
        fs::read(self.reset_log()).is_ok_and(|log| find(&log, b"Triple fault").is_some())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind is a few kilobytes in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

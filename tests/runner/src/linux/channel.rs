//! The command channel to a Linux of ours: lines of text over a virtio port, many commands under way at once.
//!
//! To Linux: `ID COMMAND`. From Linux: `ID|LINE` for each line that the command prints, `ID=STATUS` when it is over. With
//! ID 0 it speaks of its own accord: `ready`, `failed: WHY`, and under Xen `released` when a domain has ended. The other
//! end is the loop in `rig.sh`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::port::Port;

/// Under this id Linux speaks of its own accord.
const EVENTS: u32 = 0;

/// A command that does nothing, under an id whose end nobody waits for.
pub(super) const NOTHING: &str = "4294967295 :\n";

/// One line from Linux.
#[derive(Debug, PartialEq, Eq)]
enum Message<'a> {
    Line { id: u32, text: &'a str },
    End { id: u32, status: u8 },
}

impl<'a> Message<'a> {
    /// Reads a line; what is none of ours is nothing.
    fn parse(line: &'a str) -> Option<Self> {
        let digits = line.bytes().take_while(u8::is_ascii_digit).count();
        let id = line[..digits].parse().ok()?;
        let rest = &line[digits..];
        if let Some(text) = rest.strip_prefix('|') {
            return Some(Self::Line { id, text });
        }
        let status = rest.strip_prefix('=')?.parse().ok()?;
        Some(Self::End { id, status })
    }
}

/// A command under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending(u32);

/// The host's end of the channel.
pub(crate) struct Channel {
    port: Port,
    heard: Arc<Heard>,
    last_id: u32,
}

/// What Linux has said.
#[derive(Default)]
struct Heard {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    answers: HashMap<u32, Answer>,
    over: bool,
}

#[derive(Clone, Debug, Default)]
struct Answer {
    lines: Vec<String>,
    status: Option<u8>,
}

impl Channel {
    /// Listens at `path` for QEMU.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn listen(path: &Path) -> Result<Self> {
        let heard = Arc::new(Heard::default());
        let here = Arc::clone(&heard);
        Ok(Self { port: Port::listen(path, move |stream| here.listen(stream))?, heard, last_id: EVENTS })
    }

    /// The port under it.
    pub(super) fn port(&self) -> Port {
        self.port.clone()
    }

    /// Executes a command, which must succeed; returns what it printed, its errors included.
    ///
    /// # Errors
    /// It fails, takes longer than `timeout`, or Linux is gone.
    pub(crate) fn run(&mut self, command: &str, timeout: Duration) -> Result<String> {
        let (status, said) = self.ask(command, timeout)?;
        ensure!(status == 0, "in Linux, `{command}` ended with {status}:\n{said}");
        Ok(said)
    }

    /// As [`Self::run`], but for a command that may fail: its status comes too.
    ///
    /// # Errors
    /// It takes longer than `timeout`, or Linux is gone.
    pub(crate) fn ask(&mut self, command: &str, timeout: Duration) -> Result<(u8, String)> {
        let pending = self.start(command)?;
        match self.end(pending, timeout).with_context(|| format!("in Linux, `{command}`"))? {
            Some(end) => Ok(end),
            None => bail!("in Linux, `{command}`: no answer within {:.0} s", timeout.as_secs_f32()),
        }
    }

    /// Waits for the end of a command that was started: its status and what it printed; nothing when the time is over.
    ///
    /// # Errors
    /// Linux is gone.
    pub(crate) fn end(&self, pending: Pending, timeout: Duration) -> Result<Option<(u8, String)>> {
        let ended =
            |state: &State| state.answers.get(&pending.0).filter(|answer| answer.status.is_some()).cloned();
        let Some(answer) = self.heard.wait(timeout, ended)? else { return Ok(None) };
        self.heard.lock().answers.remove(&pending.0);
        Ok(Some((answer.status.unwrap_or_default(), answer.lines.join("\n"))))
    }

    /// Starts a command and does not wait for it.
    ///
    /// # Errors
    /// Linux does not listen.
    pub(crate) fn start(&mut self, command: &str) -> Result<Pending> {
        ensure!(!command.contains('\n'), "a command is one line: {command:?}");
        self.last_id += 1;
        let line = format!("{} {command}\n", self.last_id);
        self.port.write_all(line.as_bytes()).context("Linux does not listen")?;
        Ok(Pending(self.last_id))
    }

    /// Waits until Linux says that it is ready.
    ///
    /// # Errors
    /// It says why not, or says nothing within `timeout`.
    pub(crate) fn ready(&self, timeout: Duration) -> Result<()> {
        let first = self.heard.wait(timeout, |state| state.answers.get(&EVENTS)?.lines.first().cloned())?;
        let first =
            first.with_context(|| format!("Linux is not ready after {:.0} s", timeout.as_secs_f32()))?;
        ensure!(first == "ready", "Linux {first}");
        Ok(())
    }

    /// How many events there have been.
    pub(crate) fn events(&self) -> usize {
        self.heard.lock().events()
    }

    /// Waits until there have been more than `seen` events; false when the time is over.
    ///
    /// # Errors
    /// Linux is gone.
    pub(crate) fn event_after(&self, seen: usize, timeout: Duration) -> Result<bool> {
        let found = self.heard.wait(timeout, |state| (state.events() > seen).then_some(()))?;
        Ok(found.is_some())
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.port.close();
    }
}

impl State {
    fn events(&self) -> usize {
        self.answers.get(&EVENTS).map_or(0, |answer| answer.lines.len())
    }
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn listen(&self, stream: impl Read) {
        for line in BufReader::new(stream).split(b'\n').map_while(|line| line.ok()) {
            let line = String::from_utf8_lossy(&line);
            let mut state = self.lock();
            match Message::parse(&line) {
                Some(Message::Line { id, text }) => {
                    state.answers.entry(id).or_default().lines.push(text.to_owned());
                }
                Some(Message::End { id, status }) => {
                    state.answers.entry(id).or_default().status = Some(status);
                }
                None => {}
            }
            drop(state);
            self.changed.notify_all();
        }
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// Waits until there is something to find; nothing when the time is over.
    fn wait<T>(&self, timeout: Duration, find: impl Fn(&State) -> Option<T>) -> Result<Option<T>> {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        loop {
            if let Some(found) = find(&state) {
                return Ok(Some(found));
            }
            if state.over {
                bail!("Linux is gone");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::qemu::Scratch;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn lines_and_ends_are_told_apart() {
        assert_eq!(Message::parse("12|a = |b"), Some(Message::Line { id: 12, text: "a = |b" }));
        assert_eq!(Message::parse("3=255"), Some(Message::End { id: 3, status: 255 }));
        assert_eq!(Message::parse("0|"), Some(Message::Line { id: 0, text: "" }));
        for nonsense in ["", "|x", "7", "7=x", "7=256", "99999999999|x", "-1=0", "é|x", "7é"] {
            assert_eq!(Message::parse(nonsense), None, "{nonsense}");
        }
    }

    /// A channel, and what Linux's end of it does.
    fn with_linux(
        linux: impl FnOnce(BufReader<UnixStream>, UnixStream) + Send + 'static,
    ) -> (Channel, Scratch) {
        let scratch = Scratch::new().unwrap();
        let path = scratch.0.join("control");
        let channel = Channel::listen(&path).unwrap();
        std::thread::spawn(move || {
            let stream = UnixStream::connect(path).unwrap();
            linux(BufReader::new(stream.try_clone().unwrap()), stream);
        });
        (channel, scratch)
    }

    #[test]
    fn an_answer_is_everything_between_command_and_end() {
        let (mut channel, _scratch) = with_linux(|mut from, mut to| {
            let mut line = String::new();
            from.read_line(&mut line).unwrap();
            assert_eq!(line, "1 xl list\n");
            to.write_all(b"0|released\n1|Name\nnoise\n2|other\n1|dom0\n1=3\n").unwrap();
        });
        assert_eq!(channel.ask("xl list", SOON).unwrap(), (3, "Name\ndom0".to_owned()));
        assert_eq!(channel.events(), 1);
    }

    #[test]
    fn failure_and_silence_are_errors() {
        let (mut channel, _scratch) = with_linux(|mut from, mut to| {
            let mut line = String::new();
            from.read_line(&mut line).unwrap();
            to.write_all(b"1|no such domain\n1=1\n").unwrap();
            from.read_line(&mut line).unwrap();
        });
        let error = channel.run("xl destroy g", SOON).unwrap_err().to_string();
        assert!(error.contains("ended with 1:\nno such domain"), "{error}");
        let error = format!("{:#}", channel.run("xl list", SOON).unwrap_err());
        assert!(error.contains("Linux is gone"), "{error}");
        assert!(channel.run("a\nb", SOON).is_err());
    }

    #[test]
    fn linux_says_when_it_is_ready_or_why_it_will_not_be() {
        let (channel, _scratch) = with_linux(|_, mut to| to.write_all(b"0|ready\n").unwrap());
        channel.ready(SOON).unwrap();
        let (channel, _scratch) = with_linux(|_, mut to| to.write_all(b"0|failed: xenstored\n").unwrap());
        assert_eq!(channel.ready(SOON).unwrap_err().to_string(), "Linux failed: xenstored");
    }

    #[test]
    fn events_are_waited_for() {
        let (channel, _scratch) = with_linux(|mut from, mut to| {
            to.write_all(b"0|ready\n0|released\n").unwrap();
            let _ = from.read_line(&mut String::new());
        });
        assert!(channel.event_after(1, SOON).unwrap());
        assert!(!channel.event_after(2, Duration::from_millis(20)).unwrap());
    }
}

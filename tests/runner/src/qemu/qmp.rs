//! The QEMU machine protocol, as much of it as tells why a machine stopped (QEMU docs/interop/qmp-spec).
//!
//! QEMU connects to our socket while it starts, with the machine held; we start it once events are switched on. So
//! no event is missed, however quickly the guest ends.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

/// What QEMU has said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The reason in the event `SHUTDOWN`.
    pub(super) shutdown: Option<String>,
    /// The run state after an event `STOP` that we did not ask for.
    pub(super) stopped: Option<String>,
}

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Marks the answers to commands that somebody waits for.
const ASKED: &str = "asked";

/// The connection to one QEMU.
pub(super) struct Monitor {
    said: Arc<Mutex<Said>>,
    gone: Arc<AtomicBool>,
    /// Our half of the connection, once it is there.
    to: Arc<Mutex<Option<UnixStream>>>,
    answers: Mutex<Receiver<Value>>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Listens at `path`; starts the machine once QEMU is there, unless gdb is to do that.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(super) fn listen(path: &Path, start: bool) -> Result<Self> {
        let listener =
            UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
        listener.set_nonblocking(true)?;
        let said = Arc::new(Mutex::new(Said::default()));
        let gone = Arc::new(AtomicBool::new(false));
        let to = Arc::new(Mutex::new(None));
        let (answer, answers) = mpsc::channel();
        let (said_here, gone_here, to_here) = (Arc::clone(&said), Arc::clone(&gone), Arc::clone(&to));
        let thread = thread::spawn(move || {
            if let Some(stream) = accept(&listener, &gone_here) {
                // A QEMU that dies in mid-sentence has said what it has said.
                let _ = talk(stream, start, &said_here, &to_here, &answer);
            }
        });
        Ok(Self { said, gone, to, answers: Mutex::new(answers), thread: Some(thread) })
    }

    /// Has QEMU execute a command, and waits until it is done.
    ///
    /// # Errors
    /// QEMU refuses it, or does not answer.
    pub(super) fn execute(&self, command: &str, arguments: &Value) -> Result<()> {
        self.ask(command, arguments).map(|_| ())
    }

    /// Has QEMU execute a command that answers.
    ///
    /// # Errors
    /// QEMU refuses it, or does not answer.
    pub(super) fn ask(&self, command: &str, arguments: &Value) -> Result<Value> {
        let answers = self.answers.lock().map_err(|_| anyhow!("another command panicked"))?;
        let line = json!({ "execute": command, "arguments": arguments, "id": ASKED });
        match self.to.lock().ok().as_deref_mut() {
            Some(Some(to)) => writeln!(to, "{line}").context("QEMU is gone")?,
            _ => bail!("QEMU is not connected"),
        }
        let mut answer = answers.recv_timeout(PATIENCE).with_context(|| format!("no answer to {command}"))?;
        match answer["error"]["desc"].as_str() {
            None => Ok(answer["return"].take()),
            Some(error) => bail!("{command}: {error}"),
        }
    }

    /// What QEMU has said so far.
    pub(super) fn said(&self) -> Said {
        self.said.lock().map(|said| said.clone()).unwrap_or_default()
    }

    /// Everything it said; call this once it has exited.
    pub(super) fn finish(&mut self) -> Said {
        self.gone.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
        self.said()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

fn accept(listener: &UnixListener, gone: &AtomicBool) -> Option<UnixStream> {
    while !gone.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(false).ok()?;
            return Some(stream);
        }
        thread::sleep(Duration::from_millis(1));
    }
    None
}

fn talk(
    stream: UnixStream,
    start: bool,
    said: &Mutex<Said>,
    ours: &Mutex<Option<UnixStream>>,
    answers: &Sender<Value>,
) -> Result<()> {
    let mut to = stream.try_clone()?;
    to.write_all(b"{\"execute\":\"qmp_capabilities\"}\n")?;
    if start {
        to.write_all(b"{\"execute\":\"cont\"}\n")?;
    }
    if let Ok(mut ours) = ours.lock() {
        *ours = Some(to.try_clone()?);
    }
    for line in BufReader::new(stream).lines() {
        let message: Value = serde_json::from_str(&line?)?;
        if message["id"] == ASKED {
            answers.send(message)?;
            continue;
        }
        match interpret(&message) {
            Some(News::Shutdown(reason)) => note(said, |said| said.shutdown = Some(reason)),
            Some(News::State(state)) => note(said, |said| said.stopped = Some(state)),
            Some(News::Stopped) => to.write_all(b"{\"execute\":\"query-status\"}\n")?,
            None => {}
        }
    }
    Ok(())
}

fn note(said: &Mutex<Said>, write: impl FnOnce(&mut Said)) {
    if let Ok(mut said) = said.lock() {
        write(&mut said);
    }
}

enum News {
    /// The machine shuts down, for this reason.
    Shutdown(String),
    /// The machine stopped.
    Stopped,
    /// The state it is in, when that is one it will not leave.
    State(String),
}

fn interpret(message: &Value) -> Option<News> {
    match message["event"].as_str() {
        Some("SHUTDOWN") => {
            return message["data"]["reason"].as_str().map(|reason| News::Shutdown(reason.into()));
        }
        Some("STOP") => return Some(News::Stopped),
        _ => {}
    }
    let state = message["return"]["status"].as_str()?;
    matches!(state, "internal-error" | "io-error" | "guest-panicked" | "watchdog" | "shutdown")
        .then(|| News::State(state.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Option<News> {
        interpret(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn shutdown_events_carry_their_reason() {
        let event =
            r#"{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#;
        assert!(matches!(of(event), Some(News::Shutdown(reason)) if reason == "guest-reset"));
    }

    #[test]
    fn only_final_states_end_a_run() {
        let state = |state: &str| of(&format!(r#"{{"return": {{"status": "{state}", "running": false}}}}"#));
        assert!(matches!(state("internal-error"), Some(News::State(_))));
        assert!(state("paused").is_none());
        assert!(state("debug").is_none());
        assert!(of(r#"{"return": {}}"#).is_none());
    }
}

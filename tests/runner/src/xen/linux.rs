//! A machine with Xen and Linux as dom0, ready to create guests.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::channel::Channel;
use super::port::Port;
use super::{Rig, machine, ready};
use crate::host::process::quote;
use crate::qemu::{Console, Running, Scratch, Tee};

/// Room for the largest file that dom0 is given.
const DISK_BYTES: u64 = 128 << 20;
/// Dom0 boots in less, even on a machine with other things to do.
const BOOT: Duration = Duration::from_secs(180);
/// As long as any command may take.
pub(super) const COMMAND: Duration = Duration::from_secs(90);
/// Memory for guests when nobody needs more; with as much, a start takes the saved state.
const GUEST_MEGABYTES: u32 = 320;

/// Xen and its dom0. Dropping it switches the machine off.
pub struct Dom0 {
    running: Running,
    line: String,
    channel: Channel,
    pub(super) console: Arc<Console>,
    pub(super) console_port: Port,
    /// Whether guests' consoles are shown.
    pub(super) tee: Tee,
    disk: File,
    /// Domains created so far.
    pub(super) domains: u32,
    _scratch: Scratch,
}

impl Dom0 {
    /// Starts it, from the saved state if its guests' `megabytes` fit there; their console is shown, or only kept.
    ///
    /// # Errors
    /// The machine does not start.
    pub fn start(rig: &Rig, megabytes: u32, tee: Tee) -> Result<Self> {
        if megabytes > GUEST_MEGABYTES {
            let dom0 = Self::launch(rig, megabytes, None, tee)?;
            dom0.channel.ready(BOOT)?;
            return Ok(dom0);
        }
        let state = ready::get(rig, GUEST_MEGABYTES)?;
        Self::launch(rig, GUEST_MEGABYTES, Some(&state), tee)
    }

    /// Whether a start would find a saved state.
    pub fn is_saved(rig: &Rig) -> bool {
        ready::exists(rig, GUEST_MEGABYTES)
    }

    /// Boots it to where it takes commands.
    ///
    /// # Errors
    /// It says what went wrong, or nothing for too long.
    pub(super) fn boot(rig: &Rig, megabytes: u32) -> Result<Self> {
        let dom0 = Self::launch(rig, megabytes, None, Tee::Keep)?;
        match dom0.channel.ready(BOOT) {
            Ok(()) => Ok(dom0),
            Err(error) => Err(error.context(dom0.last_words())),
        }
    }

    /// Saves its state to `file`, which ends it.
    ///
    /// # Errors
    /// QEMU cannot.
    pub(super) fn save(self, file: &Path) -> Result<()> {
        self.running.save(file, BOOT)
    }

    fn launch(rig: &Rig, megabytes: u32, state: Option<&Path>, tee: Tee) -> Result<Self> {
        let scratch = Scratch::new()?;
        let path = scratch.0.join("disk");
        let disk = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        disk.set_len(DISK_BYTES)?;
        let channel = Channel::listen(&scratch.0.join("control"))?;
        let console = Arc::new(Console::default());
        let here = Arc::clone(&console);
        let console_port = Port::listen(&scratch.0.join("console"), move |stream| here.fill(stream, tee))?;
        let mut line = machine::with_linux(rig, megabytes, &scratch.0, &path);
        if let Some(state) = state {
            line.option("-incoming", format!("exec:cat {}", quote(&state.display().to_string())));
        }
        let running = Running::start(&line, false, Tee::Keep)?;
        let line = line.to_string();
        Ok(Self { running, line, channel, console, console_port, tee, disk, domains: 0, _scratch: scratch })
    }

    /// Executes a shell command in dom0, which must succeed; returns what it printed.
    ///
    /// # Errors
    /// It fails, takes too long, or dom0 is gone.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.channel.run(command, COMMAND).with_context(|| self.last_words())
    }

    /// Executes a shell command in dom0; returns its status and what it printed.
    ///
    /// # Errors
    /// It takes too long, or dom0 is gone.
    pub fn ask(&mut self, command: &str) -> Result<(u8, String)> {
        self.channel.ask(command, COMMAND).with_context(|| self.last_words())
    }

    /// Writes a file in dom0.
    ///
    /// # Errors
    /// It is too large, or dom0 has no room.
    pub fn put(&mut self, bytes: &[u8], path: &str) -> Result<()> {
        let length = bytes.len() as u64;
        ensure!(length <= DISK_BYTES, "{length} bytes are more than dom0 is given at once");
        self.disk.write_all_at(bytes, 0).context("cannot write the disk shared with dom0")?;
        self.run(&format!("fetch 0 {length} {path}")).map(|_| ())
    }

    /// How many domains have ended so far, in dom0's count.
    pub(super) fn events(&self) -> usize {
        self.channel.events()
    }

    /// Waits until another domain has ended; false when the time is over.
    ///
    /// # Errors
    /// Dom0 is gone.
    pub(super) fn event_after(&self, seen: usize, timeout: Duration) -> Result<bool> {
        self.channel.event_after(seen, timeout).with_context(|| self.last_words())
    }

    /// The QEMU line it was started by.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// What Xen and dom0 wrote to their console, for a reader who looks for a reason.
    pub fn last_words(&self) -> String {
        let console = self.running.console();
        let words = console.trim();
        if words.is_empty() {
            "Xen and dom0 wrote nothing".into()
        } else {
            format!("Xen and dom0 wrote:\n{words}")
        }
    }
}

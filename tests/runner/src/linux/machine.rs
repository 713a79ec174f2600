//! A Linux of ours, booted or taken up where it had booted, ready for commands.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::channel::Channel;
use super::nudge::Nudger;
use super::port::Port;
use super::recipe::Parts;
use super::saved;
use crate::host::process::quote;
use crate::qemu::{Console, Line, Running, Scratch, Tee};

/// Room for the largest file that it is given.
const DISK_BYTES: u64 = 128 << 20;
/// It boots in less, even on a machine with other things to do.
const BOOT: Duration = Duration::from_secs(180);
/// As long as any command may take.
pub(crate) const COMMAND: Duration = Duration::from_secs(90);

/// What a Linux is started with.
pub(crate) struct Setting {
    /// Its name in words.
    pub(crate) name: &'static str,
    /// The directory in the cache for its saved states.
    pub(crate) saved_in: &'static str,
    /// The rig it belongs to.
    pub(crate) parts: Parts,
    /// The QEMU line, but for ports and disk.
    pub(crate) line: Line,
}

impl Setting {
    /// The whole QEMU line; `ports` is the directory with the host's ends of Linux's virtio ports, `disk` what both share.
    pub(super) fn line(&self, ports: &Path, disk: &Path) -> Line {
        let mut line = self.line.clone();
        line.may_be_saved();
        let file = disk.display().to_string().replace(',', ",,");
        line.option("-drive", format!("if=virtio,format=raw,cache=unsafe,file={file}"));
        line.option("-device", "virtio-serial-pci");
        for (number, name) in (1..).zip(["control", "console"]) {
            let path = ports.join(name).display().to_string().replace(',', ",,");
            line.option("-chardev", format!("socket,id={name},path={path}"));
            line.option("-device", format!("virtserialport,chardev={name},name={name},nr={number}"));
        }
        line
    }

    /// Whether a start would find a saved state.
    pub(crate) fn is_saved(&self) -> bool {
        saved::exists(self)
    }
}

/// A running Linux. Dropping it switches the machine off.
pub(crate) struct Linux {
    running: Running,
    line: String,
    /// Commands in, answers out.
    pub(crate) channel: Channel,
    /// What has come out of its port `console`.
    pub(crate) console: Arc<Console>,
    /// What goes into its port `console`.
    pub(crate) console_port: Port,
    /// Whether the console is shown.
    pub(crate) tee: Tee,
    disk: File,
    _nudger: Option<Nudger>,
    _scratch: Scratch,
}

impl Linux {
    /// Starts it, from its saved state.
    ///
    /// # Errors
    /// The machine does not start.
    pub(crate) fn start(setting: &Setting, tee: Tee) -> Result<Self> {
        let state = saved::get(setting)?;
        Self::launch(setting, Some(&state), tee)
    }

    /// Boots it to where it takes commands, and keeps no state.
    ///
    /// # Errors
    /// It says what went wrong, or nothing for too long.
    pub(crate) fn boot(setting: &Setting) -> Result<Self> {
        Self::boot_showing(setting, Tee::Keep)
    }

    /// As [`Self::boot`]; its console is shown, or only kept.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn boot_showing(setting: &Setting, tee: Tee) -> Result<Self> {
        let linux = Self::launch(setting, None, tee)?;
        match linux.channel.ready(BOOT) {
            Ok(()) => Ok(linux),
            Err(error) => Err(error.context(linux.last_words())),
        }
    }

    /// The same, which from now on goes on if QEMU loses an interrupt, as it may where guests of SVM run.
    pub(crate) fn nudged(mut self) -> Self {
        self._nudger = Some(Nudger::start(self.channel.port()));
        self
    }

    /// Saves its state to `file`, which ends it.
    ///
    /// # Errors
    /// QEMU cannot.
    pub(super) fn save(self, file: &Path) -> Result<()> {
        self.running.save(file, BOOT)
    }

    fn launch(setting: &Setting, state: Option<&Path>, tee: Tee) -> Result<Self> {
        let scratch = Scratch::new()?;
        let path = scratch.0.join("disk");
        let disk = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        disk.set_len(DISK_BYTES)?;
        let channel = Channel::listen(&scratch.0.join("control"))?;
        let console = Arc::new(Console::default());
        let here = Arc::clone(&console);
        let console_port = Port::listen(&scratch.0.join("console"), move |stream| here.fill(stream, tee))?;
        let mut line = setting.line(&scratch.0, &path);
        if let Some(state) = state {
            line.option("-incoming", format!("exec:cat {}", quote(&state.display().to_string())));
        }
        let running = Running::start(&line, false, Tee::Keep)?;
        let line = line.to_string();
        Ok(Self {
            running,
            line,
            channel,
            console,
            console_port,
            tee,
            disk,
            _nudger: None,
            _scratch: scratch,
        })
    }

    /// Executes a shell command, which must succeed; returns what it printed.
    ///
    /// # Errors
    /// It fails, takes too long, or Linux is gone.
    pub(crate) fn run(&mut self, command: &str) -> Result<String> {
        self.channel.run(command, COMMAND).with_context(|| self.last_words())
    }

    /// Executes a shell command; returns its status and what it printed.
    ///
    /// # Errors
    /// It takes too long, or Linux is gone.
    pub(crate) fn ask(&mut self, command: &str) -> Result<(u8, String)> {
        self.channel.ask(command, COMMAND).with_context(|| self.last_words())
    }

    /// Writes a file there.
    ///
    /// # Errors
    /// It is too large, or Linux has no room.
    pub(crate) fn put(&mut self, bytes: &[u8], path: &str) -> Result<()> {
        let length = bytes.len() as u64;
        ensure!(length <= DISK_BYTES, "{length} bytes are more than Linux is given at once");
        self.disk.write_all_at(bytes, 0).context("cannot write the disk shared with Linux")?;
        self.run(&format!("fetch 0 {length} {path}")).map(|_| ())
    }

    /// The QEMU that runs it.
    pub(crate) fn running(&self) -> &Running {
        &self.running
    }

    /// The QEMU line it was started by.
    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    /// What was written to the machine's serial line, for a reader who looks for a reason.
    pub(crate) fn last_words(&self) -> String {
        let console = self.running.console();
        let words = console.trim();
        if words.is_empty() {
            "the machine's serial line is empty".into()
        } else {
            format!("the machine's serial line:\n{words}")
        }
    }
}

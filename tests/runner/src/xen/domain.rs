//! A guest beside dom0: created by `xl`, watched by dom0, its console complete.
//!
//! A guest that ends stays as it is until its console has been read to the last byte; only then it is destroyed.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Dom0, machine};
use crate::guest::Guest;
use crate::linux::COMMAND;
use crate::qemu::{Ending, Finished, Options, Platform, Tee, megabytes};

/// What a guest adds to its status to make the reason it shuts down with.
const STATUS_BASE: u32 = 16;
/// Statuses from here on are no guest's.
const FIRST_OTHER: u32 = 80;

/// Has Xen write to its serial line where every processor and domain stands: run queues, domains, their registers, events.
const WHERE_IT_STANDS: &str = "for key in r q v e; do xl debug-keys $key; done";

/// What `xl` is to create.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether it is a PV guest; else PVH.
    pub pv: bool,
    /// The guest's ELF file.
    pub elf: PathBuf,
    /// Memory in MiB.
    pub megabytes: u32,
    /// Virtual processors.
    pub vcpus: u32,
    /// The kernel command line.
    pub append: String,
    /// Further lines as in xl.cfg(5), for example `vif=["bridge=xenbr0"]`.
    pub more: Vec<String>,
}

/// A domain that was created.
pub struct Domain<'a> {
    dom0: &'a mut Dom0,
    name: String,
    /// Where its console begins in dom0's console port.
    from: usize,
    started: Instant,
}

/// What Xen knows of a domain.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Alive,
    /// It has shut down, for this reason (`SHUTDOWN_*` in Xen's public/sched.h, or a number of its own).
    ShutDown(u32),
    Gone,
}

impl Config {
    /// The domain that `options` ask for.
    ///
    /// # Errors
    /// Xen runs on no such machine.
    pub fn new(guest: &Guest, options: &Options) -> Result<Self> {
        machine::supported(options)?;
        Ok(Self {
            pv: options.platform == Platform::XenPv,
            elf: guest.elf.clone(),
            megabytes: megabytes(&options.memory)?,
            vcpus: options.smp,
            append: options.append.clone(),
            more: Vec::new(),
        })
    }

    /// As xl.cfg(5) wants it.
    fn text(&self, name: &str, kernel: &str) -> String {
        let kind = if self.pv { "pv" } else { "pvh" };
        let (memory, vcpus, append) = (self.megabytes, self.vcpus, escaped(&self.append));
        let mut text = format!(
            "name=\"{name}\"\ntype=\"{kind}\"\nmemory={memory}\nvcpus={vcpus}\nkernel=\"{kernel}\"\ncmdline=\"{append}\"\n"
        );
        // QEMU takes an RDTSCP that Xen wants to emulate for an RDTSC.
        text.push_str("tsc_mode=\"native\"\n");
        for event in ["poweroff", "reboot", "crash", "watchdog"] {
            text.push_str(&format!("on_{event}=\"preserve\"\n"));
        }
        for line in &self.more {
            text.extend([line.as_str(), "\n"]);
        }
        text
    }
}

/// A string as between the quotes in xl.cfg(5).
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" =.,-_/:+".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("\\x{byte:02x}") })
        .collect()
}

impl Dom0 {
    /// Creates a domain and lets it run.
    ///
    /// # Errors
    /// `xl` says why not.
    pub fn create(&mut self, config: &Config) -> Result<Domain<'_>> {
        let elf =
            std::fs::read(&config.elf).with_context(|| format!("cannot read {}", config.elf.display()))?;
        self.domains += 1;
        let name = format!("guest{}", self.domains);
        let (kernel, file) = (format!("/guest/{name}.elf"), format!("/guest/{name}.cfg"));
        self.put(&elf, &kernel)?;
        self.put(config.text(&name, &kernel).as_bytes(), &file)?;
        let from = self.linux.console.bytes().len();
        self.run(&format!("xl create -q -e -p {file} && rm {kernel} {file} && start {name}"))?;
        Ok(Domain { dom0: self, name, from, started: Instant::now() })
    }
}

impl Domain<'_> {
    /// Waits until its console has `text` at or after byte `from`; returns the place behind it.
    ///
    /// # Errors
    /// The time is over before that, or dom0 is gone.
    pub fn wait_for(&self, text: &str, from: usize, timeout: Duration) -> Result<usize> {
        Ok(self.dom0.linux.console.wait_for(text, self.from + from, timeout)? - self.from)
    }

    /// What its console has from byte `from` up to byte `until`.
    pub fn text(&self, from: usize, until: usize) -> String {
        String::from_utf8_lossy(&self.dom0.linux.console.bytes()[self.from + from..self.from + until])
            .into_owned()
    }

    /// How many bytes of its console have come so far.
    pub fn written(&self) -> usize {
        self.dom0.linux.console.bytes().len() - self.from
    }

    /// Types `bytes` on its console.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.dom0.linux.console_port.write_all(bytes).context("the console takes no input")
    }

    /// What types on its console from another thread.
    pub fn input(&self) -> impl Write + Send + use<> {
        self.dom0.linux.console_port.clone()
    }

    /// Waits for a moment to type, as [`crate::qemu::Running::listener`].
    pub fn listener(&self) -> impl Fn(&str, Duration) + Send + use<> {
        self.dom0.linux.console.listener()
    }

    /// Executes `xl VERB NAME ARGUMENTS`, which must succeed; returns what it printed.
    ///
    /// # Errors
    /// It fails or takes too long.
    pub fn xl(&mut self, verb: &str, arguments: &str) -> Result<String> {
        let command = format!("xl {verb} {} {arguments}", self.name);
        self.dom0.run(&command)
    }

    /// Executes a shell command in dom0, which must succeed; there, `$home` is its path in xenstore.
    ///
    /// # Errors
    /// It fails or takes too long.
    pub fn dom0(&mut self, command: &str) -> Result<String> {
        let command = format!("home=/local/domain/$(xl domid {}); {command}", self.name);
        self.dom0.run(&command)
    }

    /// Saves it to a file in dom0, and brings it back from there as a new domain.
    ///
    /// # Errors
    /// The guest does not suspend, or `xl` fails otherwise.
    pub fn save_and_restore(&mut self) -> Result<()> {
        let (name, file) = (self.name.clone(), format!("/guest/{}.save", self.name));
        self.dom0.run(&format!("xl save {name} {file}"))?;
        self.dom0.run(&format!("xl restore -e -p {file} && rm {file} && start {name}")).map(drop)
    }

    /// Saves it to a file in dom0, and lets it go on as the same domain.
    ///
    /// # Errors
    /// The guest does not suspend, or `xl` fails otherwise.
    pub fn checkpoint(&mut self) -> Result<()> {
        let (name, file) = (self.name.clone(), format!("/guest/{}.save", self.name));
        self.dom0.run(&format!("xl save -c {name} {file} && rm {file}")).map(drop)
    }

    /// Waits for its end, no longer than `timeout`, reads its console to the end and removes it.
    ///
    /// # Errors
    /// Dom0 is gone.
    pub fn wait(mut self, timeout: Option<Duration>) -> Result<Finished> {
        let deadline = timeout.map(|timeout| self.started + timeout);
        let ending = loop {
            let seen = self.dom0.events();
            match self.state()? {
                State::Alive => {}
                State::ShutDown(reason) => break ending(reason),
                State::Gone => break Ending::Stopped("somebody destroyed the domain".into()),
            }
            let left =
                deadline.map_or(COMMAND, |deadline| deadline.saturating_duration_since(Instant::now()));
            let more = self.dom0.event_after(seen, left)?;
            if let (false, Some(timeout)) = (more, timeout) {
                self.dom0.ask(WHERE_IT_STANDS)?;
                break Ending::Timeout(timeout);
            }
        };
        let elapsed = self.started.elapsed();
        let console = self.close()?;
        let console = String::from_utf8_lossy(&console).into_owned();
        Ok(Finished { ending, console, elapsed, said: String::new() })
    }

    fn state(&mut self) -> Result<State> {
        let (status, said) = self.dom0.ask(&format!("xl list -v {}", self.name))?;
        if status != 0 {
            return Ok(State::Gone);
        }
        State::parse(&said).with_context(|| format!("xl list says:\n{said}"))
    }

    /// Everything it has written, as xenconsoled logged it; then there is no such domain any more.
    fn close(self) -> Result<Vec<u8>> {
        let name = &self.name;
        let said = self.dom0.run(&format!(
            "console_log {name}; xl destroy {name} >/dev/null 2>&1; rm -f /var/log/xen/console/guest-{name}.log"
        ))?;
        let log = STANDARD.decode(said.replace('\n', "")).context("the console's log is no base64")?;
        let live = self.dom0.linux.console.bytes().split_off(self.from);
        // What dom0 did not pass on in time.
        if let (Some(rest), Tee::Show) = (log.strip_prefix(live.as_slice()), self.dom0.linux.tee) {
            std::io::stdout().write_all(rest).context("cannot write the guest's last words")?;
        }
        Ok(log)
    }
}

impl State {
    /// The state in a table of `xl list -v`: name, domid, memory, processors, flags, time, UUID, reason, label.
    fn parse(table: &str) -> Option<Self> {
        let line = table.lines().last()?;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, _, _, _, flags, _, _, reason, ..] = words[..] else { return None };
        if flags.contains('d') {
            return Some(Self::Gone);
        }
        if !flags.contains(['s', 'c']) {
            return Some(Self::Alive);
        }
        u32::from_str_radix(reason, 16).ok().map(Self::ShutDown)
    }
}

/// What a reason for a shutdown means: Xen's own (public/sched.h), or 16 and the guest's status.
fn ending(reason: u32) -> Ending {
    match reason {
        0 => Ending::PowerOff,
        1 => Ending::Reset,
        3 => Ending::Crashed,
        STATUS_BASE.. if reason - STATUS_BASE < FIRST_OTHER => {
            u8::try_from(reason - STATUS_BASE).map_or_else(|_| unknown(reason), Ending::Status)
        }
        _ => unknown(reason),
    }
}

fn unknown(reason: u32) -> Ending {
    let word = match reason {
        2 => "suspended".into(),
        4 => "by its watchdog".into(),
        5 => "for a soft reset".into(),
        _ => format!("for reason {reason}"),
    };
    Ending::Stopped(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_come_back_as_the_guest_meant_them() {
        for status in 0..80 {
            assert_eq!(ending(16 + u32::from(status)), Ending::Status(status));
        }
        assert_eq!(ending(16 + 80), Ending::Stopped("for reason 96".into()));
    }

    #[test]
    fn xens_own_reasons_are_no_statuses() {
        assert_eq!([ending(0), ending(1), ending(3)], [Ending::PowerOff, Ending::Reset, Ending::Crashed]);
        assert_eq!(ending(2), Ending::Stopped("suspended".into()));
        assert_eq!(ending(15), Ending::Stopped("for reason 15".into()));
        assert_eq!(ending(255), Ending::Stopped("for reason 255".into()));
    }

    #[test]
    fn a_domain_is_alive_until_its_flags_say_more() {
        let table = |flags: &str, reason: &str| {
            State::parse(&format!(
                "Name ID Mem VCPUs\tState\tTime(s)   UUID   Reason-Code\tSecurity Label\n\
                 guest1      1    64     1     {flags}       0.2 d16b10db-8857-48bf-8b0e-7bb8e35a0999 {reason}    -"
            ))
        };
        assert_eq!(table("r-----", "-"), Some(State::Alive));
        assert_eq!(table("-b----", "-"), Some(State::Alive));
        assert_eq!(table("---s--", "11"), Some(State::ShutDown(17)));
        assert_eq!(table("---sc-", "3"), Some(State::ShutDown(3)));
        assert_eq!(table("---s-d", "0"), Some(State::Gone));
        assert_eq!(table("---s--", "-"), None);
        assert_eq!(State::parse(""), None);
    }

    #[test]
    fn no_command_line_ends_its_own_string() {
        let config = Config {
            pv: true,
            elf: "/k".into(),
            megabytes: 64,
            vcpus: 2,
            append: "log=debug name=\"a b\" x=\\".into(),
            more: vec!["vif=[]".into()],
        };
        let text = config.text("g", "/guest/g");
        assert!(text.contains("cmdline=\"log=debug name=\\x22a b\\x22 x=\\x5c\"\n"), "{text}");
        assert!(text.starts_with("name=\"g\"\ntype=\"pv\"\nmemory=64\nvcpus=2\n"), "{text}");
        assert!(text.ends_with("vif=[]\n"), "{text}");
    }
}

//! A guest of nested KVM: run by a machine monitor in the rig's Linux, its console complete.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Host;
use super::rig::FIRMWARE_AT;
use crate::host::cache;
use crate::linux::channel::Pending;
use crate::qemu::line::KVM_CPU;
use crate::qemu::{Accel, Finished, Line, Machine, Options, Serial, Traces, megabytes};

/// Follows a guest's last byte on the console (`end_of_console` in `init`).
const END: &str = "\0\x7f\0\x7f\0\x7f\0\x7f";
/// How long a monitor that was killed, or the last bytes of a console, may take.
const SOON: Duration = Duration::from_secs(20);
/// Where the guest's file is in there, and our own machine monitor.
const KERNEL: &str = "/guest/kernel";
const VMM: &str = "/guest/vmm";
/// QEMU says this when the guest switches the machine off; it says nothing when the guest resets it.
const SHUTDOWN: &str = "qemu_system_shutdown_request";

/// A guest that was started.
pub struct Guest<'a> {
    host: &'a mut Host,
    line: String,
    pending: Pending,
    /// Where its console begins in the host's.
    from: usize,
    started: Instant,
}

impl Host {
    /// Has QEMU or our own machine monitor run the guest in `elf`.
    ///
    /// # Errors
    /// The machine cannot be had there, or the file cannot be read.
    pub fn create(&mut self, elf: &Path, options: &Options) -> Result<Guest<'_>> {
        self.create_with(elf, options, |_| ())
    }

    /// As [`Self::create`], for a guest that marks the stages of its start; the exits of each are counted ([`super::Exits`]).
    ///
    /// # Errors
    /// As there.
    pub fn create_staged(&mut self, elf: &Path, options: &Options) -> Result<Guest<'_>> {
        let append = format!("{} stages=port", options.append).trim_start().to_owned();
        self.make("staged", elf, &Options { append, ..options.clone() }, |_| ())
    }

    /// As [`Self::create`], with more on the monitor's line; files on it are the host's.
    ///
    /// # Errors
    /// As there.
    pub fn create_with(
        &mut self,
        elf: &Path,
        options: &Options,
        more: impl FnOnce(&mut Line),
    ) -> Result<Guest<'_>> {
        self.make("guest", elf, options, more)
    }

    /// `how` is a function of `init`.
    fn make(
        &mut self,
        how: &str,
        elf: &Path,
        options: &Options,
        more: impl FnOnce(&mut Line),
    ) -> Result<Guest<'_>> {
        let mut line = inner_line(options)?;
        more(&mut line);
        self.put(elf, KERNEL)?;
        if options.machine == Machine::Vmm {
            self.put(&crate::vmm::get()?, VMM)?;
            self.linux.run(&format!("chmod 755 {VMM}"))?;
        }
        let line = line.to_string();
        let from = self.linux.console.bytes().len();
        let pending = self.linux.channel.start(&format!("{how} {line}"))?;
        Ok(Guest { host: self, line, pending, from, started: Instant::now() })
    }

    /// Writes a file there.
    ///
    /// # Errors
    /// It is too large, or there is no room.
    pub fn write(&mut self, bytes: &[u8], to: &str) -> Result<()> {
        self.linux.put(bytes, to)
    }

    /// The bytes of a file there.
    ///
    /// # Errors
    /// There is no such file.
    pub fn read(&mut self, from: &str) -> Result<Vec<u8>> {
        let said = self.run(&format!("base64 {from}"))?;
        STANDARD.decode(said.replace('\n', "")).with_context(|| format!("{from} does not come back whole"))
    }

    /// Writes the file `from` there at `to`, unless it is there.
    fn put(&mut self, from: &Path, to: &str) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let digest = cache::sha256(&bytes);
        if self.files.iter().any(|(path, known)| path == to && *known == digest) {
            return Ok(());
        }
        self.files.retain(|(path, _)| path != to);
        self.linux.put(&bytes, to)?;
        self.files.push((to.to_owned(), digest));
        Ok(())
    }
}

/// The monitor's line in there.
fn inner_line(options: &Options) -> Result<Line> {
    ensure!(!options.gdb, "`--gdb` goes with guests that QEMU boots itself");
    ensure!(options.accel == Accel::Tcg, "`--on kvm-nested` goes with `--accel tcg` only: KVM is in there");
    let machine = match options.machine {
        Machine::Q35 => "q35",
        Machine::Pc => "pc",
        Machine::Microvm => "microvm",
        Machine::Vmm => return Line::of_vmm(options, VMM.as_ref(), KERNEL.as_ref()),
    };
    let mut line = Line::bare(machine, "kvm", options.cpu.as_deref().unwrap_or(KVM_CPU));
    line.equip(options.smp, &format!("{}M", megabytes(&options.memory)?), Serial::Plain);
    line.option("-L", FIRMWARE_AT);
    line.option("-trace", SHUTDOWN);
    line.option("-kernel", KERNEL);
    if !options.append.is_empty() {
        line.option("-append", &options.append);
    }
    Ok(line)
}

impl Guest<'_> {
    /// The line of the monitor that runs it.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Waits until its console has `text` at or after byte `from`; returns the place behind it.
    ///
    /// # Errors
    /// The time is over before that, or the host is gone.
    pub fn wait_for(&self, text: &str, from: usize, timeout: Duration) -> Result<usize> {
        Ok(self.host.linux.console.wait_for(text, self.from + from, timeout)? - self.from)
    }

    /// What its console has between two places.
    pub fn written(&self, from: usize, to: usize) -> String {
        let bytes = self.host.linux.console.bytes();
        String::from_utf8_lossy(bytes.get(self.from + from..self.from + to).unwrap_or_default()).into_owned()
    }

    /// Executes a shell command on its host, which must succeed; returns what it printed.
    ///
    /// # Errors
    /// It fails, takes too long, or the host is gone.
    pub fn host(&mut self, command: &str) -> Result<String> {
        self.host.run(command)
    }

    /// Types `bytes` on its console.
    ///
    /// # Errors
    /// QEMU is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.host.linux.console_port.write_all(bytes).context("the console takes no input")
    }

    /// What types on its console from another thread.
    pub fn input(&self) -> impl Write + Send + use<> {
        self.host.linux.console_port.clone()
    }

    /// Waits for a moment to type, as [`crate::qemu::Running::listener`].
    pub fn listener(&self) -> impl Fn(&str, Duration) + Send + use<> {
        self.host.linux.console.listener()
    }

    /// Waits for its end, no longer than `timeout`, and reads its console to the end.
    ///
    /// # Errors
    /// The host is gone, or the guest cannot be ended.
    pub fn wait(self, timeout: Option<Duration>) -> Result<Finished> {
        let linux = &mut self.host.linux;
        let mut traces = Traces::default();
        let mut end = None;
        while end.is_none() {
            let left = timeout.map_or(SOON, |timeout| timeout.saturating_sub(self.started.elapsed()));
            end = linux.channel.end(self.pending, left).with_context(|| linux.last_words())?;
            if let (None, Some(timeout)) = (&end, timeout) {
                linux.run("kill_guest")?;
                traces.timeout = Some(timeout);
                end = linux.channel.end(self.pending, SOON)?;
                ensure!(end.is_some(), "the guest's monitor does not end");
            }
        }
        let elapsed = self.started.elapsed();
        let (_, said) = end.unwrap_or_default();
        let behind = linux.console.wait_for(END, self.from, SOON)?;
        let console = linux.console.bytes()[self.from..behind - END.len()].to_vec();
        read(&said, &mut traces);
        let console = String::from_utf8_lossy(&console).into_owned();
        Ok(Finished { ending: traces.ending(), console, elapsed, said })
    }
}

/// Takes from what the monitor and `init` said why the guest ended.
fn read(said: &str, traces: &mut Traces) {
    for line in said.lines() {
        if let Some(status) = line.strip_prefix("status=") {
            // A shell adds 128 to the number of the signal that ended a program.
            traces.code = status.parse().ok().filter(|code: &i32| *code < 128);
        } else if line.contains(SHUTDOWN) {
            traces.shutdown = Some("guest-shutdown".into());
        } else if line.contains("KVM internal error") {
            traces.stopped = Some("internal-error".into());
        } else if !line.starts_with("count ") && !line.starts_with("exit ") {
            traces.errors.extend([line, "\n"]);
        }
    }
    traces.hear_vmm();
    if traces.code == Some(0) {
        traces.shutdown.get_or_insert_with(|| "guest-reset".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::Ending;

    fn ending(said: &str) -> Ending {
        let mut traces = Traces::default();
        read(said, &mut traces);
        traces.ending()
    }

    #[test]
    fn endings_come_out_of_what_was_said() {
        assert_eq!(ending("status=33"), Ending::Status(0));
        assert_eq!(ending("qemu_system_shutdown_request reason=6\nstatus=0"), Ending::PowerOff);
        assert_eq!(ending("status=0"), Ending::Reset);
        assert_eq!(
            ending("KVM internal error. Suberror: 1\nstatus=137"),
            Ending::Stopped("internal-error".into())
        );
        assert_eq!(
            ending("no such machine\nstatus=1"),
            Ending::Qemu("exited with 1: no such machine".into())
        );
    }

    #[test]
    fn options_reach_the_inner_line() {
        let options =
            Options { machine: Machine::Microvm, smp: 2, append: "log=debug".into(), ..Options::default() };
        let line = inner_line(&options).unwrap().to_string();
        for part in [
            "-machine microvm -accel kvm -cpu host",
            "-smp 2 -m 256M",
            "-kernel /guest/kernel -append log=debug",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(inner_line(&Options { gdb: true, ..options }).is_err());
    }
}

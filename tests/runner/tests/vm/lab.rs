//! Where the rows get their guests from and run them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use runner::guest::{Guest, Profile};
use runner::host::{cache, paths};
use runner::nested::{self, Counts, Host};
use runner::qemu::process::Finished;
use runner::qemu::{Ending, Line, Options, Platform, Running, Serial, Tee};
use runner::toolchain::Toolchain;
use runner::xen::{Config, Dom0, Domain, Rig};
use runner::{guest, image};

/// Nothing here takes longer, even on a machine with other things to do; what does has hung.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// What the shell shows when it listens.
pub(crate) const PROMPT: &str = "pliant> ";
/// Lines of the console that a failure shows.
const SHOWN_LINES: usize = 60;
/// Characters of the QEMU line that a failure shows.
const SHOWN_CHARACTERS: usize = 1000;

static TOOLCHAIN: OnceLock<Result<Toolchain, String>> = OnceLock::new();
static GUESTS: Mutex<Option<HashMap<String, Guest>>> = Mutex::new(None);
static BUILD_ERROR: OnceLock<String> = OnceLock::new();

/// Builds every guest once, before the first machine starts. An error fails the rows, not the program.
pub(crate) fn prepare(names: &[&str], disk_images: bool) {
    if names.is_empty() {
        return;
    }
    if let Err(error) = build(names, disk_images) {
        BUILD_ERROR.get_or_init(|| format!("{error:#}"));
    }
}

fn build(names: &[&str], disk_images: bool) -> Result<()> {
    for platform in Platform::ALL {
        // What is missing and cannot be installed fails the rows that need it, with the reason.
        let _ = image::require(platform);
    }
    let toolchain = toolchain()?;
    let built = guest::build_all(toolchain, names).unwrap_or_else(|_| one_by_one(toolchain, names));
    let known = built.into_iter().map(|guest| (guest.name.clone(), guest)).collect();
    *GUESTS.lock().map_err(|_| anyhow!("a row panicked"))? = Some(known);
    if disk_images {
        image::prepare_disk_builder(toolchain)?;
    }
    Ok(())
}

/// One guest that does not build must not take the others' rows with it.
fn one_by_one(toolchain: &Toolchain, names: &[&str]) -> Vec<Guest> {
    let build = |name: &&str| {
        guest::build(toolchain, name, Profile::Release).map_err(|error| eprintln!("{error:#}")).ok()
    };
    names.iter().filter_map(build).collect()
}

fn toolchain() -> Result<&'static Toolchain> {
    let found = TOOLCHAIN.get_or_init(|| Toolchain::find().map_err(|error| format!("{error:#}")));
    found.as_ref().map_err(|error| anyhow!(error.clone()))
}

/// The guest called `name`.
pub(crate) fn guest(name: &str) -> Result<Guest> {
    let guests = GUESTS.lock().map_err(|_| anyhow!("a row panicked"))?;
    match guests.as_ref().and_then(|guests| guests.get(name)) {
        Some(guest) => Ok(guest.clone()),
        None => bail!("{name} was not built: {}", BUILD_ERROR.get().map_or("see above", String::as_str)),
    }
}

/// Starts a guest; the ELF it boots is checked to be the one that was built.
pub(crate) fn start(name: &str, options: &Options) -> Result<(Running, Line)> {
    start_with(name, options, |_| ())
}

/// As [`start`], with more on the QEMU line.
pub(crate) fn start_with(
    name: &str,
    options: &Options,
    more: impl FnOnce(&mut Line),
) -> Result<(Running, Line)> {
    let guest = guest(name)?;
    image::require(options.platform)?;
    is_what_was_built(&guest)?;
    let mut line = image::line(toolchain()?, &guest, options, Serial::Plain)?;
    more(&mut line);
    Ok((Running::start(&line, false, Tee::Keep)?, line))
}

fn is_what_was_built(guest: &Guest) -> Result<()> {
    let found = cache::file_sha256(&guest.elf)?;
    ensure!(found == guest.sha256, "{} has sha256 {found}, not {}", guest.elf.display(), guest.sha256);
    Ok(())
}

/// A run with what a failure has to tell.
pub(crate) struct Run {
    finished: Finished,
    line: String,
    /// What others than the guest said.
    notes: String,
}

/// Runs a guest to its end.
pub(crate) fn run(name: &str, options: &Options) -> Result<Run> {
    if options.platform.is_xen_domu() {
        return run_beside_dom0(name, options, |_| Ok(()));
    }
    if options.platform == Platform::KvmNested {
        return run_nested(name, options, |_| Ok(()));
    }
    let (running, line) = start(name, options)?;
    finish(running, &line)
}

/// Where a row may put a file or a socket of this name; nothing is there.
pub(crate) fn scratch_path(name: &str) -> Result<PathBuf> {
    let directory = paths::output_directory().join("disks");
    fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{}-{name}", std::process::id()));
    let _ = fs::remove_file(&path);
    Ok(path)
}

/// Waits for the end of a guest that was started.
pub(crate) fn finish(running: Running, line: &Line) -> Result<Run> {
    let finished = running.wait(Some(PATIENCE))?;
    Ok(Run { finished, line: line.to_string(), notes: String::new() })
}

/// Runs a guest beside a dom0 of its own to its end; `meanwhile` deals with it from outside.
pub(crate) fn run_beside_dom0(
    name: &str,
    options: &Options,
    meanwhile: impl FnOnce(&mut Domain<'_>) -> Result<()>,
) -> Result<Run> {
    let guest = guest(name)?;
    is_what_was_built(&guest)?;
    let config = Config::new(&guest, options)?;
    let mut dom0 = Dom0::start(&Rig::get()?, config.megabytes, Tee::Keep)?;
    let mut domain = dom0.create(&config)?;
    let met = meanwhile(&mut domain);
    let patience = if met.is_ok() { PATIENCE } else { Duration::ZERO };
    let finished = domain.wait(Some(patience))?;
    let run = Run::beside(&dom0, finished);
    met.map_err(|error| anyhow!(run.failure(&format!("{error:#}"))))?;
    Ok(run)
}

thread_local! {
    /// The Linux with nested KVM that this thread's rows share. It ends with the thread that started it.
    static HOST: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// Runs a guest on nested KVM to its end; `meanwhile` deals with it from outside.
pub(crate) fn run_nested(
    name: &str,
    options: &Options,
    meanwhile: impl FnOnce(&mut nested::Guest<'_>) -> Result<()>,
) -> Result<Run> {
    let guest = guest(name)?;
    is_what_was_built(&guest)?;
    with_nested_host(|host| finish_nested(host.create(&guest.elf, options)?, meanwhile))
}

/// Lends the Linux with nested KVM that this thread's rows share; one in which something went wrong is not used again.
pub(crate) fn with_nested_host<T>(body: impl FnOnce(&mut Host) -> Result<T>) -> Result<T> {
    let mut host = match HOST.take() {
        Some(host) => host,
        None => Host::start(&nested::Rig::get()?, 0, Tee::Keep)?,
    };
    let done = body(&mut host)?;
    HOST.set(Some(host));
    Ok(done)
}

/// Waits for the end of a guest on nested KVM.
pub(crate) fn finish_nested(
    mut running: nested::Guest<'_>,
    meanwhile: impl FnOnce(&mut nested::Guest<'_>) -> Result<()>,
) -> Result<Run> {
    let line = running.line().to_owned();
    let met = meanwhile(&mut running);
    let patience = if met.is_ok() { PATIENCE } else { Duration::ZERO };
    let finished = running.wait(Some(patience))?;
    let run = Run { notes: finished.said.clone(), finished, line };
    met.map_err(|error| anyhow!(run.failure(&format!("{error:#}"))))?;
    Ok(run)
}

impl Run {
    /// What a guest beside `dom0` came to.
    pub(crate) fn beside(dom0: &Dom0, finished: Finished) -> Self {
        Self { finished, line: dom0.line().into(), notes: dom0.last_words() }
    }

    /// What was counted while it ran on nested KVM.
    pub(crate) fn counts(&self) -> Counts {
        Counts::read(&self.finished.said)
    }

    /// What the guest wrote.
    pub(crate) fn console(&self) -> &str {
        &self.finished.console
    }

    /// The guest ended this way.
    pub(crate) fn ended(&self, wanted: &Ending) -> Result<&Self> {
        let found = &self.finished.ending;
        ensure!(found == wanted, "{}", self.failure(&format!("ended with {found}, expected {wanted}")));
        Ok(self)
    }

    /// Some line of the console has all of `parts`.
    pub(crate) fn says(&self, parts: &[&str]) -> Result<&Self> {
        let found = self.console().lines().any(|line| parts.iter().all(|part| line.contains(part)));
        ensure!(found, "{}", self.failure(&format!("no line of the console has {parts:?}")));
        Ok(self)
    }

    /// Others than the guest said `text`.
    pub(crate) fn noted(&self, text: &str) -> Result<&Self> {
        ensure!(self.notes.contains(text), "{}", self.failure(&format!("nobody says {text:?}")));
        Ok(self)
    }

    /// The backtrace names `function`.
    pub(crate) fn backtrace_names(&self, function: &str) -> Result<&Self> {
        let frames = self.console().lines().skip_while(|line| !line.starts_with("backtrace:"));
        let found =
            frames.into_iter().any(|line| line.trim_start().starts_with('#') && line.contains(function));
        ensure!(found, "{}", self.failure(&format!("no frame of the backtrace names {function}")));
        Ok(self)
    }

    /// The summary of the kernel's own tests: (passed, failed, skipped).
    pub(crate) fn summary(&self) -> Result<(u32, u32, u32)> {
        let line = self.console().lines().find_map(|line| line.trim_end().strip_prefix("tests: "));
        let line = line.with_context(|| self.failure("the console has no summary line `tests: ...`"))?;
        let number = |word: &str| {
            let part = line.split(", ").find_map(|part| part.strip_suffix(word)?.trim().parse().ok());
            part.with_context(|| self.failure(&format!("no {word} in `{line}`")))
        };
        Ok((number("passed")?, number("failed")?, number("skipped")?))
    }

    /// What went wrong, with the QEMU line and the end of the console.
    pub(crate) fn failure(&self, what: &str) -> String {
        let lines: Vec<&str> = self.console().lines().collect();
        let tail = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        let line: String = self.line.chars().take(SHOWN_CHARACTERS).collect();
        format!("{what}\n$ {line}\n{tail}\n{}", self.notes)
    }
}

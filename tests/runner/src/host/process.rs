//! Other programs: started with a clean environment, watched, never left behind.

use std::env;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::progress::Step;

/// A command without what an outer `cargo run` (through rustup or not) leaves in the environment.
pub fn clean(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(belongs_to_outer_cargo) {
            command.env_remove(name);
        }
    }
    command
}

fn belongs_to_outer_cargo(name: &str) -> bool {
    match name {
        // The user's own choices of where and how to fetch stay.
        "CARGO_HOME" | "RUSTUP_HOME" => false,
        "LD_LIBRARY_PATH" | "RUSTUP_TOOLCHAIN" | "OUT_DIR" | "CARGO" => true,
        _ if name.starts_with("CARGO_HTTP_") || name.starts_with("CARGO_NET_") => false,
        _ if name.starts_with("CARGO_REGISTR") || name.starts_with("CARGO_SOURCE_") => false,
        "RUST_BACKTRACE" | "RUST_LOG" => false,
        _ => {
            name.starts_with("CARGO_")
                || name.starts_with("RUSTC")
                || name.starts_with("RUSTDOC")
                || name == "RUSTFLAGS"
        }
    }
}

/// The standard output of a command that must succeed, without trailing white space.
///
/// # Errors
/// The program cannot be started, or it failed; the message carries what it said.
pub fn output(command: &mut Command) -> Result<String> {
    let line = display(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({}):\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Runs a long command; `note` picks the lines that are progress, and what of them the progress line shows.
/// The other output is shown when it fails, and returned when it succeeds.
///
/// # Errors
/// The program cannot be started, or it failed.
pub fn run_with_progress(
    command: &mut Command,
    step: &Step,
    note: impl Fn(&str) -> Option<String>,
) -> Result<String> {
    let line = display(command);
    die_with_parent(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let (sender, lines) = mpsc::channel::<String>();
    for stream in [child.stdout.take().map(boxed), child.stderr.take().map(boxed)].into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
    }
    drop(sender);
    let mut said = String::new();
    loop {
        match lines.recv_timeout(Duration::from_millis(500)) {
            Ok(text) => match note(&text) {
                Some(note) => step.note(&note),
                None => said.extend([text.as_str(), "\n"]),
            },
            Err(RecvTimeoutError::Timeout) => step.tick(),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{line}`"))?;
    if !status.success() {
        step.clear();
        bail!("{}\n`{line}` failed ({status})", said.trim_end());
    }
    Ok(said)
}

fn boxed(stream: impl std::io::Read + Send + 'static) -> Box<dyn std::io::Read + Send> {
    Box::new(stream)
}

/// Makes the kernel kill the child when the thread that starts it ends, however it ends.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY:
    // 1. The closure runs between fork and exec and calls one function, prctl(2), which is async-signal-safe.
    // 2. PR_SET_PDEATHSIG takes a plain number and touches no memory of ours.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == -1 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

/// A command as one can paste it into a shell (without its environment).
pub fn display(command: &Command) -> String {
    shell_line(std::iter::once(command.get_program()).chain(command.get_args()))
}

/// Words joined to one shell line, quoted where the shell needs it.
pub fn shell_line<'a>(words: impl Iterator<Item = &'a OsStr>) -> String {
    words.map(|word| quote(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// A word as the shell takes it for one.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_cargo_does_not_see_the_outer_one() {
        for name in
            ["CARGO", "CARGO_TARGET_DIR", "CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO_ENCODED_RUSTFLAGS"]
        {
            assert!(belongs_to_outer_cargo(name), "{name}");
        }
        for name in
            ["RUSTC", "RUSTC_WRAPPER", "RUSTC_BOOTSTRAP", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"]
        {
            assert!(belongs_to_outer_cargo(name), "{name}");
        }
        for name in
            ["CARGO_HOME", "CARGO_HTTP_PROXY", "CARGO_NET_OFFLINE", "PATH", "HOME", "CARGO_REGISTRY_DEFAULT"]
        {
            assert!(!belongs_to_outer_cargo(name), "{name}");
        }
    }

    #[test]
    fn printed_lines_survive_a_shell() {
        let words = ["qemu", "-append", "a b 'c'", "", "x=1,y:2"];
        let line = shell_line(words.iter().map(OsStr::new));
        assert_eq!(line, r"qemu -append 'a b '\''c'\''' '' x=1,y:2");
    }
}

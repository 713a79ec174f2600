//! How long a start takes by the wall clock: from the start of the machine monitor to its end, beside a guest that ends
//! at once, which is what the monitor takes for itself. Neighbour: `boot_chart` (shows it).

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::guest::{Guest, bare};
use crate::host::paths;
use crate::host::process::{clean, die_with_parent};
use crate::qemu::{Line, Options, Serial};

/// A guest's success, as `isa-debug-exit` makes it QEMU's status.
const SUCCESS: i32 = 33;

/// Least, median, most.
pub(super) type Spread = [Duration; 3];

/// Starts the guest and the bare one `times` times, one after the other, in turns; gives the spread of both.
///
/// # Errors
/// There is no such machine, or a guest fails.
pub(super) fn measure(guest: &Guest, options: &Options, times: usize) -> Result<[Spread; 2]> {
    let bare = paths::output_directory().join("bare.elf");
    bare::write(&bare)?;
    let mut runs = [Vec::new(), Vec::new()];
    for _ in 0..times {
        for (runs, file) in runs.iter_mut().zip([guest.elf.as_path(), &bare]) {
            runs.push(run(&Line::new(options, file, Serial::Plain)?)?);
        }
    }
    Ok(runs.map(spread))
}

fn run(line: &Line) -> Result<Duration> {
    let (program, arguments) = line.words().split_first().context("empty line")?;
    let mut command: Command = clean(Path::new(program));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    die_with_parent(&mut command);
    let start = Instant::now();
    let status = command.status().context("cannot start the machine")?;
    let elapsed = start.elapsed();
    ensure!(status.code() == Some(SUCCESS), "the guest failed: {status}");
    Ok(elapsed)
}

fn spread(mut runs: Vec<Duration>) -> Spread {
    runs.sort_unstable();
    let at = |index: usize| runs.get(index).copied().unwrap_or_default();
    [at(0), at(runs.len() / 2), at(runs.len().saturating_sub(1))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let runs = [9, 1, 5, 7, 3].map(Duration::from_millis).to_vec();
        assert_eq!(spread(runs), [1, 5, 9].map(Duration::from_millis));
    }
}

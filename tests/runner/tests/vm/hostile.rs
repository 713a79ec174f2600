//! Input that is not what it should be: a clear word and the boot goes on, or is refused with a status. Never a hang.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use runner::qemu::{Ending, Machine, Options};

use crate::lab;
use crate::row::{Row, Verdict};

/// More than the kernel keeps, yet what QEMU's PVH loader has room for.
const LONG: usize = 4000;
/// More than QEMU's PVH loader has room for on machines with firmware: it writes over the start info.
const TOO_LONG: usize = 5000;

pub(crate) fn rows() -> Vec<Row> {
    let append = |text: &str| Options { append: text.into(), ..Options::default() };
    let cases = [
        ("an_unknown_hypervisor_word", append("pv=vmware9000")),
        ("an_unknown_log_level", append("log=shout log=")),
        ("an_unknown_console", append("console=teleprinter,\"")),
        ("only_separators", append("  = == ,, = ")),
        ("a_long_command_line", append(&"x".repeat(LONG))),
        ("a_command_line_that_is_not_ascii", append("log=débug \u{fffd}\u{202e} naïve")),
        ("control_characters", append("log=\u{1b}[2J\u{7}")),
        ("the_oldest_processor", Options { cpu: Some("qemu64".into()), ..Options::default() }),
        ("four_processors", Options { smp: 4, ..Options::default() }),
        (
            "microvm_with_a_long_command_line",
            Options { machine: Machine::Microvm, ..append(&"y".repeat(TOO_LONG)) },
        ),
    ];
    let boots = |(name, options): (&str, Options)| {
        Row::new(format!("hostile::{name}_is_survived"), "hello", move || survives(&options))
    };
    let mut rows: Vec<Row> = cases.into_iter().map(boots).collect();
    rows.push(Row::new("hostile::a_command_line_that_is_not_utf8_is_survived", "hello", not_utf8));
    let damaged = append(&"x".repeat(TOO_LONG));
    rows.push(Row::new("hostile::damaged_start_info_is_refused", "hello", move || refuses(&damaged)));
    rows
}

/// The guest says what it thinks of the input, and runs all the same.
fn survives(options: &Options) -> anyhow::Result<Verdict> {
    lab::run("hello", options)?.ended(&Ending::Status(0))?.says(&["Hello"])?;
    Ok(Verdict::Kept)
}

/// No memory that can be believed in: the boot is refused, with a reason and a status.
fn refuses(options: &Options) -> anyhow::Result<Verdict> {
    lab::run("hello", options)?
        .ended(&Ending::Status(4))?
        .says(&["hvm_start_info", "0x78787878"])?
        .says(&["boot refused"])?;
    Ok(Verdict::Kept)
}

fn not_utf8() -> anyhow::Result<Verdict> {
    let bytes = OsStr::from_bytes(b"log=\xff\xfe app.name=\xc3\x28 \x80");
    let (running, line) =
        lab::start_with("hello", &Options::default(), |line| line.option("-append", bytes))?;
    lab::finish(running, &line)?.ended(&Ending::Status(0))?.says(&["Hello"])?;
    Ok(Verdict::Kept)
}

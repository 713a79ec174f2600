//! Kernels that must die: each ends the run with a failing status, and says what happened, where, and who called.

use runner::qemu::{Ending, Options};

use crate::lab;
use crate::row::{Row, Verdict};

/// A death that must be told.
struct Death {
    /// The kernel under `tests/kernels/faults` that dies it.
    kernel: &'static str,
    /// What it must end with.
    status: u8,
    /// Lines that the console must have, each as parts of one line.
    lines: &'static [&'static [&'static str]],
    /// Who must be named in the backtrace.
    caller: &'static str,
}

const DEATHS: [Death; 8] = [
    Death {
        kernel: "panic",
        status: 2,
        lines: &[&["PANIC at", "panic.rs:", "on purpose, with 7 locked"]],
        caller: "panic::",
    },
    Death {
        kernel: "panic_in_thread",
        status: 2,
        lines: &[&["PANIC at", "panic_in_thread.rs:", "on purpose, with 7 locked"]],
        caller: "kernel::task::life::begin",
    },
    Death {
        kernel: "oom_panic",
        status: 2,
        lines: &[&["PANIC at", "35184372088832"]],
        caller: "oom_panic::",
    },
    Death {
        kernel: "page_fault",
        status: 3,
        lines: &[&["EXCEPTION #PF page fault, error 0x2"], &["kernel write, not mapped: 0x0000000000000000"]],
        caller: "page_fault::",
    },
    Death {
        kernel: "stack_overflow",
        status: 3,
        lines: &[&["EXCEPTION #DF"], &["kernel stack overflow"]],
        caller: "stack_overflow::descend",
    },
    Death {
        kernel: "double_fault",
        status: 3,
        lines: &[&["EXCEPTION #DF"], &["last page fault at 0x00003ffffffffff8"]],
        caller: "double_fault::",
    },
    Death {
        kernel: "write_to_text",
        status: 3,
        lines: &[
            &["EXCEPTION #PF page fault, error 0x3"],
            &["kernel write, not allowed by the page's protection"],
        ],
        caller: "write_to_text::",
    },
    Death {
        kernel: "execute_data",
        status: 3,
        lines: &[
            &["EXCEPTION #PF page fault, error 0x11"],
            &["kernel execution, not allowed by the page's protection"],
        ],
        caller: "kernel::app::run",
    },
];

pub(crate) fn rows() -> Vec<Row> {
    let death = |death: &'static Death| {
        Row::new(format!("faults::{}_is_told", death.kernel), death.kernel, || dies(death))
    };
    let mut rows: Vec<Row> = DEATHS.iter().map(death).collect();
    rows.push(Row::new("faults::triple_fault_is_recognised", "triple_fault", triple_fault));
    rows.push(Row::new("faults::out_of_memory_is_survived", "out_of_memory", out_of_memory));
    rows
}

fn dies(death: &Death) -> anyhow::Result<Verdict> {
    let run = lab::run(death.kernel, &Options::default())?;
    run.ended(&Ending::Status(death.status))?;
    for parts in death.lines {
        run.says(parts)?;
    }
    run.backtrace_names(death.caller)?;
    Ok(Verdict::Kept)
}

/// A machine that resets itself is told apart from a guest that asks for it.
fn triple_fault() -> anyhow::Result<Verdict> {
    lab::run("triple_fault", &Options::default())?.ended(&Ending::TripleFault)?;
    Ok(Verdict::Kept)
}

fn out_of_memory() -> anyhow::Result<Verdict> {
    let run = lab::run("out_of_memory", &Options { memory: "64M".into(), ..Options::default() })?;
    run.ended(&Ending::Status(0))?.says(&["out of memory after"])?.says(&["KiB again"])?;
    Ok(Verdict::Kept)
}

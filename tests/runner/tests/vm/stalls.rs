//! Deadlocks, and CPUs that get no further: the kernel tells who waits for what, who has it, and where.
//! Neighbour: `tests/kernels/faults/src/bin/stall.rs`, whose threads and functions are named here.

use anyhow::ensure;
use runner::command::doctor;
use runner::qemu::{Ending, Machine, Options, Platform};

use crate::kvm;
use crate::lab::{self, Run};
use crate::row::{Row, Verdict};

/// What the kernel ends with when it was left alone.
const LEFT_ALONE: Ending = Ending::Status(5);

/// Where one CPU gets stuck with interrupts disabled, and another finds it.
const STUCK: [(&str, Platform, Machine); 7] = [
    ("pvh-q35", Platform::Pvh, Machine::Q35),
    ("pvh-microvm", Platform::Pvh, Machine::Microvm),
    ("xen-pv-dom0", Platform::XenPvDom0, Machine::Q35),
    ("xen-pvh-dom0", Platform::XenPvhDom0, Machine::Q35),
    ("xen-pv", Platform::XenPv, Machine::Q35),
    ("xen-pvh", Platform::XenPvh, Machine::Q35),
    ("kvm", Platform::Kvm, Machine::Microvm),
];

pub(crate) fn rows() -> Vec<Row> {
    let row = |name: &str, body: fn() -> anyhow::Result<Verdict>| {
        Row::new(format!("stalls::{name}"), "stall", body)
    };
    let mut rows = vec![
        row("two_threads_that_want_each_other_s_lock_are_told", || locks(2)),
        row("so_they_are_on_one_cpu", || locks(1)),
        row("a_thread_that_joins_who_waits_for_it_is_told", joins),
        row("two_cpus_that_spin_for_each_other_s_lock_are_told", spins),
        row("a_cpu_that_spins_for_its_own_lock_ends_the_guest", itself),
        row("who_gets_on_is_not_told", nothing),
    ];
    for (name, platform, machine) in STUCK {
        for cpu in 0..2 {
            rows.push(Row::new(
                format!("stalls::cpu_{cpu}_is_told_where_it_is::{name}"),
                "stall",
                move || {
                    if platform == Platform::Kvm
                        && let Err(why) = doctor::kvm()
                    {
                        return Ok(Verdict::Skipped(why));
                    }
                    stuck(cpu, &Options { machine, ..Options::on(platform) })
                },
            ));
        }
    }
    rows.push(row("cpu_1_is_told_where_it_is::kvm-nested", || stuck(1, &kvm::on(Machine::Vmm, &[]))));
    rows
}

fn run(how: &str, options: &Options) -> anyhow::Result<Run> {
    lab::run("stall", &Options { append: format!("{how} log=warn"), ..options.clone() })
}

fn on_cpus(smp: u32) -> Options {
    Options { smp, ..Options::default() }
}

fn locks(smp: u32) -> anyhow::Result<Verdict> {
    let run = run("app.how=locks", &on_cpus(smp))?;
    run.ended(&LEFT_ALONE)?
        .says(&[
            "\"left\" waits for a lock for ",
            "stall::left_then_right+",
            " has it, ",
            "stall::right_then_left+",
        ])?
        .says(&[
            "\"right\" waits for a lock for ",
            "stall::right_then_left+",
            " has it, ",
            "stall::left_then_right+",
        ])?
        .says(&["DEADLOCK: thread ", "\"left\" waits for thread ", "\"right\" waits for thread "])?;
    says_not(&run, "takes no interrupts")
}

fn joins() -> anyhow::Result<Verdict> {
    let run = run("app.how=join", &on_cpus(2))?;
    run.ended(&LEFT_ALONE)?
        .says(&["\"joiner\" waits for the end of thread ", "stall::lock_and_join+"])?
        .says(&[
            "\"joined\" waits for a lock for ",
            "stall::lock_left+",
            " has it, ",
            "stall::lock_and_join+",
        ])?
        .says(&["DEADLOCK: thread ", "\"joiner\" waits for thread ", "\"joined\" waits for thread "])?;
    Ok(Verdict::Kept)
}

fn spins() -> anyhow::Result<Verdict> {
    let run = run("app.how=spins", &on_cpus(3))?;
    run.ended(&LEFT_ALONE)?
        .says(&["stall::inner_then_outer+", " spins for a lock for ", "stall::outer_then_inner+", " has it"])?
        .says(&[
            "stall::outer_then_inner+",
            " spins for a lock for ",
            "stall::inner_then_outer+",
            " has it",
        ])?;
    Ok(Verdict::Kept)
}

fn itself() -> anyhow::Result<Verdict> {
    let run = run("app.how=itself", &on_cpus(1))?;
    run.ended(&Ending::Status(2))?
        .says(&["CPU 0 at ", " spins for a lock for ", "CPU 0 at ", " has it"])?
        .says(&["PANIC", "waits for itself"])?;
    Ok(Verdict::Kept)
}

fn nothing() -> anyhow::Result<Verdict> {
    let run = run("app.how=never", &on_cpus(4))?;
    run.ended(&LEFT_ALONE)?;
    says_not(&run, "STALL")
}

fn stuck(cpu: u32, options: &Options) -> anyhow::Result<Verdict> {
    let run = run(&format!("app.how=cpu app.cpu={cpu}"), &Options { smp: 2, ..options.clone() })?;
    run.ended(&LEFT_ALONE)?
        .says(&[&format!("STALL: CPU {cpu} takes no interrupts for "), "; it runs thread "])?
        .backtrace_names("stall::stuck")?;
    says_not(&run, &format!("CPU {} takes no interrupts", 1 - cpu))
}

fn says_not(run: &Run, text: &str) -> anyhow::Result<Verdict> {
    ensure!(!run.console().contains(text), run.failure(&format!("the console has {text:?}")));
    Ok(Verdict::Kept)
}

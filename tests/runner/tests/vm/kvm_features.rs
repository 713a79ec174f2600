//! KVM's features at work, counted on KVM's side: its own trace events in the rig of nested KVM. Each row has a guest that
//! is offered nothing beside it, in which the same must not happen.

use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};
use runner::nested::Counts;
use runner::qemu::{Ending, Machine, Options};

use crate::kvm::on;
use crate::lab::{self, PATIENCE, Run};
use crate::row::{Row, Verdict};

/// What a feature does on KVM's side, as a number that is 0 where nobody uses it.
struct Feature {
    name: &'static str,
    /// What offers it, by the names of our machine monitor.
    bits: &'static str,
    counted: fn(&Counts) -> u64,
}

/// KVM's hypercalls (Linux include/uapi/linux/kvm_para.h) and MSRs (arch/x86/include/uapi/asm/kvm_para.h).
const HC_KICK_CPU: u64 = 5;
const HC_SEND_IPI: u64 = 10;
const HC_SCHED_YIELD: u64 = 11;
/// A guest that only asks for the counter's rate does not ask for the date.
const MSR_WALL_CLOCK_NEW: u64 = 0x4b56_4d00;
const MSR_STEAL_TIME: u64 = 0x4b56_4d03;
const MSR_POLL_CONTROL: u64 = 0x4b56_4d05;
const MSR_ASYNC_PF_ACK: u64 = 0x4b56_4d07;

/// Seen while the kernel's own tests run on two CPUs.
const FEATURES: [Feature; 7] = [
    Feature {
        name: "clock_is_the_host_s",
        bits: "clocksource,clocksource2",
        counted: |counts| counts.of("kvm_msr", MSR_WALL_CLOCK_NEW),
    },
    Feature {
        name: "steal_time_is_asked_for",
        bits: "steal-time",
        counted: |counts| counts.of("kvm_msr", MSR_STEAL_TIME),
    },
    Feature {
        name: "interrupts_end_without_an_exit",
        bits: "pv-eoi",
        counted: |counts| counts.all("kvm_pv_eoi"),
    },
    Feature {
        name: "ipis_go_by_hypercall",
        bits: "pv-send-ipi",
        counted: |counts| counts.of("kvm_hypercall", HC_SEND_IPI),
    },
    Feature {
        name: "waiters_are_kicked",
        bits: "pv-unhalt",
        counted: |counts| counts.of("kvm_hypercall", HC_KICK_CPU),
    },
    Feature {
        name: "cpus_give_way",
        bits: "pv-sched-yield",
        counted: |counts| counts.of("kvm_hypercall", HC_SCHED_YIELD),
    },
    Feature {
        name: "the_host_flushes_cpus_that_do_not_run",
        bits: "pv-tlb-flush",
        counted: |counts| counts.of("kvm_pv_tlb_flush", 1),
    },
];

pub(crate) fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = FEATURES
        .iter()
        .map(|feature| {
            Row::new(format!("kvm_features::{}", feature.name), "self_test", || is_at_work(feature))
        })
        .collect();
    rows.extend([
        Row::new("kvm_features::nothing_is_used_that_is_not_offered", "self_test", nothing_is_used),
        Row::new("kvm_features::each_may_be_missing_alone", "self_test", each_may_be_missing),
        Row::new("kvm_features::a_late_page_lets_another_thread_run", "late_pages", late_pages),
        Row::new("kvm_features::stolen_time_is_seen", "shell", stolen_time_is_seen),
        Row::new("kvm_features::the_host_is_told_not_to_poll", "hello", host_poll),
        Row::new("kvm_features::ipis_to_three_cpus_are_one_hypercall", "self_test", one_hypercall),
        Row::new("kvm_features::time_goes_on_where_clocks_do_not_agree", "self_test", unstable_clocks),
        Row::new("kvm_features::threads_share_what_the_host_leaves", "self_test", equal_shares),
        Row::new("kvm_features::messages_reach_cpus_of_large_apic_ids", "self_test", far_messages),
        Row::new("kvm_features::only_the_right_signature_is_believed", "hello", signature),
        Row::new("kvm_features::the_clock_agrees_with_the_host_s", "shell", clock_agrees),
    ]);
    rows
}

/// The kernel's own tests on two CPUs, with every feature or with none; run once, for all rows that look at it.
fn self_tests(offered: bool) -> Result<&'static Run> {
    static RUNS: [OnceLock<Result<Run, String>>; 2] = [const { OnceLock::new() }; 2];
    let run = RUNS[usize::from(offered)].get_or_init(|| {
        let vmm: &[&str] = if offered { &[] } else { &["--without=all"] };
        let options = Options { smp: 2, ..on(Machine::Vmm, vmm) };
        lab::run("self_test", &options).map_err(|error| format!("{error:#}"))
    });
    run.as_ref().map_err(|error| anyhow!(error.clone()))
}

fn is_at_work(feature: &Feature) -> Result<Verdict> {
    let run = self_tests(true)?;
    run.ended(&Ending::Status(0))?;
    let counted = (feature.counted)(&run.counts());
    ensure!(counted > 0, run.failure("KVM saw nothing of the feature"));
    Ok(Verdict::Kept)
}

/// The tests pass by native means, and KVM sees none of the features.
fn nothing_is_used() -> Result<Verdict> {
    let run = self_tests(false)?;
    run.ended(&Ending::Status(0))?;
    let counts = run.counts();
    ensure!(counts.all("kvm_eoi") > 0, run.failure("KVM counted nothing at all"));
    for feature in &FEATURES {
        let counted = (feature.counted)(&counts);
        ensure!(
            counted == 0,
            run.failure(&format!("{}: {counted} times without being offered", feature.name))
        );
    }
    Ok(Verdict::Kept)
}

/// KVM refuses what it did not offer: a guest that uses it all the same dies of that.
fn each_may_be_missing() -> Result<Verdict> {
    for feature in &FEATURES {
        let without = format!("--without={}", feature.bits);
        let options = Options { smp: 2, append: "test=kvm".into(), ..on(Machine::Vmm, &[&without]) };
        let run = lab::run("self_test", &options)?;
        run.ended(&Ending::Status(0))?;
        let counted = (feature.counted)(&run.counts());
        ensure!(
            counted == 0,
            run.failure(&format!("{}: {counted} times without being offered", feature.name))
        );
    }
    Ok(Verdict::Kept)
}

/// A message of a device arrives at a CPU whose APIC ID takes more than eight bits where the host has more for it; else no such
/// message is made. The guest asserts where it arrives, the monitor counts what was sent.
fn far_messages() -> Result<Verdict> {
    const IDS: &str = "--apic-ids=0,300";
    for (vmm, far) in [(&[IDS, "--with=msi-ext-dest-id"][..], 1), (&[IDS], 0)] {
        let options = Options { append: "test=a_message_reaches".into(), ..on(Machine::Vmm, vmm) };
        let run = lab::run("self_test", &options)?;
        run.ended(&Ending::Status(0))?.says(&["a_message_reaches", "ok"])?;
        let sent = run.counts().vmm("far_messages");
        ensure!(sent == far, run.failure(&format!("{sent} messages went to a large APIC ID, not {far}")));
    }
    Ok(Verdict::Kept)
}

/// A kvm-pvm host tells itself by a register. One that reads as something else changes nothing; one that lies, and does not take
/// the registration, leaves a guest of KVM as any other.
fn signature() -> Result<Verdict> {
    for (msr, written) in [("--msr=0x4b564d11,0x1", 0..=0), ("--msr=0x4b564d11,0x4d5650", 1..=2)] {
        let run = lab::run("hello", &on(Machine::Vmm, &[msr]))?;
        run.ended(&Ending::Status(0))?.says(&["Hello from Pliant"])?;
        let writes = run.counts().vmm("refused_msr_writes");
        ensure!(written.contains(&writes), run.failure(&format!("{msr}: {writes} writes to such registers")));
    }
    Ok(Verdict::Kept)
}

/// Only who does not want it says so: the host polls by itself.
fn host_poll() -> Result<Verdict> {
    for (append, without, told) in
        [("kvm=-host-poll", "", 1), ("", "", 0), ("kvm=-host-poll", "--without=poll-control", 0)]
    {
        let vmm: &[&str] = if without.is_empty() { &[] } else { &[without] };
        let run = lab::run("hello", &Options { append: append.into(), ..on(Machine::Vmm, vmm) })?;
        run.ended(&Ending::Status(0))?;
        let writes = run.counts().of("kvm_msr", MSR_POLL_CONTROL);
        ensure!(
            writes == told,
            run.failure(&format!("{append:?}: the host was told {writes} times, not {told}"))
        );
    }
    Ok(Verdict::Kept)
}

/// The guest asserts the number of calls.
fn one_hypercall() -> Result<Verdict> {
    let options = Options { smp: 4, append: "test=interrupts_to_many".into(), ..on(Machine::Vmm, &[]) };
    let run = lab::run("self_test", &options)?;
    run.ended(&Ending::Status(0))?.says(&["interrupts_to_many", "ok"])?;
    Ok(Verdict::Kept)
}

/// The guest's CPUs ask each its own clock, or one for all, and no one of them sees time go back.
fn unstable_clocks() -> Result<Verdict> {
    for vmm in [&["--without=clocksource-stable"][..], &[]] {
        let options = Options { smp: 2, append: "test=time_goes_on".into(), ..on(Machine::Vmm, vmm) };
        let run = lab::run("self_test", &options)?;
        run.ended(&Ending::Status(0))?.says(&["time_goes_on", "ok"])?;
    }
    Ok(Verdict::Kept)
}

/// Some pages take a quarter of a second each. With asynchronous page faults another thread has the CPU for all of that time,
/// without them the CPU stands still, and the other has what the scheduler gives it otherwise.
fn late_pages() -> Result<Verdict> {
    const LATE: &str = "--late=12,4,250";
    /// The difference is more than ten times, on a machine of even speed.
    const MUCH_MORE: u64 = 3;
    let counted = |run: &Run| -> Result<u64> {
        run.ended(&Ending::Status(0))?;
        ensure!(run.counts().vmm("late_pages") > 0, run.failure("no page came late"));
        let said = run.console().split("another thread counted to ").nth(1);
        let number = said.and_then(|said| said.split(' ').next()?.parse().ok());
        number.with_context(|| run.failure("the guest tells no number"))
    };
    let small = |vmm: &[&str]| Options { memory: "32M".into(), ..on(Machine::Vmm, vmm) };
    let with = lab::run("late_pages", &small(&[LATE]))?;
    let without = lab::run("late_pages", &small(&[LATE, "--without=async-pf-int"]))?;
    let (much, little) = (counted(&with)?, counted(&without)?);
    ensure!(
        much > MUCH_MORE * little,
        with.failure(&format!(
            "another thread counted to {much}, without asynchronous page faults to {little}"
        ))
    );
    // One is for the registration.
    let taken = |run: &Run| run.counts().of("kvm_msr", MSR_ASYNC_PF_ACK);
    ensure!(taken(&with) > 1, with.failure("KVM was not told that a page's interrupt has been taken"));
    ensure!(taken(&without) == 0, without.failure("KVM was told of interrupts that it did not offer"));
    Ok(Verdict::Kept)
}

/// The shell's line on stolen time, after it slept on a CPU that others want too.
fn stolen(vmm: &[&str]) -> Result<String> {
    let mut line = String::new();
    let run = lab::run_nested("shell", &on(Machine::Vmm, vmm), |guest| {
        let mut at = guest.wait_for(lab::PROMPT, 0, PATIENCE)?;
        // Work, so that the CPU is wanted at all.
        for command in ["mem", "ops", "info", "interrupts"] {
            guest.send(format!("{command}\r").as_bytes())?;
            at = guest.wait_for("pliant> ", at, PATIENCE)?;
        }
        guest.send(b"clock\r")?;
        let from = guest.wait_for("stolen ", at, PATIENCE)?;
        let to = guest.wait_for(" from CPU 0", from, PATIENCE)?;
        line = guest.written(from, to);
        guest.send(b"poweroff\r")
    })?;
    run.ended(&Ending::PowerOff)?;
    Ok(line)
}

fn stolen_time_is_seen() -> Result<Verdict> {
    const NOTHING: &str = "0.000000ns";
    let (some, none) = (stolen(&["--rivals=2"])?, stolen(&["--rivals=2", "--without=steal-time"])?);
    ensure!(!some.contains(NOTHING), "with two rivals, the guest says {some:?} was stolen");
    ensure!(none.contains(NOTHING), "without the feature, the guest says {none:?} was stolen");
    Ok(Verdict::Kept)
}

/// The kernel's test, on a CPU that others have two thirds of: it must not find that too little was stolen.
fn equal_shares() -> Result<Verdict> {
    let test = "test=threads_share_what_the_host_leaves";
    let run = lab::run("self_test", &Options { append: test.into(), ..on(Machine::Vmm, &["--rivals=2"]) })?;
    run.ended(&Ending::Status(0))?;
    let summary = run.summary()?;
    ensure!(summary == (1, 0, 0), run.failure(&format!("passed, failed, skipped: {summary:?}")));
    Ok(Verdict::Kept)
}

/// The date in the guest lies between two of its host's; each clock shows whole seconds.
fn clock_agrees() -> Result<Verdict> {
    const DATE: &str = "date -u -d @$(($(date +%s) SHIFT)) '+%Y-%m-%d %H:%M:%S UTC'";
    let (mut before, mut date, mut after) = (String::new(), String::new(), String::new());
    let run = lab::run_nested("shell", &on(Machine::Vmm, &[]), |guest| {
        let at = guest.wait_for(lab::PROMPT, 0, PATIENCE)?;
        before = guest.host(&DATE.replace("SHIFT", "- 1"))?;
        guest.send(b"clock\r")?;
        let from = guest.wait_for("wall      ", at, PATIENCE)?;
        let to = guest.wait_for(" UTC", from, PATIENCE)?;
        date = guest.written(from, to);
        after = guest.host(&DATE.replace("SHIFT", "+ 1"))?;
        guest.send(b"poweroff\r")
    })?;
    run.ended(&Ending::PowerOff)?;
    ensure!(
        before <= date && date <= after,
        run.failure(&format!("{date:?} is not in {before:?}..={after:?}"))
    );
    Ok(Verdict::Kept)
}

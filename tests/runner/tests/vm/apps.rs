//! The apps: how little they need, what the shell answers.

use std::fs;

use anyhow::ensure;
use runner::command::size;
use runner::qemu::{Ending, Machine, Options};

use crate::lab::{self, PATIENCE};
use crate::platforms::says_hello;
use crate::row::{Row, Verdict};

pub(crate) fn rows() -> Vec<Row> {
    let small = |machine, memory: &str| Options { machine, memory: memory.into(), ..Options::default() };
    let microvm = small(Machine::Microvm, "4M");
    let q35 = small(Machine::Q35, "16M");
    vec![
        Row::new("size::hello_keeps_its_budget", "hello", hello_keeps_its_budget),
        Row::new("size::the_file_that_boots_is_stripped", "hello", the_file_that_boots_is_stripped),
        Row::new("memory::hello_boots_with_4m_on_microvm", "hello", move || says_hello(&microvm)),
        Row::new("memory::hello_boots_with_16m_on_q35", "hello", move || says_hello(&q35)),
        Row::new("shell::answers_a_script", "shell", shell_answers_a_script),
        Row::new("shell::reboot_resets_the_machine", "shell", || shell_ends("reboot", &Ending::Reset)),
        Row::new("shell::panic_ends_with_its_status", "shell", || shell_ends("panic", &Ending::Status(2))),
    ]
}

fn hello_keeps_its_budget() -> anyhow::Result<Verdict> {
    let bytes = size::stripped_bytes(&lab::guest("hello")?)?;
    ensure!(
        bytes < size::HELLO_BUDGET_BYTES,
        "hello is {bytes} bytes, its budget {}",
        size::HELLO_BUDGET_BYTES
    );
    Ok(Verdict::Kept)
}

fn the_file_that_boots_is_stripped() -> anyhow::Result<Verdict> {
    let elf = fs::read(lab::guest("hello")?.elf)?;
    let linked = runner::guest::elf::Linked::parse(&elf)?;
    ensure!(linked.items.is_empty(), "{} symbols are left", linked.items.len());
    ensure!(linked.sections.iter().any(|section| section.name == ".symbols"), "it has no section .symbols");
    Ok(Verdict::Kept)
}

/// Typed commands come in, answers go out, and `poweroff` ends the machine.
fn shell_answers_a_script() -> anyhow::Result<Verdict> {
    let script = [
        ("help", "poweroff"),
        ("info", "MiB"),
        ("mem", "free"),
        ("ops", "irq_disable"),
        ("features", "that the native backend knows of"),
    ];
    let (mut running, line) = lab::start("shell", &Options::default())?;
    let mut at = running.wait_for(lab::PROMPT, 0, PATIENCE)?;
    for (command, answer) in script {
        running.send(format!("{command}\r").as_bytes())?;
        at = running.wait_for(command, at, PATIENCE)?;
        at = running.wait_for(answer, at, PATIENCE)?;
    }
    running.send(b"poweroff\r")?;
    lab::finish(running, &line)?.ended(&Ending::PowerOff)?;
    Ok(Verdict::Kept)
}

fn shell_ends(command: &str, ending: &Ending) -> anyhow::Result<Verdict> {
    let (mut running, line) = lab::start("shell", &Options::default())?;
    running.wait_for(lab::PROMPT, 0, PATIENCE)?;
    running.send(format!("{command}\r").as_bytes())?;
    lab::finish(running, &line)?.ended(ending)?;
    Ok(Verdict::Kept)
}

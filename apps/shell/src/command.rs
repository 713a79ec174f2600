//! The commands: what each is called and says of itself, and which function does it.
#![forbid(unsafe_code)]

use kernel::println;

use crate::{act, look};

/// A command's name with its arguments, and what it does.
type Entry = (&'static str, &'static str);

/// In the order in which `help` shows them.
const COMMANDS: &[Entry] = &[
    ("help", "lists the commands"),
    ("info", "what this guest is, how it was booted, what runs it"),
    ("mem", "memory map, free frames, heap"),
    ("ops", "each paravirtual operation: what stands at its call sites, and how many there are"),
    ("features", "what the hypervisor offers, and whether it is used"),
    ("irq", "interrupts by vector"),
    ("clock", "time since the start, date, rate of the time stamp counter"),
    ("log [LEVEL]", "shows or sets the log level: off, error, warn, info, debug, trace"),
    ("echo TEXT", "prints TEXT"),
    ("sleep SECONDS", "waits; the CPU halts meanwhile"),
    ("panic", "panics: backtrace, then the guest ends with status 2"),
    ("fault", "overflows the stack: report, then the guest ends with status 3"),
    ("reboot", "restarts the machine"),
    ("poweroff", "switches the machine off"),
    ("exit [STATUS]", "ends the guest with a status from 0 to 79"),
];

/// Does what the line says.
pub(crate) async fn execute(line: &str) {
    let line = line.trim();
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = argument.trim();
    match name {
        "" => {}
        "help" => help(),
        "info" => look::info(),
        "mem" => look::memory(),
        "ops" => look::operations(),
        "features" => look::features(),
        "irq" => look::interrupts(),
        "clock" => look::clock(),
        "log" => act::log(argument),
        "echo" => println!("{argument}"),
        "sleep" => act::sleep(argument).await,
        "panic" => panic!("asked for by the shell"),
        "fault" => println!("{}", act::fault(0)),
        "reboot" => kernel::power::reboot(),
        "poweroff" => kernel::power::off(),
        "exit" => act::exit(argument),
        _ => println!("{name:?} is no command. `help` lists them."),
    }
}

fn help() {
    for (usage, what) in COMMANDS {
        println!("  {usage:<15}{what}");
    }
}

//! The host's KVM, where there is one.

use runner::command::doctor;
use runner::qemu::{Accel, Ending, Machine, Options};

use crate::lab::{self, PATIENCE};
use crate::platforms::{says_hello, self_test};
use crate::row::{Row, Verdict};

pub(crate) fn rows() -> Vec<Row> {
    let microvm = || Options { machine: Machine::Microvm, accel: Accel::Kvm, ..Options::default() };
    let q35 = move || Options { machine: Machine::Q35, ..microvm() };
    vec![
        Row::new("kvm::hello_on_microvm", "hello", move || with_kvm(&microvm(), says_hello)),
        Row::new("kvm::hello_on_q35", "hello", move || with_kvm(&q35(), says_hello)),
        Row::new("kvm::self_test_on_microvm", "self_test", move || with_kvm(&microvm(), self_test)),
        Row::new("kvm::a_guest_that_does_not_register_runs", "hello", move || {
            let unregistered = Options { append: "kvm=-pvm".into(), ..microvm() };
            with_kvm(&unregistered, |options| {
                let run = lab::run("hello", options)?;
                run.ended(&Ending::Status(0))?.says(&["kvm operations"])?.says(&["Hello"])?;
                Ok(Verdict::Kept)
            })
        }),
        Row::new("kvm::registers_where_the_host_is_kvm_pvm", "shell", move || {
            if !doctor::is_kvm_pvm() {
                return Ok(Verdict::Skipped("this host's KVM is not kvm-pvm".into()));
            }
            with_kvm(&microvm(), interrupts_are_disabled_by_a_store)
        }),
    ]
}

fn with_kvm(
    options: &Options,
    body: impl FnOnce(&Options) -> anyhow::Result<Verdict>,
) -> anyhow::Result<Verdict> {
    match doctor::kvm() {
        Err(why) => Ok(Verdict::Skipped(why)),
        Ok(_) => body(options),
    }
}

/// The registered guest's `irq_disable` is one store to memory, and nothing else.
fn interrupts_are_disabled_by_a_store(options: &Options) -> anyhow::Result<Verdict> {
    let (mut running, line) = lab::start("shell", options)?;
    running.wait_for("kvm-pvm operations", 0, PATIENCE)?;
    let at = running.wait_for("app main after", 0, PATIENCE)?;
    running.send(b"ops\r")?;
    let at = running.wait_for("irq_disable", at, PATIENCE)?;
    running.wait_for("bytes 64 c6 04 25 00 00 00 00 00", at, PATIENCE)?;
    running.send(b"exit\r")?;
    lab::finish(running, &line)?.ended(&Ending::Status(0))?;
    Ok(Verdict::Kept)
}

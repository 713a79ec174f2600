//! The host's KVM, where there is one.

use runner::command::doctor;
use runner::qemu::{Accel, Machine, Options};

use crate::platforms::{says_hello, self_test};
use crate::row::{Row, Verdict};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("kvm::hello_on_microvm", "hello", || with_kvm(says_hello)),
        Row::new("kvm::self_test_on_microvm", "self_test", || {
            if doctor::is_kvm_pvm() {
                return Ok(Verdict::Skipped(
                    "kvm-pvm host: a guest that does not register with it is emulated, and would test for minutes".into(),
                ));
            }
            with_kvm(self_test)
        }),
    ]
}

fn with_kvm(body: impl FnOnce(&Options) -> anyhow::Result<Verdict>) -> anyhow::Result<Verdict> {
    match doctor::kvm() {
        Err(why) => Ok(Verdict::Skipped(why)),
        Ok(_) => body(&Options { machine: Machine::Microvm, accel: Accel::Kvm, ..Options::default() }),
    }
}

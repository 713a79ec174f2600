//! Runs every `kernel_test!` whose name contains what `test=` on the command line says, all without it.
//! With `dump=text` it then hands its own code over, for the proof that every call site is patched, and waits for a key.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod dump;

use kernel::app::{self, ExitStatus};

kernel::app!(main);

async fn main() -> ExitStatus {
    let status = kernel::test::run(app::cmdline().get("test").unwrap_or("")).await;
    if app::cmdline().get("dump") == Some("text") {
        dump::print();
        // A console may be late: whoever reads it says when all has come.
        kernel::console::read_byte().await;
    }
    status
}

//! What the linker gathered in the image: the app's main, the kernel tests, the text itself.
//!
//! An app and a test are told to the kernel by a record in the image, not by a call. The records are written
//! by the two naked functions here, so that `kernel::app!` and `kernel_test!` expand to safe code only.
//! Neighbours: `boot/link.ld` (keeps and brackets the sections), `app`, `test`, `image` (the image's bounds).
#![cfg(target_os = "none")]

use core::arch::naked_asm;

use crate::{
    app::{App, ExitStatus},
    test::{KernelTest, Test},
};

unsafe extern "Rust" {
    static __text_start: u8;
    static __text_end: u8;
    static __start_kernel_tests: u8;
    static __stop_kernel_tests: u8;
    static PLIANT_APP: fn() -> ExitStatus;
}

/// Makes `A` the app of this image. What counts is that it is compiled; nobody calls it.
///
/// The record is the symbol `PLIANT_APP`: an image without an app, or with two, does not build.
#[unsafe(naked)]
pub extern "C" fn app_record<A: App>() {
    naked_asm!(
        ".pushsection .rodata.pliant_app, \"a\", @progbits",
        ".balign 8",
        ".globl PLIANT_APP",
        // As a label it would be refused by a lint against what is wanted here: that two cannot be.
        ".set PLIANT_APP, .",
        ".quad {run}",
        ".popsection",
        "ret",
        run = sym A::run,
    )
}

/// Registers the kernel test `T`. What counts is that it is compiled; nobody calls it.
#[unsafe(naked)]
pub extern "C" fn test_record<T: KernelTest>() {
    naked_asm!(
        ".pushsection kernel_tests, \"a\", @progbits",
        ".balign 8",
        ".quad {describe}",
        ".popsection",
        "ret",
        describe = sym T::describe,
    )
}

/// The app of this image: runs it to its end and gives its exit status.
pub fn app() -> fn() -> ExitStatus {
    // SAFETY:
    // 1. `PLIANT_APP` is defined by `app_record` alone, as the address of an `App::run` of this very type.
    // 2. It is read-only data, there for as long as the image is.
    unsafe { PLIANT_APP }
}

/// Every registered kernel test, in link order.
pub fn tests() -> impl Iterator<Item = Test> {
    let start = (&raw const __start_kernel_tests).cast::<fn() -> Test>();
    let len_bytes = (&raw const __stop_kernel_tests).addr().saturating_sub(start.addr());
    // SAFETY:
    // 1. The linker script brackets the section `kernel_tests` with these two symbols.
    // 2. Only `test_record` writes to the section: one aligned, never null function pointer of this type each.
    // 3. It is read-only data, there for as long as the image is.
    let records = unsafe { core::slice::from_raw_parts(start, len_bytes / size_of::<fn() -> Test>()) };
    records.iter().map(|describe| describe())
}

/// The image's code as it stands in memory, call sites patched.
pub fn text() -> &'static [u8] {
    let start = &raw const __text_start;
    let len_bytes = (&raw const __text_end).addr().saturating_sub(start.addr());
    // SAFETY:
    // 1. The linker script places the two symbols around `.text`, which is mapped readable.
    // 2. Nothing writes to it any more: `hypervisor::patch` is the second stage of the start and the only
    //    writer, and whoever asks here runs as, or is started by, the last stage.
    unsafe { core::slice::from_raw_parts(start, len_bytes) }
}

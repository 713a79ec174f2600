//! The running code and what was patched into it, as lines that the host's proof reads back.
//!
//! `pv-dump text START LENGTH`, then `pv-hex BASE64` lines, then a `pv-site ADDRESS LENGTH OP FORM` line for each
//! call site with the form `inline:BYTES`, `call:TARGET` or `jump:TARGET`, then `pv-dump end`. Addresses and
//! bytes in hex. Neighbours: `tests/runner/src/proof/mod.rs` (the reader).
#![forbid(unsafe_code)]

use alloc::{format, string::String, vec::Vec};
use core::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use kernel::{console, cpu::sections, println, pv_ops};
use pv_ops::{sites::Installed, table::Class};

/// Bytes of code in a line: 76 characters of base64.
const LINE_BYTES: usize = 57;

/// Lines after which the console must catch up: Xen's keeps 16 KiB for a reader that is late.
const LINES_AT_ONCE: usize = 64;

/// Prints the dump.
pub(crate) fn print() {
    let text = sections::text();
    println!("pv-dump text {:#x} {}", text.as_ptr().addr(), text.len());
    for lines in text.chunks(LINES_AT_ONCE * LINE_BYTES) {
        for line in lines.chunks(LINE_BYTES) {
            println!("pv-hex {}", STANDARD.encode(line));
        }
        console::flush();
    }
    let ops: Vec<_> = pv_ops::ops().collect();
    for (number, site) in pv_ops::sites().enumerate() {
        if number % LINES_AT_ONCE == 0 {
            console::flush();
        }
        if let (Some(op), Some(info)) = (ops.get(site.op), site.info()) {
            println!("pv-site {:#x} {} {} {}", site.address, site.length, op.name, form(op.form, info.class));
        }
    }
    println!("pv-dump end");
}

fn form(installed: Installed, class: Class) -> String {
    match installed {
        Installed::Inline(bytes) => {
            let mut form = String::from("inline:");
            for byte in bytes {
                // Writing to a string does not fail.
                let _ = write!(form, "{byte:02x}");
            }
            form
        }
        Installed::Direct(target) if class == Class::Jump => format!("jump:{target:#x}"),
        Installed::Direct(target) => format!("call:{target:#x}"),
        Installed::Indirect(_) | Installed::Nothing => String::from("unpatched"),
    }
}

//! Tells what the host offers to a guest, as a table for people and as one JSON document for programs (docs/probe.md).
//!
//! Reads in this order: `document` (values, their table and their JSON) · `host` (how the guest was booted, who announces
//! itself, which features are used) · `machine` (CPU, clocks, interrupts, devices) · `costs` (what operations cost) ·
//! `vmware` (an interface that announces itself by a port) · `deviations` (what is not as specified).
//!
//! With `bench` this is an app with unsafe code: it executes what it measures.
#![no_std]
#![no_main]

extern crate alloc;

mod costs;
mod deviations;
mod document;
mod host;
mod machine;
mod vmware;

use alloc::{string::ToString, vec};

use document::Value;
use kernel::println;

kernel::app!(main);

/// The version of the document: the keys that docs/probe.md promises.
const SCHEMA: &str = "pliant-probe/2";
/// The lines around the document.
const BEGIN: &str = "-----BEGIN PLIANT PROBE-----";
const END: &str = "-----END PLIANT PROBE-----";

async fn main() {
    let document = Value::Object(vec![
        ("schema", SCHEMA.into()),
        ("boot", host::boot()),
        ("cpu", machine::cpu()),
        ("hypervisors", host::hypervisors()),
        ("backend", host::backend()),
        ("clocks", machine::clocks()),
        ("interrupts", machine::interrupts()),
        ("devices", machine::devices().await),
        ("vmware", vmware::ask().map_or(Value::Null, vmware::Answer::into_value)),
        ("costs", costs::measure()),
        ("deviations", deviations::find()),
    ]);
    document.print_table();
    println!("{BEGIN}");
    println!("{}", document.to_string());
    println!("{END}");
}

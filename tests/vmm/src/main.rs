//! A small machine monitor: boots a guest's ELF file by PVH on KVM, and offers what QEMU does not.
//!
//! The machine: RAM, CPUs, KVM's interrupt controllers and PIT, a serial line at COM1 on standard input and output, QEMU's
//! `isa-debug-exit` port, ACPI tables, a device that sends messages. No PCI. Beyond QEMU: KVM's features one by one, APIC IDs of any size, memory that
//! comes late, CPUs that others use (`options`). It ends with QEMU's exit codes, and a report on standard error (`report`).
//!
//! The road: `options` → `machine` (`memory`, `acpi`, `start_info`) → `vcpu` (`cpuid`, `registers`), which asks `ports`
//! (`serial`, `messages`) → `report`. Beside it: `late` (memory), `rivals` (CPU time).

mod acpi;
mod cpuid;
mod features;
mod late;
mod machine;
mod memory;
mod messages;
mod options;
mod ports;
mod registers;
mod report;
mod rivals;
mod serial;
mod start_info;
mod vcpu;

use std::process::ExitCode;

use options::Options;
use report::End;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let report = Options::parse(&arguments).and_then(|options| machine::run(&options));
    match report {
        Ok(report) => {
            eprintln!("{report}");
            report.end.exit_code()
        }
        Err(error) => {
            eprintln!("vmm: {error:#}");
            End::FAILED
        }
    }
}

//! How the guest ended and what it cost, as one line for those who read.
//!
//! `vmm: ended=END NAME=NUMBER ...` where END is `status-N` (a write to the exit port), `power-off`, `reset`,
//! `triple-fault`, `timeout`, or `stopped-WHY`, and the numbers are exits to this program by reason, and the rest of
//! [`Counts`].

use std::fmt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It wrote this to the exit port.
    Status(u8),
    PowerOff,
    Reset,
    TripleFault,
    /// KVM cannot go on, and says why in a word.
    Stopped(String),
    Timeout,
}

/// What is counted, by the name in the report.
macro_rules! counts {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// Counted while the guest runs.
        #[derive(Debug, Default)]
        pub(crate) struct Counts { $($(#[$doc])* pub(crate) $field: AtomicU64,)* }

        impl Counts {
            fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counts! {
    /// Exits for port input.
    io_in,
    /// Exits for port output.
    io_out,
    /// Exits for reads of memory that is not there.
    mmio_read,
    /// Exits for writes to memory that is not there.
    mmio_write,
    /// Hypercalls that KVM passed on.
    hypercall,
    /// Exits for a signal.
    interrupted,
    /// Exits for other reasons.
    other,
    /// Writes to registers that neither KVM nor this program knows, or takes.
    refused_msr_writes,
    /// Pages that came late.
    late_pages,
    /// Messages to APIC IDs above 255.
    far_messages,
}

impl Counts {
    /// One more.
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is told at the end.
pub(crate) struct Report {
    pub(crate) end: End,
    pub(crate) counts: Vec<(&'static str, u64)>,
}

impl Report {
    pub(crate) fn new(end: End, counts: &Counts) -> Self {
        Self { end, counts: counts.all() }
    }
}

impl End {
    /// This program failed.
    pub(crate) const FAILED: ExitCode = ExitCode::FAILURE;

    /// QEMU's exit code: odd for a status, 0 for everything else.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Status(status) => ExitCode::from(status.wrapping_shl(1) | 1),
            _ => ExitCode::SUCCESS,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status-{status}"),
            Self::PowerOff => f.write_str("power-off"),
            Self::Reset => f.write_str("reset"),
            Self::TripleFault => f.write_str("triple-fault"),
            Self::Stopped(why) => write!(f, "stopped-{why}"),
            Self::Timeout => f.write_str("timeout"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vmm: ended={}", self.end)?;
        self.counts.iter().try_for_each(|(name, count)| write!(f, " {name}={count}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_one_line_of_names_and_numbers() {
        let counts = Counts::default();
        Counts::add(&counts.io_out);
        let line = Report::new(End::Stopped("internal-error".into()), &counts).to_string();
        assert!(line.starts_with("vmm: ended=stopped-internal-error io_in=0 io_out=1 "), "{line}");
        assert_eq!(End::Status(16).to_string(), "status-16");
    }
}

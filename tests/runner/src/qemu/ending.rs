//! How a guest ended, from what QEMU leaves behind.

use std::fmt;
use std::time::Duration;

/// What a guest adds to its status before it writes it to isa-debug-exit.
const STATUS_BASE: i32 = 16;
/// Statuses from here on are ours; a guest's own end below.
const FIRST_OWN: u8 = 80;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest said so, with a status: 0 success, 1 failed, 2 panic, 3 fatal exception, 4 boot refused.
    Status(u8),
    /// The guest switched the machine off.
    PowerOff,
    /// The guest reset the machine.
    Reset,
    /// An exception while the machine delivered a double fault: it reset itself.
    TripleFault,
    /// The hypervisor ended the guest: it asked for that, or did what no guest may.
    Crashed,
    /// The machine monitor, QEMU or our own, stopped the machine and says why, for example `internal-error`.
    Stopped(String),
    /// It ran for longer than it was given and was killed.
    Timeout(Duration),
    /// The user left.
    Left,
    /// The machine monitor itself failed; its words.
    Qemu(String),
}

/// What is known once QEMU is gone.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    /// QEMU's exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// The reason in QMP's event `SHUTDOWN`.
    pub shutdown: Option<String>,
    /// The run state in which QEMU stopped the machine by itself.
    pub stopped: Option<String>,
    /// Whether the CPU reset log speaks of a triple fault.
    pub triple_fault: bool,
    /// The ending that the console told of, if that is how it ended.
    pub told: Option<Ending>,
    /// How long the guest ran before we killed it, if we did.
    pub timeout: Option<Duration>,
    /// What QEMU wrote to its standard error.
    pub errors: String,
}

impl Traces {
    /// What they add up to.
    pub fn ending(&self) -> Ending {
        if let Some(after) = self.timeout {
            return Ending::Timeout(after);
        }
        if let Some(ending) = &self.told {
            return ending.clone();
        }
        if let Some(state) = &self.stopped {
            return Ending::Stopped(state.clone());
        }
        match self.code {
            Some(code) if code & 1 == 1 && code >> 1 >= STATUS_BASE => {
                u8::try_from((code >> 1) - STATUS_BASE).map_or_else(|_| self.qemu_failed(), Ending::Status)
            }
            Some(0) => match self.shutdown.as_deref() {
                Some("guest-shutdown") => Ending::PowerOff,
                Some("guest-reset") if self.triple_fault => Ending::TripleFault,
                Some("guest-reset") => Ending::Reset,
                Some("host-qmp-quit" | "host-ui") | None => Ending::Left,
                Some("host-signal") => Ending::Left,
                Some(other) => Ending::Stopped(other.to_owned()),
            },
            _ => self.qemu_failed(),
        }
    }

    /// Takes what our own machine monitor reports in `errors` (tests/vmm, `report`).
    pub(crate) fn hear_vmm(&mut self) {
        let report = self.errors.lines().find_map(|line| line.strip_prefix("vmm: ended="));
        match report.and_then(|report| report.split(' ').next()) {
            Some("power-off") => self.shutdown = Some("guest-shutdown".into()),
            Some("reset") => self.shutdown = Some("guest-reset".into()),
            Some("triple-fault") => {
                self.shutdown = Some("guest-reset".into());
                self.triple_fault = true;
            }
            Some(other) => self.stopped = other.strip_prefix("stopped-").map(str::to_owned),
            None => {}
        }
    }

    fn qemu_failed(&self) -> Ending {
        let how = self.code.map_or_else(|| "was killed".to_owned(), |code| format!("exited with {code}"));
        let words = self.errors.trim_end();
        Ending::Qemu(if words.is_empty() { how } else { format!("{how}: {words}") })
    }
}

impl Ending {
    /// The exit code of this tool: the guest's own status, or one above all of them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Status(status) => *status,
            Self::PowerOff | Self::Left => 0,
            Self::Reset => FIRST_OWN,
            Self::TripleFault => FIRST_OWN + 1,
            Self::Stopped(_) => FIRST_OWN + 2,
            Self::Crashed => FIRST_OWN + 3,
            Self::Timeout(_) => 124,
            Self::Qemu(_) => 125,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(0) => f.write_str("exit status 0 (success)"),
            Self::Status(1) => f.write_str("exit status 1 (failed)"),
            Self::Status(2) => f.write_str("exit status 2 (panic)"),
            Self::Status(3) => f.write_str("exit status 3 (fatal exception)"),
            Self::Status(4) => f.write_str("exit status 4 (boot refused)"),
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::PowerOff => f.write_str("power off"),
            Self::Reset => f.write_str("reset"),
            Self::TripleFault => f.write_str("triple fault"),
            Self::Crashed => f.write_str("crash, by the hypervisor's word"),
            Self::Stopped(state) => write!(f, "the monitor stopped the machine: {state}"),
            Self::Timeout(after) => write!(f, "timeout after {:.0} s", after.as_secs_f32()),
            Self::Left => f.write_str("left by the user"),
            Self::Qemu(words) => write!(f, "the monitor {words}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(code: i32) -> Traces {
        Traces { code: Some(code), ..Traces::default() }
    }

    /// isa-debug-exit makes QEMU exit with twice the written value plus one.
    #[test]
    fn statuses_come_back_as_the_guest_meant_them() {
        for status in 0..FIRST_OWN {
            let written = 16 + i32::from(status);
            let ending = code(written * 2 + 1).ending();
            assert_eq!(ending, Ending::Status(status));
            assert_eq!(ending.exit_code(), status);
        }
    }

    #[test]
    fn qemus_own_errors_are_not_taken_for_statuses() {
        let traces = Traces { errors: "no such machine\n".into(), ..code(1) };
        assert_eq!(traces.ending(), Ending::Qemu("exited with 1: no such machine".into()));
        assert_eq!(Traces::default().ending(), Ending::Qemu("was killed".into()));
    }

    #[test]
    fn power_off_reset_and_triple_fault_differ() {
        let shut = |reason: &str| Traces { shutdown: Some(reason.into()), ..code(0) };
        assert_eq!(shut("guest-shutdown").ending(), Ending::PowerOff);
        assert_eq!(shut("guest-reset").ending(), Ending::Reset);
        let triple = Traces { triple_fault: true, ..shut("guest-reset") };
        assert_eq!(triple.ending(), Ending::TripleFault);
        let codes: std::collections::BTreeSet<u8> =
            [Ending::PowerOff, Ending::Reset, Ending::TripleFault, Ending::Timeout(Duration::ZERO)]
                .map(|ending| ending.exit_code())
                .into();
        assert_eq!(codes.len(), 4);
    }

    #[test]
    fn our_own_monitor_tells_the_ending_in_words() {
        let ending = |report: &str| {
            let mut traces = Traces { errors: format!("vmm: ended={report} io_in=1\n"), ..code(0) };
            traces.hear_vmm();
            traces.ending()
        };
        assert_eq!(ending("power-off"), Ending::PowerOff);
        assert_eq!(ending("reset"), Ending::Reset);
        assert_eq!(ending("triple-fault"), Ending::TripleFault);
        assert_eq!(ending("stopped-internal-error"), Ending::Stopped("internal-error".into()));
    }

    #[test]
    fn what_we_did_ourselves_comes_first() {
        let killed = Traces { timeout: Some(Duration::from_secs(7)), ..Traces::default() };
        assert_eq!(killed.ending().to_string(), "timeout after 7 s");
        let stopped = Traces { stopped: Some("internal-error".into()), ..Traces::default() };
        assert_eq!(stopped.ending(), Ending::Stopped("internal-error".into()));
    }
}

//! The Linux that has KVM, ready to run guests.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use super::Rig;
use crate::linux::{Linux, Setting};
use crate::qemu::{Line, Serial, Tee};

/// QEMU's best processor, without the identity of a K8 (KVM writes MSRs that it lacks), without MONITOR, and without XSAVE:
/// QEMU 7.2 does not stop a guest at XSETBV, so KVM would not know what it sets.
const CPU: &str = "max,family=23,model=1,stepping=2,-monitor,-xsave";
/// Quick to boot; and no watchdog of clocks, which a host under load would wake.
const KERNEL: &str = "console=ttyS0 quiet loglevel=4 mitigations=off nokaslr tsc=reliable no_timer_check \
    cryptomgr.notests panic=-1 rdinit=/init";
/// Memory of Linux itself, its programs included.
const OWN_MEGABYTES: u32 = 448;
/// Memory for guests when nobody needs more; with as much, a start takes the saved state.
const GUEST_MEGABYTES: u32 = 320;

/// Linux with KVM. Dropping it switches the machine off.
pub struct Host {
    pub(super) linux: Linux,
    /// SHA-256 of the files that it has, by their place there.
    pub(super) files: Vec<(String, String)>,
}

impl Host {
    /// Starts it, from the saved state if its guests' `megabytes` fit there; their console is shown, or only kept.
    ///
    /// # Errors
    /// The machine does not start.
    pub fn start(rig: &Rig, megabytes: u32, tee: Tee) -> Result<Self> {
        let linux = if megabytes > GUEST_MEGABYTES {
            Linux::boot_showing(&setting(rig, megabytes), tee)?
        } else {
            Linux::start(&setting(rig, GUEST_MEGABYTES), tee)?
        };
        let mut host = Self { linux: linux.nudged(), files: Vec::new() };
        // The clock of a state that was saved stood still.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        host.run(&format!("date -s @{now}"))?;
        Ok(host)
    }

    /// Whether a start would find a saved state.
    pub fn is_saved(rig: &Rig) -> bool {
        setting(rig, GUEST_MEGABYTES).is_saved()
    }

    /// Executes a shell command there, which must succeed; returns what it printed.
    ///
    /// # Errors
    /// It fails, takes too long, or the host is gone.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.linux.run(command)
    }

    /// What Linux wrote to its console, for a reader who looks for a reason.
    pub fn last_words(&self) -> String {
        self.linux.last_words()
    }
}

fn setting(rig: &Rig, guest_megabytes: u32) -> Setting {
    let mut line = Line::bare("q35", "tcg", CPU);
    line.equip(1, &format!("{}M", OWN_MEGABYTES + guest_megabytes), Serial::Plain);
    line.option("-kernel", rig.kernel());
    line.option("-append", KERNEL);
    line.option("-initrd", rig.initramfs());
    Setting { name: "the Linux with nested KVM", saved_in: "kvm-ready", parts: rig.parts().clone(), line }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SVM is in QEMU's best processor only; a second processor would have QEMU's threads race.
    #[test]
    fn linux_gets_one_processor_that_can_run_guests() {
        let line = setting(&Rig::at("/rig".into()), 64).line.to_string();
        for part in
            ["-accel tcg -cpu max,family=23", "-smp 1 -m 512M", "-kernel /rig/vmlinuz", "rdinit=/init"]
        {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}

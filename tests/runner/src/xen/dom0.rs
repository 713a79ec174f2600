//! A machine with Xen and Linux as dom0, ready to create guests.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Rig, machine};
use crate::linux::Linux;
use crate::qemu::Tee;

/// Memory for guests when nobody needs more; with as much, a start takes the saved state.
const GUEST_MEGABYTES: u32 = 320;

/// Xen and its dom0. Dropping it switches the machine off.
pub struct Dom0 {
    pub(super) linux: Linux,
    /// Domains created so far.
    pub(super) domains: u32,
}

impl Dom0 {
    /// Starts it, from the saved state if its guests' `megabytes` fit there; their console is shown, or only kept.
    ///
    /// # Errors
    /// The machine does not start.
    pub fn start(rig: &Rig, megabytes: u32, tee: Tee) -> Result<Self> {
        let linux = if megabytes > GUEST_MEGABYTES {
            Linux::boot_showing(&machine::with_linux(rig, megabytes), tee)?
        } else {
            Linux::start(&machine::with_linux(rig, GUEST_MEGABYTES), tee)?
        };
        Ok(Self { linux: linux.nudged(), domains: 0 })
    }

    /// Whether a start would find a saved state.
    pub fn is_saved(rig: &Rig) -> bool {
        machine::with_linux(rig, GUEST_MEGABYTES).is_saved()
    }

    /// Executes a shell command in dom0, which must succeed; returns what it printed.
    ///
    /// # Errors
    /// It fails, takes too long, or dom0 is gone.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.linux.run(command)
    }

    /// Executes a shell command in dom0; returns its status and what it printed.
    ///
    /// # Errors
    /// It takes too long, or dom0 is gone.
    pub fn ask(&mut self, command: &str) -> Result<(u8, String)> {
        self.linux.ask(command)
    }

    /// Writes a file in dom0.
    ///
    /// # Errors
    /// It is too large, or dom0 has no room.
    pub fn put(&mut self, bytes: &[u8], path: &str) -> Result<()> {
        self.linux.put(bytes, path)
    }

    /// How many domains have ended so far, in dom0's count.
    pub(super) fn events(&self) -> usize {
        self.linux.channel.events()
    }

    /// Waits until another domain has ended; false when the time is over.
    ///
    /// # Errors
    /// Dom0 is gone.
    pub(super) fn event_after(&self, seen: usize, timeout: Duration) -> Result<bool> {
        self.linux.channel.event_after(seen, timeout).with_context(|| self.last_words())
    }

    /// The QEMU line it was started by.
    pub fn line(&self) -> &str {
        self.linux.line()
    }

    /// What Xen and dom0 wrote to their console, for a reader who looks for a reason.
    pub fn last_words(&self) -> String {
        self.linux.last_words()
    }
}

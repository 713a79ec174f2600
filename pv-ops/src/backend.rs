//! The descriptor of a backend: how it is recognised, and its ops.
//! Neighbours: `detect` (the ordered list of backends), `table` (installs one), `native` (the one in this build).

use crate::{
    detect::{Hypervisors, Reader},
    ops::PvOps,
};

/// One way to run: natively, or as a guest of one hypervisor.
pub struct Backend {
    /// The name, as `pv=` and the log say it.
    pub name: &'static str,
    /// Whether this backend can serve here, judged by what the hypervisors found say and by their feature leaves.
    pub detect: fn(&Hypervisors, Reader<'_>) -> bool,
    /// Every table that `setup` may choose. Call sites are as long as the longest inline form in any of them.
    pub tables: &'static [&'static PvOps],
    /// Prepares the backend on the boot CPU, before any of its ops runs, and chooses its table.
    pub setup: fn() -> &'static PvOps,
}

impl core::fmt::Debug for Backend {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Backend({})", self.name)
    }
}

impl PartialEq for Backend {
    /// A backend is itself: names are unique.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

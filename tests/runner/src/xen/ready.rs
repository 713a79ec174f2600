//! The state of a dom0 that has booted and waits for commands, saved by QEMU: starting from it saves dom0's boot.
//!
//! `<cache>/xen-ready/<key>`, about 100 MB; the key covers the rig, the QEMU line and QEMU itself.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Rig;
use super::linux::Dom0;
use super::machine;
use crate::host::packages::QEMU;
use crate::host::process::{clean, output};
use crate::host::progress::Step;
use crate::host::{cache, paths};

/// The directory of saved states in the cache.
const KIND: &str = "xen-ready";
/// How many states stay there beside the newest.
const KEPT: usize = 2;

/// The state that `rig` is ready in with `guest_megabytes` for its guests; boots it once if there is none.
///
/// # Errors
/// Dom0 does not boot.
pub(super) fn get(rig: &Rig, guest_megabytes: u32) -> Result<PathBuf> {
    let key = key(rig, guest_megabytes)?;
    cache::get_or_make(KIND, &key, |file| {
        let _step = Step::new("booting Xen's dom0 once");
        Dom0::boot(rig, guest_megabytes)?.save(file)?;
        cache::prune(KIND, KEPT);
        Ok(())
    })
}

/// Whether `rig` has such a state already.
pub(super) fn exists(rig: &Rig, guest_megabytes: u32) -> bool {
    key(rig, guest_megabytes).is_ok_and(|key| paths::cache_directory().join(KIND).join(key).exists())
}

fn key(rig: &Rig, guest_megabytes: u32) -> Result<String> {
    let line = machine::with_linux(rig, guest_megabytes, Path::new("/ports"), Path::new("/disk")).to_string();
    let qemu = output(clean(Path::new(QEMU.what)).arg("--version"))?;
    Ok(cache::digest(&[rig.key().as_bytes(), line.as_bytes(), qemu.as_bytes()]))
}

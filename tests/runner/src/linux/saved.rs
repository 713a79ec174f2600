//! The state of a Linux that has booted and waits for commands, saved by QEMU: starting from it saves the boot.
//!
//! `<cache>/<kind>/<key>`, 100 to 200 MB; the key covers the rig, the QEMU line and QEMU itself.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::machine::{Linux, Setting};
use crate::host::packages::QEMU;
use crate::host::process::{clean, output};
use crate::host::progress::Step;
use crate::host::{cache, paths};

/// How many states stay there beside the newest.
const KEPT: usize = 2;

/// The state that `setting` is ready in; boots it once if there is none.
///
/// # Errors
/// It does not boot.
pub(super) fn get(setting: &Setting) -> Result<PathBuf> {
    let key = key(setting)?;
    cache::get_or_make(setting.saved_in, &key, |file| {
        let _step = Step::new(format!("booting {} once", setting.name));
        Linux::boot(setting)?.save(file)?;
        cache::prune(setting.saved_in, KEPT);
        Ok(())
    })
}

/// Whether there is such a state already.
pub(super) fn exists(setting: &Setting) -> bool {
    key(setting).is_ok_and(|key| paths::cache_directory().join(setting.saved_in).join(key).exists())
}

fn key(setting: &Setting) -> Result<String> {
    let line = setting.line(Path::new("/ports"), Path::new("/disk")).to_string();
    let qemu = output(clean(Path::new(QEMU.what)).arg("--version"))?;
    Ok(cache::digest(&[setting.parts.key().as_bytes(), line.as_bytes(), qemu.as_bytes()]))
}

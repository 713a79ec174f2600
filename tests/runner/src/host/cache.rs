//! Content-addressed files outside the checkout: looked up by key, made once, published by rename.
//!
//! A lock file lets a second invocation wait for the first one's result instead of building it again.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::paths;

/// How many disk images and ISOs stay in the cache; the oldest go first.
pub const IMAGES_KEPT: usize = 24;

/// Returns `<cache>/<kind>/<key>`; when it is not there, `make` is called once with a path beside it to create.
///
/// # Errors
/// What `make` reports, or that the cache cannot be written.
pub fn get_or_make(kind: &str, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let directory = paths::cache_directory().join(kind);
    let done = directory.join(key);
    if done.exists() {
        return Ok(done);
    }
    let _lock = lock(&directory, key)?;
    if done.exists() {
        return Ok(done);
    }
    let unfinished = directory.join(format!("{key}.new"));
    remove(&unfinished)?;
    make(&unfinished)?;
    fs::rename(&unfinished, &done)
        .with_context(|| format!("cannot move {} to {}", unfinished.display(), done.display()))?;
    Ok(done)
}

/// Holds the lock of one cache entry until it is dropped.
///
/// # Errors
/// The cache directory cannot be written.
pub fn lock(directory: &Path, key: &str) -> Result<File> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create the cache directory {}", directory.display()))?;
    let path = directory.join(format!("{key}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// Removes a file or a directory tree, if it is there.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    result.with_context(|| format!("cannot remove {}", path.display()))
}

/// Deletes all but the newest `kept` entries of `<cache>/<kind>`; their lock files stay, somebody may hold one.
pub fn prune(kind: &str, kept: usize) {
    let Ok(entries) = fs::read_dir(paths::cache_directory().join(kind)) else { return };
    let mut done: Vec<_> = entries
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .filter(|(_, path)| {
            path.extension().is_none_or(|extension| extension != "new" && extension != "lock")
        })
        .collect();
    done.sort();
    let surplus = done.len().saturating_sub(kept);
    for (_, path) in done.into_iter().take(surplus) {
        // Another invocation may have removed it first; what counts is that it is gone.
        let _ = remove(&path);
    }
}

/// SHA-256 of `parts`, each preceded by its length so that no two lists collide, in lower-case hex.
pub fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// SHA-256 of a file's bytes as `sha256sum` prints it.
///
/// # Errors
/// The file cannot be read.
pub fn file_sha256(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(sha256(&bytes))
}

/// SHA-256 of `bytes` as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_tell_apart_lists_with_equal_concatenations() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
    }

    /// FIPS 180-4, the one-block example.
    #[test]
    fn sha256_is_the_standard_one() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}

//! Where things lie: the checkout, its target directory, the cache outside of it.

use std::env;
use std::path::{Path, PathBuf};

/// The Rust target that guests are built for.
pub const GUEST_TARGET: &str = "x86_64-unknown-none";

/// The top of the checkout this tool was built from.
pub fn checkout() -> PathBuf {
    let runner = Path::new(env!("CARGO_MANIFEST_DIR"));
    runner.ancestors().nth(2).unwrap_or(runner).to_owned()
}

/// The workspace's own target directory, whatever the caller's `CARGO_TARGET_DIR` says: guests land here.
pub fn target_directory() -> PathBuf {
    checkout().join("target")
}

/// Where finished guest files go: `<app>.elf` (boots), `<app>.debug` (for gdb), images.
pub fn output_directory() -> PathBuf {
    target_directory().join("pliant")
}

/// What outlives a checkout: `$PLIANT_CACHE`, else `$XDG_CACHE_HOME/pliant`, else `~/.cache/pliant`.
pub fn cache_directory() -> PathBuf {
    cache_directory_from(|name| env::var_os(name).map(PathBuf::from))
}

fn cache_directory_from(variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let set = |name: &str| variable(name).filter(|path| path.is_absolute());
    set("PLIANT_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|base| base.join("pliant")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/pliant")))
        .unwrap_or_else(|| target_directory().join("cache"))
}

/// Where cargo keeps the sources of crates: `$CARGO_HOME`, else `~/.cargo`.
pub fn cargo_home() -> Option<PathBuf> {
    let set = |name| env::var_os(name).map(PathBuf::from);
    set("CARGO_HOME").or_else(|| set("HOME").map(|home| home.join(".cargo")))
}

/// The file `name` in the directories of `PATH`.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_follows_the_most_specific_variable() {
        let all = |name: &str| Some(PathBuf::from(format!("/{name}")));
        assert_eq!(cache_directory_from(all), Path::new("/PLIANT_CACHE"));
        let no_own = |name: &str| (name != "PLIANT_CACHE").then(|| PathBuf::from(format!("/{name}")));
        assert_eq!(cache_directory_from(no_own), Path::new("/XDG_CACHE_HOME/pliant"));
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/home/me"));
        assert_eq!(cache_directory_from(home), Path::new("/home/me/.cache/pliant"));
        assert_eq!(cache_directory_from(|_| None), target_directory().join("cache"));
    }

    #[test]
    fn checkout_is_the_directory_that_holds_the_workspace() {
        assert!(checkout().join("tests/runner/Cargo.toml").is_file());
    }
}

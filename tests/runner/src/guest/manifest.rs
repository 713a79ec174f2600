//! What a guest's `Cargo.toml` asks of the host tool, in `package.metadata.pliant`: the ports to forward, the profile to ship by.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::host::paths;

/// The TCP ports that the guest called `name` serves: `tcp = [80]`.
///
/// # Errors
/// There is no such guest, or a port is no number.
pub fn served_ports(name: &str) -> Result<Vec<u16>> {
    let package = super::package_of(name)?;
    let Some(value) = wish(&package, "tcp")? else { return Ok(Vec::new()) };
    let list = value.trim_start_matches('[').trim_end_matches(']');
    let ports = list.split(',').map(str::trim).filter(|port| !port.is_empty());
    ports.map(|port| port.parse().with_context(|| format!("{package}: port {port}"))).collect()
}

/// Whether the guests of `package` are built for speed (`profile = "fast"`), as those that move much data want; the others are
/// built for the least size.
///
/// # Errors
/// Its manifest cannot be read, or names a profile that does not exist.
pub(super) fn ships_fast(package: &str) -> Result<bool> {
    match wish(package, "profile")?.as_deref() {
        None | Some("\"release\"") => Ok(false),
        Some("\"fast\"") => Ok(true),
        Some(other) => bail!("{package} asks for the profile {other}; there are \"fast\" and \"release\""),
    }
}

/// What stands behind `key =` in the section of the manifest of `package`.
fn wish(package: &str, key: &str) -> Result<Option<String>> {
    let manifests = ["apps", "tests/kernels"].map(|place| paths::checkout().join(place).join(package));
    let manifest = manifests.iter().map(|place| place.join("Cargo.toml")).find(|path| path.is_file());
    let text = fs::read_to_string(manifest.with_context(|| format!("{package} has no manifest"))?)?;
    Ok(find(&text, key))
}

fn find(manifest: &str, key: &str) -> Option<String> {
    let mut section = manifest.lines().map(str::trim).skip_while(|line| *line != "[package.metadata.pliant]");
    section.next()?;
    let lines = section.take_while(|line| !line.starts_with('['));
    let mut pairs = lines.filter_map(|line| line.split_once('='));
    pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::find;

    const MANIFEST: &str =
        "[package]\nname = \"a\"\n[package.metadata.pliant]\ntcp = [80, 81]\n[[bin]]\nprofile = \"fast\"\n";

    #[test]
    fn a_wish_is_found_in_its_section_only() {
        assert_eq!(find(MANIFEST, "tcp").as_deref(), Some("[80, 81]"));
        assert_eq!(find(MANIFEST, "profile"), None);
        assert_eq!(find("[package]\n", "tcp"), None);
    }
}

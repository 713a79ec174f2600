//! Linux modules in the order they can be inserted: each after those it depends on (`depends=` in its `.modinfo`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The modules below a directory, by name; `-` and `_` are the same in a module's name.
pub(crate) struct Modules {
    files: BTreeMap<String, PathBuf>,
}

/// A module to insert.
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
}

impl Modules {
    /// Finds all modules below `directory`.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn below(directory: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut open = vec![directory.to_owned()];
        while let Some(directory) = open.pop() {
            let entries =
                fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
            for entry in entries {
                let path = entry?.path();
                if path.is_dir() && !path.is_symlink() {
                    open.push(path);
                } else if path.extension().is_some_and(|extension| extension == "ko") {
                    files.insert(plain(&path.file_stem().unwrap_or_default().to_string_lossy()), path);
                }
            }
        }
        Ok(Self { files })
    }

    /// `wanted` and what they depend on, in an order in which they can be inserted.
    ///
    /// # Errors
    /// A module is not there, or modules depend on each other in a circle.
    pub(crate) fn in_order(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        order(wanted, |name| {
            let path = self.files.get(name).with_context(|| format!("there is no module {name}"))?;
            fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        })
    }
}

fn order(wanted: &[&str], read: impl Fn(&str) -> Result<Vec<u8>>) -> Result<Vec<Module>> {
    fn visit(
        name: &str,
        done: &mut Vec<Module>,
        above: &mut Vec<String>,
        read: &impl Fn(&str) -> Result<Vec<u8>>,
    ) -> Result<()> {
        let name = plain(name);
        if done.iter().any(|module| module.name == name) {
            return Ok(());
        }
        if above.contains(&name) {
            bail!("modules depend on each other: {} {name}", above.join(" "));
        }
        let data = read(&name)?;
        above.push(name);
        for needed in depends(&data) {
            visit(&needed, done, above, read)?;
        }
        let name = above.pop().unwrap_or_default();
        done.push(Module { name, data });
        Ok(())
    }
    let mut done = Vec::new();
    for name in wanted {
        visit(name, &mut done, &mut Vec::new(), &read)?;
    }
    Ok(done)
}

fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// The list after `depends=`, which stands between zero bytes in the module's `.modinfo`.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let list = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(list);
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wanted: &[&str], known: &[(&str, &str)]) -> Result<String> {
        let modules = order(wanted, |name| {
            let (_, depends) = known.iter().find(|(known, _)| *known == name).context("unknown")?;
            Ok(format!("\x7fELF\0license=GPL\0depends={depends}\0vermagic=6\0").into_bytes())
        })?;
        Ok(modules.into_iter().map(|module| module.name).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_module_comes_after_what_it_depends_on_and_once() {
        let known = [("bridge", "stp,llc"), ("stp", "llc"), ("llc", ""), ("loop", "")];
        assert_eq!(names(&["loop", "bridge", "llc"], &known).unwrap(), "loop llc stp bridge");
    }

    #[test]
    fn dashes_are_underscores() {
        assert_eq!(
            names(&["xen-netback"], &[("xen_netback", "a-b"), ("a_b", "")]).unwrap(),
            "a_b xen_netback"
        );
    }

    #[test]
    fn circles_and_unknown_modules_are_errors() {
        assert!(names(&["a"], &[("a", "b"), ("b", "a")]).unwrap_err().to_string().contains("a b a"));
        assert!(names(&["a"], &[("a", "b")]).is_err());
    }
}

//! What the documents promise a reader about the tree: every path they name is there.

use std::fs;
use std::path::{Path, PathBuf};

use runner::host::paths;

/// Where a path in the tree begins.
const ROOMS: [&str; 7] = ["kernel/", "drivers/", "boot/", "pv-ops/", "tests/", "apps/", "docs/"];

#[test]
fn every_path_in_the_documents_exists() {
    let root = paths::checkout();
    let mut missing = Vec::new();
    let mut seen = 0;
    for document in documents(&root) {
        let text = fs::read_to_string(&document).expect("a document can be read");
        for path in text.split('`').skip(1).step_by(2).filter(|quoted| is_path(quoted)).flat_map(expanded) {
            seen += 1;
            if !root.join(&path).exists() {
                missing.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert!(seen > 50, "only {seen} paths were found in the documents");
    assert!(missing.is_empty(), "not there:\n{}", missing.join("\n"));
}

fn documents(root: &Path) -> Vec<PathBuf> {
    let docs =
        fs::read_dir(root.join("docs")).expect("there are documents").flatten().map(|entry| entry.path());
    let mut all: Vec<_> =
        docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    all.push(root.join("README.md"));
    all
}

/// Whether the words between two backticks name one place; `<device>` and `*` name several.
fn is_path(quoted: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-{},".contains(character);
    ROOMS.iter().any(|room| quoted.starts_with(room)) && quoted.chars().all(plain)
}

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn expanded(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let Some((names, after)) = rest.split_once('}') else { return vec![path.to_owned()] };
    names.split(',').flat_map(|name| expanded(&format!("{before}{name}{after}"))).collect()
}

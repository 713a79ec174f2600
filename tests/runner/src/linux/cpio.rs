//! A cpio archive in the format "newc": what Linux unpacks as its first root file system (Linux `driver-api/early-userspace/buffer-format`).
//!
//! The same entries give the same bytes: no times, no owners, sorted by path.

use std::collections::BTreeMap;

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
/// The archive is padded to this.
const BLOCK_BYTES: usize = 512;
const DIRECTORY: u32 = 0o04_0755;
const FILE: u32 = 0o10_0000;
const LINK: u32 = 0o12_0777;
const CHARACTER_DEVICE: u32 = 0o02_0600;

/// The contents of an archive, by path without a leading slash.
#[derive(Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, Entry>,
}

struct Entry {
    mode: u32,
    data: Vec<u8>,
    /// Major and minor number of a device.
    device: (u32, u32),
}

impl Archive {
    /// Adds a file with these permissions, and the directories above it.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, data: Vec<u8>) {
        self.add(path, FILE | permissions, data, (0, 0));
    }

    /// Adds a symbolic link to `target`.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.add(path, LINK, target.into(), (0, 0));
    }

    /// Adds a directory.
    pub(crate) fn directory(&mut self, path: &str) {
        self.add(path, DIRECTORY, Vec::new(), (0, 0));
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.add(path, CHARACTER_DEVICE, Vec::new(), (major, minor));
    }

    fn add(&mut self, path: &str, mode: u32, data: Vec<u8>, device: (u32, u32)) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            let above = || Entry { mode: DIRECTORY, data: Vec::new(), device: (0, 0) };
            self.entries.entry(path[..at].to_owned()).or_insert_with(above);
        }
        self.entries.insert(path.to_owned(), Entry { mode, data, device });
    }

    /// The archive's bytes. Directories come before what is in them: a path sorts after its beginnings.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            put(&mut out, number, path, entry);
        }
        put(&mut out, 0, TRAILER, &Entry { mode: 0, data: Vec::new(), device: (0, 0) });
        out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
        out
    }
}

/// Thirteen fields of eight hexadecimal digits, then name and data, each padded to four bytes.
fn put(out: &mut Vec<u8>, inode: usize, path: &str, entry: &Entry) {
    let (major, minor) = (entry.device.0 as usize, entry.device.1 as usize);
    let (size, name) = (entry.data.len(), path.len() + 1);
    let (uid, gid, links, mtime, checksum) = (0, 0, 1, 0, 0);
    let mode = entry.mode as usize;
    out.extend(MAGIC.bytes());
    for field in [inode, mode, uid, gid, links, mtime, size, 0, 0, major, minor, name, checksum] {
        out.extend(format!("{field:08X}").bytes());
    }
    out.extend(path.bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(&entry.data);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every name in `bytes` with its mode and data, read as the format says.
    fn read(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut at = 0;
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[at..at + 6], MAGIC.as_bytes());
            let field = |index: usize| {
                let text = &bytes[at + 6 + 8 * index..at + 14 + 8 * index];
                usize::from_str_radix(std::str::from_utf8(text).unwrap(), 16).unwrap()
            };
            let name_at = at + 110;
            let name = String::from_utf8(bytes[name_at..name_at + field(11) - 1].to_vec()).unwrap();
            let data_at = (name_at + field(11)).next_multiple_of(4);
            let data = bytes[data_at..data_at + field(6)].to_vec();
            if name == TRAILER {
                return entries;
            }
            entries.push((name, field(1) as u32, data));
            at = (data_at + field(6)).next_multiple_of(4);
        }
    }

    #[test]
    fn files_come_back_with_the_directories_above_them() {
        let mut archive = Archive::default();
        archive.file("/bin/deep/xl", 0o755, b"odd".to_vec());
        archive.link("/bin/sh", "busybox");
        let bytes = archive.bytes();
        assert_eq!(bytes.len() % BLOCK_BYTES, 0);
        let wanted = [
            ("bin", DIRECTORY, &b""[..]),
            ("bin/deep", DIRECTORY, b""),
            ("bin/deep/xl", 0o10_0755, b"odd"),
            ("bin/sh", LINK, b"busybox"),
        ]
        .map(|(name, mode, data)| (name.to_owned(), mode, data.to_vec()));
        assert_eq!(read(&bytes), wanted);
    }

    #[test]
    fn devices_carry_their_numbers() {
        let mut archive = Archive::default();
        archive.device("dev/console", 5, 1);
        let bytes = archive.bytes();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("0000000500000001"), "{text}");
        assert!(text.contains("00002180"), "{text}");
    }

    #[test]
    fn the_order_of_adding_does_not_show() {
        let (mut one, mut other) = (Archive::default(), Archive::default());
        one.file("a", 0o644, b"1".to_vec());
        one.file("b/c", 0o644, b"2".to_vec());
        other.file("b/c", 0o644, b"2".to_vec());
        other.file("a", 0o644, b"1".to_vec());
        assert_eq!(one.bytes(), other.bytes());
    }
}

//! A disk image that a guest rewrites.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use runner::host::{cache, paths};
use runner::qemu::Line;

use crate::lab::Run;

/// The guest changes the disk in blocks of this many bytes.
const BLOCK_BYTES: usize = 4096;
const DISK_BYTES: usize = 4 << 20;

/// A disk image of its own for a row; it goes when the row is over.
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) content: Vec<u8>,
}

impl Image {
    pub(crate) fn new(row: &str) -> Result<Self> {
        let directory = paths::output_directory().join("disks");
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{}-{}.img", row.replace("::", "-"), std::process::id()));
        // Bytes in which no two blocks are alike (the linear congruence of Numerical Recipes).
        let mut state = 1u32;
        let step = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let content: Vec<u8> = std::iter::repeat_with(step).take(DISK_BYTES).collect();
        fs::write(&path, &content)?;
        Ok(Self { path, content })
    }

    /// What guest `disk` makes of it: every byte changed by its block, the last block zero.
    pub(crate) fn rewritten(&self) -> Vec<u8> {
        let blocks = self.content.chunks(BLOCK_BYTES).enumerate();
        let mut bytes: Vec<u8> = blocks
            .flat_map(|(block, bytes)| {
                let change = (block as u8).wrapping_mul(31).wrapping_add(17);
                bytes.iter().map(move |byte| byte ^ change)
            })
            .collect();
        bytes[DISK_BYTES - BLOCK_BYTES..].fill(0);
        bytes
    }

    fn sha256(&self) -> Result<String> {
        cache::file_sha256(&self.path)
    }

    /// Blocks that the guest changes one by one.
    pub(crate) fn blocks(&self) -> u64 {
        (DISK_BYTES / BLOCK_BYTES) as u64
    }

    /// Where it is, as an option of QEMU's has it.
    pub(crate) fn file(&self) -> String {
        self.path.display().to_string().replace(',', ",,")
    }

    /// Adds the image to the line as the drive `disk`, which `more` says more of.
    pub(crate) fn attach(&self, line: &mut Line, more: &str) {
        let file = self.file();
        line.option("-drive", format!("id=disk,if=none,format=raw,discard=unmap,file={file}{more}"));
    }

    /// The image is now `expected`.
    pub(crate) fn ends_as(&self, run: &Run, expected: &[u8]) -> Result<()> {
        let (found, expected) = (self.sha256()?, cache::sha256(expected));
        ensure!(found == expected, run.failure(&format!("the image has sha256 {found}, not {expected}")));
        Ok(())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

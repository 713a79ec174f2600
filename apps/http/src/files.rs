//! What there is to get: files in memory, and those of the disk.
#![forbid(unsafe_code)]

use alloc::sync::Arc;

use crate::{disk, response::Status};

/// The files in memory.
const MEMORY: [(&str, &[u8]); 3] = [
    ("/", include_bytes!("../files/index.html")),
    ("/index.html", include_bytes!("../files/index.html")),
    ("/hello.txt", b"Hello, world!"),
];

/// Where the disk's files begin.
const DISK: &str = "/disk";

/// A file that was found.
#[derive(Clone)]
pub(crate) enum File {
    /// In memory.
    Memory(&'static [u8]),
    /// On the disk: its path there, and its length.
    Disk(Arc<str>, u64),
}

impl File {
    /// Bytes of it.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Disk(_, len) => *len,
        }
    }
}

/// The file at `path`.
///
/// # Errors
/// There is none, or the disk failed.
pub(crate) async fn find(path: &str) -> Result<File, Status> {
    if let Some((_, bytes)) = MEMORY.iter().find(|(name, _)| *name == path) {
        return Ok(File::Memory(bytes));
    }
    let on_disk = path.strip_prefix(DISK).filter(|rest| rest.starts_with('/')).ok_or(Status::NotFound)?;
    let on_disk: Arc<str> = on_disk.into();
    let len = disk::len(on_disk.clone()).await?;
    Ok(File::Disk(on_disk, len))
}

/// What a file is, by the end of its name.
pub(crate) fn content_type(path: &str) -> &'static str {
    let after = |byte: u8| path.as_bytes().iter().rposition(|&other| other == byte).map(|at| at + 1);
    let name = after(b'/').map_or(path, |at| &path[at..]);
    let end = after(b'.').map(|at| &path[at..]).filter(|end| end.len() < name.len());
    match end {
        Some("html" | "htm") => "text/html; charset=utf-8",
        None if name.is_empty() => "text/html; charset=utf-8",
        Some("txt") => "text/plain; charset=utf-8",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        _ => "application/octet-stream",
    }
}

//! The file system on the first disk: one task has it, the others ask that task.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, collections::VecDeque, string::String, sync::Arc, vec, vec::Vec};
use core::{
    future::poll_fn,
    task::{Poll, Waker},
};

use ext4_view::{Ext4, Ext4Error, File};
use kernel::{
    devices::block::{self, Disk},
    mm::frame,
    println,
    sync::IrqMutex,
};

use crate::{cache::Cache, response::Status};

/// Bytes of a file that are read at a time, at most.
const PIECE_BYTES: u64 = 32 << 10;
/// Blocks that may be missing, one after the other, before a file is given up: more than any sound file system needs.
const MOST_FETCHES: usize = 4096;

/// A question, and its answer.
struct Job {
    path: Arc<str>,
    ask: Ask,
    state: IrqMutex<State>,
}

#[derive(Clone, Copy)]
enum Ask {
    Len,
    Read { at: u64, len: u64 },
}

enum Answer {
    Len(u64),
    Bytes(Vec<u8>),
}

#[derive(Default)]
struct State {
    answer: Option<Result<Answer, Status>>,
    waker: Option<Waker>,
}

static JOBS: IrqMutex<VecDeque<Arc<Job>>> = IrqMutex::new(VecDeque::new());
static WAKER: IrqMutex<Option<Waker>> = IrqMutex::new(None);

/// Bytes of the file at `path`.
///
/// # Errors
/// There is no such file, or no disk, or it failed.
pub(crate) async fn len(path: Arc<str>) -> Result<u64, Status> {
    match ask(path, Ask::Len).await? {
        Answer::Len(len) => Ok(len),
        Answer::Bytes(_) => Err(Status::InternalServerError),
    }
}

/// Some of the `len` bytes from `at` on, of the file at `path`; none at its end.
///
/// # Errors
/// As [`len()`].
pub(crate) async fn read(path: Arc<str>, at: u64, len: u64) -> Result<Vec<u8>, Status> {
    match ask(path, Ask::Read { at, len }).await? {
        Answer::Bytes(bytes) => Ok(bytes),
        Answer::Len(_) => Err(Status::InternalServerError),
    }
}

async fn ask(path: Arc<str>, ask: Ask) -> Result<Answer, Status> {
    let job = Arc::new(Job { path, ask, state: IrqMutex::default() });
    JOBS.lock().push_back(job.clone());
    let waker = WAKER.lock().take();
    waker.into_iter().for_each(Waker::wake);
    poll_fn(|cx| {
        let mut state = job.state.lock();
        match state.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    })
    .await
}

/// A file system, and the file that was read last.
pub(crate) struct Mounted {
    disk: Disk,
    cache: Cache,
    files: Ext4,
    open: Option<(Arc<str>, File)>,
}

/// Looks for an ext4 file system on the first disk.
pub(crate) async fn mount() -> Option<Mounted> {
    let disk = block::disks().into_iter().next()?;
    let blocks = (frame::statistics().free / 16).min(4096) as usize;
    let cache = Cache::new(blocks);
    let loaded = until_here(&disk, &cache, || Ext4::load(Box::new(cache.clone()))).await;
    match loaded {
        Ok(files) => {
            println!("http: ext4 on {} under /disk/", disk.name());
            Some(Mounted { disk, cache, files, open: None })
        }
        Err(error) => {
            println!("http: no ext4 on {}: {error}", disk.name());
            None
        }
    }
}

/// Answers questions for ever.
///
/// # Errors
/// None yet.
pub(crate) async fn serve(mut mounted: Option<Mounted>) -> Result<(), String> {
    loop {
        let job = poll_fn(|cx| {
            *WAKER.lock() = Some(cx.waker().clone());
            match JOBS.lock().pop_front() {
                Some(job) => Poll::Ready(job),
                None => Poll::Pending,
            }
        })
        .await;
        let answer = match &mut mounted {
            Some(mounted) => mounted.answer(&job).await,
            None => Err(Status::NotFound),
        };
        let mut state = job.state.lock();
        state.answer = Some(answer);
        state.waker.take().into_iter().for_each(Waker::wake);
    }
}

impl Mounted {
    async fn answer(&mut self, job: &Job) -> Result<Answer, Status> {
        match job.ask {
            Ask::Len => {
                let look = || self.files.metadata(&*job.path);
                let metadata = until_here(&self.disk, &self.cache, look).await.map_err(status)?;
                if metadata.is_dir() { Err(Status::NotFound) } else { Ok(Answer::Len(metadata.len())) }
            }
            Ask::Read { at, len } => self.read(&job.path, at, len.min(PIECE_BYTES)).await.map(Answer::Bytes),
        }
    }

    async fn read(&mut self, path: &Arc<str>, at: u64, len: u64) -> Result<Vec<u8>, Status> {
        let mut bytes = vec![0; len as usize];
        let mut done = 0;
        for _ in 0..MOST_FETCHES {
            // Most files lie in one piece: what comes next is fetched before it is missed.
            if self.open.as_ref().is_some_and(|(open, file)| open == path && file.position() == at)
                && let Some(next) = self.cache.next()
            {
                fetch(&self.disk, &self.cache, next).await?;
            }
            match self.read_here(path, at, &mut bytes, &mut done) {
                Ok(()) => {
                    bytes.truncate(done);
                    return Ok(bytes);
                }
                Err(error) => {
                    let missing = self.cache.take_missing().ok_or_else(|| status(error))?;
                    fetch(&self.disk, &self.cache, missing).await?;
                }
            }
        }
        Err(Status::InternalServerError)
    }

    /// Reads on where `done` bytes were read, as far as the blocks are here.
    fn read_here(
        &mut self,
        path: &Arc<str>,
        at: u64,
        bytes: &mut [u8],
        done: &mut usize,
    ) -> Result<(), Ext4Error> {
        let position = at + *done as u64;
        // After an error it is opened again: where it stands then is not told.
        let mut file = match self.open.take() {
            Some((open, file)) if open == *path && file.position() == position => file,
            _ => {
                let mut file = self.files.open(&**path)?;
                file.seek_to(position)?;
                file
            }
        };
        while *done < bytes.len() {
            match file.read_bytes(&mut bytes[*done..])? {
                0 => break,
                read => *done += read,
            }
        }
        self.open = Some((path.clone(), file));
        Ok(())
    }
}

async fn fetch(disk: &Disk, cache: &Cache, number: u64) -> Result<(), Status> {
    cache.fetch(disk, number).await.map_err(|error| {
        println!("http: {}: {error}", disk.name());
        Status::InternalServerError
    })
}

/// Tries `act` until all blocks that it needs are here.
async fn until_here<R>(
    disk: &Disk,
    cache: &Cache,
    mut act: impl FnMut() -> Result<R, Ext4Error>,
) -> Result<R, Ext4Error> {
    for _ in 0..MOST_FETCHES {
        match (act(), cache.take_missing()) {
            (Err(_), Some(missing)) => match cache.fetch(disk, missing).await {
                Ok(()) => {}
                Err(error) => return Err(Ext4Error::Io(format_error(error))),
            },
            (result, _) => return result,
        }
    }
    Err(Ext4Error::Io("it needs more blocks at once than there is room for".into()))
}

fn format_error(error: drivers::Error) -> Box<dyn core::error::Error + Send + Sync> {
    Box::new(error)
}

fn status(error: Ext4Error) -> Status {
    match error {
        Ext4Error::NotFound
        | Ext4Error::NotADirectory
        | Ext4Error::IsADirectory
        | Ext4Error::IsASpecialFile => Status::NotFound,
        _ => Status::InternalServerError,
    }
}

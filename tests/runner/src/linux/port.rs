//! The host's end of a virtio port of a Linux of ours: a socket that QEMU connects to when it starts.

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// How long QEMU may take to connect.
const PATIENCE: Duration = Duration::from_secs(30);

/// A socket's writing half, once it is there. Clones are the same port.
#[derive(Clone)]
pub(crate) struct Port(Arc<Shared>);

struct Shared {
    to: Mutex<Option<UnixStream>>,
    connected: Condvar,
    gone: AtomicBool,
}

impl Port {
    /// Listens at `path`; `read` gets the reading half, on a thread of its own.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn listen(path: &Path, read: impl FnOnce(UnixStream) + Send + 'static) -> Result<Self> {
        let listener =
            UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
        listener.set_nonblocking(true)?;
        let port = Self(Arc::new(Shared {
            to: Mutex::new(None),
            connected: Condvar::new(),
            gone: AtomicBool::new(false),
        }));
        let here = port.clone();
        thread::spawn(move || {
            if let Some(stream) = here.accept(&listener) {
                read(stream);
            }
        });
        Ok(port)
    }

    fn accept(&self, listener: &UnixListener) -> Option<UnixStream> {
        while !self.0.gone.load(Ordering::Relaxed) {
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(false).ok()?;
                *self.0.to.lock().ok()? = Some(stream.try_clone().ok()?);
                self.0.connected.notify_all();
                return Some(stream);
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Nobody will connect any more.
    pub(crate) fn close(&self) {
        self.0.gone.store(true, Ordering::Relaxed);
    }
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let poisoned = || io::Error::other("a thread that wrote here panicked");
        let to = self.0.to.lock().map_err(|_| poisoned())?;
        let waited = self.0.connected.wait_timeout_while(to, PATIENCE, |to| to.is_none());
        let (mut to, _) = waited.map_err(|_| poisoned())?;
        match to.as_mut() {
            Some(stream) => stream.write(bytes),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

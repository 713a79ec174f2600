//! TCP for apps: a listener with a backlog, and streams that are read and written (RFC 9293).
#![forbid(unsafe_code)]

use core::{
    future::poll_fn,
    net::SocketAddr,
    task::{Context, Poll},
};

use embedded_io_async::{ErrorType, Read, Write};
use smoltcp::socket::tcp::{Socket, State};

use super::{Error, Release, endpoint, shared, socket_addr, table::Id};

/// How much memory connections may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections that wait to be accepted, at most; who comes then is asked to try again later.
    pub backlog: usize,
    /// Connections of a listener at the same time, at most.
    pub connections: usize,
    /// Bytes that are kept of what the other end has sent, until they are read; more than [`MOST_RECEIVE_BYTES`] count as
    /// so many.
    pub receive_bytes: usize,
    /// Bytes that are kept of what was written, until the other end has them.
    pub send_bytes: usize,
}

/// The largest window that needs no scale (RFC 7323 §2.2). With a scale smoltcp 0.14 takes back what it has promised: a
/// window that is no multiple of it shrinks by the rest, what was sent into that is refused, and with it the
/// acknowledgements that came along, so that two ends that both wait for room wait for ever.
pub const MOST_RECEIVE_BYTES: usize = 65535;

impl Default for Options {
    fn default() -> Self {
        Self { backlog: 64, connections: 1024, receive_bytes: MOST_RECEIVE_BYTES, send_bytes: 64 << 10 }
    }
}

/// A port where connections are accepted, at all addresses of the guest. Dropping it closes it, and resets those that
/// were not accepted.
#[derive(Debug)]
pub struct TcpListener {
    number: usize,
}

impl TcpListener {
    /// Listens at `port`.
    ///
    /// # Errors
    /// Somebody else does; the network is not [up](super::up).
    pub fn bind(port: u16, options: Options) -> Result<Self, Error> {
        let number = shared()?.stack.lock().listen(port, options)?;
        Ok(Self { number })
    }

    /// The next connection, and who has opened it.
    ///
    /// # Errors
    /// None yet: the network does not go down.
    pub async fn accept(&mut self) -> Result<(TcpStream, SocketAddr), Error> {
        let shared = shared()?;
        let accept = poll_fn(|cx| match shared.stack.lock().accept(self.number, cx.waker()) {
            Some(connection) => Poll::Ready(connection),
            None => Poll::Pending,
        });
        let (id, remote) = accept.await;
        Ok((TcpStream { id }, socket_addr(remote)))
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        super::release(Release::Listener(self.number));
    }
}

/// A connection. Dropping it closes it: what was written still goes out.
#[derive(Debug)]
pub struct TcpStream {
    id: Id,
}

impl TcpStream {
    /// Connects to `remote`.
    ///
    /// # Errors
    /// Nobody answers there, or not in time; there is no way there; the network is not [up](super::up).
    pub async fn connect(remote: SocketAddr, options: Options) -> Result<Self, Error> {
        let id = shared()?.stack.lock().connect(endpoint(remote), &options)?;
        let stream = Self { id };
        stream
            .poll(|socket, cx| match socket.state() {
                State::SynSent | State::SynReceived => {
                    socket.register_send_waker(cx.waker());
                    Poll::Pending
                }
                State::Closed => Poll::Ready(Err(Error::Refused)),
                _ => Poll::Ready(Ok(())),
            })
            .await?;
        Ok(stream)
    }

    /// Reads into `buffer` what is there; 0 bytes at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The connection was reset.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let id = self.id;
        poll_fn(|cx| {
            let mut stack = shared()?.stack.lock();
            let socket = stack.socket(id).ok_or(Error::Reset)?;
            if !socket.can_recv() {
                return match socket.may_recv() {
                    true => {
                        socket.register_recv_waker(cx.waker());
                        Poll::Pending
                    }
                    false if socket.state() == State::Closed => Poll::Ready(Err(Error::Reset)),
                    false => Poll::Ready(Ok(0)),
                };
            }
            let was_full = socket.recv_queue() * 2 > socket.recv_capacity();
            let read = socket.recv_slice(buffer).map_err(|_| Error::Reset);
            if was_full {
                // The other end may wait for room.
                stack.touch_connection(id);
            }
            Poll::Ready(read)
        })
        .await
    }

    /// Writes as much of `bytes` as there is room for: one byte at least. Dropping the future writes nothing.
    ///
    /// # Errors
    /// The connection was reset or closed.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let id = self.id;
        poll_fn(|cx| {
            let mut stack = shared()?.stack.lock();
            let socket = stack.socket(id).ok_or(Error::Reset)?;
            match socket.send_slice(bytes) {
                Ok(0) => {
                    socket.register_send_waker(cx.waker());
                    Poll::Pending
                }
                Ok(written) => {
                    stack.touch_connection(id);
                    Poll::Ready(Ok(written))
                }
                Err(_) => Poll::Ready(Err(Error::Reset)),
            }
        })
        .await
    }

    /// Waits until the other end has everything that was written.
    ///
    /// # Errors
    /// The connection was reset.
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.poll(|socket, cx| match socket.send_queue() {
            0 => Poll::Ready(Ok(())),
            _ if !socket.is_active() => Poll::Ready(Err(Error::Reset)),
            _ => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
        })
        .await
    }

    /// Tells the other end that nothing more will be written. What it writes can still be read.
    pub fn shut_down(&mut self) {
        if let Ok(shared) = shared() {
            let mut stack = shared.stack.lock();
            if let Some(socket) = stack.socket(self.id) {
                socket.close();
                stack.touch_connection(self.id);
            }
        }
    }

    async fn poll<R>(
        &self,
        mut look: impl FnMut(&mut Socket<'static>, &mut Context<'_>) -> Poll<Result<R, Error>>,
    ) -> Result<R, Error> {
        poll_fn(|cx| {
            let mut stack = shared()?.stack.lock();
            match stack.socket(self.id) {
                Some(socket) => look(socket, cx),
                None => Poll::Ready(Err(Error::Reset)),
            }
        })
        .await
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        super::release(Release::Stream(self.id));
    }
}

impl ErrorType for TcpStream {
    type Error = Error;
}

impl Read for TcpStream {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        Self::read(self, buffer).await
    }
}

impl Write for TcpStream {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        Self::write(self, bytes).await
    }

    async fn flush(&mut self) -> Result<(), Error> {
        Self::flush(self).await
    }
}

//! UDP for apps (RFC 768).
#![forbid(unsafe_code)]

use alloc::vec;
use core::{future::poll_fn, net::SocketAddr, task::Poll};

use smoltcp::{
    iface::SocketHandle,
    socket::udp::{PacketBuffer, PacketMetadata, RecvError, SendError, Socket},
};

use super::{Error, Release, endpoint, shared, socket_addr};

/// Datagrams that are kept in each direction, at most.
const DATAGRAMS: usize = 64;
/// Bytes that they have together.
const BYTES: usize = 64 << 10;

/// A port for datagrams, at all addresses of the guest. Dropping it closes it; what was not sent by then is lost.
#[derive(Debug)]
pub struct UdpSocket {
    handle: SocketHandle,
}

impl UdpSocket {
    /// Takes `port`.
    ///
    /// # Errors
    /// The port is 0 or somebody else has it; the network is not [up](super::up).
    pub fn bind(port: u16) -> Result<Self, Error> {
        let shared = shared()?;
        let mut stack = shared.stack.lock();
        let sockets = stack.services.iter().filter_map(|(_, socket)| match socket {
            smoltcp::socket::Socket::Udp(socket) => Some(socket.endpoint().port),
            _ => None,
        });
        if port == 0 || sockets.into_iter().any(|taken| taken == port) {
            return Err(Error::PortInUse(port));
        }
        let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; DATAGRAMS], vec![0; BYTES]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.bind(port).map_err(|_| Error::PortInUse(port))?;
        Ok(Self { handle: stack.services.add(socket) })
    }

    /// The next datagram, who sent it, and how long it is; what does not fit into `buffer` is lost. Dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// The network is not up.
    pub async fn recv_from(&mut self, buffer: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        poll_fn(|cx| {
            let mut stack = shared()?.stack.lock();
            let socket = stack.services.get_mut::<Socket>(self.handle);
            match socket.recv() {
                Ok((bytes, from)) => {
                    let len = bytes.len().min(buffer.len());
                    buffer[..len].copy_from_slice(&bytes[..len]);
                    Poll::Ready(Ok((len, socket_addr(from.endpoint))))
                }
                Err(RecvError::Exhausted | RecvError::Truncated) => {
                    socket.register_recv_waker(cx.waker());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Sends a datagram; waits while there is no room for it.
    ///
    /// # Errors
    /// It is longer than the network takes in one frame, or there is no way there.
    pub async fn send_to(&mut self, bytes: &[u8], to: SocketAddr) -> Result<(), Error> {
        poll_fn(|cx| {
            let mut stack = shared()?.stack.lock();
            if bytes.len() > stack.datagram_bytes(to.is_ipv6()) {
                return Poll::Ready(Err(Error::TooLong));
            }
            let socket = stack.services.get_mut::<Socket>(self.handle);
            match socket.send_slice(bytes, endpoint(to)) {
                Ok(()) => {
                    stack.touch();
                    Poll::Ready(Ok(()))
                }
                Err(SendError::BufferFull) => {
                    socket.register_send_waker(cx.waker());
                    Poll::Pending
                }
                Err(SendError::Unaddressable) => Poll::Ready(Err(Error::Unreachable)),
            }
        })
        .await
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        super::release(Release::Datagrams(self.handle));
    }
}

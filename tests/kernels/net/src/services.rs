//! What is listened for.
#![forbid(unsafe_code)]

use alloc::{format, vec, vec::Vec};
use core::future::Future;

use kernel::{
    net::{Error, MOST_RECEIVE_BYTES, Options, TcpListener, TcpStream, UdpSocket},
    task::try_spawn,
};

/// Room for fast transfers.
pub(crate) const OPTIONS: Options =
    Options { backlog: 64, connections: 256, receive_bytes: MOST_RECEIVE_BYTES, send_bytes: 256 << 10 };
pub(crate) const PIECE_BYTES: usize = 64 << 10;

/// Serves all who connect. The port is open when this returns; the future does the rest.
fn serve<F>(port: u16, service: fn(TcpStream) -> F) -> impl Future<Output = ()>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let listener = TcpListener::bind(port, OPTIONS);
    async move {
        let Ok(mut listener) = listener else { return };
        while let Ok((stream, _)) = listener.accept().await {
            let _ = try_spawn(async move {
                let _ = service(stream).await;
            });
        }
    }
}

/// Sends back what comes (RFC 862).
pub(crate) fn echo() -> impl Future<Output = ()> {
    serve(7, |mut stream| async move {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let len = stream.read(&mut piece).await?;
            if len == 0 {
                return Ok(());
            }
            write_all(&mut stream, &piece[..len]).await?;
        }
    })
}

/// Takes what comes, and at the end says how much it was and its FNV-1a hash.
pub(crate) fn sink() -> impl Future<Output = ()> {
    serve(9, |mut stream| async move {
        let mut piece = vec![0; PIECE_BYTES];
        let (mut total, mut hash) = (0, Fnv::default());
        loop {
            let len = stream.read(&mut piece).await?;
            if len == 0 {
                break;
            }
            total += len;
            hash.add(&piece[..len]);
        }
        write_all(&mut stream, format!("{total} {:016x}\n", hash.0).as_bytes()).await
    })
}

/// Reads a number, and sends as many bytes of a pattern: byte `n` is the low byte of `n / 251 + n`.
pub(crate) fn source() -> impl Future<Output = ()> {
    serve(19, |mut stream| async move {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            if stream.read(&mut byte).await? == 0 || line.len() > 20 {
                return Ok(());
            }
            line.push(byte[0]);
        }
        let text = core::str::from_utf8(&line).unwrap_or("");
        let mut left: usize = text.trim().parse().unwrap_or(0);
        // The pattern repeats after 251 * 256 bytes.
        let pattern: Vec<u8> = (0..251 * 256usize).map(|at| (at / 251 + at) as u8).collect();
        while left > 0 {
            let len = left.min(pattern.len());
            write_all(&mut stream, &pattern[..len]).await?;
            left -= len;
        }
        Ok(())
    })
}

/// Sends back datagrams.
pub(crate) fn echo_datagrams() -> impl Future<Output = ()> {
    let socket = UdpSocket::bind(7);
    async move {
        let Ok(mut socket) = socket else { return };
        let mut datagram = vec![0; 2048];
        loop {
            let Ok((len, from)) = socket.recv_from(&mut datagram).await else { return };
            let _ = socket.send_to(&datagram[..len], from).await;
        }
    }
}

async fn write_all(stream: &mut TcpStream, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        let written = stream.write(bytes).await?;
        bytes = &bytes[written..];
    }
    Ok(())
}

/// The hash of Fowler, Noll and Vo, 64 bits.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

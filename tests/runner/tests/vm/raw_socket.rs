//! Frames as they are on a network device of the host: packet(7).

use std::ffi::CString;
use std::io::{Error, Read, Write};
use std::net::UdpSocket;
use std::os::fd::FromRawFd;
use std::time::Duration;

use anyhow::{Result, ensure};

/// All protocols, in network order (if_ether.h).
const ETH_P_ALL: u16 = 3u16.to_be();

/// A device's frames, in and out.
pub(crate) struct RawSocket(std::fs::File);

impl RawSocket {
    /// The frames of the device called `name`.
    pub(crate) fn open(name: &str) -> Result<Self> {
        let name = CString::new(name)?;
        // SAFETY: the name ends in a zero byte and is read only.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        ensure!(index > 0, "if_nametoindex: {}", Error::last_os_error());
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, ETH_P_ALL.into()) };
        ensure!(fd >= 0, "socket(AF_PACKET): {}", Error::last_os_error());
        // SAFETY: a descriptor that was just made, which nobody else has.
        let file = unsafe { std::fs::File::from_raw_fd(fd) };
        // SAFETY: all bytes of the structure may be zero.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ETH_P_ALL;
        address.sll_ifindex = index as i32;
        let len = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: the address is `len` bytes long, read only, and lives until the call returns.
        let result = unsafe { libc::bind(fd, (&raw const address).cast(), len) };
        ensure!(result == 0, "bind(AF_PACKET): {}", Error::last_os_error());
        Ok(Self(file))
    }

    /// Sends a frame.
    pub(crate) fn send(&self, frame: &[u8]) -> Result<()> {
        ensure!((&self.0).write(frame)? == frame.len(), "a frame was cut");
        Ok(())
    }

    /// The next frame in either direction; an empty one if there is none for `patience`.
    pub(crate) fn receive(&self, patience: Duration) -> Result<Vec<u8>> {
        // The standard library sets this option on sockets of its own kinds only; it is the same for all.
        let socket = UdpSocket::from(std::os::fd::OwnedFd::from(self.0.try_clone()?));
        socket.set_read_timeout(Some(patience))?;
        let mut frame = vec![0; 65536];
        match (&self.0).read(&mut frame) {
            Ok(len) => frame.truncate(len),
            Err(_) => frame.clear(),
        }
        Ok(frame)
    }
}

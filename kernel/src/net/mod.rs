//! The network: TCP, UDP and names over the first network card, for apps that ask for it.
//!
//! An app calls [`up`] once and then uses [`TcpListener`], [`TcpStream`], [`UdpSocket`] and [`resolve`]; who does not
//! call it links none of this. The protocols are smoltcp's: Ethernet, ARP, IPv4 and IPv6 with their ICMP, UDP, TCP, DHCP,
//! DNS. Files: `stack` (frames to sockets and back), `listener` (how
//! connections begin and end), `packet` (what of a frame is looked at here), `port` (the card as
//! smoltcp sees it), `table` (the connections), `addresses` and `config` (who the guest is), `task` (what drives it
//! all), `tcp`, `udp`, `dns` (what apps see). Neighbours: `devices::net` (the cards), `drivers::class::net`.
#![forbid(unsafe_code)]

mod addresses;
mod config;
mod dns;
mod listener;
mod packet;
mod port;
mod stack;
mod table;
mod task;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use alloc::{vec, vec::Vec};
use core::{
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    task::Poll,
    time::Duration,
};

use drivers::class::net::NetDevice;
use smoltcp::{
    iface::{Interface, SocketHandle, SocketSet},
    phy::DeviceCapabilities,
    socket::{dhcpv4, dns::QueryHandle},
    wire::{EthernetAddress, HardwareAddress, IpEndpoint},
};

use self::{config::Config, stack::Stack, table::Id};
use crate::{
    devices::{self, net::Card},
    random,
    sync::{IrqMutex, OnceCell},
};

pub use addresses::Status;
pub use dns::resolve;
pub use tcp::{MOST_RECEIVE_BYTES, Options, TcpListener, TcpStream};
pub use udp::UdpSocket;

/// How long [`up`] waits for a DHCP server.
const DHCP_TIMEOUT: Duration = Duration::from_secs(30);

/// Why something on the network was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// This machine has no network card that can be driven.
    #[error("no network card")]
    NoCard,
    /// [`up`] was not called, or did not find a card.
    #[error("the network is not up")]
    Down,
    /// No DHCP server has given an address.
    #[error("no DHCP server answers; net.ip= sets an address without one")]
    NoLease,
    /// The port is 0, or somebody has it.
    #[error("port {0} is in use")]
    PortInUse(u16),
    /// There is no way to that address.
    #[error("no way to that address")]
    Unreachable,
    /// Nobody listens there, or nobody answers.
    #[error("connection refused, or not answered in time")]
    Refused,
    /// The connection is over, and not by a proper end.
    #[error("connection reset")]
    Reset,
    /// A datagram that the network does not take in one frame.
    #[error("the datagram is too long")]
    TooLong,
    /// There is no such name, or nobody who knows it.
    #[error("no such name")]
    NoSuchName,
    /// There is no memory for one more.
    #[error("no memory for one more connection")]
    OutOfMemory,
}

impl embedded_io_async::Error for Error {
    fn kind(&self) -> embedded_io_async::ErrorKind {
        use embedded_io_async::ErrorKind;
        match self {
            Self::NoCard | Self::Down | Self::NoLease => ErrorKind::NotConnected,
            Self::PortInUse(_) => ErrorKind::AddrInUse,
            Self::Unreachable => ErrorKind::AddrNotAvailable,
            Self::Refused => ErrorKind::ConnectionRefused,
            Self::Reset => ErrorKind::ConnectionReset,
            Self::TooLong => ErrorKind::InvalidInput,
            Self::NoSuchName => ErrorKind::NotFound,
            Self::OutOfMemory => ErrorKind::OutOfMemory,
        }
    }
}

/// What an app does not need any more. Told by drops, which may come at any time: also while somebody has the stack.
enum Release {
    Listener(usize),
    Stream(Id),
    Datagrams(SocketHandle),
    Query(QueryHandle),
}

/// The one network, shared by its task and the sockets.
struct Shared {
    card: Card,
    /// Only tasks come here, never a handler: a plain lock will do.
    stack: spin::Mutex<Stack>,
    released: IrqMutex<Vec<Release>>,
}

static SHARED: OnceCell<Shared> = OnceCell::uninit();

fn shared() -> Result<&'static Shared, Error> {
    SHARED.try_get().map_err(|_| Error::Down)
}

/// Brings the network up on the first card, once, and waits until the guest has an address: the one that the command
/// line gives by `net.ip=`, or one from a DHCP server. Later calls only tell how it is.
///
/// # Errors
/// There is no card, or no DHCP server.
pub async fn up() -> Result<Status, Error> {
    if shared().is_err() {
        let card = devices::net::cards().into_iter().next().ok_or(Error::NoCard)?;
        SHARED.init_once(|| start(card));
        drop(crate::task::spawn(task::run(shared()?)));
    }
    let shared = shared()?;
    let is_set_up = poll_fn(|cx| {
        let mut stack = shared.stack.lock();
        if stack.is_set_up() {
            return Poll::Ready(());
        }
        stack.watch(cx.waker());
        Poll::Pending
    });
    crate::task::timeout(DHCP_TIMEOUT, is_set_up).await.map_err(|_| Error::NoLease)?;
    status()
}

/// What the network is like now.
///
/// # Errors
/// It is not [up].
pub fn status() -> Result<Status, Error> {
    let shared = shared()?;
    Ok(shared.stack.lock().status(shared.card.info().mac))
}

/// The card that the network is on.
///
/// # Errors
/// It is not [up].
pub fn card() -> Result<Card, Error> {
    Ok(shared()?.card.clone())
}

fn start(card: Card) -> Shared {
    let config = Config::read(crate::app::cmdline());
    let mac = card.info().mac;
    let capabilities = port::capabilities(&*card);
    let now = stack::instant(crate::time::now().as_ns());
    let (mut interface, clock) = interfaces(&*card, &capabilities, random::number(), now);
    addresses::set_up(&mut interface, mac, &config);
    let mut services = SocketSet::new(Vec::new());
    let dhcp = config.dhcp.then(|| {
        let mut socket = dhcpv4::Socket::new();
        // For what smoltcp does not tell of an answer.
        socket.set_receive_packet_buffer(vec![0; usize::from(card.info().mtu)].leak());
        services.add(socket)
    });
    let dns = services.add(smoltcp::socket::dns::Socket::new(&[], Vec::new()));
    let mut stack = Stack::new(interface, clock, services, capabilities, dhcp, dns);
    stack.next_port |= random::number() as u16;
    stack.set_dns(config.dns);
    Shared { card, stack: spin::Mutex::new(stack), released: IrqMutex::new(Vec::new()) }
}

/// The interface of a card, and the one that only tells the time for it (`Stack::clock`).
fn interfaces(
    card: &dyn NetDevice,
    capabilities: &DeviceCapabilities,
    seed: u64,
    now: smoltcp::time::Instant,
) -> (Interface, Interface) {
    let address = HardwareAddress::Ethernet(EthernetAddress(card.info().mac.0));
    let mut config = smoltcp::iface::Config::new(address);
    config.random_seed = seed;
    config.slaac = true;
    let mut port = port::Port::new(card, capabilities, false);
    let interface = Interface::new(config, &mut port, now);
    let clock = Interface::new(smoltcp::iface::Config::new(address), &mut port, now);
    (interface, clock)
}

fn release(what: Release) {
    if let Ok(shared) = shared() {
        shared.released.lock().push(what);
        task::wake();
    }
}

impl Shared {
    /// Lets go of what the apps do not need any more.
    fn release_all(&self) {
        let released = core::mem::take(&mut *self.released.lock());
        let mut stack = self.stack.lock();
        for what in released {
            match what {
                Release::Listener(number) => stack.unlisten(number),
                Release::Stream(id) => stack.disown(id),
                Release::Datagrams(handle) => drop(stack.services.remove(handle)),
                Release::Query(query) => {
                    let dns = stack.dns;
                    stack.services.get_mut::<smoltcp::socket::dns::Socket>(dns).cancel_query(query);
                }
            }
        }
    }
}

fn endpoint(address: SocketAddr) -> IpEndpoint {
    IpEndpoint::new(address.ip().into(), address.port())
}

fn socket_addr(endpoint: IpEndpoint) -> SocketAddr {
    SocketAddr::new(IpAddr::from(endpoint.addr), endpoint.port)
}

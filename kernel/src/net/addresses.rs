//! The guest's addresses: given by the command line, by a DHCP server (RFC 2131), or, for IPv6, made of its own card's
//! address and of what routers say (RFC 4862). Neighbours: `config` (what is wanted), `stack` (who asks servers).
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::{fmt, net::IpAddr, task::Waker};

use drivers::class::net::MacAddress;
use smoltcp::{
    iface::Interface,
    socket::{dhcpv4, dns},
    wire::{DhcpPacket, IpAddress, IpCidr, Ipv6Address, Ipv6Cidr},
};

use super::{config::Config, stack::Stack};

/// What the guest's network is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The card's address.
    pub mac: MacAddress,
    /// The guest's addresses, each with the bits that its network has in common.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The ways out of the guest's own networks.
    pub routers: Vec<IpAddr>,
    /// The servers for names.
    pub dns: Vec<IpAddr>,
}

/// `192.0.2.7/24, fe80::1/64; out by 192.0.2.1; names by 192.0.2.3`
impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (address, bits)) in self.addresses.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            write!(out, "{comma}{address}/{bits}")?;
        }
        for (what, all) in [("; out by ", &self.routers), ("; names by ", &self.dns)] {
            for (number, address) in all.iter().enumerate() {
                write!(out, "{}{address}", if number > 0 { ", " } else { what })?;
            }
        }
        Ok(())
    }
}

/// The address of a card on its own network (RFC 4291 §2.5.6, Appendix A).
fn link_local(MacAddress([a, b, c, d, e, f]): MacAddress) -> IpCidr {
    let octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    IpCidr::Ipv6(Ipv6Cidr::new(Ipv6Address::from(octets), 64))
}

/// Gives the interface its first addresses and ways out.
pub(super) fn set_up(interface: &mut Interface, mac: MacAddress, config: &Config) {
    interface.update_ip_addrs(|addresses| {
        for address in [link_local(mac)].iter().chain(&config.addresses) {
            if addresses.push(*address).is_err() {
                log::warn!("net.ip={address}: one address too many");
            }
        }
    });
    for gateway in &config.gateways {
        let routes = interface.routes_mut();
        let is_full = match gateway {
            IpAddr::V4(gateway) => routes.add_default_ipv4_route(*gateway).is_err(),
            IpAddr::V6(gateway) => routes.add_default_ipv6_route(*gateway).is_err(),
        };
        if is_full {
            log::warn!("net.gateway={gateway}: one too many");
        }
    }
}

impl Stack {
    /// What it is like now.
    pub(super) fn status(&self, mac: MacAddress) -> Status {
        let routes = self.interface.routes();
        let routers = [routes.get_default_ipv4_route(), routes.get_default_ipv6_route()];
        let pair = |address: &IpCidr| (IpAddr::from(address.address()), address.prefix_len());
        Status {
            mac,
            addresses: self.interface.ip_addrs().iter().map(pair).collect(),
            routers: routers.into_iter().flatten().map(|route| route.via_router.into()).collect(),
            dns: self.dns_servers.clone(),
        }
    }

    /// Whether an address for IPv4 is there, or will not come.
    pub(super) fn is_set_up(&self) -> bool {
        self.dhcp.is_none() || self.interface.ipv4_addr().is_some()
    }

    /// Calls `waker` when the addresses change.
    pub(super) fn watch(&mut self, waker: &Waker) {
        if !self.watchers.iter().any(|watcher| watcher.will_wake(waker)) {
            self.watchers.push(waker.clone());
        }
    }

    /// Takes over what a DHCP server has said; whether that is another address.
    pub(super) fn take_lease(&mut self) -> bool {
        let Some(dhcp) = self.dhcp else { return false };
        let (address, router, servers) = match self.services.get_mut::<dhcpv4::Socket>(dhcp).poll() {
            None => return false,
            Some(dhcpv4::Event::Deconfigured) => {
                if let Some(address) = self.interface.ipv4_addr() {
                    log::warn!("net: the lease of {address} is over");
                }
                (None, None, Vec::new())
            }
            Some(dhcpv4::Event::Configured(lease)) => {
                let is_new = self.interface.ipv4_addr() != Some(lease.address.address());
                let level = if is_new { log::Level::Info } else { log::Level::Debug };
                let (address, server) = (lease.address, lease.server.identifier);
                let seconds = lease.packet.as_ref().and_then(lease_seconds).unwrap_or(0);
                log::log!(level, "net: {address} by DHCP of {server} for {seconds} s");
                let servers = lease.dns_servers.iter().copied().map(IpAddr::V4).collect();
                // A server may say anything.
                (
                    Some(address).filter(|_| IpAddress::from(address.address()).is_unicast()),
                    lease.router,
                    servers,
                )
            }
        };
        let before = self.interface.ipv4_addr();
        self.interface.update_ip_addrs(|addresses| {
            addresses.retain(|address| !matches!(address, IpCidr::Ipv4(_)));
            // Where the command line has named too many there is no room for it.
            let _ = address.map(|address| addresses.push(IpCidr::Ipv4(address)));
        });
        let routes = self.interface.routes_mut();
        match router {
            Some(router) => drop(routes.add_default_ipv4_route(router)),
            None => drop(routes.remove_default_ipv4_route()),
        }
        self.set_dns(servers);
        self.watchers.drain(..).for_each(Waker::wake);
        address.is_some() && self.interface.ipv4_addr() != before
    }

    /// Names are asked of `servers`.
    pub(super) fn set_dns(&mut self, servers: Vec<IpAddr>) {
        let asked: Vec<IpAddress> = servers.iter().copied().map(IpAddress::from).take(DNS_SERVERS).collect();
        self.services.get_mut::<dns::Socket>(self.dns).update_servers(&asked);
        self.dns_servers = servers;
    }
}

/// How long the server leaves an address to the guest (RFC 2132 §9.2).
fn lease_seconds(packet: &DhcpPacket<&[u8]>) -> Option<u32> {
    const LEASE_TIME: u8 = 51;
    let option = packet.options().find(|option| option.kind == LEASE_TIME)?;
    option.data.try_into().ok().map(u32::from_be_bytes)
}

/// Servers that smoltcp asks, at most: its feature `dns-max-server-count-4`.
const DNS_SERVERS: usize = 4;

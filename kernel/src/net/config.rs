//! What the command line says about the network.
//!
//! `net.ip=dhcp`, which is what happens when nothing is said, or `net.ip=192.0.2.7/24 net.gateway=192.0.2.1
//! net.dns=192.0.2.3`; each key may be given several times, with addresses of either version. `net.ip=off` leaves it
//! at IPv6, which asks the routers.
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::net::IpAddr;

use boot::CommandLine;
use smoltcp::wire::{IpCidr, Ipv4Cidr};

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Config {
    /// A server is to be asked for an IPv4 address.
    pub(super) dhcp: bool,
    pub(super) addresses: Vec<IpCidr>,
    pub(super) gateways: Vec<IpAddr>,
    pub(super) dns: Vec<IpAddr>,
}

impl Config {
    /// Reads it; what makes no sense is told, and left out.
    pub(super) fn read(cmdline: &CommandLine) -> Self {
        let mut config = Self { dhcp: true, ..Self::default() };
        for text in cmdline.values("net.ip") {
            match (text, text.parse::<IpCidr>()) {
                ("dhcp", _) => {}
                ("off", _) => config.dhcp = false,
                (_, Ok(address)) if address.address().is_unicast() => {
                    config.dhcp &= !matches!(address, IpCidr::Ipv4(Ipv4Cidr { .. }));
                    config.addresses.push(address);
                }
                _ => log::warn!(
                    "net.ip={text}: expected `dhcp`, `off`, or an address with the bits of its network"
                ),
            }
        }
        let addresses = |key: &str| {
            let parse = |text: &str| match text.parse() {
                Ok(address) => Some(address),
                Err(_) => {
                    log::warn!("{key}={text}: expected an address");
                    None
                }
            };
            cmdline.values(key).filter_map(parse).collect()
        };
        config.gateways = addresses("net.gateway");
        config.dns = addresses("net.dns");
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::read(&CommandLine::read(text.as_bytes(), |_| ()))
    }

    #[test]
    fn without_a_word_a_server_is_asked() {
        assert_eq!(config(""), Config { dhcp: true, ..Config::default() });
        assert!(!config("net.ip=off").dhcp);
    }

    #[test]
    fn a_fixed_ipv4_address_asks_no_server_and_an_ipv6_one_does_not_matter() {
        let fixed = config("net.ip=192.0.2.7/24 net.ip=2001:db8::7/64 net.gateway=192.0.2.1 net.dns=::1");
        assert_eq!((fixed.dhcp, fixed.addresses.len()), (false, 2));
        assert_eq!(fixed.gateways, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(fixed.dns, ["::1".parse::<IpAddr>().unwrap()]);
        assert!(config("net.ip=2001:db8::7/64").dhcp);
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        for text in
            ["net.ip=", "net.ip=x", "net.ip=1.2.3.4", "net.ip=224.0.0.1/4", "net.dns=x", "net.gateway=1"]
        {
            assert_eq!(config(text), Config { dhcp: true, ..Config::default() }, "{text}");
        }
    }
}

//! The guest's network: QEMU's own, which needs no rights and forwards ports of this host, or a network device of Linux
//! (a tap) in a network namespace of its own, which nobody else sees and which goes with the thread that made it.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};

use super::{Line, Machine};
use crate::host::packages::Need;

/// What sets network devices up.
pub const IP: Need = Need { what: "ip", package: "iproute2" };

/// The host's end of the tap, and the guest's.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The guest's.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The host's end by IPv6.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The guest's.
pub const GUEST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// The tap's name.
pub const TAP: &str = "tap0";

/// What the kernel's command line says of a guest at the tap.
pub fn tap_cmdline() -> String {
    format!("net.ip={GUEST}/24 net.ip={GUEST6}/64 net.gateway={HOST}")
}

/// Adds a card; `options` are QEMU's for the device, such as `,packed=on`.
fn card(line: &mut Line, machine: Machine, backend: &str, options: &str) {
    line.option("-netdev", format!("{backend},id=net"));
    let bus = if machine == Machine::Microvm { "device" } else { "pci" };
    line.option("-device", format!("virtio-net-{bus},netdev=net{options}"));
    // QEMU's MMIO transport speaks the legacy protocol unless told not to.
    line.option("-global", "virtio-mmio.force-legacy=false");
}

/// Adds a card at the tap.
pub fn at_tap(line: &mut Line, machine: Machine, options: &str) {
    card(line, machine, &format!("tap,ifname={TAP},script=no,downscript=no"), options);
}

/// Adds a card on QEMU's own network. Each of `ports` of the guest is forwarded from a port of this host that was free,
/// reachable from this host only; which, in the same order, is returned.
///
/// # Errors
/// This host has no free port.
pub fn at_user(line: &mut Line, machine: Machine, ports: &[u16], options: &str) -> Result<Vec<u16>> {
    let forwards = ports.iter().map(|&guest| Ok((free_port(guest)?, guest))).collect::<Result<Vec<_>>>()?;
    let forward = |(host, guest): &(u16, u16)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}");
    let backend: String = std::iter::once("user".to_owned()).chain(forwards.iter().map(forward)).collect();
    card(line, machine, &backend, options);
    Ok(forwards.into_iter().map(|(host, _)| host).collect())
}

/// 8000 more than `guest` if that is free, so that it is easily remembered, else any.
fn free_port(guest: u16) -> Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = match guest.checked_add(8000).map(bind) {
        Some(Ok(listener)) => listener,
        _ => bind(0).context("this host has no free port")?,
    };
    Ok(listener.local_addr()?.port())
}

/// Why no tap can be made here, if so.
pub fn without_tap() -> Option<String> {
    match in_namespace(|| Ok(())) {
        Ok(()) => None,
        Err(error) => Some(format!("no network device of its own: {error:#}")),
    }
}

/// Calls `act` on a thread that has a network of its own with nothing in it but a tap. What it starts has the same.
///
/// # Errors
/// That needs root, or `act` fails.
pub fn in_namespace<R: Send>(act: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare_network()?;
            make_tap()?;
            act()
        });
        thread.join().map_err(|_| anyhow!("the thread in the network namespace panicked"))?
    })
}

fn unshare_network() -> Result<()> {
    // SAFETY: takes no pointer; what it changes is this thread's view of the network and nothing else.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    ensure!(result == 0, "unshare(CLONE_NEWNET): {}", std::io::Error::last_os_error());
    Ok(())
}

fn make_tap() -> Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    ip(&["tuntap", "add", "dev", TAP, "mode", "tap", "vnet_hdr"])?;
    ip(&["addr", "add", &format!("{HOST}/24"), "dev", TAP])?;
    ip(&["-6", "addr", "add", &format!("{HOST6}/64"), "dev", TAP, "nodad"])?;
    ip(&["link", "set", TAP, "up"])
}

fn ip(arguments: &[&str]) -> Result<()> {
    let program = IP.find().with_context(|| format!("no `ip` (package {})", IP.package))?;
    let output = Command::new(program).args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

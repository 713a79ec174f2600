//! The guest's network: QEMU's own, which needs no rights and forwards ports of this host, or a network device of Linux
//! (a tap) in a network namespace of its own, which nobody else sees and which goes with the thread that made it.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};

use super::{Line, Machine};
use crate::host::packages::IP;

/// The host's end of the first tap.
pub const HOST: Ipv4Addr = host(0);
/// The guest's.
pub const GUEST: Ipv4Addr = guest(0);
/// The host's end by IPv6.
pub const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The guest's.
pub const GUEST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// The first tap's name.
pub const TAP: &str = "tap0";

/// The host's end of tap `number`.
pub const fn host(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2 + number, 1)
}

/// The guest's end of tap `number`.
pub const fn guest(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2 + number, 2)
}

/// What the kernel's command line says of a guest at tap `number`, for IPv4.
pub fn cmdline(number: u8) -> String {
    format!("net.ip={}/24 net.gateway={}", guest(number), host(number))
}

/// What the kernel's command line says of a guest at the first tap.
pub fn tap_cmdline() -> String {
    format!("{} net.ip={GUEST6}/64", cmdline(0))
}

/// Adds a card; `options` are QEMU's for the device, such as `,packed=on`.
fn card(line: &mut Line, machine: Machine, number: u8, backend: &str, options: &str) {
    line.option("-netdev", format!("{backend},id=net{number}"));
    // Nobody boots from it: no file with firmware of its own is needed.
    let bus = if machine == Machine::Microvm { "device" } else { "pci,romfile=" };
    line.option("-device", format!("virtio-net-{bus},netdev=net{number}{options}"));
    // QEMU's MMIO transport speaks the legacy protocol unless told not to.
    line.option("-global", "virtio-mmio.force-legacy=false");
}

/// Adds a card at the first tap.
pub fn at_tap(line: &mut Line, machine: Machine, options: &str) {
    at_tap_number(line, machine, 0, options);
}

/// Adds a card at tap `number`.
pub fn at_tap_number(line: &mut Line, machine: Machine, number: u8, options: &str) {
    card(line, machine, number, &tap_backend(number), options);
}

/// Adds a card with `queues` pairs of queues at the first tap, which was [widened](widen_tap).
pub fn at_wide_tap(line: &mut Line, machine: Machine, queues: u16, options: &str) {
    // Each pair interrupts by two messages, the configuration and the control queue by one.
    let vectors = match machine {
        Machine::Microvm => String::new(),
        _ => format!(",vectors={}", 2 * queues + 2),
    };
    let backend = format!("{},queues={queues},vhost=off", tap_backend(0));
    card(line, machine, 0, &backend, &format!(",mq=on{vectors}{options}"));
}

fn tap_backend(number: u8) -> String {
    format!("tap,ifname=tap{number},script=no,downscript=no")
}

/// Adds a card on QEMU's own network. Ports of this host, the first of each pair, are forwarded to ports of the guest;
/// only this host reaches them.
pub fn at_user(line: &mut Line, machine: Machine, forwards: &[(u16, u16)], options: &str) {
    let forward = |(host, guest): &(u16, u16)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}");
    let backend: String = std::iter::once("user".to_owned()).chain(forwards.iter().map(forward)).collect();
    card(line, machine, 0, &backend, options);
}

/// A port of this host that is free: `wanted` if that is, else any.
///
/// # Errors
/// There is none.
pub fn free_port(wanted: Option<u16>) -> Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = match wanted.map(bind) {
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
    add_first_tap(&[])
}

/// Makes the first tap anew, for several queues.
///
/// # Errors
/// That needs root.
pub fn widen_tap() -> Result<()> {
    ip(&["link", "del", TAP])?;
    add_first_tap(&["multi_queue"])
}

fn add_first_tap(mode: &[&str]) -> Result<()> {
    add(0, mode)?;
    ip(&["-6", "addr", "add", &format!("{HOST6}/64"), "dev", TAP, "nodad"])
}

/// Makes tap `number`, in the namespace of this thread.
///
/// # Errors
/// That needs root.
pub fn add_tap(number: u8) -> Result<()> {
    add(number, &[])
}

fn add(number: u8, mode: &[&str]) -> Result<()> {
    let name = format!("tap{number}");
    ip(&[&["tuntap", "add", "dev", &name, "mode", "tap", "vnet_hdr"], mode].concat())?;
    ip(&["addr", "add", &format!("{}/24", host(number)), "dev", &name])?;
    ip(&["link", "set", &name, "up"])
}

fn ip(arguments: &[&str]) -> Result<()> {
    let program = IP.find().with_context(|| format!("no `ip` (package {})", IP.package))?;
    let output = Command::new(program).args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

//! Event channels: Xen's interrupts, by number (event_channel.h).
//!
//! A channel is made ([`alloc_unbound`], [`bind_virq`], ..), given its place in the words that Xen sets ([`prepare`]),
//! let through ([`unmask`]) and closed. Xen then raises the upcall, whose handler asks [`pending`] for what came.
//! Two ABIs say where an event is noted: `two_level` (bits in the shared page, always there, 4096 channels) and `fifo`
//! (linked words in pages of the guest, 131072 channels); [`start`] chooses the better one that Xen has.
//! Neighbours: `shared_info` (the page), `hypercall` (the way in), the kernel's `irq::event_channel` (handlers).

pub mod fifo;
pub mod two_level;

use super::{
    abi::{DOMID_SELF, hvm, vcpu},
    has_feature,
    hypercall::{self, Errno, Number},
    memory, pv,
    rings::FEATURE_AUTO_TRANSLATED,
    shared_info, time,
};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use fifo::Fifo;

/// A channel's number in this domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[doc(alias = "evtchn_port_t")]
pub struct Port(pub u32);

/// An interrupt that Xen itself raises (xen.h, `VIRQ_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Virq {
    /// A virtual CPU's one-shot timer.
    #[doc(alias = "VIRQ_TIMER")]
    Timer = 0,
    /// dom0: something was typed on Xen's console.
    #[doc(alias = "VIRQ_CONSOLE")]
    Console = 2,
}

/// What a channel is bound to (`EVTCHNSTAT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not in use.
    Closed,
    /// Waits for the other domain.
    Unbound,
    /// Connected to a channel of this domain.
    Interdomain(u16, Port),
    /// Bound to a line of an interrupt controller.
    Line(u32),
    /// Bound to an interrupt of Xen's, by its number.
    Virq(u32),
    /// For this domain's own use.
    Ipi,
    /// A number that the header does not have.
    Unknown(u32),
}

/// Commands of `event_channel_op`.
mod command {
    pub(super) const BIND_INTERDOMAIN: u32 = 0;
    pub(super) const BIND_VIRQ: u32 = 1;
    pub(super) const CLOSE: u32 = 3;
    pub(super) const SEND: u32 = 4;
    pub(super) const STATUS: u32 = 5;
    pub(super) const ALLOC_UNBOUND: u32 = 6;
    pub(super) const BIND_IPI: u32 = 7;
    pub(super) const UNMASK: u32 = 9;
    pub(super) const INIT_CONTROL: u32 = 11;
    pub(super) const EXPAND_ARRAY: u32 = 12;
}

#[repr(C)]
#[doc(alias = "evtchn_alloc_unbound")]
struct AllocUnbound {
    dom: u16,
    remote_dom: u16,
    port: u32,
}

#[repr(C)]
#[doc(alias = "evtchn_bind_interdomain")]
struct BindInterdomain {
    remote_dom: u16,
    _pad: u16,
    remote_port: u32,
    local_port: u32,
}

#[repr(C)]
#[doc(alias = "evtchn_bind_virq")]
struct BindVirq {
    virq: u32,
    vcpu: u32,
    port: u32,
}

#[repr(C)]
#[doc(alias = "evtchn_bind_ipi")]
struct BindIpi {
    vcpu: u32,
    port: u32,
}

#[repr(C)]
#[derive(Default)]
#[doc(alias = "evtchn_status")]
struct StatusOf {
    dom: u16,
    _pad: u16,
    port: u32,
    status: u32,
    vcpu: u32,
    /// A union: a domain in its lower half and a port behind it, or a number.
    u: [u32; 2],
}

#[repr(C)]
#[doc(alias = "evtchn_init_control")]
struct InitControl {
    control_gfn: u64,
    offset: u32,
    vcpu: u32,
    link_bits: u8,
    _pad: [u8; 7],
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<AllocUnbound>() == 8 && offset_of!(AllocUnbound, port) == 4);
    assert!(size_of::<BindInterdomain>() == 12 && offset_of!(BindInterdomain, remote_port) == 4);
    assert!(size_of::<BindVirq>() == 12 && size_of::<BindIpi>() == 8);
    assert!(size_of::<StatusOf>() == 24 && offset_of!(StatusOf, u) == 16);
    assert!(size_of::<InitControl>() == 24 && offset_of!(InitControl, link_bits) == 16);
};

fn op<T>(command: u32, argument: &mut T) -> Result<(), Errno> {
    // SAFETY:
    // 1. Each caller below pairs a command with its own struct, whose layout is asserted above.
    // 2. An event channel changes no memory but the words of `two_level` and `fifo`, which are atomic.
    unsafe { hypercall::command(Number::EventChannelOp, command, argument) }.map(|_| ())
}

/// A channel whose other end the domain `remote` may take.
///
/// # Errors
/// What Xen says; no room when all channels are in use.
#[doc(alias = "EVTCHNOP_alloc_unbound")]
pub fn alloc_unbound(remote: u16) -> Result<Port, Errno> {
    let mut argument = AllocUnbound { dom: DOMID_SELF, remote_dom: remote, port: 0 };
    op(command::ALLOC_UNBOUND, &mut argument)?;
    Ok(Port(argument.port))
}

/// A channel connected to one that the domain `remote` made for us.
///
/// # Errors
/// What Xen says.
#[doc(alias = "EVTCHNOP_bind_interdomain")]
pub fn bind_interdomain(remote: u16, remote_port: Port) -> Result<Port, Errno> {
    let mut argument =
        BindInterdomain { remote_dom: remote, _pad: 0, remote_port: remote_port.0, local_port: 0 };
    op(command::BIND_INTERDOMAIN, &mut argument)?;
    Ok(Port(argument.local_port))
}

/// A channel on which Xen raises `virq` for `vcpu`.
///
/// # Errors
/// What Xen says; "exists already" when it is bound.
#[doc(alias = "EVTCHNOP_bind_virq")]
pub fn bind_virq(virq: Virq, vcpu: u32) -> Result<Port, Errno> {
    let mut argument = BindVirq { virq: virq as u32, vcpu, port: 0 };
    op(command::BIND_VIRQ, &mut argument)?;
    Ok(Port(argument.port))
}

/// The channel of `vcpu`'s one-shot timer. The tick that Xen begins with is stopped.
///
/// # Errors
/// As [`bind_virq`].
#[doc(alias = "VCPUOP_stop_periodic_timer")]
pub fn bind_timer(vcpu: u32) -> Result<Port, Errno> {
    let port = bind_virq(Virq::Timer, vcpu)?;
    time::set_event_timer();
    // Refused where there is no tick, as in an HVM guest.
    // SAFETY: stops a timer.
    let _ = unsafe { hypercall::call3(Number::VcpuOp, vcpu::STOP_PERIODIC_TIMER.into(), vcpu.into(), 0) };
    Ok(port)
}

/// A channel of this domain's own: what is sent on it arrives at `vcpu`.
///
/// # Errors
/// What Xen says.
#[doc(alias = "EVTCHNOP_bind_ipi")]
pub fn bind_ipi(vcpu: u32) -> Result<Port, Errno> {
    let mut argument = BindIpi { vcpu, port: 0 };
    op(command::BIND_IPI, &mut argument)?;
    Ok(Port(argument.port))
}

/// Closes a channel. The number may be given out again.
///
/// # Errors
/// What Xen says.
#[doc(alias = "EVTCHNOP_close")]
pub fn close(port: Port) -> Result<(), Errno> {
    mask(port);
    two_level::unbind_all(port);
    op(command::CLOSE, &mut { port.0 })
}

/// Sends an event to the other end.
///
/// # Errors
/// What Xen says.
#[doc(alias = "EVTCHNOP_send")]
pub fn send(port: Port) -> Result<(), Errno> {
    op(command::SEND, &mut { port.0 })
}

/// Lets events through; one that came meanwhile raises the upcall now.
///
/// # Errors
/// What Xen says.
#[doc(alias = "EVTCHNOP_unmask")]
pub fn unmask(port: Port) -> Result<(), Errno> {
    op(command::UNMASK, &mut { port.0 })
}

/// What a channel is bound to.
///
/// # Errors
/// What Xen says.
#[doc(alias = "EVTCHNOP_status")]
pub fn status(port: Port) -> Result<Status, Errno> {
    let mut argument = StatusOf { dom: DOMID_SELF, port: port.0, ..StatusOf::default() };
    op(command::STATUS, &mut argument)?;
    let [first, second] = argument.u;
    Ok(match argument.status {
        0 => Status::Closed,
        1 => Status::Unbound,
        2 => Status::Interdomain(first as u16, Port(second)),
        3 => Status::Line(first),
        4 => Status::Virq(first),
        5 => Status::Ipi,
        other => Status::Unknown(other),
    })
}

static FIFO: Fifo = Fifo::new();
static IS_FIFO: AtomicBool = AtomicBool::new(false);
/// Pages of words that Xen was given.
static FIFO_PAGES: AtomicU32 = AtomicU32::new(0);

/// Which ABI is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// Bits in the shared page.
    TwoLevel,
    /// Linked words.
    Fifo,
}

/// Which ABI is in force.
pub fn abi() -> Abi {
    if IS_FIFO.load(Ordering::Acquire) { Abi::Fifo } else { Abi::TwoLevel }
}

/// Lets the upcall come as this vector of the IDT. It needs no end of interrupt; one does no harm.
///
/// # Errors
/// What Xen says.
///
/// # Safety
/// The vector has a handler, which asks [`pending`].
#[doc(alias = "HVM_PARAM_CALLBACK_IRQ")]
#[doc(alias = "CALLBACKOP_register")]
pub unsafe fn deliver_as(vector: u8) -> Result<(), Errno> {
    if !has_feature(FEATURE_AUTO_TRANSLATED) {
        return pv::set_event_vector(vector);
    }
    // SAFETY: the vector has a handler (the caller's promise).
    unsafe { memory::set_hvm_param(hvm::CALLBACK_IRQ, hvm::callback_vector(vector)) }
}

/// Whether this is a guest of Xen with a shared page: then there are event channels.
pub fn is_there() -> bool {
    shared_info::is_mapped()
}

/// A page for event words, given away for good.
pub struct EventPage {
    /// The page, by words. All zero.
    pub words: &'static [AtomicU32; fifo::WORDS_PER_PAGE],
    /// Its number as [`crate::pte_make`] would enter it in a page table: Xen's own number for it.
    pub frame: u64,
}

/// Holds back all channels and begins with the FIFO ABI if Xen has it and `page` gives a page for the control block of
/// the first virtual CPU, else with the 2-level ABI. Before any channel is made: those that exist keep their numbers.
pub fn start(page: impl FnOnce() -> Option<EventPage>) -> Abi {
    for word in &shared_info::get().evtchn_mask {
        word.store(u64::MAX, Ordering::Relaxed);
    }
    if let Some(page) = page()
        && start_cpu(0, page).is_ok()
    {
        IS_FIFO.store(true, Ordering::Release);
    }
    abi()
}

/// Gives a further virtual CPU its queues, where the FIFO ABI is in force.
///
/// # Errors
/// What Xen says.
#[doc(alias = "EVTCHNOP_init_control")]
pub fn start_cpu(vcpu: u32, page: EventPage) -> Result<(), Errno> {
    let mut argument = InitControl { control_gfn: page.frame, offset: 0, vcpu, link_bits: 0, _pad: [0; 7] };
    FIFO.set_control(vcpu, page.words).ok_or(Errno::INVALID)?;
    op(command::INIT_CONTROL, &mut argument)
}

/// Forgets which ABI was in force, after the domain was restored: Xen has none of it any more. [`start`] comes next.
pub fn forget() {
    IS_FIFO.store(false, Ordering::Release);
    FIFO_PAGES.store(0, Ordering::Release);
    FIFO.forget();
    two_level::forget();
}

/// Gives `port`, which arrives at `vcpu`, its place among the words that Xen sets; it stays masked. `page` is asked for
/// each page that is missing.
///
/// # Errors
/// "No memory" when `page` has none, else what Xen says.
pub fn prepare(port: Port, vcpu: u32, mut page: impl FnMut() -> Option<EventPage>) -> Result<(), Errno> {
    if abi() == Abi::TwoLevel {
        return two_level::bind(port, vcpu).ok_or(Errno::NO_SPACE);
    }
    let needed = port.0 / fifo::WORDS_PER_PAGE as u32;
    while FIFO_PAGES.load(Ordering::Acquire) <= needed {
        let EventPage { words, frame } = page().ok_or(Errno::NO_MEMORY)?;
        FIFO.set_page(FIFO_PAGES.load(Ordering::Acquire), words).ok_or(Errno::NO_SPACE)?;
        op(command::EXPAND_ARRAY, &mut { frame })?;
        FIFO_PAGES.fetch_add(1, Ordering::AcqRel);
    }
    mask(port);
    Ok(())
}

/// Holds events back.
pub fn mask(port: Port) {
    match abi() {
        Abi::TwoLevel => two_level::mask(port),
        Abi::Fifo => FIFO.mask(port),
    }
}

/// Takes an event back that came while `port` was held back: for who asks instead of being called.
pub(super) fn take_back(port: Port) {
    match abi() {
        Abi::TwoLevel => two_level::take_back(port),
        Abi::Fifo => FIFO.take_back(port),
    }
}

/// Calls `each` for every event that came for `vcpu`, each taken back as handled before. For the upcall's handler, with
/// interrupts disabled; what comes meanwhile is told too.
#[doc(alias = "evtchn_upcall_pending")]
pub fn pending(vcpu: u32, mut each: impl FnMut(Port)) {
    let Some(info) = shared_info::vcpu_info(vcpu) else { return };
    // Taken back first: an event that comes after this is announced again.
    while info.evtchn_upcall_pending.swap(0, Ordering::SeqCst) != 0 {
        match abi() {
            Abi::TwoLevel => two_level::scan(vcpu, info, &mut each),
            Abi::Fifo => FIFO.scan(vcpu, &mut each),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_hypervisor_no_channel_is_to_be_had() {
        assert_eq!(alloc_unbound(0), Err(Errno::NOT_IMPLEMENTED));
        assert_eq!(bind_virq(Virq::Timer, 0), Err(Errno::NOT_IMPLEMENTED));
        assert_eq!(status(Port(1)), Err(Errno::NOT_IMPLEMENTED));
    }
}

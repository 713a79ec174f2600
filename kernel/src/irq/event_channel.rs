//! Event channels as interrupts: one vector for all of them, and behind it a handler a channel.
//!
//! Where there are none, `init` finds that out and nothing here does anything: lines and APICs are all there is.
//! Neighbours: `pv_ops::xen::event_channel` (which came), `dispatch` (the vector), `xen` (who binds most of them).

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU32, Ordering};

use pv_ops::{
    AtomicCpuSet,
    xen::{
        event_channel::{self, Abi, Port, Status},
        hypercall::Errno,
        lock,
    },
};

use super::{Error, allocate, apic};
use crate::{
    cpu::{self, Feature, features},
    mm::shared,
    sync::{IrqMutex, OnceCell},
};

/// What is called when an event comes, with interrupts disabled.
type Handler = Arc<dyn Fn() + Send + Sync>;

/// A channel with a handler, and what it is for.
struct Bound {
    port: Port,
    name: &'static str,
    handler: Handler,
}

/// Sorted by port.
static HANDLERS: IrqMutex<Vec<Bound>> = IrqMutex::new(Vec::new());
/// Whether the better ABI is wanted, and the vector. None where there are no event channels.
static UP: OnceCell<(bool, u8)> = OnceCell::uninit();
/// The timer's handler.
static TIMER: OnceCell<fn()> = OnceCell::uninit();
/// The CPUs that have their queues and channels.
static PREPARED: AtomicCpuSet = AtomicCpuSet::new();

/// Why there are no event channels.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Vector(#[from] Error),
    #[error("{0}")]
    Refused(#[from] Errno),
}

/// Finds out whether this guest has event channels and lets them in. `abi` is what the command line wants: `2-level`,
/// `none` where there is a local APIC too, or the best there is.
pub(super) fn init(abi: Option<&str>) {
    // Without, a PV guest would have no interrupts at all.
    if !event_channel::is_there() || abi == Some("none") && features().has(Feature::Apic) {
        return;
    }
    let wants_fifo = abi != Some("2-level");
    let vector = allocate("event channels", upcall).map_err(Failure::from);
    match vector.and_then(|vector| Ok((vector, start(wants_fifo, vector)?))) {
        Ok((vector, abi)) => {
            let _ = UP.try_init_once(|| (wants_fifo, vector));
            let abi = if abi == Abi::Fifo { "FIFO" } else { "2-level" };
            log::info!("event channels: {abi} ABI, vector {vector:#x}");
        }
        Err(error) => log::error!("event channels: {error}: no paravirtual device works"),
    }
}

fn start(wants_fifo: bool, vector: u8) -> Result<Abi, Errno> {
    let abi = event_channel::start(|| wants_fifo.then(shared::event_page).flatten());
    for cpu in PREPARED.get().iter() {
        PREPARED.remove(cpu);
    }
    prepare_cpu(0, vector)?;
    Ok(abi)
}

/// How often the domain was restored: channels of an earlier life are gone.
static LIFE: AtomicU32 = AtomicU32::new(0);

/// In which life of the domain this is.
pub fn life() -> u32 {
    LIFE.load(Ordering::Relaxed)
}

/// Begins anew after the domain was restored: all channels are gone, and their handlers. The timer has a new one, on
/// which it comes at once.
///
/// # Errors
/// What the hypervisor says.
pub fn restart() -> Result<(), Errno> {
    let Ok(&(wants_fifo, vector)) = UP.try_get() else { return Ok(()) };
    let gone = core::mem::take(&mut *HANDLERS.lock());
    drop(gone);
    LIFE.fetch_add(1, Ordering::Relaxed);
    event_channel::forget();
    shared::forget_event_pages();
    start(wants_fifo, vector)?;
    bind_requests(0)?;
    crate::hypervisor::cpu_up(cpu::current().id());
    if let Ok(&handler) = TIMER.try_get() {
        bind(event_channel::bind_timer(cpu::current().id())?, "timer", handler)?;
        pv_ops::timer_arm(0);
    }
    Ok(())
}

fn deliver(vector: u8) -> Result<(), Errno> {
    // SAFETY: the vector's handler is `upcall`.
    unsafe { event_channel::deliver_as(vector) }
}

/// Lets events in on a further CPU, which runs this; and lets the others send to it, where there is no local APIC.
pub(super) fn cpu_up() {
    let Ok(&(_, vector)) = UP.try_get() else { return };
    let cpu = cpu::this_cpu();
    if PREPARED.contains(cpu) {
        return;
    }
    if let Err(error) = prepare_cpu(cpu, vector).and_then(|()| bind_requests(cpu)) {
        log::error!("event channels of CPU {cpu}: {error}: it takes no events");
    }
}

fn prepare_cpu(cpu: u32, vector: u8) -> Result<(), Errno> {
    if cpu > 0 && event_channel::abi() == Abi::Fifo {
        event_channel::start_cpu(cpu, shared::event_page().ok_or(Errno::NO_MEMORY)?)?;
    }
    deliver(vector)?;
    // SAFETY: this CPU's data is in force: `cpu::init` came first.
    if let Err(error) = unsafe { lock::cpu_up(cpu, shared::event_page) } {
        log::warn!("event channels: {error}: who waits for a lock spins");
    }
    PREPARED.insert(cpu);
    Ok(())
}

/// The channel of a CPU on which others send to it, where there is no local APIC.
pub(super) fn bind_requests(cpu: u32) -> Result<(), Errno> {
    if !is_up() || apic::local().is_some() {
        return Ok(());
    }
    let port = event_channel::bind_ipi(cpu)?;
    bind_on(cpu, port, "CPU request", cpu::ipi::serve)?;
    pv_ops::xen::pv::set_ipi_port(cpu, port);
    Ok(())
}

/// Whether this guest has event channels.
pub fn is_up() -> bool {
    UP.is_initialized()
}

/// Lets events on `port` call `handler` on the boot CPU, with interrupts disabled. One that came before calls it at once.
///
/// # Errors
/// What the hypervisor says, "no memory" included.
pub fn bind(port: Port, name: &'static str, handler: impl Fn() + Send + Sync + 'static) -> Result<(), Errno> {
    // Devices interrupt the boot CPU, which never goes down.
    bind_on(0, port, name, handler)
}

/// As [`bind`], for a channel that arrives at this CPU.
fn bind_on(
    cpu: u32,
    port: Port,
    name: &'static str,
    handler: impl Fn() + Send + Sync + 'static,
) -> Result<(), Errno> {
    event_channel::prepare(port, cpu, shared::event_page)?;
    insert(Bound { port, name, handler: Arc::new(handler) });
    event_channel::unmask(port)
}

fn insert(mut bound: Bound) {
    let mut handlers = HANDLERS.lock();
    match place(&handlers, bound.port) {
        Ok(place) => core::mem::swap(&mut handlers[place], &mut bound),
        Err(place) => {
            handlers.insert(place, bound);
            return;
        }
    }
    // Dropping what was there may do anything but what needs the lock.
    drop(handlers);
}

fn place(handlers: &[Bound], port: Port) -> Result<usize, usize> {
    handlers.binary_search_by_key(&port.0, |bound| bound.port.0)
}

/// Closes the channel; its handler is called no more.
pub fn close(port: Port) {
    if let Err(error) = event_channel::close(port) {
        log::warn!("event channel {}: {error}", port.0);
    }
    let removed = {
        let mut handlers = HANDLERS.lock();
        place(&handlers, port).ok().map(|place| handlers.remove(place))
    };
    drop(removed);
}

/// Lets this CPU's one-shot timer of the hypervisor call `handler`; `false` where it has none.
pub fn bind_timer(handler: fn()) -> bool {
    let _ = TIMER.try_init_once(|| handler);
    let cpu = cpu::this_cpu();
    is_up()
        && event_channel::bind_timer(cpu)
            .and_then(|port| bind_on(cpu, port, "timer", handler))
            // A CPU that was up before has it.
            .or_else(|error| if error == Errno::EXISTS { Ok(()) } else { Err(error) })
            .inspect_err(|error| log::warn!("timer event: {error}"))
            .is_ok()
}

/// The channels that have a handler: port, name, and what the hypervisor says of it.
pub fn channels() -> Vec<(Port, &'static str, Result<Status, Errno>)> {
    let known: Vec<_> = HANDLERS.lock().iter().map(|bound| (bound.port, bound.name)).collect();
    known.into_iter().map(|(port, name)| (port, name, event_channel::status(port))).collect()
}

/// The vector's handler.
fn upcall() {
    event_channel::pending(cpu::current().id(), |port| {
        let handler = {
            let handlers = HANDLERS.lock();
            place(&handlers, port).ok().map(|place| handlers[place].handler.clone())
        };
        match handler {
            Some(handler) => handler(),
            // It was closed just now, or never ours.
            None => event_channel::mask(port),
        }
    });
}

crate::kernel_test! {
    /// Both ends of a channel in this domain: what is sent on one arrives at the other, once, and not after the close.
    fn an_event_arrives_at_the_other_end() {
        static CAME: AtomicU32 = AtomicU32::new(0);
        if !is_up() {
            crate::skip!("no event channels here");
        }
        let own = pv_ops::xen::abi::DOMID_SELF;
        let theirs = event_channel::alloc_unbound(own).unwrap();
        let ours = event_channel::bind_interdomain(own, theirs).unwrap();
        assert_eq!(event_channel::status(theirs), event_channel::status(theirs));
        assert!(matches!(event_channel::status(ours), Ok(Status::Interdomain(_, port)) if port == theirs));
        bind(theirs, "test", || _ = CAME.fetch_add(1, Ordering::Relaxed)).unwrap();
        // What the binding itself raised has come by now.
        let before = CAME.load(Ordering::Relaxed);
        event_channel::prepare(ours, 0, shared::event_page).unwrap();
        event_channel::send(ours).unwrap();
        while CAME.load(Ordering::Relaxed) == before {
            core::hint::spin_loop();
        }
        assert_eq!(CAME.load(Ordering::Relaxed), before + 1);
        assert!(channels().iter().any(|(port, name, _)| *port == theirs && *name == "test"));
        close(theirs);
        close(ours);
        assert_eq!(event_channel::status(theirs), Ok(Status::Closed));
    }
}

crate::kernel_test! {
    /// Held back while interrupts are disabled, delivered when they are enabled: the wake-up is not lost.
    fn an_event_to_oneself_waits_for_interrupts() {
        static CAME: AtomicU32 = AtomicU32::new(0);
        if !is_up() {
            crate::skip!("no event channels here");
        }
        let port = event_channel::bind_ipi(cpu::current().id()).unwrap();
        bind(port, "test", || _ = CAME.fetch_add(1, Ordering::Relaxed)).unwrap();
        for round in 0..100 {
            let disabled = crate::sync::IrqState::disable();
            event_channel::send(port).unwrap();
            assert_eq!(CAME.load(Ordering::Relaxed), round);
            drop(disabled);
            let start = crate::time::now();
            while CAME.load(Ordering::Relaxed) == round {
                assert!(start.elapsed().as_secs() < 5, "the event of round {round} is lost");
            }
            assert_eq!(CAME.load(Ordering::Relaxed), round + 1);
        }
        close(port);
    }
}

//! Where every interrupt arrives in Rust, and the handlers that were registered for it.
//!
//! The table is read without a lock: handlers are added, never removed.
//! Neighbours: `entry` (who calls), `exceptions` (the first 32 vectors), `mod` (who adds).

use super::{Error, entry::Frame, exceptions, vectors};
use crate::{
    cpu::{self, percpu},
    mm::heap,
    sync::{IrqMutex, OnceCell},
};
use alloc::boxed::Box;
use spin::Once;

/// What to call when a vector is raised. It runs with interrupts disabled.
pub type Handler = Box<dyn Fn() + Send + Sync>;

/// The handlers of a vector, in the order of registration: those of several devices on one line.
struct Node {
    name: &'static str,
    handler: Handler,
    next: Once<Box<Node>>,
}

/// All zeros while empty, so that the file does not carry it.
static HANDLERS: [Once<Box<Node>>; 256] = [const { Once::new() }; 256];
/// What is called at the end of each interrupt.
static AT_END: OnceCell<fn()> = OnceCell::uninit();

/// First device vector that was not given out.
static NEXT_DEVICE: IrqMutex<u8> = IrqMutex::new(vectors::DEVICES.start);

/// A device vector that nobody has.
pub(super) fn allocate() -> Result<u8, Error> {
    let mut next = NEXT_DEVICE.lock();
    let vector = *next;
    if !vectors::DEVICES.contains(&vector) {
        return Err(Error::OutOfVectors);
    }
    *next += 1;
    Ok(vector)
}

/// Adds a handler to `vector`.
pub fn handle(vector: u8, name: &'static str, handler: impl Fn() + Send + Sync + 'static) {
    let mut node = Some(Box::new(Node { name, handler: Box::new(handler), next: Once::new() }));
    let mut place = &HANDLERS[usize::from(vector)];
    loop {
        // Whoever comes first wins the place; the other goes on to the place behind it.
        let taken = place.call_once(|| node.take().expect("a place is initialised once"));
        if node.is_none() {
            return;
        }
        place = &taken.next;
    }
}

fn nodes(vector: u8) -> impl Iterator<Item = &'static Node> {
    let first = HANDLERS[usize::from(vector)].get();
    core::iter::successors(first, |node| node.next.get()).map(|node| &**node)
}

/// Has `act` called at the end of every interrupt, with interrupts disabled: it may stay away, and let others run
/// meanwhile. The first to ask has it.
pub(crate) fn at_end(act: fn()) {
    let _ = AT_END.try_init_once(|| act);
}

/// Called by the entry code for every vector, with interrupts disabled.
pub(super) extern "sysv64" fn dispatch(frame: &mut Frame) {
    heap::begin_anew(&mut frame.rip);
    pv_ops::halt::step_over(&mut frame.rip);
    let vector = frame.vector as u8;
    let cpu = cpu::current();
    cpu::tlb::wake(cpu);
    cpu.count_interrupt(vector);
    if vector < vectors::EXCEPTION_COUNT {
        return exceptions::handle(frame);
    }
    // These two are not in service in the local APIC: ending them would end another one.
    if vector == vectors::SPURIOUS || vectors::PIC.contains(&vector) {
        return;
    }
    cpu.begin_stay();
    if vector == vectors::CPU_REQUEST {
        // Its end first: what is asked for may take long, and let interrupts in.
        pv_ops::eoi();
        cpu::ipi::serve();
    } else {
        let mut nobody = true;
        for node in nodes(vector) {
            nobody = false;
            (node.handler)();
        }
        if nobody {
            super::silence(vector);
        }
        pv_ops::eoi();
    }
    if cpu.end_stay() {
        end();
    }
}

/// What comes after an interrupt, or after a stay on a CPU in which one may have come. Interrupts are disabled.
pub(crate) fn end() {
    if let Ok(act) = AT_END.try_get() {
        act();
    }
}

/// How often a vector was raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The vector.
    pub vector: u8,
    /// What it is for: the exception, or the first that was registered.
    pub name: &'static str,
    /// Times on all CPUs.
    pub total: u64,
}

/// How often each vector was raised; only those that were, or that somebody handles.
pub fn counts() -> impl Iterator<Item = Count> {
    (0..=u8::MAX).filter_map(|vector| {
        let total = percpu::all().map(|cpu| cpu.interrupts(vector)).sum();
        let registered = nodes(vector).next().map(|node| node.name);
        let name = registered.or(vectors::name(vector));
        (total > 0 || registered.is_some()).then_some(Count {
            vector,
            name: name.unwrap_or("unknown"),
            total,
        })
    })
}

//! How a device reaches its handler: by messages of its own for its queues, by one line for everything, or, where it has
//! neither, by being looked at a thousand times a second.
//!
//! Neighbours: `pci` and `virtio` (who know what a device has), `block` and the other kinds (whose handlers are called).
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use core::time::Duration;

use drivers::pci::{Message, MsiX};

use crate::{
    cpu::percpu,
    irq::{self, Irq},
    task,
};

/// How long a device without interrupts is left alone.
const LOOK: Duration = Duration::from_millis(1);

/// What a device has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Anything: its registers tell.
    Any,
    /// A buffer was used in queue `first` or in a `step`th one from there.
    Queues { first: u16, step: u16 },
}

/// Called when the device interrupts.
pub(super) type Handler = Box<dyn Fn(Cause) + Send + Sync>;

/// How many queues are to have an interrupt of their own: some of each CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Messages {
    pub(super) cpus: u16,
    /// Queues in a row that are one CPU's; 1 at least.
    pub(super) of_each: u16,
}

impl Messages {
    /// One for all queues.
    pub(super) const ONE: Self = Self { cpus: 1, of_each: 1 };

    pub(super) fn count(self) -> u16 {
        self.cpus.saturating_mul(self.of_each)
    }
}

/// What a device has to interrupt by.
pub(super) enum Wires {
    /// A line.
    Line(Irq),
    /// Entries of an MSI-X table: the first for everything, or, if there are entries for queues, for the rest.
    Messages { table: MsiX, queue_entries: u16, of_each: u16 },
    /// Nothing.
    None,
}

/// Connects a device's interrupts with its handler, once the device is up.
pub(super) struct Connect(Wires);

impl Connect {
    pub(super) fn new(wires: Wires) -> Self {
        Self(wires)
    }

    /// From now on `handler` is called. What the device has to say meanwhile stays pending in masked entries.
    pub(super) fn to(self, name: &'static str, handler: Handler) -> Result<(), irq::Error> {
        match self.0 {
            Wires::Line(irq) => {
                let handler: &'static _ = Box::leak(handler);
                irq::register(irq, name, move || handler(Cause::Any))?;
                // A line that went up before it was routed may raise nothing (QEMU's I/O APIC forgets it).
                handler(Cause::Any);
                Ok(())
            }
            Wires::Messages { mut table, queue_entries, of_each } => {
                messages(&mut table, queue_entries, of_each, name, handler)
            }
            Wires::None => {
                log::warn!("{name}: no interrupt: it is looked at every {} ms", LOOK.as_millis());
                drop(task::spawn(async move {
                    loop {
                        task::sleep(LOOK).await;
                        handler(Cause::Any);
                    }
                }));
                Ok(())
            }
        }
    }
}

/// Entry 0 goes to the boot CPU, those of the queues to the CPUs in turn, `of_each` to each.
fn messages(
    table: &mut MsiX,
    queue_entries: u16,
    of_each: u16,
    name: &'static str,
    handler: Handler,
) -> Result<(), irq::Error> {
    let handler: &'static _ = Box::leak(handler);
    for entry in 0..=queue_entries {
        let cause = match entry.checked_sub(1) {
            None => Cause::Any,
            Some(first) => Cause::Queues { first, step: queue_entries },
        };
        let up = || percpu::all().filter(|cpu| percpu::is_up(cpu.id()));
        let cpu = up().nth(usize::from(entry.saturating_sub(1) / of_each.max(1)) % up().count().max(1));
        let message = irq::message(cpu.unwrap_or_else(percpu::current), name, move || handler(cause))?;
        table.set(entry, Message { address: message.address, data: message.data });
    }
    Ok(())
}

//! The disks that were found.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::{
    ops::Deref,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use drivers::{
    class::{BlockDevice, SECTOR_BYTES, Shared},
    virtio::{
        DeviceId,
        block::{Block, Cpus},
        transport::Transport,
    },
    xen::block as xen,
};
use spin::Once;

use super::{
    Counts, Failure, failure,
    habit::{Habit, IN_VAIN_NS},
    virtio::{self, rings},
    wiring::{Cause, Connect, Messages},
};
use crate::{
    cpu::{self, percpu},
    platform::Platform,
    sync::{IrqMutex, IrqState, OnceCell},
    task::{
        self,
        round::{self, Devices},
    },
};

static DISKS: IrqMutex<Vec<Disk>> = IrqMutex::new(Vec::new());

/// A disk; dereferences to what can be asked of it. Copies are the same disk.
#[derive(Clone)]
pub struct Disk {
    name: Arc<str>,
    device: Device,
}

/// What drives it.
#[derive(Clone)]
enum Device {
    Virtio(Arc<Virtio>),
    Xen(Arc<Shared<IrqMutex<xen::Block>>>),
}

/// A virtio disk, and what came from it.
struct Virtio {
    block: Block<Platform>,
    interrupts: Box<[Interrupts]>,
}

/// Interrupts for one queue, or, in the first place, for everything.
#[derive(Default)]
struct Interrupts {
    all: AtomicU64,
    /// Of them, those that came to the CPU whose queue it is.
    own: AtomicU64,
}

/// What one queue of a disk has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueCounts {
    /// As of the disk.
    pub counts: Counts,
    /// Interrupts that came to the CPU whose queue it is.
    pub own_interrupts: u64,
}

impl Disk {
    /// Where it was found, such as `virtio-blk 00:03.0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was sent to and fro so far.
    pub fn counts(&self) -> Counts {
        match &self.device {
            Device::Virtio(device) => device.counts().fold(Counts::default(), |sum, queue| Counts {
                requests: sum.requests + queue.counts.requests,
                notifications: sum.notifications + queue.counts.notifications,
                interrupts: sum.interrupts + queue.counts.interrupts,
            }),
            Device::Xen(device) => {
                let xen::Counts { requests, notifications, interrupts } = device.0.lock().counts();
                Counts { requests, notifications, interrupts }
            }
        }
    }

    /// The same, for each queue, CPU by CPU; nothing where a disk has one for all.
    pub fn queue_counts(&self) -> Vec<QueueCounts> {
        match &self.device {
            Device::Virtio(device) => device.counts().collect(),
            Device::Xen(_) => Vec::new(),
        }
    }

    /// A disk that another domain serves; the driver counts its interrupts itself.
    pub(crate) fn of_xen(name: &str, device: Arc<Shared<IrqMutex<xen::Block>>>) -> Self {
        Self { name: name.into(), device: Device::Xen(device) }
    }

    /// Takes back every request that the disk has not answered: each ends with [`drivers::Error::Cancelled`], and its buffer.
    ///
    /// # Errors
    /// The device cannot do that, as most cannot.
    pub fn cancel(&self) -> Result<(), drivers::Error> {
        match &self.device {
            Device::Virtio(device) => device.block.cancel(&Platform),
            Device::Xen(_) => Err(drivers::Error::Request("the device cannot take requests back")),
        }
    }

    pub(crate) fn register(self) {
        DISKS.lock().push(self);
    }
}

impl Deref for Disk {
    type Target = dyn BlockDevice;

    fn deref(&self) -> &Self::Target {
        match &self.device {
            Device::Virtio(device) => &device.block,
            Device::Xen(device) => &**device,
        }
    }
}

impl Virtio {
    fn counts(&self) -> impl Iterator<Item = QueueCounts> {
        self.block.counts().zip(&self.interrupts).map(|(queue, interrupts)| QueueCounts {
            counts: Counts {
                requests: queue.buffers,
                notifications: queue.notifications,
                interrupts: interrupts.all.load(Relaxed),
            },
            own_interrupts: interrupts.own.load(Relaxed),
        })
    }

    /// Called by the interrupt handler.
    fn interrupt(&self, cause: Cause) {
        let first = match cause {
            Cause::Any => 0,
            Cause::Queues { first, .. } => first,
        };
        if let Some(interrupts) = self.interrupts.get(usize::from(first)) {
            interrupts.all.fetch_add(1, Relaxed);
            let is_own = cpu::current().id() == u32::from(first);
            interrupts.own.fetch_add(is_own.into(), Relaxed);
        }
        match cause {
            Cause::Any => self.block.interrupt(),
            Cause::Queues { first, step } => self.block.queue_interrupt(first, step),
        }
    }
}

/// The disks, in the order in which they were found. The first call looks for them.
pub fn disks() -> Vec<Disk> {
    static TAKEN: OnceCell<()> = OnceCell::uninit();
    TAKEN.init_once(|| virtio::take(DeviceId::BLOCK, Messages { cpus: cpus(), of_each: 1 }, bring_up));
    crate::xen::bus::probe();
    DISKS.lock().clone()
}

/// Takes a disk that is gone from the list; who has it still fails with all it asks.
pub(crate) fn remove(name: &str) {
    DISKS.lock().retain(|disk| disk.name() != name);
}

fn cpus() -> u16 {
    percpu::all().count() as u16
}

impl Cpus for Platform {
    #[inline]
    fn current() -> u16 {
        cpu::current().id() as u16
    }

    fn later(count: u32) {
        round::later(count);
    }

    fn is_alone() -> bool {
        task::is_alone()
    }

    /// What comes needs no way back from the scheduler.
    fn linger(mut found: impl FnMut() -> bool) {
        if !task::end_round() {
            return;
        }
        let begin = pv_ops::monotonic_ns();
        let looks = {
            let _irq = IrqState::disable();
            let cpu = cpu::current().id();
            habit(cpu).lock().decide(begin, round::asked_by(cpu))
        };
        while looks && task::would_halt() && pv_ops::monotonic_ns() < begin + IN_VAIN_NS {
            relax();
            if found() {
                return;
            }
        }
    }
}

/// The virtio disks, one behind the other: read without a lock, by every CPU at the end of its rounds.
struct Node {
    device: Arc<Virtio>,
    next: Once<Box<Node>>,
}

static FIRST: Once<Box<Node>> = Once::new();

fn nodes() -> impl Iterator<Item = &'static Node> {
    core::iter::successors(FIRST.get(), |node| node.next.get()).map(|node| &**node)
}

/// The disks as the scheduler sees them.
struct Rounds;

static HABITS: [IrqMutex<Habit>; pv_ops::MAX_CPUS] =
    [const { IrqMutex::new(Habit::new()) }; pv_ops::MAX_CPUS];

fn habit(cpu: u32) -> &'static IrqMutex<Habit> {
    &HABITS[cpu as usize % HABITS.len()]
}

/// Turns of a loop between two looks: what the device writes stays on its CPU meanwhile. No PAUSE: for that TCG takes the lock
/// that QEMU's devices need.
const RELAX: u32 = 100;

fn relax() {
    (0..RELAX).for_each(|turn| _ = core::hint::black_box(turn));
}

impl Devices for Rounds {
    fn tell(&self) {
        nodes().for_each(|node| node.device.block.tell());
    }

    fn wait(&self, cpu: u32, asked: u32, is_ready: &dyn Fn() -> bool) {
        let begin = pv_ops::monotonic_ns();
        let looks = habit(cpu).lock().decide(begin, asked);
        if looks && look(cpu) == Some(0) {
            while !is_ready() && pv_ops::monotonic_ns() < begin + IN_VAIN_NS {
                pv_ops::irq_enable();
                relax();
                pv_ops::irq_disable();
                if look(cpu) != Some(0) {
                    break;
                }
            }
        }
        if looks {
            // Wants interrupts again.
            nodes().for_each(|node| node.device.block.queue_interrupt(cpu as u16, u16::MAX));
        }
    }
}

/// Takes the answers to what `cpu` has asked; `None` if nothing is asked.
fn look(cpu: u32) -> Option<u16> {
    nodes().filter_map(|node| node.device.block.look(cpu as u16)).reduce(u16::saturating_add)
}

fn bring_up(transport: Box<dyn Transport>, name: String, connect: Connect) -> Result<(), Failure> {
    let block = Block::<Platform>::probe(transport, &Platform, cpus()).map_err(failure)?;
    let (info, features, queues) = (block.info(), block.features(), block.queues());
    let interrupts = (0..queues).map(|_| Interrupts::default()).collect();
    let device = Arc::new(Virtio { block, interrupts });
    let handler = device.clone();
    connect.to("virtio-blk", Box::new(move |cause| handler.interrupt(cause))).map_err(failure)?;
    log::info!(
        "{name}: {} KiB, blocks of {} bytes, {queues} queue{}, {}{}",
        info.sectors / (1024 / SECTOR_BYTES as u64),
        info.block_bytes,
        if queues == 1 { "" } else { "s" },
        if info.read_only { "read-only" } else { "read-write" },
        rings(features)
    );
    round::serve(&Rounds);
    // Devices are brought up one after the other.
    let last = nodes().last().map_or(&FIRST, |node| &node.next);
    last.call_once(|| Box::new(Node { device: device.clone(), next: Once::new() }));
    Disk { name: name.into(), device: Device::Virtio(device) }.register();
    Ok(())
}

//! The control queue: what a card is told beside frames (VirtIO 1.3 §5.1.6.5).
//! One command at a time; the device's answer is waited for, for a bounded time.
#![forbid(unsafe_code)]

use core::sync::atomic::Ordering::Relaxed;

use super::config::Feature;
use crate::{
    class::net::{Control, MacAddress},
    dma::{Direction, Dma, Segment},
    error::Error,
    hal::Hal,
    virtio::queue::Queue,
};

/// Looks for the answer that a command is worth. One takes some nanoseconds.
const LOOKS: u32 = 4_000_000;

/// Where in the memory the answer goes; the command stands before.
const ACK: usize = 4095;
const MEMORY_BYTES: usize = 4096;
/// Groups that a table takes: as many as fit.
const MOST_GROUPS: usize = 512;

/// The command was carried out.
#[doc(alias = "VIRTIO_NET_OK")]
const OK: u8 = 0;
/// No device writes this one: it says that there was no answer.
const NO_ANSWER: u8 = 0xff;

/// Class and command (§5.1.6.5.1 to §5.1.6.5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command(u8, u8);

impl Command {
    #[doc(alias = "VIRTIO_NET_CTRL_RX_PROMISC")]
    const PROMISC: Self = Self(0, 0);
    #[doc(alias = "VIRTIO_NET_CTRL_RX_ALLMULTI")]
    const ALLMULTI: Self = Self(0, 1);
    #[doc(alias = "VIRTIO_NET_CTRL_MAC_TABLE_SET")]
    const MAC_TABLE_SET: Self = Self(1, 0);
    #[doc(alias = "VIRTIO_NET_CTRL_MAC_ADDR_SET")]
    const MAC_ADDR_SET: Self = Self(1, 1);
    #[doc(alias = "VIRTIO_NET_CTRL_VLAN_ADD")]
    const VLAN_ADD: Self = Self(2, 0);
    #[doc(alias = "VIRTIO_NET_CTRL_VLAN_DEL")]
    const VLAN_DEL: Self = Self(2, 1);
    #[doc(alias = "VIRTIO_NET_CTRL_ANNOUNCE_ACK")]
    const ANNOUNCE_ACK: Self = Self(3, 0);
    #[doc(alias = "VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET")]
    const VQ_PAIRS_SET: Self = Self(4, 0);
}

/// The queue, and memory for a command and its answer. Who is called with a position notifies the device of it.
pub(super) struct ControlQueue {
    queue: Queue<()>,
    memory: Dma,
    /// A command was not answered: its memory is the device's until it is.
    is_busy: bool,
}

impl ControlQueue {
    pub(super) fn memory(hal: &dyn Hal) -> Result<Dma, Error> {
        hal.dma(MEMORY_BYTES)
    }

    pub(super) fn new(mut queue: Queue<()>, memory: Dma) -> Self {
        queue.suppress_interrupts();
        Self { queue, memory, is_busy: false }
    }

    /// Never frees what the device may still write to.
    pub(super) fn keep_for_ever(&mut self) {
        self.queue.keep_for_ever();
        self.memory.keep_for_ever();
    }

    /// Carries out `control`.
    ///
    /// # Errors
    /// [`Error::Request`] where the device cannot, [`Error::Failed`] where it will not or does not answer,
    /// [`Error::Fault`] where it lies.
    pub(super) fn control(
        &mut self,
        control: &Control<'_>,
        features: Feature,
        notify: &dyn Fn(u16),
    ) -> Result<(), Error> {
        let (needed, command) = match control {
            Control::Promiscuous(_) => (Feature::CTRL_RX, Command::PROMISC),
            Control::AllMulticast(_) => (Feature::CTRL_RX, Command::ALLMULTI),
            Control::Multicast(_) => (Feature::CTRL_RX, Command::MAC_TABLE_SET),
            Control::Mac(_) => (Feature::CTRL_MAC_ADDR, Command::MAC_ADDR_SET),
            Control::Vlan(_, true) => (Feature::CTRL_VLAN, Command::VLAN_ADD),
            Control::Vlan(_, false) => (Feature::CTRL_VLAN, Command::VLAN_DEL),
        };
        if !features.contains(needed) {
            return Err(Error::Request("the card does not offer this"));
        }
        self.begin(command)?;
        let mut at = 2;
        match control {
            Control::Promiscuous(on) | Control::AllMulticast(on) => self.put(&mut at, &[u8::from(*on)]),
            Control::Multicast(groups) if groups.len() > MOST_GROUPS => {
                return Err(Error::Request("more groups than a command has room for"));
            }
            Control::Multicast(groups) => {
                // Two tables: of cards, none beside this one, and of groups.
                self.put(&mut at, &0u32.to_le_bytes());
                self.put(&mut at, &(groups.len() as u32).to_le_bytes());
                groups.iter().for_each(|MacAddress(bytes)| self.put(&mut at, bytes));
            }
            Control::Mac(MacAddress(bytes)) => self.put(&mut at, bytes),
            Control::Vlan(id, _) => self.put(&mut at, &id.to_le_bytes()),
        }
        self.finish(at, notify)
    }

    /// Says that the announcement which the device asked for was made.
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub(super) fn acknowledge_announcement(&mut self, notify: &dyn Fn(u16)) -> Result<(), Error> {
        self.begin(Command::ANNOUNCE_ACK)?;
        self.finish(2, notify)
    }

    /// Has the device use `pairs` pairs of queues, all of which are there (§5.1.6.5.5).
    ///
    /// # Errors
    /// As [`control`](Self::control).
    pub(super) fn set_pairs(&mut self, pairs: u16, notify: &dyn Fn(u16)) -> Result<(), Error> {
        self.begin(Command::VQ_PAIRS_SET)?;
        let mut at = 2;
        self.put(&mut at, &pairs.to_le_bytes());
        self.finish(at, notify)
    }

    fn begin(&mut self, Command(class, command): Command) -> Result<(), Error> {
        if self.is_busy && self.queue.pop()?.is_none() {
            return Err(Error::Failed("no answer to an earlier command"));
        }
        self.is_busy = false;
        self.put(&mut 0, &[class, command]);
        self.put(&mut { ACK }, &[NO_ANSWER]);
        Ok(())
    }

    fn put(&self, at: &mut usize, bytes: &[u8]) {
        for byte in bytes {
            self.memory.u8(*at).store(*byte, Relaxed);
            *at += 1;
        }
    }

    fn finish(&mut self, len: usize, notify: &dyn Fn(u16)) -> Result<(), Error> {
        let command = Segment::new(&self.memory, 0..len, Direction::ToDevice);
        let ack = Segment::new(&self.memory, ACK..MEMORY_BYTES, Direction::FromDevice);
        self.queue.add(&[command, ack], ()).map_err(|_| Error::Failed("no answer to earlier commands"))?;
        self.is_busy = true;
        self.queue.take_notification().into_iter().for_each(notify);
        for _ in 0..LOOKS {
            if self.queue.pop()?.is_some() {
                self.is_busy = false;
                return match self.memory.u8(ACK).load(Relaxed) {
                    OK => Ok(()),
                    _ => Err(Error::Failed("that it does not take the command")),
                };
            }
            core::hint::spin_loop();
        }
        Err(Error::Failed("no answer in time"))
    }
}

//! What a guest of Xen talks to: rings in shared pages, the tree of the toolstack, devices that another domain serves.
//!
//! Drivers here know no hypercall. What they need of the hypervisor is the trait [`Hypervisor`]: pages that another
//! domain may reach, and channels on which both sides ring. So all of it is tested on the host against a scripted
//! other side (`fake`).
//!
//! | module | what | Xen's public header |
//! |---|---|---|
//! | [`page`] | a page that somebody else changes | |
//! | [`stream`] | rings of bytes in it | io/console.h, io/xs_wire.h |
//! | [`ring`] | rings of requests and responses | io/ring.h |
//! | [`xenstore`] | the toolstack's tree: requests, transactions, watches | io/xs_wire.h, docs/misc/xenstore.txt |
//! | [`xenbus`] | devices: found in the tree, connected by states | io/xenbus.h |
//! | [`block`] | a disk | io/blkif.h |
//! | [`console`] | the domain's console | io/console.h |
//!
//! The other side of a ring is never trusted: an index that cannot be true is an error, not an access.
#![forbid(unsafe_code)]

pub mod block;
pub mod console;
pub mod page;
pub mod ring;
pub mod stream;
pub mod xenbus;
pub mod xenstore;

#[cfg(test)]
mod fake;

pub use page::SharedPage;

use alloc::{boxed::Box, sync::Arc};
use core::ops::Deref;
use thiserror::Error;

/// The number of a domain (xen.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "domid_t")]
pub struct DomainId(pub u16);

/// One end of an event channel (event_channel.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "evtchn_port_t")]
pub struct Port {
    /// Its number in this domain.
    pub number: u32,
    /// In which life of the guest it was made: after a restore it is gone, and its number may be another's.
    pub life: u32,
}

/// The name under which another domain finds a page of ours (grant_table.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "grant_ref_t")]
pub struct GrantRef(pub u32);

/// What another domain may do to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    ReadOnly,
    /// Read and write it.
    ReadWrite,
}

/// Why the hypervisor gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// No page is free.
    #[error("no memory for a shared page")]
    OutOfMemory,
    /// All grant references are in use.
    #[error("all grant references are in use")]
    OutOfGrants,
    /// The hypervisor's own error number (errno.h).
    #[error("the hypervisor refused with error {0}")]
    Errno(u32),
}

/// What drivers ask of the hypervisor and the kernel together.
pub trait Hypervisor: Send + Sync {
    /// A fresh page of zeroes which `domain` may reach.
    ///
    /// # Errors
    /// When memory or grants have run out.
    fn grant(&self, domain: DomainId, access: Access) -> Result<(&'static SharedPage, GrantRef), Refused>;

    /// Takes a page back that [`grant`](Self::grant) gave. It is not used again by this side. While the other side still
    /// has it mapped, page and reference stay out of use; they are freed once it has let go.
    fn end_grant(&self, grant: GrantRef);

    /// A channel whose other end `domain` may take. Each event on it calls `handler` with interrupts disabled.
    ///
    /// # Errors
    /// When the hypervisor has no more channels.
    fn bind(&self, domain: DomainId, handler: Handler) -> Result<Port, Refused>;

    /// Closes a channel; its handler is not called any more.
    fn close(&self, port: Port);

    /// Rings at the other end.
    fn notify(&self, port: Port);
}

/// What is called when an event comes.
pub type Handler = Box<dyn Fn() + Send + Sync>;

/// A page that another domain may reach, as long as this lives.
pub struct Shared {
    hypervisor: Arc<dyn Hypervisor>,
    page: &'static SharedPage,
    grant: GrantRef,
}

impl Shared {
    /// A fresh page of zeroes for `domain`.
    ///
    /// # Errors
    /// As [`Hypervisor::grant`].
    pub fn new(hypervisor: &Arc<dyn Hypervisor>, domain: DomainId, access: Access) -> Result<Self, Refused> {
        let (page, grant) = hypervisor.grant(domain, access)?;
        Ok(Self { hypervisor: hypervisor.clone(), page, grant })
    }

    /// What the other domain calls it.
    pub fn grant(&self) -> GrantRef {
        self.grant
    }
}

impl Deref for Shared {
    type Target = SharedPage;
    fn deref(&self) -> &SharedPage {
        self.page
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.hypervisor.end_grant(self.grant);
    }
}

/// An event channel, open as long as this lives.
pub struct Channel {
    hypervisor: Arc<dyn Hypervisor>,
    port: Port,
}

impl Channel {
    /// A channel for `domain`, whose events call `handler` with interrupts disabled.
    ///
    /// # Errors
    /// As [`Hypervisor::bind`].
    pub fn new(
        hypervisor: &Arc<dyn Hypervisor>,
        domain: DomainId,
        handler: Handler,
    ) -> Result<Self, Refused> {
        Ok(Self { hypervisor: hypervisor.clone(), port: hypervisor.bind(domain, handler)? })
    }

    /// Its number, to tell the other side.
    pub fn port(&self) -> Port {
        self.port
    }

    /// Rings at the other end.
    pub fn notify(&self) {
        self.hypervisor.notify(self.port);
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.hypervisor.close(self.port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fake::FakeHypervisor;

    #[test]
    fn pages_and_channels_go_back_when_they_are_dropped() {
        let fake = Arc::new(FakeHypervisor::default());
        let hypervisor: Arc<dyn Hypervisor> = fake.clone();
        let page = Shared::new(&hypervisor, DomainId(0), Access::ReadWrite).unwrap();
        let channel = Channel::new(&hypervisor, DomainId(0), Box::new(|| ())).unwrap();
        page.write(0, b"text");
        channel.notify();
        assert_eq!((fake.open_grants(), fake.open_channels()), (1, 1));
        assert_eq!(fake.notified(), [channel.port()]);
        drop((page, channel));
        assert_eq!((fake.open_grants(), fake.open_channels()), (0, 0));
    }
}

//! What Xen's drivers ask for: pages that another domain may reach, and channels to it.
//! Neighbours: `drivers::xen` (the trait), `pv_ops::xen` (the hypercalls), `mm::shared` (the pages).
#![forbid(unsafe_code)]

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use drivers::xen::{self, DomainId, GrantRef, Handler, Hypervisor, Refused, SharedPage};
use pv_ops::xen::{
    event_channel::{self, Port},
    grant_table::{
        Access, Grant, Table,
        set_up::{self, Version},
    },
    hypercall::Errno,
};

use super::suspend::{GRANTS, Grants};
use crate::{irq, mm::shared, sync::IrqMutex};

/// A page with its physical address.
type Page = (&'static SharedPage, u64);

/// The grant table, and whose pages it tells of.
struct Xen {
    table: &'static Table,
    pages: IrqMutex<Pages>,
}

#[derive(Default)]
struct Pages {
    /// In use by a driver.
    granted: Vec<(Grant, Page)>,
    /// Given back by the driver, but the other domain still has them.
    ending: Vec<(Grant, Page)>,
    /// Nobody's. They stay shared pages for good.
    free: Vec<Page>,
}

impl Pages {
    /// Takes back what the other domains have let go of.
    fn sweep(&mut self) {
        for (grant, page) in core::mem::take(&mut self.ending) {
            match grant.end() {
                Ok(()) => self.free.push(page),
                Err(grant) => self.ending.push((grant, page)),
            }
        }
    }
}

/// Sets the grant table up; `version` is what the command line wants, 1 or 2.
pub(super) fn init(version: Option<&str>) -> Result<Arc<dyn Hypervisor>, Errno> {
    let version = match version {
        Some("2") => Version::V2,
        _ => Version::V1,
    };
    let entries = shared::grant_table(version)?;
    log::info!("grant table: version {}, {} entries", version as u32, entries.len());
    let _ = GRANTS.try_init_once(|| Grants { leave: set_up::leave, come_back: set_up::come_back });
    let table = Box::leak(Box::new(Table::new(entries)));
    Ok(Arc::new(Xen { table, pages: IrqMutex::default() }))
}

fn refused(error: Errno) -> Refused {
    Refused::Errno(error.0)
}

impl Hypervisor for Xen {
    fn grant(
        &self,
        domain: DomainId,
        access: xen::Access,
    ) -> Result<(&'static SharedPage, GrantRef), Refused> {
        let mut pages = self.pages.lock();
        pages.sweep();
        let page = match pages.free.pop() {
            Some(page) => page,
            None => shared::page().map_err(|_| Refused::OutOfMemory)?,
        };
        page.0.clear();
        let access = match access {
            xen::Access::ReadOnly => Access::ReadOnly,
            xen::Access::ReadWrite => Access::ReadWrite,
        };
        let Some(grant) = self.table.grant(domain.0, shared::host_frame(page.1), access) else {
            pages.free.push(page);
            return Err(Refused::OutOfGrants);
        };
        let reference = grant.reference();
        pages.granted.push((grant, page));
        Ok((page.0, GrantRef(reference)))
    }

    fn end_grant(&self, grant: GrantRef) {
        let mut pages = self.pages.lock();
        if let Some(place) = pages.granted.iter().position(|(granted, _)| granted.reference() == grant.0) {
            let granted = pages.granted.swap_remove(place);
            pages.ending.push(granted);
        }
        pages.sweep();
    }

    fn bind(&self, domain: DomainId, handler: Handler) -> Result<xen::Port, Refused> {
        let port = event_channel::alloc_unbound(domain.0).map_err(refused)?;
        if let Err(error) = irq::event_channel::bind(port, "device", handler) {
            irq::event_channel::close(port);
            return Err(refused(error));
        }
        Ok(xen::Port { number: port.0, life: irq::event_channel::life() })
    }

    fn close(&self, port: xen::Port) {
        if port.life == irq::event_channel::life() {
            irq::event_channel::close(Port(port.number));
        }
    }

    fn notify(&self, port: xen::Port) {
        // The other end may be gone: then nobody misses it.
        if port.life == irq::event_channel::life() {
            let _ = event_channel::send(Port(port.number));
        }
    }
}

//! Xen's own console, dom0's only: text out and in by hypercall, an event when somebody types.
//! Neighbours: `pv_ops::xen::console` (the hypercalls), `drivers::xen::console` (a domU's).
#![forbid(unsafe_code)]

use alloc::boxed::Box;

use drivers::class::Console;
use pv_ops::xen::{
    console::read_from_xen,
    event_channel::{Virq, bind_virq},
    hypercall::Errno,
};

use crate::{
    console::{self, Kind},
    cpu, irq,
};

struct XenConsole;

impl Console for XenConsole {
    fn name(&self) -> &'static str {
        "xen"
    }

    fn write(&mut self, bytes: &[u8]) {
        pv_ops::console_write(bytes);
    }

    fn read(&mut self) -> Option<u8> {
        read_from_xen()
    }
}

/// Puts it to use.
///
/// # Errors
/// Xen has nobody to tell of what is typed; then nothing changes.
pub(super) fn init() -> Result<(), Errno> {
    let port = bind_virq(Virq::Console, cpu::current().id())?;
    console::register(Box::new(XenConsole), Kind::Serial);
    irq::event_channel::bind(port, "console", console::on_receive)?;
    log::info!("console: Xen's own, in and out");
    Ok(())
}

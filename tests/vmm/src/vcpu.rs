//! A CPU of the guest: a thread that runs it and answers its exits.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use anyhow::{Context, Result};
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::options::Msr;
use crate::ports::{NOBODY, Ports};
use crate::report::{Counts, End};
use crate::rivals;

/// A CPU, and what it shares with the others.
pub(crate) struct Cpu {
    pub(crate) vcpu: VcpuFd,
    pub(crate) ports: Arc<Ports>,
    pub(crate) counts: Arc<Counts>,
    /// A register that KVM does not know.
    pub(crate) msr: Option<Msr>,
    /// Where the first end of the guest goes.
    pub(crate) ended: Sender<Result<End>>,
    /// Other threads want the same CPU of the host.
    pub(crate) contended: bool,
}

impl Cpu {
    /// Lets it run until the guest or this program ends.
    pub(crate) fn start(mut self) {
        thread::spawn(move || {
            let end = self.run();
            // Nobody listens any more when another CPU was first.
            let _ = self.ended.send(end);
        });
    }

    fn run(&mut self) -> Result<End> {
        if self.contended {
            rivals::stay_on_one_cpu()?;
        }
        loop {
            let exit = match self.vcpu.run() {
                Ok(exit) => exit,
                Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                    Counts::add(&self.counts.interrupted);
                    continue;
                }
                Err(error) => return Err(error).context("KVM_RUN"),
            };
            let counts = &self.counts;
            match exit {
                VcpuExit::IoIn(port, data) => {
                    Counts::add(&counts.io_in);
                    self.ports.read(port, data);
                }
                VcpuExit::IoOut(port, data) => {
                    Counts::add(&counts.io_out);
                    if let Some(end) = self.ports.write(port, data)? {
                        return Ok(end);
                    }
                }
                VcpuExit::MmioRead(_, data) => {
                    Counts::add(&counts.mmio_read);
                    data.fill(NOBODY);
                }
                VcpuExit::MmioWrite(..) => Counts::add(&counts.mmio_write),
                VcpuExit::Hypercall(hypercall) => {
                    Counts::add(&counts.hypercall);
                    *hypercall.ret = 0;
                }
                VcpuExit::X86Rdmsr(exit) => match self.msr.filter(|msr| msr.number == exit.index) {
                    Some(msr) => *exit.data = msr.value,
                    None => *exit.error = 1,
                },
                VcpuExit::X86Wrmsr(exit) => {
                    Counts::add(&counts.refused_msr_writes);
                    *exit.error = 1;
                }
                VcpuExit::Shutdown => return Ok(End::TripleFault),
                VcpuExit::InternalError => return Ok(End::Stopped("internal-error".into())),
                VcpuExit::FailEntry(reason, _) => return Ok(End::Stopped(format!("fail-entry-{reason:#x}"))),
                VcpuExit::SystemEvent(event, _) => return Ok(End::Stopped(format!("system-event-{event}"))),
                VcpuExit::Hlt => return Ok(End::Stopped("halted-for-ever".into())),
                VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::IoapicEoi(_) => {
                    Counts::add(&counts.other)
                }
                other => return Ok(End::Stopped(format!("{other:?}").replace(' ', "-"))),
            }
        }
    }
}

//! COM1, a 16550 whose other end is this program's standard input and output.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use kvm_ioctls::VmFd;
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const FIRST_PORT: u16 = 0x3f8;
const REGISTERS: u16 = 8;
/// Its interrupt line.
const LINE: u32 = 4;
/// How long a line without an end may wait to be written.
const PATIENCE: Duration = Duration::from_millis(5);

/// The serial line. Clones are the same.
#[derive(Clone)]
pub(crate) struct Com1 {
    chip: Arc<Mutex<Serial<Interrupt, NoEvents, Out>>>,
    out: Out,
}

/// Raises the interrupt line.
struct Interrupt(EventFd);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Standard output, a line at a time: a byte at a time is slow where a hypervisor is below.
#[derive(Clone, Default)]
pub(crate) struct Out(Arc<Mutex<Vec<u8>>>);

impl Out {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Writes what is waiting.
    ///
    /// # Errors
    /// Nobody reads.
    pub(crate) fn drain(&self) -> io::Result<()> {
        let mut waiting = self.lock();
        if waiting.is_empty() {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        out.write_all(&waiting)?;
        waiting.clear();
        out.flush()
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().extend_from_slice(bytes);
        if bytes.contains(&b'\n') {
            self.drain()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Com1 {
    /// One whose bytes go to `out`.
    ///
    /// # Errors
    /// There are no more file descriptors.
    pub(crate) fn new(out: Out) -> Result<Self> {
        let interrupt = Interrupt(EventFd::new(EFD_NONBLOCK).context("no eventfd")?);
        Ok(Self { chip: Arc::new(Mutex::new(Serial::new(interrupt, out.clone()))), out })
    }

    /// Connects its interrupt line, and starts what feeds it and what writes half lines.
    ///
    /// # Errors
    /// KVM does not take the line.
    pub(crate) fn connect(&self, vm: &VmFd) -> Result<()> {
        vm.register_irqfd(&self.lock()?.interrupt_evt().0, LINE).context("KVM takes no interrupt line")?;
        let (input, out) = (self.clone(), self.out.clone());
        // Both threads end with the process, or when nobody is at the other end.
        thread::spawn(move || input.feed());
        thread::spawn(move || {
            while out.drain().is_ok() {
                thread::sleep(PATIENCE);
            }
        });
        Ok(())
    }

    /// The register behind `port`, if it is one of the chip's.
    pub(crate) fn register(port: u16) -> Option<u8> {
        let register = port.checked_sub(FIRST_PORT).filter(|register| *register < REGISTERS)?;
        u8::try_from(register).ok()
    }

    pub(crate) fn read(&self, register: u8) -> u8 {
        self.lock().map_or(crate::ports::NOBODY, |mut chip| chip.read(register))
    }

    /// # Errors
    /// The interrupt cannot be raised, or nobody reads.
    pub(crate) fn write(&self, register: u8, value: u8) -> Result<()> {
        self.lock()?.write(register, value).map_err(|error| anyhow!("COM1: {error}"))
    }

    fn lock(&self) -> Result<MutexGuard<'_, Serial<Interrupt, NoEvents, Out>>> {
        self.chip.lock().map_err(|_| anyhow!("COM1 broke"))
    }

    /// Puts standard input into the chip as fast as the guest takes it.
    fn feed(&self) {
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = io::stdin().read(&mut buffer) {
            let mut left = &buffer[..count];
            while !left.is_empty() {
                let Ok(mut chip) = self.lock() else { return };
                let room = chip.fifo_capacity().min(left.len());
                if room > 0 && chip.enqueue_raw_bytes(&left[..room]).is_err() {
                    return;
                }
                drop(chip);
                left = &left[room..];
                if !left.is_empty() {
                    thread::sleep(PATIENCE);
                }
            }
        }
    }
}

//! Memory that is not there when the guest first uses it, by userfaultfd(2): each page comes after a delay, as if the host
//! had to read it from a disk. KVM tells the guest by an asynchronous page fault, if the guest wants that.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, ensure};
use vm_memory::{GuestAddress, GuestMemoryBackend};
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iowr_nr;

use crate::memory::Memory;
use crate::options::Late;
use crate::report::Counts;

/// `UFFD_API` (Linux include/uapi/linux/userfaultfd.h).
const UFFD_API: u64 = 0xaa;
const REGISTER_MODE_MISSING: u64 = 1;
const EVENT_PAGEFAULT: u8 = 0x12;
const PAGE: u64 = 4096;

ioctl_iowr_nr!(UFFDIO_API, 0xaa, 0x3f, Api);
ioctl_iowr_nr!(UFFDIO_REGISTER, 0xaa, 0x00, Register);
ioctl_iowr_nr!(UFFDIO_ZEROPAGE, 0xaa, 0x04, ZeroPage);

#[repr(C)]
#[derive(Default)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Default)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Default)]
struct ZeroPage {
    start: u64,
    len: u64,
    mode: u64,
    zeropage: i64,
}

/// Makes `late` of the guest's memory late.
///
/// # Errors
/// Linux has no userfaultfd for this program, or there is no such memory.
pub(crate) fn start(memory: &Memory, late: Late, counts: Arc<Counts>) -> Result<()> {
    let bytes = late.pages * PAGE;
    ensure!(
        memory.check_range(GuestAddress(late.start), usize::try_from(bytes)?),
        "memory that comes late must be memory"
    );
    let host = memory.get_host_address(GuestAddress(late.start))?.addr() as u64;
    // SAFETY: userfaultfd(2) takes flags and touches no memory.
    let descriptor = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
    ensure!(descriptor >= 0, "userfaultfd: {}", io::Error::last_os_error());
    // SAFETY: the call above has just opened it, and nobody else has it.
    let faults = unsafe { File::from_raw_fd(i32::try_from(descriptor)?) };
    let mut api = Api { api: UFFD_API, ..Api::default() };
    // SAFETY: UFFDIO_API reads and writes one `Api`.
    let result = unsafe { ioctl_with_mut_ref(&faults, UFFDIO_API(), &mut api) };
    ensure!(result == 0, "UFFDIO_API: {}", io::Error::last_os_error());
    let mut register = Register { start: host, len: bytes, mode: REGISTER_MODE_MISSING, ioctls: 0 };
    // SAFETY: UFFDIO_REGISTER reads and writes one `Register`; what is there in the range stays, what is not there
    // reads as zero later instead of now.
    let result = unsafe { ioctl_with_mut_ref(&faults, UFFDIO_REGISTER(), &mut register) };
    ensure!(result == 0, "UFFDIO_REGISTER: {}", io::Error::last_os_error());
    thread::spawn(move || serve(&Arc::new(faults), late, &counts));
    Ok(())
}

/// Answers each fault after the delay, until the program ends.
fn serve(faults: &Arc<File>, late: Late, counts: &Counts) {
    let mut message = [0; 32];
    while faults.as_ref().read_exact(&mut message).is_ok() {
        // `struct uffd_msg`: the event in byte 0, for a page fault the flags in 8..16 and the address in 16..24.
        if message[0] != EVENT_PAGEFAULT {
            continue;
        }
        let address = message[16..24].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Counts::add(&counts.late_pages);
        let faults = Arc::clone(faults);
        thread::spawn(move || {
            thread::sleep(late.delay);
            if let Err(error) = bring(&faults, address & !(PAGE - 1)) {
                eprintln!("vmm: {error:#}");
            }
        });
    }
}

fn bring(faults: &File, page: u64) -> Result<()> {
    let mut zero = ZeroPage { start: page, len: PAGE, ..ZeroPage::default() };
    // SAFETY: UFFDIO_ZEROPAGE reads and writes one `ZeroPage`; it fills a page of the guest's that was never there.
    let result = unsafe { ioctl_with_mut_ref(&faults.as_raw_fd(), UFFDIO_ZEROPAGE(), &mut zero) };
    let error = io::Error::last_os_error();
    // Another fault on the same page was first.
    let there = error.raw_os_error() == Some(libc::EEXIST);
    if result == 0 || there { Ok(()) } else { Err(error).context("UFFDIO_ZEROPAGE") }
}

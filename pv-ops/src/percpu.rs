//! The beginning of every CPU's own data, which GS points to: at fixed offsets, so that a backend's instructions can
//! have them in their text.
//! Neighbours: the kernel's `cpu::percpu` (what follows), `backend::Services::cpu_up` (who shares the words).

use core::{
    mem::offset_of,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering},
};

/// Bytes from GS to the words that a CPU shares with its host.
pub const HOST_WORDS: usize = 64;

/// The first bytes of a CPU's data, so aligned that they are in one page.
#[repr(C, align(512))]
#[derive(Debug)]
pub struct CpuArea {
    /// Its own address, so that one load from `gs:[0]` finds it.
    this: AtomicPtr<CpuArea>,
    host_address: AtomicU64,
    number: AtomicU32,
    page: AtomicU64,
    page_address: AtomicU64,
    /// What the host reads and writes at any time; what it means is the backend's.
    host: HostWords,
}

/// 256 bytes, aligned to 64.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct HostWords(pub [AtomicU64; 32]);

const _: () = assert!(offset_of!(CpuArea, this) == 0 && offset_of!(CpuArea, host) == HOST_WORDS);

impl CpuArea {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            this: AtomicPtr::new(core::ptr::null_mut()),
            host_address: AtomicU64::new(0),
            number: AtomicU32::new(0),
            page: AtomicU64::new(0),
            page_address: AtomicU64::new(0),
            host: HostWords([const { AtomicU64::new(0) }; 32]),
        }
    }

    /// Notes where it is, and the CPU's number; `physical` gives the physical address behind an address.
    pub fn settle(&'static self, number: u32, physical: impl Fn(u64) -> Option<u64>) {
        self.this.store(core::ptr::from_ref(self).cast_mut(), Ordering::Relaxed);
        self.number.store(number, Ordering::Relaxed);
        let host = physical((&raw const self.host).addr() as u64).unwrap_or(0);
        self.host_address.store(host, Ordering::Relaxed);
    }

    /// Gives the CPU a zeroed page for its host ([`Services::cpu_pages`](crate::backend::Services)), by address and physical
    /// address. It stays.
    pub fn give_page(&self, page: u64, physical: u64) {
        self.page.store(page, Ordering::Relaxed);
        self.page_address.store(physical, Ordering::Relaxed);
    }

    /// That page, if there is one: address and physical address, else 0.
    pub fn page(&self) -> (u64, u64) {
        (self.page.load(Ordering::Relaxed), self.page_address.load(Ordering::Relaxed))
    }

    /// The number of the CPU.
    pub fn number(&self) -> u32 {
        self.number.load(Ordering::Relaxed)
    }

    /// The words shared with the host.
    pub fn host(&self) -> &[AtomicU64; 32] {
        &self.host.0
    }

    /// The physical address of [`host`](Self::host); 0 if it is not known.
    pub fn host_address(&self) -> u64 {
        self.host_address.load(Ordering::Relaxed)
    }
}

impl Default for CpuArea {
    fn default() -> Self {
        Self::new()
    }
}

/// The area of the CPU that runs this.
///
/// # Safety
/// GS points to a settled area, which never goes away: in the guest, from the kernel's `cpu::init` on.
#[inline(always)]
pub unsafe fn current() -> &'static CpuArea {
    let this: *const CpuArea;
    // SAFETY: one load, from what the caller says is there.
    unsafe {
        core::arch::asm!("mov {}, qword ptr gs:[0]", out(reg) this, options(pure, readonly, nostack, preserves_flags));
    }
    // SAFETY: the first field of a settled area is its own address; all in it is atomic, and it stays.
    unsafe { &*this }
}

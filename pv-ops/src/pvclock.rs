//! The clock page that KVM and Xen share with a guest: layout, arithmetic, and the protocol for reading it.
//! `struct pvclock_vcpu_time_info` (Linux `Documentation/virt/kvm/x86/msr.rst`, MSR_KVM_SYSTEM_TIME_NEW) and
//! `struct vcpu_time_info` (xen.h) are the same 32 bytes. Neighbour: `scale`.

use crate::scale::Scale;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

/// One virtual CPU's clock, written by the host while the guest runs.
///
/// The host makes `version` odd, changes the rest, makes it even again (a larger number): a reader takes what it
/// read between two equal even versions.
#[repr(C)]
#[derive(Debug, Default)]
#[doc(alias("pvclock_vcpu_time_info", "vcpu_time_info"))]
pub struct TimeInfo {
    version: AtomicU32,
    _pad0: AtomicU32,
    tsc_timestamp: AtomicU64,
    system_time: AtomicU64,
    tsc_to_system_mul: AtomicU32,
    /// Signed.
    tsc_shift: AtomicU8,
    flags: AtomicU8,
    _pad: [AtomicU8; 2],
}

const _: () = assert!(size_of::<TimeInfo>() == 32 && core::mem::offset_of!(TimeInfo, tsc_shift) == 28);

/// Boot time of the guest in Unix time, written by the host when asked.
/// `struct pvclock_wall_clock` (msr.rst, MSR_KVM_WALL_CLOCK_NEW); in xen.h `shared_info.wc_version, wc_sec, wc_nsec`.
#[repr(C)]
#[derive(Debug, Default)]
#[doc(alias = "pvclock_wall_clock")]
pub struct WallClock {
    version: AtomicU32,
    sec: AtomicU32,
    nsec: AtomicU32,
}

/// A consistent copy of a [`TimeInfo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// TSC value at `system_time_ns`.
    pub tsc_timestamp: u64,
    /// Nanoseconds since boot at `tsc_timestamp`.
    pub system_time_ns: u64,
    /// From TSC ticks to nanoseconds.
    pub scale: Scale,
    /// Flag bits, see [`Flags`].
    pub flags: Flags,
}

/// What the host says about its clock (msr.rst, MSR_KVM_SYSTEM_TIME_NEW).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// Readings of different CPUs are monotone together.
    #[doc(alias = "PVCLOCK_TSC_STABLE_BIT")]
    pub fn tsc_is_stable(self) -> bool {
        self.0 & 1 != 0
    }

    /// The host stopped this virtual CPU for a while (the guest clears the bit).
    #[doc(alias = "PVCLOCK_GUEST_STOPPED")]
    pub fn guest_was_stopped(self) -> bool {
        self.0 & 2 != 0
    }
}

/// The host never finished its update: it keeps the version odd, or changes it all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host's clock page did not come to rest in {ATTEMPTS} readings")]
pub struct Restless;

/// Readings before [`Restless`]. An update takes the host some nanoseconds, or a time slice if it is interrupted.
pub const ATTEMPTS: u32 = 1_000_000;

impl TimeInfo {
    /// All zeroes: a clock that the host has not written yet.
    pub const fn new() -> Self {
        Self {
            version: AtomicU32::new(0),
            _pad0: AtomicU32::new(0),
            tsc_timestamp: AtomicU64::new(0),
            system_time: AtomicU64::new(0),
            tsc_to_system_mul: AtomicU32::new(0),
            tsc_shift: AtomicU8::new(0),
            flags: AtomicU8::new(0),
            _pad: [const { AtomicU8::new(0) }; 2],
        }
    }

    /// A consistent copy, with what `inside` gave while it was valid: the TSC is to be read there, so that a host
    /// that moves the guest to another counter in between is noticed.
    pub fn read<T>(&self, inside: impl Fn() -> T) -> Result<(Snapshot, T), Restless> {
        consistent(&self.version, || {
            let snapshot = Snapshot {
                tsc_timestamp: self.tsc_timestamp.load(Ordering::Relaxed),
                system_time_ns: self.system_time.load(Ordering::Relaxed),
                scale: Scale::of_guest_clock(
                    self.tsc_to_system_mul.load(Ordering::Relaxed),
                    self.tsc_shift.load(Ordering::Relaxed) as i8,
                ),
                flags: Flags(self.flags.load(Ordering::Relaxed)),
            };
            (snapshot, inside())
        })
    }

    /// Nanoseconds since boot; `tsc` reads the counter, ordered after earlier loads (`lfence; rdtsc`).
    pub fn now_ns(&self, tsc: impl Fn() -> u64) -> Result<u64, Restless> {
        self.read(tsc).map(|(snapshot, tsc)| snapshot.at(tsc))
    }
}

impl WallClock {
    /// All zeroes: the host has not written it yet.
    pub const fn new() -> Self {
        Self { version: AtomicU32::new(0), sec: AtomicU32::new(0), nsec: AtomicU32::new(0) }
    }

    /// Unix time at the guest's boot in nanoseconds.
    pub fn read_boot_unix_ns(&self) -> Result<u64, Restless> {
        consistent(&self.version, || {
            let sec = u64::from(self.sec.load(Ordering::Relaxed));
            sec * 1_000_000_000 + u64::from(self.nsec.load(Ordering::Relaxed))
        })
    }
}

impl Snapshot {
    /// Nanoseconds since boot when the TSC is `tsc`; a TSC before the snapshot counts as the snapshot.
    ///
    /// Before and after are by the difference as a signed number: a host that sets a guest's TSC to 0 gives it
    /// snapshots from before then, with a TSC below 0.
    pub fn at(&self, tsc: u64) -> u64 {
        let elapsed = tsc.wrapping_sub(self.tsc_timestamp);
        let elapsed = if elapsed > i64::MAX as u64 { 0 } else { elapsed };
        self.system_time_ns.saturating_add(self.scale.apply(elapsed))
    }

    /// Nanoseconds since boot when the TSC was `tsc`, which may lie before the snapshot.
    pub fn at_or_before(&self, tsc: u64) -> u64 {
        let before = self.tsc_timestamp.wrapping_sub(tsc);
        let before = if before > i64::MAX as u64 { 0 } else { before };
        self.at(tsc).saturating_sub(self.scale.apply(before))
    }

    /// The TSC's frequency in hertz; none if the host gave no scale.
    #[doc(alias = "pvclock_tsc_khz")]
    pub fn tsc_hz(&self) -> Option<u64> {
        let hz =
            (1_000_000_000_u128 << self.scale.shift()).checked_div(u128::from(self.scale.multiplier()))?;
        u64::try_from(hz).ok()
    }
}

/// The TSC, not before earlier loads: those of the clock's version (SDM vol. 2B, RDTSC).
pub(crate) fn ordered_tsc() -> u64 {
    // SAFETY: a fence.
    unsafe { core::arch::x86_64::_mm_lfence() };
    // SAFETY: reads a counter; CR4.TSD, which could forbid it outside ring 0, is never set here.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The reader's half of the version protocol.
fn consistent<T>(version: &AtomicU32, read: impl Fn() -> T) -> Result<T, Restless> {
    for _ in 0..ATTEMPTS {
        let before = version.load(Ordering::Acquire);
        if before & 1 == 0 {
            let value = read();
            // The reads above are not moved below the second look at the version.
            fence(Ordering::Acquire);
            if version.load(Ordering::Relaxed) == before {
                return Ok(value);
            }
        }
        core::hint::spin_loop();
    }
    Err(Restless)
}

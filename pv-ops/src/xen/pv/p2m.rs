//! Guest frames and machine frames: page-table entries as the kernel writes them, with guest-physical addresses, and
//! as the CPU reads them, with machine addresses (arch-x86/xen.h, "machine-to-physical").
//! Pure: the tables come as slices or as a question. Neighbour: `mmu` (the live tables).

/// Bits of an entry.
pub(super) const PRESENT: u64 = 1;
pub(super) const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
pub(super) const ACCESSED: u64 = 1 << 5;
pub(super) const DIRTY: u64 = 1 << 6;
const GLOBAL: u64 = 1 << 8;
/// A bit that the CPU and Xen leave to the guest: the entry maps a device, whose address is the machine's own.
pub(super) const DEVICE: u64 = 1 << 9;
/// Bits that Xen uses for itself, and where they end.
const XENS_OWN: u64 = 0x7ff << 52;
pub(super) const NO_EXECUTE: u64 = 1 << 63;
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
pub(super) const PAGE: u64 = 4096;
/// A guest frame without memory, in the p2m list.
#[doc(alias = "INVALID_P2M_ENTRY")]
pub(super) const NONE: u64 = u64::MAX;

/// The address of the frame with this number.
pub(super) const fn address(frame: u64) -> u64 {
    frame * PAGE
}

/// The entry for the CPU. `p2m` tells the machine frame of a guest frame, `None` beyond the guest's memory: that is a
/// device of the machine. A guest frame without memory gives an empty entry.
pub(super) fn make(entry: u64, p2m: impl Fn(u64) -> Option<u64>) -> u64 {
    let flags = entry & !(ADDRESS | GLOBAL | DEVICE | XENS_OWN);
    match p2m((entry & ADDRESS) / PAGE) {
        // An invalid entry of the list has all bits set, a foreign one the uppermost but one.
        Some(mfn) if mfn > ADDRESS / PAGE => 0,
        Some(mfn) => flags | address(mfn),
        None => flags | entry & ADDRESS | DEVICE,
    }
}

/// The entry as the kernel wrote it. `pfn` tells the guest frame of a machine frame that is the guest's own.
///
/// Xen has slots of its own in the root table, one of which leads back to the root. They read as empty: Xen's entries
/// are without the user bit, which it adds to every entry of the guest.
pub(super) fn value(entry: u64, pfn: impl Fn(u64) -> Option<u64>) -> u64 {
    let flags = entry & !(ADDRESS | USER | DEVICE | XENS_OWN);
    match entry {
        _ if entry & PRESENT == 0 => entry,
        _ if entry & USER == 0 => 0,
        _ if entry & DEVICE != 0 => flags | entry & ADDRESS,
        _ => pfn((entry & ADDRESS) / PAGE).map_or(0, |pfn| flags | address(pfn)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIST: [u64; 4] = [7, u64::MAX, 5, 1 << 62 | 9];

    fn p2m(pfn: u64) -> Option<u64> {
        LIST.get(pfn as usize).copied()
    }

    fn pfn(mfn: u64) -> Option<u64> {
        LIST.iter().position(|&other| other == mfn).map(|pfn| pfn as u64)
    }

    #[test]
    fn a_guest_frame_becomes_its_machine_frame() {
        assert_eq!(make(address(2) | PRESENT | WRITABLE | NO_EXECUTE, p2m), address(5) | 3 | NO_EXECUTE);
        assert_eq!(
            value(address(5) | 3 | USER | 1 << 52, pfn),
            address(2) | 3,
            "Xen's own bits are not shown"
        );
    }

    #[test]
    fn a_frame_without_memory_cannot_be_mapped() {
        assert_eq!(make(PAGE | PRESENT, p2m), 0);
        assert_eq!(make(address(3) | PRESENT, p2m), 0);
    }

    #[test]
    fn xens_own_frames_are_not_seen() {
        assert_eq!(value(address(8) | PRESENT | USER, pfn), 0);
        assert_eq!(value(address(5) | PRESENT | WRITABLE, pfn), 0, "a table of ours in a slot of Xen's");
    }

    proptest! {
        /// What was made, and Xen marked, is read back; but for global, which Xen decides.
        #[test]
        fn value_reverses_make(frame in prop_oneof![Just(0u64), Just(2), 4..1u64 << 40], low in 0u64..256, no_execute: bool) {
            let flags = low & !USER | PRESENT | if no_execute { NO_EXECUTE } else { 0 };
            let entry = address(frame) | flags;
            prop_assert_eq!(value(make(entry, p2m) | USER, pfn), entry);
            prop_assert_eq!(make(entry | GLOBAL, p2m), make(entry, p2m));
        }
    }
}

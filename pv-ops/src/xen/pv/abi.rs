//! Structs and numbers of Xen's public headers that only a PV guest needs (xen.h, arch-x86/xen.h,
//! arch-x86/xen-x86_64.h, callback.h, physdev.h). Neighbour: `xen::abi` (what every guest needs).

use core::mem::{offset_of, size_of};

/// Kernel code segment of Xen's own GDT, flat, 64-bit.
pub(super) const FLAT_KERNEL_CS: u16 = 0xe033;

/// Where Xen maps its machine-to-physical table, read-only.
#[doc(alias = "MACH2PHYS_VIRT_START")]
pub(super) const M2P: u64 = 0xffff_8000_0000_0000;
/// Its length in bytes at most.
pub(super) const M2P_LEN_BYTES: u64 = 256 << 30;

/// What Xen gives a PV guest at its start.
#[repr(C)]
#[doc(alias = "start_info")]
pub(super) struct StartInfo {
    pub(super) magic: [u8; 32],
    pub(super) nr_pages: u64,
    /// Machine address of the shared page.
    pub(super) shared_info: u64,
    pub(super) flags: u32,
    pub(super) store_mfn: u64,
    pub(super) store_evtchn: u32,
    /// domU: the console ring's machine frame and event channel.
    pub(super) console_mfn: u64,
    pub(super) console_evtchn: u32,
    /// Address of the root page table.
    pub(super) pt_base: u64,
    pub(super) nr_pt_frames: u64,
    /// Address of the p2m list.
    pub(super) mfn_list: u64,
}
const _: () = {
    assert!(offset_of!(StartInfo, nr_pages) == 32 && offset_of!(StartInfo, store_mfn) == 56);
    assert!(offset_of!(StartInfo, console_mfn) == 72 && offset_of!(StartInfo, console_evtchn) == 80);
    assert!(offset_of!(StartInfo, pt_base) == 88 && offset_of!(StartInfo, mfn_list) == 104);
};

/// What `magic` begins with.
pub(super) const MAGIC: &[u8] = b"xen-3.";

/// A gate of the virtual trap table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[doc(alias = "trap_info")]
pub(super) struct TrapInfo {
    pub(super) vector: u8,
    /// Bits 0-1: from which ring `int` may raise it; bit 2: events are masked on entry.
    pub(super) flags: u8,
    pub(super) cs: u16,
    pub(super) address: u64,
}
const _: () = assert!(size_of::<TrapInfo>() == 16 && offset_of!(TrapInfo, address) == 8);

/// Commands of `mmuext_op`.
pub(super) const MMUEXT_PIN_L1_TABLE: u32 = 0;
pub(super) const MMUEXT_UNPIN_TABLE: u32 = 4;
pub(super) const MMUEXT_NEW_BASEPTR: u32 = 5;
pub(super) const MMUEXT_TLB_FLUSH_LOCAL: u32 = 6;
pub(super) const MMUEXT_INVLPG_LOCAL: u32 = 7;

#[repr(C)]
#[doc(alias = "mmuext_op")]
pub(super) struct MmuextOp {
    pub(super) cmd: u32,
    /// A machine frame or a linear address.
    pub(super) arg1: u64,
    pub(super) arg2: u64,
}
const _: () = assert!(size_of::<MmuextOp>() == 24 && offset_of!(MmuextOp, arg1) == 8);

#[repr(C)]
#[derive(Clone, Copy)]
#[doc(alias = "mmu_update")]
pub(super) struct MmuUpdate {
    /// Machine address of the entry; the two lowest bits are the command, 0 being an ordinary update.
    pub(super) ptr: u64,
    pub(super) val: u64,
}
const _: () = assert!(size_of::<MmuUpdate>() == 16);

/// `update_va_mapping`: flush that address, on this CPU.
pub(super) const UVMF_INVLPG: u64 = 2;
/// Flush everything, on all CPUs.
#[doc(alias = "UVMF_TLB_FLUSH")]
#[doc(alias = "UVMF_ALL")]
pub(super) const UVMF_TLB_FLUSH_ALL: u64 = 1 | 4;

/// Base of GS while the kernel runs.
pub(super) const SEGBASE_GS_KERNEL: u64 = 2;

/// Commands of `callback_op`.
#[doc(alias = "CALLBACKOP_register")]
pub(super) const CALLBACKOP_REGISTER: u32 = 0;
#[doc(alias = "CALLBACKTYPE_event")]
pub(super) const CALLBACKTYPE_EVENT: u16 = 0;

#[repr(C)]
#[doc(alias = "callback_register")]
pub(super) struct CallbackRegister {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) address: u64,
}
const _: () = assert!(size_of::<CallbackRegister>() == 16 && offset_of!(CallbackRegister, address) == 8);

/// Commands of `physdev_op`.
#[doc(alias = "PHYSDEVOP_set_iopl")]
pub(super) const PHYSDEVOP_SET_IOPL: u32 = 6;

#[repr(C)]
#[doc(alias = "physdev_set_iopl")]
pub(super) struct SetIopl {
    pub(super) iopl: u32,
}

//! Structs and numbers of Xen's public headers that only a PV guest needs (xen.h, arch-x86/xen.h,
//! arch-x86/xen-x86_64.h, callback.h, physdev.h). Neighbour: `xen::abi` (what every guest needs).

use core::mem::{offset_of, size_of};

/// Kernel code segment of Xen's own GDT, flat, 64-bit.
pub(super) const FLAT_KERNEL_CS: u16 = 0xe033;

/// Data and stack segment of Xen's own GDT, flat.
pub(super) const FLAT_KERNEL_SS: u16 = 0xe02b;

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
pub(super) const MMUEXT_TLB_FLUSH_MULTI: u32 = 8;
pub(super) const MMUEXT_INVLPG_MULTI: u32 = 9;

#[repr(C)]
#[derive(Clone, Copy)]
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

/// Registers as Xen keeps them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[doc(alias = "cpu_user_regs")]
pub(super) struct UserRegs {
    /// r15, r14, r13, r12, rbp.
    pub(super) kept: [u64; 5],
    pub(super) rbx: u64,
    /// r11, r10, r9, r8, rax, rcx, rdx, rsi.
    pub(super) lost: [u64; 8],
    pub(super) rdi: u64,
    pub(super) error_code: u32,
    pub(super) entry_vector: u32,
    pub(super) rip: u64,
    pub(super) cs: u16,
    pub(super) saved_upcall_mask: u16,
    pub(super) rflags: u64,
    pub(super) rsp: u64,
    pub(super) ss: u16,
    /// es, ds, fs, gs.
    pub(super) segments: [u64; 4],
}

/// The first state of a virtual CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[doc(alias = "vcpu_guest_context")]
pub(super) struct VcpuGuestContext {
    pub(super) fpu_ctxt: [u64; 64],
    pub(super) flags: u64,
    pub(super) user_regs: UserRegs,
    pub(super) trap_ctxt: [[u64; 2]; 256],
    pub(super) ldt: [u64; 2],
    pub(super) gdt_frames: [u64; 16],
    pub(super) gdt_ents: u64,
    pub(super) kernel_ss: u64,
    pub(super) kernel_sp: u64,
    pub(super) ctrlreg: [u64; 8],
    pub(super) debugreg: [u64; 8],
    /// Entries for events, failed returns and system calls.
    pub(super) callbacks: [u64; 3],
    pub(super) vm_assist: u64,
    pub(super) fs_base: u64,
    pub(super) gs_base_kernel: u64,
    pub(super) gs_base_user: u64,
}
const _: () = {
    assert!(
        size_of::<UserRegs>() == 200 && offset_of!(UserRegs, rip) == 128 && offset_of!(UserRegs, rsp) == 152
    );
    assert!(size_of::<VcpuGuestContext>() == 5168 && offset_of!(VcpuGuestContext, user_regs) == 520);
    assert!(
        offset_of!(VcpuGuestContext, trap_ctxt) == 720 && offset_of!(VcpuGuestContext, kernel_ss) == 4968
    );
    assert!(
        offset_of!(VcpuGuestContext, ctrlreg) == 4984 && offset_of!(VcpuGuestContext, gs_base_kernel) == 5152
    );
};

impl VcpuGuestContext {
    pub(super) const ZERO: Self = Self {
        fpu_ctxt: [0; 64],
        flags: 0,
        user_regs: UserRegs {
            kept: [0; 5],
            rbx: 0,
            lost: [0; 8],
            rdi: 0,
            error_code: 0,
            entry_vector: 0,
            rip: 0,
            cs: 0,
            saved_upcall_mask: 0,
            rflags: 0,
            rsp: 0,
            ss: 0,
            segments: [0; 4],
        },
        trap_ctxt: [[0; 2]; 256],
        ldt: [0; 2],
        gdt_frames: [0; 16],
        gdt_ents: 0,
        kernel_ss: 0,
        kernel_sp: 0,
        ctrlreg: [0; 8],
        debugreg: [0; 8],
        callbacks: [0; 3],
        vm_assist: 0,
        fs_base: 0,
        gs_base_kernel: 0,
        gs_base_user: 0,
    };
}

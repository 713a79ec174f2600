//! Virtual CPUs of a PV guest: how one starts, what they send each other, how one CPU has others flush (vcpu.h, xen.h).
//! Neighbours: `xen::vcpu` (what each shares with Xen), the kernel's `cpu::smp` (who starts them).

use super::{
    abi::{
        FLAT_KERNEL_CS, FLAT_KERNEL_SS, MMUEXT_INVLPG_MULTI, MMUEXT_TLB_FLUSH_MULTI, MmuextOp,
        VcpuGuestContext,
    },
    mmu,
    p2m::PAGE,
};
use crate::{
    backend::CpuStart,
    cpu_set::CpuSet,
    percpu::{self, CpuArea},
    xen::{
        abi::{DOMID_SELF, vcpu},
        event_channel::{self, Port},
        hypercall::{self, Errno, Number},
        shared_info::{self, VCPUS},
        vcpu::{command, forget_moves, move_info},
    },
};
use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

/// How many virtual CPUs this domain has.
pub(super) fn count() -> Option<u32> {
    // SAFETY: asks.
    let exists = |&vcpu: &u32| unsafe { command(vcpu::IS_UP, vcpu, &0_u64) }.is_ok();
    Some((0..VCPUS as u32).take_while(exists).count().max(1) as u32)
}

/// The first state of a virtual CPU while Xen copies it.
struct Context {
    taken: AtomicBool,
    place: UnsafeCell<VcpuGuestContext>,
}

// SAFETY: the place is used by who has `taken` it.
unsafe impl Sync for Context {}

static CONTEXT: Context =
    Context { taken: AtomicBool::new(false), place: UnsafeCell::new(VcpuGuestContext::ZERO) };

/// RFLAGS with nothing but the bit that is always set.
const RFLAGS: u64 = 2;
/// The kernel's page tables are in force first.
#[doc(alias = "VGCF_in_kernel")]
const IN_KERNEL: u64 = 1 << 2;

/// # Safety
/// `start` leads to code, stack and data for this CPU, which does not run.
pub(super) unsafe fn start(cpu: u32, start: &CpuStart) -> bool {
    if CONTEXT.taken.swap(true, Ordering::Acquire) {
        return false;
    }
    // SAFETY: taken.
    let context = unsafe { &mut *CONTEXT.place.get() };
    context.flags = IN_KERNEL;
    context.user_regs.rip = enter as *const () as u64;
    context.user_regs.rbx = start.entry as *const () as u64;
    context.user_regs.rdi = start.argument;
    context.user_regs.rsp = start.stack;
    context.user_regs.rflags = RFLAGS;
    context.user_regs.cs = FLAT_KERNEL_CS;
    context.user_regs.ss = FLAT_KERNEL_SS;
    context.kernel_ss = FLAT_KERNEL_SS.into();
    context.kernel_sp = start.stack;
    context.ctrlreg[3] = mmu::machine_frame(mmu::read_cr3() / PAGE).unwrap_or(u64::MAX) * PAGE;
    context.gs_base_kernel = core::ptr::from_ref(start.area).expose_provenance() as u64;
    // Its events are held back until it lets them in.
    if let Some(info) = shared_info::vcpu_info(cpu) {
        info.evtchn_upcall_mask.store(1, Ordering::SeqCst);
    }
    // SAFETY: the struct is this command's; what is in it is the caller's promise.
    let initialised = unsafe { command(vcpu::INITIALISE, cpu, context) };
    CONTEXT.taken.store(false, Ordering::Release);
    // One that was up before goes on where it went down.
    let is_ready = initialised.is_ok() || initialised == Err(Errno::EXISTS);
    // SAFETY: it is initialised.
    is_ready && unsafe { command(vcpu::UP, cpu, &0_u64) }.is_ok()
}

/// The first instruction: the stack as after a call.
#[unsafe(naked)]
unsafe extern "sysv64" fn enter() -> ! {
    core::arch::naked_asm!("xor ebp, ebp", "call rbx", "ud2")
}

/// Takes another virtual CPU off.
pub(super) fn stop(cpu: u32) {
    // SAFETY: it runs no more, as was asked for.
    let _ = unsafe { command(vcpu::DOWN, cpu, &0_u64) };
}

/// Interrupts another virtual CPU, events held back or not: exception 2 of its trap table.
pub(super) fn send_nmi(cpu: u32) {
    // SAFETY: the kernel's handler knows what it is for. The command takes no argument.
    let _ = unsafe { hypercall::call3(Number::VcpuOp, vcpu::SEND_NMI.into(), cpu.into(), 0) };
}

/// Lets GS lead to this CPU's area, and has Xen keep this CPU's `vcpu_info` in it: the event mask moves along. Nothing
/// here looks at the mask in between.
///
/// # Panics
/// When Xen refuses.
pub(super) fn take_area(area: &'static CpuArea) {
    let frame = mmu::machine_frame(area.host_address() / PAGE).unwrap_or(u64::MAX);
    if let Err(error) = move_info(area, frame) {
        panic!("vcpu_info of CPU {}: {error}", area.number());
    }
}

/// In the next life: moves the `vcpu_info` of this CPU, which alone runs, into its area again, events held back.
pub(super) fn move_again() {
    forget_moves();
    if let Some(info) = shared_info::vcpu_info(0) {
        info.evtchn_upcall_mask.store(1, Ordering::SeqCst);
    }
    // SAFETY: the kernel's data is in place.
    take_area(unsafe { percpu::current() });
}

/// The channel of each CPU on which others send to it; 0 if there is none.
static IPI_PORTS: [AtomicU32; VCPUS] = [const { AtomicU32::new(0) }; VCPUS];

/// Tells the channel on which a CPU takes what others send.
pub fn set_ipi_port(cpu: u32, port: Port) {
    if let Some(place) = IPI_PORTS.get(cpu as usize) {
        place.store(port.0, Ordering::Release);
    }
}

/// # Safety
/// As for [`send_ipi_many`](crate::send_ipi_many).
pub(super) unsafe extern "sysv64" fn send_ipi_many(cpus: *const CpuSet, _vector: u8) {
    // SAFETY: the op's argument is a reference.
    for cpu in unsafe { *cpus }.iter() {
        let port = IPI_PORTS.get(cpu as usize).map_or(0, |place| place.load(Ordering::Acquire));
        if port != 0 {
            let _ = event_channel::send(Port(port));
        }
    }
}

/// More pages are flushed faster by flushing everything.
const MAX_PAGES: usize = 8;

/// Xen knows which of them run, and leaves the others alone.
pub(super) extern "sysv64" fn flush_tlb_others(cpus: *const CpuSet, start: u64, len_bytes: u64) {
    // SAFETY: the op's argument is a reference.
    let cpus = unsafe { &*cpus };
    if cpus.is_empty() {
        return;
    }
    let mask = core::ptr::from_ref(cpus.words()).expose_provenance() as u64;
    let everything = MmuextOp { cmd: MMUEXT_TLB_FLUSH_MULTI, arg1: 0, arg2: mask };
    let mut requests = [everything; MAX_PAGES];
    let pages = len_bytes.div_ceil(PAGE);
    let count = if pages <= MAX_PAGES as u64 { pages as usize } else { 1 };
    if pages <= MAX_PAGES as u64 {
        for (request, page) in requests.iter_mut().zip(0..pages) {
            *request = MmuextOp { cmd: MMUEXT_INVLPG_MULTI, arg1: start + page * PAGE, arg2: mask };
        }
    }
    let address = requests.as_ptr().expose_provenance() as u64;
    // SAFETY: so many requests, which Xen reads; they flush.
    let _ = unsafe { hypercall::call4(Number::MmuextOp, [address, count as u64, 0, DOMID_SELF.into()]) };
}

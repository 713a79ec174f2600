//! A backend that runs in an unprivileged process, and this test program patched for it, once.

use crate::{
    Backend, Environment, InstallError, Report, Stage,
    backend::Services,
    detect::Hypervisors,
    install, native,
    ops::PvOps,
    patch::{Refusal, patch, patch_site, text},
    sites::{Site, sites},
    stage,
    word::CpuidRegisters,
};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::{sync::OnceLock, vec::Vec};

/// The flag that this backend has in the place of RFLAGS.IF. Tests share it: only that it is there matters.
pub(super) static INTERRUPTS: AtomicBool = AtomicBool::new(true);
/// How often `eoi` ran.
pub(super) static EOIS: AtomicU64 = AtomicU64::new(0);

extern "sysv64" fn disable() {
    ruin_caller_saved_registers();
    INTERRUPTS.store(false, Ordering::Relaxed);
}
extern "sysv64" fn enable() {
    INTERRUPTS.store(true, Ordering::Relaxed);
}
extern "sysv64" fn restore(flags: u64) {
    ruin_caller_saved_registers();
    INTERRUPTS.store(flags & 1 << 9 != 0, Ordering::Relaxed);
}
extern "sysv64" fn eoi() {
    ruin_caller_saved_registers();
    EOIS.fetch_add(1, Ordering::Relaxed);
}
/// A machine frame is a guest frame plus this.
pub(super) const MACHINE: u64 = 0x1_0000_0000;
extern "sysv64" fn make(entry: u64) -> u64 {
    ruin_caller_saved_registers();
    entry + MACHINE
}
pub(super) extern "sysv64" fn cpuid(leaf: u32, subleaf: u32) -> CpuidRegisters {
    ruin_caller_saved_registers();
    CpuidRegisters { eax: leaf, ebx: 0xbbbb_0001, ecx: subleaf, edx: 0xdddd_0002 }
}
extern "sysv64" fn rdmsr(msr: u32) -> u64 {
    u64::from(msr) << 32 | 0xfeed
}
static LAST_WRITE: AtomicU64 = AtomicU64::new(0);
extern "sysv64" fn wrmsr(msr: u32, value: u64) {
    ruin_caller_saved_registers();
    LAST_WRITE.store(value ^ u64::from(msr), Ordering::Relaxed);
}
extern "sysv64" fn port_in8(port: u16) -> u8 {
    port as u8 ^ 0xff
}
extern "sysv64" fn port_out16(port: u16, value: u16) {
    LAST_WRITE.store(u64::from(port) << 16 | u64::from(value), Ordering::Relaxed);
}
extern "sysv64" fn wall() -> u64 {
    u64::MAX
}

/// What a function may do to its caller, done on purpose.
fn ruin_caller_saved_registers() {
    // SAFETY: every register that is changed is named; no memory is touched.
    unsafe {
        core::arch::asm!(
            "mov rax, -1", "mov rcx, -1", "mov rdx, -1", "mov rsi, -1", "mov rdi, -1",
            "mov r8, -1", "mov r9, -1", "mov r10, -1", "mov r11, -1",
            "pcmpeqd xmm0, xmm0", "pcmpeqd xmm7, xmm7", "pcmpeqd xmm15, xmm15",
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("xmm0") _, out("xmm7") _, out("xmm15") _,
            options(nostack, nomem),
        )
    }
}

/// Native where a process may, functions behind thunks elsewhere.
pub(super) const OPS: PvOps = PvOps {
    irq_disable: thunk!(irq_disable => disable),
    irq_enable: thunk!(irq_enable => enable),
    irq_restore: thunk!(irq_restore => restore),
    eoi: thunk!(eoi => eoi),
    pte_make: thunk!(pte_make => make),
    rdmsr: thunk!(rdmsr => rdmsr),
    wrmsr: thunk!(wrmsr => wrmsr),
    port_in8: thunk!(port_in8 => port_in8),
    port_out16: thunk!(port_out16 => port_out16),
    wall_ns: function!(wall_ns => wall),
    ..native::OPS
};

pub(super) static BACKEND: Backend =
    Backend { name: "hosted", detect: |_, _| false, setup, services: Services::NONE, early: None };

fn setup(_: &Environment<'_>, _: &Hypervisors, ops: &mut PvOps) {
    native::time::start();
    *ops = OPS;
}

pub(super) fn last_write() -> u64 {
    LAST_WRITE.load(Ordering::Relaxed)
}

/// What was seen on the way.
pub(super) struct History {
    /// The signal that ended a child which used an op before installation.
    pub(super) early_signal: i32,
    /// The site was left as it was when `alias` lied.
    pub(super) lying_alias: Result<(), Refusal>,
    /// Bytes of all sites before.
    pub(super) before: Vec<(Site, Vec<u8>)>,
    /// What `measure` gave with unpatched sites.
    pub(super) unpatched: Vec<super::registers::Outcome>,
    pub(super) report: Report,
    /// A second patching and a second installation.
    pub(super) second: Report,
    pub(super) reinstalled: Result<(), InstallError>,
}

/// The bytes of a site.
pub(super) fn bytes(site: Site) -> Vec<u8> {
    let start: *const u8 = core::ptr::with_exposed_provenance(site.address);
    // SAFETY: a record names bytes of this program's text.
    unsafe { core::slice::from_raw_parts(start, site.length) }.to_vec()
}

/// This process with the backend installed and every site patched. Every test that runs an op begins here.
pub(super) fn patched() -> &'static History {
    static HISTORY: OnceLock<History> = OnceLock::new();
    HISTORY.get_or_init(|| {
        assert_eq!(stage(), Stage::Empty);
        let early_signal = signal_of_an_early_op();
        install(&BACKEND, &Environment::NATIVE, &Hypervisors::scan(&native::cpu::cpuid)).unwrap();
        make_text_writable();
        let before = sites().map(|site| (site, bytes(site))).collect();
        let unpatched = super::registers::measure_all();
        let lying_alias = patch_with_a_lying_alias();
        // SAFETY: the text was just made writable in place; no other test uses an op before this is done.
        let report = unsafe { patch(|address| address.cast_mut()) };
        // SAFETY: as before.
        let second = unsafe { patch(|address| address.cast_mut()) };
        let reinstalled =
            install(&native::BACKEND, &Environment::NATIVE, &Hypervisors::scan(&native::cpu::cpuid));
        History { early_signal, lying_alias, before, unpatched, report, second, reinstalled }
    })
}

fn signal_of_an_early_op() -> i32 {
    // SAFETY: the child runs one op, which ends it, and nothing else.
    let child = unsafe { libc::fork() };
    if child == 0 {
        crate::irq_disable();
        // SAFETY: ends the child without running the parent's exit handlers.
        unsafe { libc::_exit(0) }
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child);
    assert!(libc::WIFSIGNALED(status), "the op came back");
    libc::WTERMSIG(status)
}

fn patch_with_a_lying_alias() -> Result<(), Refusal> {
    let scratch: &'static mut [u8; 64] = std::boxed::Box::leak(std::boxed::Box::new([0; 64]));
    let scratch = scratch.as_mut_ptr();
    let site = sites().next().unwrap();
    // SAFETY: the scratch memory is written in the text's place.
    unsafe { patch_site(site, &text(), &|_| scratch) }.map(drop)
}

fn make_text_writable() {
    const PAGE: usize = 4096;
    let text = text();
    let start = text.start & !(PAGE - 1);
    let length = text.end.next_multiple_of(PAGE) - start;
    // SAFETY: our own text stays readable and executable; writing it is what this is about.
    let result = unsafe {
        libc::mprotect(
            core::ptr::with_exposed_provenance_mut(start),
            length,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
        )
    };
    assert_eq!(result, 0, "mprotect: {}", std::io::Error::last_os_error());
}

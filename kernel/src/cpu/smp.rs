//! Bringing up the other CPUs, one after another: data and stacks, the message that starts it, its first steps.
//! Neighbours: `topology` (which CPUs there are), `trampoline` (where a CPU begins), `percpu` (what it gets), `docs/cpus.md`.

use super::{
    PerCpu, features, gdt, ipi, percpu, tlb,
    topology::{self, Topology},
    trampoline::{Start, Trampoline},
};
use crate::{
    hypervisor,
    irq::{self, apic, exceptions},
    mm::{self, OutOfMemory, map},
    sync::{IrqMutex, OnceCell},
    task, thread,
    time::{self, timer},
};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use pv_ops::backend::{CpuStart, StartCpu};

/// Bytes of the stack that a CPU begins on, and polls tasks on.
const STACK_BYTES: u64 = task::WORKER_STACK_BYTES;
/// How long a CPU may take from its start-up message to its first step, and until the message is sent again.
const PATIENCE_NS: u64 = 3_000_000_000;
const AGAIN_NS: u64 = 50_000_000;

/// Why a CPU is not brought up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is none with this number.
    #[error("there is no such CPU")]
    NoSuchCpu,
    /// It is up.
    #[error("it is up already")]
    IsUp,
    /// Nothing can send it a message.
    #[error("no local APIC to start it with")]
    NoController,
    /// No memory for its data, its stacks, or below 1 MiB for its first steps.
    #[error("{0}")]
    OutOfMemory(#[from] OutOfMemory),
    /// It is down.
    #[error("it is down already")]
    IsDown,
    /// The machine ends with it.
    #[error("the boot CPU stays up")]
    BootCpu,
    /// The hypervisor does not start it.
    #[error("the hypervisor does not start it")]
    Refused,
    /// It was started and did nothing.
    #[error("it was started and does not come")]
    Silent,
}

static TOPOLOGY: OnceCell<Topology> = OnceCell::uninit();
static TRAMPOLINE: IrqMutex<Option<Trampoline>> = IrqMutex::new(None);
/// The root table that all CPUs run with.
static ROOT: AtomicU64 = AtomicU64::new(0);

/// The CPUs that can be up, by number.
pub fn topology() -> Option<&'static Topology> {
    TOPOLOGY.try_get().ok()
}

/// Finds out which CPUs there are and brings all of them up, as many as `cpus=` on the command line allows.
pub fn init(info: &boot::Info) {
    let topology = topology::find(info.cmdline.get("cpus"));
    let count = topology.count();
    let _ = TOPOLOGY.try_init_once(|| topology);
    pv_ops::native::mmu::set_shootdown(tlb::shoot_down);
    let mut up = 1;
    for cpu in 1..count {
        match self::up(cpu) {
            Ok(()) => up += 1,
            Err(error) => log::warn!("CPU {cpu}: {error}"),
        }
    }
    if count > 1 {
        log::info!("{up} of {count} CPUs are up");
    }
}

/// Brings the CPU with this number up; returns once it runs.
///
/// # Errors
/// See [`Error`].
pub fn up(cpu: u32) -> Result<(), Error> {
    let apic_id = topology().and_then(|topology| topology.apic_id(cpu)).ok_or(Error::NoSuchCpu)?;
    let _changing = Changing::begin(cpu, true);
    if percpu::is_up(cpu) {
        return Err(Error::IsUp);
    }
    let data = match percpu::by_id(cpu) {
        Some(data) => data,
        None => make(cpu)?,
    };
    ROOT.store(pv_ops::read_cr3(), Ordering::Relaxed);
    let before = pv_ops::rdtsc();
    match hypervisor::services().start_cpu {
        Some(start) => start_by(start, data),
        None if apic::local().is_none() => Err(Error::NoController),
        None => send_for(data, apic_id),
    }?;
    let came = data.came_at_tsc.load(Ordering::Relaxed);
    if !(before..=pv_ops::rdtsc()).contains(&came) {
        let off = came.abs_diff(before);
        log::warn!(
            "CPU {cpu}: its time stamp counter is off by {off} ticks or more: time jumps between CPUs"
        );
    }
    Ok(())
}

/// The CPU that is being brought up or taken down; 0 if none is. The boot CPU never is.
static CHANGING: AtomicU32 = AtomicU32::new(0);
/// That CPU is to be up.
static COMING: AtomicBool = AtomicBool::new(false);

/// One CPU changes at a time.
struct Changing;

impl Changing {
    fn begin(cpu: u32, coming: bool) -> Self {
        while CHANGING.compare_exchange(0, cpu, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            thread::yield_now();
        }
        COMING.store(coming, Ordering::Release);
        Self
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        CHANGING.store(0, Ordering::Release);
    }
}

/// Has the hypervisor start it, and waits until it is up.
fn start_by(start: StartCpu, data: &'static PerCpu) -> Result<(), Error> {
    let how = CpuStart { stack: data.stack_top(), entry, argument: data.id().into(), area: data.area() };
    let begun = pv_ops::monotonic_ns();
    // SAFETY: the CPU is not up; its data, its stack and the code are there.
    if !unsafe { start(data.id(), &how) } {
        return Err(Error::Refused);
    }
    while !percpu::is_up(data.id()) {
        if pv_ops::monotonic_ns().saturating_sub(begun) > PATIENCE_NS {
            (hypervisor::services().stop_cpu).into_iter().for_each(|stop| stop(data.id()));
            return Err(Error::Silent);
        }
        thread::yield_now();
    }
    Ok(())
}

/// Data and stacks for a CPU that comes for the first time.
fn make(cpu: u32) -> Result<&'static PerCpu, Error> {
    let stack = map::stack(STACK_BYTES)?;
    let data = percpu::make(cpu, stack.top()).ok_or(OutOfMemory { len_bytes: size_of::<PerCpu>() as u64 })?;
    core::mem::forget(stack);
    exceptions::give_stacks(data)?;
    Ok(data)
}

/// Starts it by messages (Intel SDM vol. 3A §10.4.4) and waits until it is up.
fn send_for(data: &'static PerCpu, apic_id: u32) -> Result<(), Error> {
    let mut place = TRAMPOLINE.lock();
    let trampoline = match &mut *place {
        Some(trampoline) => trampoline,
        none => none.insert(Trampoline::new()?),
    };
    trampoline.aim(Start { stack: data.stack_top(), entry, argument: data.id().into() });
    // SAFETY: the CPU is not up, so it runs nothing of ours.
    unsafe { apic::send_init(apic_id) };
    let start = pv_ops::monotonic_ns();
    let waited = || pv_ops::monotonic_ns().saturating_sub(start);
    let mut again = 0;
    while !percpu::is_up(data.id()) {
        if waited() >= again && again < 3 * AGAIN_NS {
            // SAFETY: the trampoline is in place, aimed at this CPU.
            unsafe { apic::send_start_up(apic_id, trampoline.vector()) };
            again += AGAIN_NS;
        }
        if waited() > PATIENCE_NS && !trampoline.close() {
            // SAFETY: it runs nothing of ours, and shall not come later.
            unsafe { apic::send_init(apic_id) };
            return Err(Error::Silent);
        }
        tlb::poll();
        pv_ops::sched_yield();
    }
    Ok(())
}

/// The first step of a CPU in Rust, from the trampoline, with its tables and on its own stack.
extern "sysv64" fn entry(id: u64) -> ! {
    // SAFETY: the kernel's own tables, which map all that the trampoline's do but the trampoline.
    unsafe { pv_ops::write_cr3(ROOT.load(Ordering::Relaxed)) };
    match percpu::by_id(id as u32) {
        Some(cpu) => run(cpu),
        None => loop {
            pv_ops::halt();
        },
    }
}

/// The life of a CPU.
fn run(cpu: &'static PerCpu) -> ! {
    loop {
        come_up(cpu);
        task::enter_cpu(|| CHANGING.load(Ordering::Acquire) == cpu.id() && !COMING.load(Ordering::Acquire));
        go_down(cpu);
    }
}

/// What `kernel_main` does on the boot CPU, in the same order. Interrupts are disabled.
fn come_up(cpu: &'static PerCpu) {
    // SAFETY: `up` made it for this CPU.
    unsafe { cpu.take_over() };
    gdt::load(cpu);
    irq::cpu_up_exceptions();
    features::enable();
    mm::cpu_up();
    hypervisor::cpu_up(cpu.id());
    irq::cpu_up();
    time::cpu_up();
    cpu.came_at_tsc.store(pv_ops::rdtsc(), Ordering::Relaxed);
    percpu::set_up(cpu.id());
    // What was changed before this CPU was told of changes.
    pv_ops::flush_tlb();
    log::debug!("CPU {} is up: APIC {}", cpu.id(), cpu.apic_id());
}

/// Takes the CPU with this number down: it does nothing until [`up`]. Returns once it is through with all it had.
///
/// # Errors
/// See [`Error`].
pub fn down(cpu: u32) -> Result<(), Error> {
    if cpu == 0 {
        return Err(Error::BootCpu);
    }
    percpu::by_id(cpu).ok_or(Error::NoSuchCpu)?;
    let changing = Changing::begin(cpu, false);
    if !percpu::is_up(cpu) {
        return Err(Error::IsDown);
    }
    task::wake_cpu(cpu);
    while percpu::is_up(cpu) {
        thread::yield_now();
    }
    drop(changing);
    // Whoever waits there comes again, here.
    timer::wake_all(cpu);
    mm::heap::trim();
    Ok(())
}

/// The last steps of a CPU that goes down, with interrupts disabled. It comes back where a hypervisor lets it go on;
/// started by a message it begins anew.
fn go_down(cpu: &'static PerCpu) {
    pv_ops::timer_arm(u64::MAX);
    mm::cpu_down();
    percpu::set_down(cpu.id());
    // What was asked before the others saw that.
    ipi::serve();
    while CHANGING.load(Ordering::Acquire) != cpu.id() || !COMING.load(Ordering::Acquire) {
        pv_ops::halt();
    }
}

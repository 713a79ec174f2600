//! From one thread to another: the stack pointer and the registers that a call keeps (System V AMD64 ABI §3.2.1).
//!
//! A [`Context`] is a thread as the CPU sees it. [`switch`] puts the running one to sleep and lets another go on where
//! it called `switch`, or begin. That a context runs on one CPU at a time is checked here, at run time, by its state:
//! so the callers need no unsafe code. Segment bases belong to the CPU, not to the thread, and stay.
//! Neighbours: `task::scheduler` (who runs next), `fpu` (the registers that few threads use), `mm::stack`.

use alloc::sync::Arc;
use core::{
    arch::naked_asm,
    mem::ManuallyDrop,
    ptr,
    sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering},
};

use super::fpu;
use crate::{
    mm::stack::Stack,
    sync::{IrqMutex, IrqState},
};

/// Has not begun.
const NEW: u8 = 0;
/// Runs on some CPU, or has not left its stack yet.
const RUNNING: u8 = 1;
/// Waits in `switch`.
const SUSPENDED: u8 = 2;
/// Ran for the last time, and has not left its stack yet.
const ENDING: u8 = 3;
/// Never runs again.
const ENDED: u8 = 4;
/// As before, and its stack was given back; or it never had one.
const FREED: u8 = 5;

/// The context that each CPU runs. Compared only, but by `fpu`, under the conditions told at [`current_fpu`].
static CURRENT: [AtomicPtr<Context>; pv_ops::MAX_CPUS] =
    [const { AtomicPtr::new(ptr::null_mut()) }; pv_ops::MAX_CPUS];

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Registers and stack of a thread that does not run at the moment, or room for them.
#[derive(Debug)]
pub(crate) struct Context {
    /// Never used again by another.
    id: u64,
    state: AtomicU8,
    /// The stack pointer; valid while it does not run.
    rsp: AtomicU64,
    /// `None` for a context that came with a stack of its own: the one it was booted on.
    stack: ManuallyDrop<IrqMutex<Option<Stack>>>,
    fpu: fpu::State,
}

impl Context {
    /// What will call `entry` on `stack`, with interrupts disabled.
    pub(crate) fn new(stack: Stack, entry: extern "sysv64" fn() -> !) -> Self {
        // What `swap` pops: six registers, the return address. Then `begin` goes to `entry`, and a zero where the
        // return address of its caller would be ends every backtrace.
        let words = [0, 0, 0, 0, 0, 0, begin as *const () as u64, entry as *const () as u64, 0];
        let place = stack.top() - size_of_val(&words) as u64;
        let top: *mut [u64; 9] = ptr::with_exposed_provenance_mut(place as usize);
        // SAFETY: a stack is at least a page, mapped and writable up to its top, and nobody else has this one.
        unsafe { top.write(words) };
        Self::with(NEW, place, Some(stack))
    }

    /// A context without a stack, for [`adopt`](Self::adopt).
    pub(crate) fn without_stack() -> Self {
        Self::with(FREED, 0, None)
    }

    /// What waits to go on; for tests of who keeps it, as it never can.
    #[cfg(test)]
    pub(crate) fn suspended() -> Self {
        Self::with(SUSPENDED, 0, None)
    }

    fn with(state: u8, rsp: u64, stack: Option<Stack>) -> Self {
        let stack = ManuallyDrop::new(IrqMutex::new(stack));
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self { id, state: AtomicU8::new(state), rsp: AtomicU64::new(rsp), stack, fpu: fpu::State::new() }
    }

    /// Its number, from 1; never used again.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Makes what runs on this CPU a context of its own. Interrupts are disabled.
    ///
    /// # Panics
    /// When it is one already.
    pub(crate) fn adopt(&self) {
        let this = ptr::from_ref(self).cast_mut();
        let slot = current_slot();
        assert!(slot.load(Ordering::Relaxed).is_null() && self.stack.lock().is_none(), "adopted twice");
        slot.store(this, Ordering::Relaxed);
        self.state.store(RUNNING, Ordering::Relaxed);
    }

    /// Whether any CPU may go on with it now: its registers are saved.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), NEW | SUSPENDED)
    }

    /// Whether it ended and has left its stack.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), ENDED | FREED)
    }

    /// Gives the stack back, if it has ended.
    pub(crate) fn free_stack(&self) {
        if self.state.compare_exchange(ENDED, FREED, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            let stack = self.stack.lock().take();
            // Not under the lock.
            drop(stack);
        }
    }
}

impl Drop for Context {
    /// A stack that was left in the middle of something is kept: others may hold pointers into it.
    fn drop(&mut self) {
        if matches!(*self.state.get_mut(), NEW | ENDED | FREED) {
            // SAFETY: dropped here only, once.
            unsafe { ManuallyDrop::drop(&mut self.stack) };
        }
    }
}

/// Goes on with `to` on this CPU; comes back when some CPU goes on with `from`, which is never if it `ends`. Interrupts
/// are disabled.
///
/// Both are held elsewhere as well, until they have [ended](Context::has_ended): nothing is held here meanwhile, as the
/// stack of one that ends drops nothing.
///
/// # Panics
/// When `from` is not what this CPU runs, or `to` is not ready, or one of them is held by nobody else.
pub(crate) fn switch<T: AsRef<Context>>(from: Arc<T>, to: Arc<T>, ends: bool) {
    assert!(Arc::strong_count(&from) > 1 && Arc::strong_count(&to) > 1, "a thread that nobody holds");
    let (old, new): (*const Context, *const Context) = ((*from).as_ref(), (*to).as_ref());
    prepare((*from).as_ref(), (*to).as_ref(), ends);
    let save = (*from).as_ref().rsp.as_ptr();
    let rsp = (*to).as_ref().rsp.load(Ordering::Relaxed);
    drop((from, to));
    current_slot().store(new.cast_mut(), Ordering::Relaxed);
    // SAFETY:
    // 1. `old` is what runs here, so its stack is the one in use, and `save` is its place for the pointer.
    // 2. `new` was ready, which `prepare` turned into running: nobody else uses its stack, and its stack pointer is
    //    what `swap` or `Context::new` left.
    // 3. Both are held elsewhere until they have ended: `old` lives at least until `left` has marked it.
    unsafe { swap(old, rsp, save) }
}

fn prepare(from: &Context, to: &Context, ends: bool) {
    assert!(
        ptr::eq(current_slot().load(Ordering::Relaxed), from),
        "a context that does not run cannot switch"
    );
    let claimed = [SUSPENDED, NEW]
        .into_iter()
        .any(|ready| to.state.compare_exchange(ready, RUNNING, Ordering::Acquire, Ordering::Relaxed).is_ok());
    assert!(claimed, "a context cannot run twice");
    if ends {
        from.state.store(ENDING, Ordering::Relaxed);
    }
    from.fpu.leave_for(&to.fpu);
}

fn current_slot() -> &'static AtomicPtr<Context> {
    &CURRENT[super::current().id() as usize % pv_ops::MAX_CPUS]
}

/// The number of the context that runs this; 0 before there is one.
pub(crate) fn current_id() -> u64 {
    let _irq = IrqState::disable();
    let current = current_slot().load(Ordering::Relaxed);
    // SAFETY: what runs here is alive, as `switch` says (3.).
    unsafe { current.as_ref() }.map_or(0, Context::id)
}

/// The floating-point state of what this CPU runs; with interrupts disabled. `None` before threads are.
pub(super) fn current_fpu() -> Option<&'static fpu::State> {
    let current = current_slot().load(Ordering::Relaxed);
    // SAFETY:
    // 1. The scheduler holds the thread that a CPU runs, and with it its context, until that CPU has gone on to the next.
    // 2. The reference is used before that: its users run with interrupts disabled and do not switch.
    unsafe { current.as_ref() }.map(|context| &context.fpu)
}

/// Saves what a call keeps on the stack and the stack pointer to `save`, takes the other stack, and there has `from`
/// marked by [`left`], which returns to whoever called `swap` there.
#[unsafe(naked)]
unsafe extern "sysv64" fn swap(from: *const Context, rsp: u64, save: *mut u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdx], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "jmp {left}",
        left = sym left,
    )
}

/// Where a new context begins: a step that gives the entry the stack alignment of a called function.
#[unsafe(naked)]
unsafe extern "sysv64" fn begin() {
    naked_asm!("ret")
}

/// Runs on the new stack with the old context in RDI, as `swap` had it: its registers are saved, others may have it.
unsafe extern "sysv64" fn left(from: *const Context) {
    // SAFETY: alive, as `switch` says (3.), until this very store.
    let state = unsafe { &(*from).state };
    let next = if state.load(Ordering::Relaxed) == ENDING { ENDED } else { SUSPENDED };
    state.store(next, Ordering::Release);
}

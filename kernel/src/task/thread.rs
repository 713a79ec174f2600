//! A thread as the scheduler sees it: a context, a priority, and whether it waits.
//! Neighbours: `scheduler` (runs it), `crate::thread` (what apps see of it), `cpu::switch` (its registers).
#![forbid(unsafe_code)]

use alloc::{boxed::Box, sync::Arc, task::Wake, vec::Vec};
use core::{
    any::Any,
    fmt,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize},
};

use super::{
    life,
    list::{Link, Linked},
    parker::Parker,
    scheduler,
    watch::Waits,
};
use crate::{cpu::switch::Context, mm::stack::Stack, sync::IrqMutex};

/// How urgent a thread is. Of those that are ready on a CPU the most urgent run, and take turns; but each sixteenth turn is
/// that of the least urgent, so that nobody waits for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Priority {
    /// What can wait.
    Low,
    /// Everything else.
    #[default]
    Normal,
    /// What answers to the world: it takes the CPU from the others as soon as it is woken.
    High,
}

impl Priority {
    /// How many there are.
    pub(super) const LEVELS: usize = 3;
}

/// What a thread does.
pub(crate) type Body = Box<dyn FnOnce() + Send>;

/// A value of `thread_local!`, by the address of its key.
pub(crate) type Local = (usize, Arc<dyn Any + Send + Sync>);

/// A thread.
pub(crate) struct Thread {
    pub(crate) name: Box<str>,
    pub(crate) priority: Priority,
    /// Runs tasks on its CPU, and on no other.
    pub(super) is_worker: bool,
    pub(super) context: Context,
    pub(super) body: IrqMutex<Option<Body>>,
    /// Whether it waits; for the kernel's own waits.
    pub(super) parker: Parker,
    /// The token of `thread::park`, apart from that, so that no lock of the kernel takes it.
    pub(crate) token: AtomicBool,
    /// It was asked to end.
    pub(crate) cancelled: AtomicBool,
    /// The CPU that it ran on last.
    pub(super) cpu: AtomicU32,
    /// Its index among all threads.
    pub(super) index: AtomicUsize,
    /// Its values of `thread_local!`, the oldest first.
    pub(crate) locals: IrqMutex<Vec<Local>>,
    /// What it waits for, for reports.
    pub(crate) waits: Waits,
    /// How often a CPU went on with it.
    pub(crate) switches: AtomicU64,
    link: Link<Thread>,
}

impl Linked for Thread {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}

impl AsRef<Context> for Thread {
    fn as_ref(&self) -> &Context {
        &self.context
    }
}

impl Thread {
    /// A thread that runs already.
    pub(super) fn adopted(name: Box<str>, cpu: u32, is_worker: bool) -> Self {
        Self::with(Context::without_stack(), name, Priority::Normal, None, cpu, is_worker)
    }

    /// A thread that will run `body` on `stack`.
    pub(super) fn new(
        stack: Stack,
        name: Box<str>,
        priority: Priority,
        body: Body,
        cpu: u32,
        is_worker: bool,
    ) -> Self {
        Self::with(Context::new(stack, life::begin), name, priority, Some(body), cpu, is_worker)
    }

    fn with(
        context: Context,
        name: Box<str>,
        priority: Priority,
        body: Option<Body>,
        cpu: u32,
        is_worker: bool,
    ) -> Self {
        Self {
            name,
            priority,
            is_worker,
            context,
            body: IrqMutex::new(body),
            parker: Parker::new(),
            token: AtomicBool::new(false),
            cancelled: AtomicBool::new(false),
            cpu: AtomicU32::new(cpu),
            index: AtomicUsize::new(0),
            locals: IrqMutex::new(Vec::new()),
            waits: Waits::default(),
            switches: AtomicU64::new(0),
            link: Link::new(),
        }
    }
}

impl Thread {
    /// Its number, from 1; never used again.
    pub(crate) fn id(&self) -> u64 {
        self.context.id()
    }
}

/// Waking a thread ends its wait, or the next one if it does not wait.
impl Wake for Thread {
    fn wake(self: Arc<Self>) {
        if self.parker.unpark() {
            scheduler::enqueue(self);
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.parker.unpark() {
            scheduler::enqueue(self.clone());
        }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} \"{}\"", self.id(), self.name)
    }
}

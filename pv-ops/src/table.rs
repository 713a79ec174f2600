//! The table of operations at run time, and its installation.
//! Neighbours: `declare` (makes `PvOps` of the declarations), `call` (sites that go through the table), `patch` (makes
//! the table needless).
//!
//! `PvOps` is a backend's constant: for every op an [`Op`], code and perhaps the bytes to put in its place. The two
//! are one value, so that a backend which overrides an op cannot inherit another's bytes for it by oversight.
//! `TABLE` is what runs: the code addresses of the installed backend, alone in the section `.pv_table`.

use crate::{
    backend::{Backend, Environment},
    detect::{BACKENDS, Hypervisors, TABLES},
    native,
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    sync::atomic::{AtomicU8, Ordering},
};

/// Any code address; called only through a site with the right registers.
pub(crate) type Code = unsafe extern "sysv64" fn();

/// How a call site treats registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Keeps every register but the result (and those that the bare instruction needs): costs what that costs.
    Keep,
    /// As `Keep`; moreover the result depends on nothing but the argument, so equal sites may be merged.
    Pure,
    /// An ordinary function call: caller-saved registers are lost.
    Call,
    /// A jump in entry code, not returning.
    Jump,
}

/// Where a site of class `Keep` has its arguments, if not in rdi, rsi (System V). `thunk!` knows them by number.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Arguments {
    SystemV = 0,
    Rax = 1,
    Rcx = 2,
    RcxEdxEax = 3,
    RdxRax = 4,
    RaxRcx = 5,
    Rdx = 6,
    /// Number and four arguments; there is no thunk for it.
    Hypercall = 7,
}

/// Where a site has its result. `thunk!` knows it by number.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Outcome {
    Nothing = 0,
    Rax = 1,
    EdxEax = 2,
    EaxEbxEcxEdx = 3,
}

/// What a declaration says about an op; implemented by the marker types in `ops::op`.
pub(crate) trait Declared {
    /// A function that does the op, System V convention.
    type Function: Copy;
    const CLASS: Class;
    const ARGUMENTS: Arguments;
    const RESULT: Outcome;
}

/// Instructions to patch in, and how many they are.
pub(crate) struct Inline<B: ?Sized = [u8]> {
    pub(crate) instructions: u8,
    pub(crate) bytes: B,
}

impl<const N: usize> Inline<[u8; N]> {
    /// `text` is the same for the assembler, by `;`; a local label is no instruction.
    pub(crate) const fn new(text: &str, bytes: [u8; N]) -> Self {
        let text = text.as_bytes();
        let (mut instructions, mut last, mut at) = (0, b';', 0);
        while at <= text.len() {
            let byte = if at < text.len() { text[at] } else { b';' };
            if byte == b';' && last != b';' && last != b':' {
                instructions += 1;
            }
            if byte != b' ' {
                last = byte;
            }
            at += 1;
        }
        Self { instructions, bytes }
    }
}

/// A body for the op `T`: code that respects the registers of `T`'s sites, and perhaps bytes to inline instead.
pub struct Op<T> {
    pub(crate) code: Code,
    pub(crate) inline: Option<&'static Inline>,
    op: PhantomData<fn() -> T>,
}

impl<T> Clone for Op<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Op<T> {}

impl<T> Op<T> {
    /// Patched in as these instructions; for `instruction!`.
    pub(crate) const fn inline(code: Code, instructions: &'static Inline) -> Self {
        Self { code, inline: Some(instructions), op: PhantomData }
    }

    /// Patched in as a direct call (or jump) of `code`; for `function!` and `thunk!`.
    pub(crate) const fn call(code: Code) -> Self {
        Self { code, inline: None, op: PhantomData }
    }

    /// Patched in as a direct call of an ordinary function; for `function!`.
    pub(crate) const fn function(function: T::Function) -> Self
    where
        T: Declared,
    {
        union Erase<F: Copy> {
            function: F,
            code: Code,
        }
        const {
            assert!(
                matches!(T::CLASS, Class::Call),
                "sites of another class want their registers kept: thunk!"
            )
        };
        const { assert!(size_of::<T::Function>() == size_of::<Code>()) };
        // SAFETY: a function pointer (the macro makes `T::Function` one) is an address whatever its signature, and
        // the op's own sites, which alone call it, have this signature.
        Self::call(unsafe { Erase { function }.code })
    }

    pub(crate) const fn erase(self) -> Body {
        Body { code: self.code, inline: self.inline }
    }
}

/// An [`Op`] of any op.
#[derive(Clone, Copy)]
pub(crate) struct Body {
    pub(crate) code: Code,
    pub(crate) inline: Option<&'static Inline>,
}

impl Body {
    /// The bytes to patch in, if any.
    pub(crate) const fn bytes(&self) -> Option<&'static [u8]> {
        match self.inline {
            Some(inline) => Some(&inline.bytes),
            None => None,
        }
    }
}

/// What is known of an op without a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpInfo {
    /// Its name, which is also its wrapper's.
    pub name: &'static str,
    /// Its group: irq, cpu, mmu, time, lock, sched.
    pub group: &'static str,
    /// How its sites treat registers.
    pub class: Class,
}

/// How many ops there are.
pub const COUNT: usize = crate::ops::OPS.len();

/// Length in bytes of an unpatched site: `call [rip + disp32]` is FF 15 and `jmp [rip + disp32]` FF 25.
pub(crate) const CALL_LENGTH: usize = 6;

/// The longest site there may be.
pub const MAX_SITE: usize = 32;

/// The length of every op's sites: the indirect call, or the longest inline form that any backend has.
pub(crate) const SITE_LENGTHS: [usize; COUNT] = {
    let mut lengths = [CALL_LENGTH; COUNT];
    let mut table = 0;
    while table < TABLES.len() {
        let bodies = TABLES[table].bodies();
        let mut op = 0;
        while op < COUNT {
            if let Some(bytes) = bodies[op].bytes()
                && bytes.len() > lengths[op]
            {
                lengths[op] = bytes.len();
            }
            op += 1;
        }
        table += 1;
    }
    lengths
};

// What the fixed forms rely on.
const _: () = {
    let mut op = 0;
    while op < COUNT {
        assert!(SITE_LENGTHS[op] <= MAX_SITE, "an inline form is longer than MAX_SITE");
        op += 1;
    }
    assert!(crate::ops::op::iret::INDEX == 0, "iret! has slot 0 in its text");
    assert!(SITE_LENGTHS[0] == CALL_LENGTH, "iret! has the site's length in its text");
    assert!(COUNT <= u16::MAX as usize);
};

/// How far the table has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Every op traps.
    Empty,
    /// Every op works through the table.
    Installed,
    /// Every accepted site is patched; nothing of this crate's table is written any more.
    Patched,
}

/// Why a backend was not installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallError {
    /// The call sites no longer look at the table.
    #[error("call sites are already patched for {0}")]
    AlreadyPatched(&'static str),
}

#[repr(C)]
struct Slots {
    code: [Code; COUNT],
    inline: [Option<&'static Inline>; COUNT],
    backend: Option<&'static Backend>,
}

/// The running table, on pages of its own (`boot/link.ld`) so that the kernel can make it read-only after patching.
#[repr(C)]
pub(crate) struct Table {
    slots: UnsafeCell<Slots>,
    stage: AtomicU8,
}

// SAFETY: `slots` is written by `install` only, before other CPUs run and before `stage` says so (Release); every
// reader looks at `stage` first (Acquire), or is a call site, which reads one aligned pointer.
unsafe impl Sync for Table {}

#[unsafe(export_name = "pv_ops_table")]
#[unsafe(link_section = ".pv_table")]
pub(crate) static TABLE: Table = Table {
    slots: UnsafeCell::new(Slots {
        code: [pv_op_called_before_install; COUNT],
        inline: [None; COUNT],
        backend: None,
    }),
    stage: AtomicU8::new(Stage::Empty as u8),
};

/// Stands in every slot until a backend is installed: an invalid-opcode fault whose address has this name.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "sysv64" fn pv_op_called_before_install() {
    core::arch::naked_asm!("ud2")
}

/// How far the table has come.
pub fn stage() -> Stage {
    match TABLE.stage.load(Ordering::Acquire) {
        0 => Stage::Empty,
        1 => Stage::Installed,
        _ => Stage::Patched,
    }
}

/// The table's page: start address and length in bytes. Nothing writes it once [`stage`] is [`Stage::Patched`].
pub fn page() -> (usize, usize) {
    (core::ptr::from_ref(&TABLE).addr(), size_of::<Table>())
}

/// Fills the table with the backend's ops, after its own set-up. From here on every op works.
/// For the boot CPU, before the others start; another backend may follow until the sites are patched.
pub fn install(
    backend: &'static Backend,
    environment: &Environment<'_>,
    hypervisors: &Hypervisors,
) -> Result<(), InstallError> {
    if let (Stage::Patched, Some(installed)) = (stage(), installed()) {
        return Err(InstallError::AlreadyPatched(installed.name));
    }
    let others = BACKENDS.iter().filter(|other| **other != backend);
    others.filter_map(|other| other.early.as_ref()).for_each(|early| (early.leave)(environment));
    let mut ops = native::OPS;
    (backend.setup)(environment, hypervisors, &mut ops);
    // SAFETY: one CPU runs (see above) and no reference to the slots outlives its function: `installed` and
    // `body` copy what they read.
    let slots = unsafe { &mut *TABLE.slots.get() };
    for (op, body) in ops.bodies().into_iter().enumerate() {
        slots.code[op] = body.code;
        slots.inline[op] = body.inline;
    }
    slots.backend = Some(backend);
    TABLE.stage.store(Stage::Installed as u8, Ordering::Release);
    Ok(())
}

/// The installed backend.
pub fn installed() -> Option<&'static Backend> {
    if stage() == Stage::Empty {
        return None;
    }
    // SAFETY: `stage` says that `install` is done; the value is copied.
    unsafe { (*TABLE.slots.get()).backend }
}

/// What is installed for the op of this index.
pub(crate) fn body(op: usize) -> Option<Body> {
    if stage() == Stage::Empty {
        return None;
    }
    // SAFETY: as in `installed`; the reference ends with this function.
    let slots = unsafe { &*TABLE.slots.get() };
    Some(Body { code: *slots.code.get(op)?, inline: *slots.inline.get(op)? })
}

/// Address of the slot through which the sites of this op go before they are patched.
pub(crate) fn slot_address(op: usize) -> usize {
    core::ptr::from_ref(&TABLE).addr() + op * size_of::<Code>()
}

/// The sites are patched: to be said once, by `patch`.
pub(crate) fn set_patched() {
    TABLE.stage.store(Stage::Patched as u8, Ordering::Release);
}

//! Work that borrows, lent to other threads: whoever lends waits until all of it has come back.
//! Neighbours: `thread::scoped` (lends), `ipi::call_on` (which lends to other CPUs in the same way).

use alloc::{boxed::Box, sync::Arc};
use core::{
    fmt,
    marker::PhantomData,
    sync::atomic::{AtomicUsize, Ordering},
    task::Waker,
};

/// What is lent: it may borrow for `'scope`.
pub(crate) type Work<'scope> = Box<dyn FnOnce() + Send + 'scope>;

/// Where threads can be started that borrow: from outside what lives for `'env`, and this itself, which lives for `'scope`.
pub struct Scope<'scope, 'env: 'scope> {
    book: Arc<Book>,
    /// Neither lifetime may be taken for a longer or shorter one.
    exactly: PhantomData<(&'scope mut &'scope (), &'env mut &'env ())>,
}

/// What is still out, and who waits for it.
struct Book {
    out: AtomicUsize,
    waker: Waker,
}

/// Work that is out. It is done or dropped before its return is noted: the fields drop in order.
struct Loan {
    work: Work<'static>,
    back: Back,
}

struct Back(Arc<Book>);

/// Calls `body`, then waits until whatever it lent was done, or dropped: by `wait`, again and again, which `waker` ends.
pub(crate) fn lending<'env, T>(
    waker: Waker,
    wait: fn(),
    body: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
) -> T {
    let scope = Scope { book: Arc::new(Book { out: AtomicUsize::new(0), waker }), exactly: PhantomData };
    // A panic ends the guest: nothing leads past the wait.
    let result = body(&scope);
    while scope.book.out.load(Ordering::Acquire) != 0 {
        wait();
    }
    result
}

impl<'scope> Scope<'scope, '_> {
    /// Makes work something that may be kept for ever; but then [`lending`] never ends.
    pub(crate) fn lend(&self, work: Work<'scope>) -> Work<'static> {
        self.book.out.fetch_add(1, Ordering::Relaxed);
        // SAFETY: a lifetime is all that is changed.
        // 1. `lending` does not return before `Back` was dropped, after the work was done or dropped: nothing of it is used
        //    later.
        // 2. All that the work can borrow is alive until then: `body` takes any `'scope`, so it is either what lives for `'env`,
        //    which `lending` does not outlast, or the scope itself, which is dropped after the wait.
        let work = unsafe { core::mem::transmute::<Work<'scope>, Work<'static>>(work) };
        let loan = Loan { work, back: Back(self.book.clone()) };
        Box::new(move || loan.use_up())
    }
}

impl Loan {
    fn use_up(self) {
        let Self { work, back } = self;
        work();
        drop(back);
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        if self.0.out.fetch_sub(1, Ordering::Release) == 1 {
            self.0.waker.wake_by_ref();
        }
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({} threads)", self.book.out.load(Ordering::Relaxed))
    }
}

//! Tests that only a running guest can show: `kernel_test!` beside the code, and what runs them.
//!
//! Each test prints one line, `test mm::heap::grows_on_demand ... ok (1.2 ms)`, the run one more:
//! `tests: 31 passed, 0 failed, 1 skipped`. The run's status is 1 when a test failed.
//!
//! A failing test panics, and a panic cannot be taken back: locks which the test holds would stay locked, and
//! what it had half changed would stay half changed, so that every later result would mean nothing. The run
//! ends there, says which test it was, and counts the tests that did not run.
//! Neighbours: `cpu::sections` (the registry), `panic`, `tests/kernels/self_test` (the kernel that runs them).
#![forbid(unsafe_code)]

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
};
use core::{fmt, future::Future, pin::Pin};

#[cfg(target_os = "none")]
pub use run::{ended_by_panic, run};

/// How a test ended that did not fail.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The promise was kept.
    Passed,
    /// It could not be tried here; the reason.
    Skipped(String),
}

/// The body of a test.
#[derive(Clone, Copy)]
pub enum Body {
    /// `kernel_test! { fn ... }`.
    Plain(fn() -> Outcome),
    /// `kernel_test! { async fn ... }`.
    Async(fn() -> Pin<Box<dyn Future<Output = Outcome>>>),
}

/// One registered test.
#[derive(Clone, Copy)]
pub struct Test {
    module: &'static str,
    function: &'static str,
    body: Body,
}

/// What [`kernel_test!`](crate::kernel_test) implements, so that the registry can name the test by its type.
pub trait KernelTest {
    /// The test.
    fn describe() -> Test;
}

impl Test {
    /// The test `function` in `module` (as `module_path!` gives it).
    pub const fn new(module: &'static str, function: &'static str, body: Body) -> Self {
        Self { module, function, body }
    }

    /// What it does.
    pub const fn body(&self) -> Body {
        self.body
    }

    /// Its name in the test line: the module without the crate `kernel`, and the function.
    pub fn name(&self) -> String {
        format!("{}::{}", self.module.strip_prefix("kernel::").unwrap_or(self.module), self.function)
    }
}

/// Declares a test that runs in the guest, in the self-test kernel. Elsewhere it expands to nothing.
///
/// ```ignore
/// kernel_test! {
///     /// What was freed is given out again.
///     fn a_freed_frame_comes_back() { ... assert_eq!(first, second); }
/// }
/// kernel_test! {
///     async fn a_sleeper_wakes_after_its_time() {
///         if !timer_is_there { crate::skip!("no timer on this machine"); }
///         ...
///     }
/// }
/// ```
#[cfg(all(feature = "self-test", target_os = "none"))]
#[macro_export]
macro_rules! kernel_test {
    ($(#[$doc:meta])* fn $name:ident() $body:block) => {
        $crate::kernel_test!(@register $name, $crate::test::Body::Plain(|| {
            let () = $body;
            $crate::test::Outcome::Passed
        }));
    };
    ($(#[$doc:meta])* async fn $name:ident() $body:block) => {
        $crate::kernel_test!(@register $name, $crate::test::Body::Async(|| $crate::test::boxed(async {
            let () = $body;
            $crate::test::Outcome::Passed
        })));
    };
    (@register $name:ident, $body:expr) => {
        const _: () = {
            struct Registered;
            impl $crate::test::KernelTest for Registered {
                #[allow(unreachable_code)] // a body may end in `skip!`
                fn describe() -> $crate::test::Test {
                    $crate::test::Test::new(module_path!(), stringify!($name), $body)
                }
            }
            #[used]
            static RECORD: extern "C" fn() = $crate::cpu::sections::test_record::<Registered>;
        };
    };
}

/// Declares a test that runs in the guest, in the self-test kernel. Elsewhere it expands to nothing.
#[cfg(not(all(feature = "self-test", target_os = "none")))]
#[macro_export]
macro_rules! kernel_test {
    ($($test:tt)*) => {};
}

/// Ends a kernel test that cannot be tried on this machine; takes the reason as `format!` does.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {
        return $crate::test::skipped(format_args!($($reason)*))
    };
}

/// The body of `skip!`.
#[doc(hidden)]
pub fn skipped(reason: fmt::Arguments<'_>) -> Outcome {
    Outcome::Skipped(reason.to_string())
}

/// The body of an `async` kernel test.
#[doc(hidden)]
pub fn boxed(test: impl Future<Output = Outcome> + 'static) -> Pin<Box<dyn Future<Output = Outcome>>> {
    Box::pin(test)
}

/// On the host no kernel test runs.
#[cfg(not(target_os = "none"))]
pub fn ended_by_panic(_out: &mut dyn fmt::Write) -> bool {
    false
}

#[cfg(target_os = "none")]
mod run {
    use alloc::{boxed::Box, string::String, vec::Vec};
    use core::fmt;

    use super::{Body, Outcome, Test};
    use crate::{app::ExitStatus, cpu::sections, println, sync::OnceCell};
    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// The names of the tests in the order in which they run, for [`ended_by_panic`], which must not allocate.
    static NAMES: OnceCell<Box<[String]>> = OnceCell::uninit();
    /// The index in [`NAMES`] of the test that runs, plus one; 0 outside.
    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);

    /// Runs every registered test whose name contains `filter`, in the order of their names.
    pub async fn run(filter: &str) -> ExitStatus {
        let mut tests: Vec<(String, Test)> = sections::tests().map(|test| (test.name(), test)).collect();
        let registered = tests.len();
        tests.retain(|(name, _)| name.contains(filter));
        tests.sort_by(|(a, _), (b, _)| a.cmp(b));
        let (names, tests): (Vec<String>, Vec<Test>) = tests.into_iter().unzip();
        let names = NAMES.get_or_init(|| names.into());
        if names.is_empty() {
            println!("no test of {registered} has a name with {filter:?} in it");
            return ExitStatus::FAILURE;
        }
        for (index, (name, test)) in names.iter().zip(tests).enumerate() {
            log::debug!("{name} begins");
            let start_ns = pv_ops::monotonic_ns();
            RUNNING.store(index + 1, Relaxed);
            let outcome = match test.body() {
                Body::Plain(body) => body(),
                Body::Async(body) => body().await,
            };
            RUNNING.store(0, Relaxed);
            let took_us = pv_ops::monotonic_ns().saturating_sub(start_ns) / 1000;
            match outcome {
                Outcome::Passed => {
                    PASSED.fetch_add(1, Relaxed);
                    println!("test {name} ... ok ({}.{} ms)", took_us / 1000, took_us % 1000 / 100);
                }
                Outcome::Skipped(reason) => {
                    SKIPPED.fetch_add(1, Relaxed);
                    println!("test {name} ... skipped: {reason}");
                }
            }
        }
        println!("tests: {} passed, 0 failed, {} skipped", PASSED.load(Relaxed), SKIPPED.load(Relaxed));
        ExitStatus::SUCCESS
    }

    /// Called on the way to the end by a panic or a fatal exception: if it came out of a test, that test failed,
    /// and the run with it. Takes no lock and no memory.
    pub fn ended_by_panic(out: &mut dyn fmt::Write) -> bool {
        let (Ok(names), running @ 1..) = (NAMES.try_get(), RUNNING.load(Relaxed)) else { return false };
        let Some(name) = names.get(running - 1) else { return false };
        let (passed, skipped) = (PASSED.load(Relaxed), SKIPPED.load(Relaxed));
        let _ = writeln!(out, "test {name} ... FAILED");
        let _ = writeln!(
            out,
            "tests: {passed} passed, 1 failed, {skipped} skipped, {} not run",
            names.len() - running
        );
        true
    }
}

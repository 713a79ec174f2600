//! The app: one `async fn main`, its arguments, its exit status.
//!
//! `kernel::app!(main)` makes a function the main of this image; `run` is the last stage of the start.
//! Neighbours: `task` (what runs main), `power` (what ends it), `cpu::sections` (where main is found).
#![forbid(unsafe_code)]

use core::fmt;

use crate::sync::OnceCell;

/// How an app ends: the status of the guest, seen by whoever started it.
///
/// 0 is success, 1 failure; 2 to 4 are what the kernel uses for a panic, a fatal exception and a refused boot;
/// up to 79 the rest is the app's own (docs/apps.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub u8);

impl ExitStatus {
    /// The app did what it was asked.
    pub const SUCCESS: Self = Self(0);
    /// It did not.
    pub const FAILURE: Self = Self(1);
}

/// What an app's main may return.
pub trait Termination {
    /// The status the guest ends with; an error is printed on the way.
    fn report(self) -> ExitStatus;
}

impl Termination for () {
    fn report(self) -> ExitStatus {
        ExitStatus::SUCCESS
    }
}

impl Termination for ExitStatus {
    fn report(self) -> ExitStatus {
        self
    }
}

impl<T: Termination, E: fmt::Display> Termination for Result<T, E> {
    fn report(self) -> ExitStatus {
        match self {
            Ok(value) => value.report(),
            Err(error) => {
                log::error!("app: {error}");
                ExitStatus::FAILURE
            }
        }
    }
}

/// What [`app!`](crate::app!) implements, so that the image can name the app by its type.
pub trait App {
    /// Runs the app to its end.
    fn run() -> ExitStatus;
}

/// Makes an `async fn` the main of this image: `kernel::app!(main);`, once, in a crate with `#![no_std]` and
/// `#![no_main]`. It returns `()`, [`ExitStatus`], or a `Result` of one of these whose error is `Display`.
#[macro_export]
macro_rules! app {
    ($main:path) => {
        const _: () = {
            struct TheApp;
            impl $crate::app::App for TheApp {
                fn run() -> $crate::app::ExitStatus {
                    $crate::app::Termination::report($crate::task::block_on($main()))
                }
            }
            #[used]
            static RECORD: extern "C" fn() = $crate::cpu::sections::app_record::<TheApp>;
        };
    };
}

static BOOT: OnceCell<&'static boot::Info> = OnceCell::uninit();

/// How this guest was booted: protocol, loader, memory map, command line.
///
/// # Panics
/// Before the last stage of the start, which is what makes it known.
pub fn boot_info() -> &'static boot::Info {
    BOOT.try_get().expect("asked for the boot information before the app was started")
}

/// The kernel command line; its keys `app.*` are free for apps.
///
/// # Panics
/// As [`boot_info`].
pub fn cmdline() -> &'static boot::CommandLine {
    &boot_info().cmdline
}

/// The app's arguments: the words of the command line that begin with `app.`, as key and value; the value of a
/// bare word is empty. `app.name=web app.verbose` gives `("name", "web")` and `("verbose", "")`.
///
/// # Panics
/// As [`boot_info`].
pub fn args() -> impl Iterator<Item = (&'static str, &'static str)> {
    cmdline().words().filter_map(|(key, value)| Some((key.strip_prefix("app.")?, value.unwrap_or(""))))
}

/// The last stage of the start: runs the app and ends the guest with its status.
#[cfg(target_os = "none")]
pub fn run(info: &'static boot::Info) -> ! {
    BOOT.init_once(|| info);
    log::info!("app main after {} us", pv_ops::monotonic_ns() / 1000);
    let ExitStatus(status) = crate::cpu::sections::app()();
    crate::power::exit(status)
}

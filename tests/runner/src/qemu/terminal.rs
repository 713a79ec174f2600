//! The user's side of the guest's console: raw terminal, or whatever standard input is.

use std::io::{IsTerminal, Read, Write};
use std::mem::MaybeUninit;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The kernel logs this just before the application's main; from then on nobody else eats the input.
const READY: &str = "app main after";
/// A guest that logs less is ready when its console falls silent for this long.
const SILENCE: Duration = Duration::from_secs(2);

/// The terminal as it was before we made it raw.
static COOKED: Mutex<Option<libc::termios>> = Mutex::new(None);
/// Whether SIGINT ends us.
static INTERRUPTS_ARE_THE_CHILDS: AtomicBool = AtomicBool::new(false);

/// The terminal passes every key to the guest; dropped, it is what it was before.
pub struct Raw(());

impl Raw {
    /// Makes standard input raw, if it is a terminal. Output keeps its line ends.
    pub fn enter() -> Option<Self> {
        if !std::io::stdin().is_terminal() {
            return None;
        }
        let mut settings = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: tcgetattr(3) writes one termios to the address it is given, which is that of one.
        let answer = unsafe { libc::tcgetattr(libc::STDIN_FILENO, settings.as_mut_ptr()) };
        if answer != 0 {
            return None;
        }
        // SAFETY: tcgetattr returned 0, so it has written the whole structure.
        let cooked = unsafe { settings.assume_init() };
        let mut raw = cooked;
        raw.c_iflag &= !(libc::BRKINT | libc::ICRNL | libc::INLCR | libc::INPCK | libc::ISTRIP | libc::IXON);
        raw.c_lflag &= !(libc::ECHO | libc::ICANON | libc::IEXTEN | libc::ISIG);
        raw.c_cc[libc::VMIN] = 1;
        raw.c_cc[libc::VTIME] = 0;
        *COOKED.lock().ok()? = Some(cooked);
        apply(&raw);
        Some(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back as it was found; does nothing if it was not touched.
pub fn restore() {
    let settings = COOKED.lock().ok().and_then(|mut cooked| cooked.take());
    if let Some(settings) = settings {
        apply(&settings);
    }
}

fn apply(settings: &libc::termios) {
    // SAFETY: tcsetattr(3) reads one termios from the address it is given, which is that of one.
    // Its failure leaves the terminal as it is, which is all one can do then.
    let _ = unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSADRAIN, settings) };
}

/// Feeds standard input to the guest from a thread of its own. Its end is not the guest's end: the pipe stays open.
/// Input that is not typed by hand waits until the guest is `ready` for it: firmware and loaders would eat it.
pub fn feed(mut guest: impl Write + Send + 'static, ready: impl Fn(&str, Duration) + Send + 'static) {
    thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        if !stdin.is_terminal() {
            ready(READY, SILENCE);
        }
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = stdin.read(&mut buffer) {
            if guest.write_all(&buffer[..count]).and_then(|()| guest.flush()).is_err() {
                return;
            }
        }
        loop {
            thread::park();
        }
    });
}

/// Ends this program in an orderly way on SIGINT, SIGTERM and SIGHUP: the terminal is restored, and with us go our children.
/// Call it before any other thread is there.
pub fn restore_on_signals() {
    let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset(3) initialises the set it is given the address of.
    let _ = unsafe { libc::sigemptyset(signals.as_mut_ptr()) };
    // SAFETY: it is initialised by the line above, which cannot fail for a valid address.
    let mut signals = unsafe { signals.assume_init() };
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the set is initialised and the signal numbers are valid.
        let _ = unsafe { libc::sigaddset(&raw mut signals, signal) };
    }
    // SAFETY: the set is initialised; a null old set is allowed. Threads made later inherit the mask.
    let _ = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut()) };
    thread::spawn(move || {
        let mut signal = 0;
        // SAFETY: both addresses are those of initialised local variables.
        while unsafe { libc::sigwait(&raw const signals, &raw mut signal) } == 0 {
            if signal != libc::SIGINT || !INTERRUPTS_ARE_THE_CHILDS.load(Ordering::Relaxed) {
                restore();
                eprintln!();
                std::process::exit(128 + signal);
            }
        }
    });
}

/// Ctrl-C is for the program that we started, from now on: a debugger stops its guest by it.
pub fn leave_interrupts_to_the_child() {
    INTERRUPTS_ARE_THE_CHILDS.store(true, Ordering::Relaxed);
}

//! One line about a long step: a spinner on a terminal, plain lines elsewhere. Quick steps stay silent.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Steps that end sooner say nothing.
const SILENT: Duration = Duration::from_secs(2);
/// On a plain log, a step that goes on says so this often.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// A step under way; it says how long it took when it is dropped.
pub struct Step {
    what: String,
    started: Instant,
    spinner: Option<ProgressBar>,
    last: Cell<Option<Instant>>,
    note: RefCell<String>,
}

impl Step {
    /// Announces `what`, for example "building hello".
    pub fn new(what: impl Into<String>) -> Self {
        let what = what.into();
        let spinner = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(what.clone());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { what, started: Instant::now(), spinner, last: Cell::new(None), note: RefCell::default() }
    }

    /// Says what the step is at, for example a crate's name.
    pub fn note(&self, note: &str) {
        note.clone_into(&mut self.note.borrow_mut());
        match &self.spinner {
            Some(bar) => bar.set_message(format!("{}: {note}", self.what)),
            None => self.tick(),
        }
    }

    /// Gives a plain log its sign of life when one is due.
    pub fn tick(&self) {
        if self.spinner.is_some() {
            return;
        }
        let due = match self.last.get() {
            None => self.started.elapsed() >= SILENT,
            Some(last) => last.elapsed() >= HEARTBEAT,
        };
        if due {
            self.last.set(Some(Instant::now()));
            let note = self.note.borrow();
            let seconds = self.started.elapsed().as_secs();
            eprintln!("pliant: {} ({seconds} s){}{note}", self.what, if note.is_empty() { "" } else { ": " });
        }
    }

    /// Takes the spinner off the terminal so that other text can be written.
    pub fn clear(&self) {
        if let Some(bar) = &self.spinner {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.clear();
        let took = self.started.elapsed();
        if took >= SILENT {
            eprintln!("pliant: {} took {:.1} s", self.what, took.as_secs_f32());
        }
    }
}

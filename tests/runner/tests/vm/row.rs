//! A row of the test table, and running the table.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Result;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use runner::host::packages::{self, Need};

use crate::lab;

/// What became of a row that did not fail.
pub(crate) enum Verdict {
    /// The promise was kept.
    Kept,
    /// It cannot be tried here; the reason.
    Skipped(String),
}

/// One promise, tried in a machine.
pub(crate) struct Row {
    name: String,
    guests: Vec<&'static str>,
    disk_images: bool,
    programs: Vec<Need>,
    body: Box<dyn FnOnce() -> Result<Verdict> + Send>,
}

impl Row {
    /// A row that needs `guest` built.
    pub(crate) fn new(
        name: impl Into<String>,
        guest: &'static str,
        body: impl FnOnce() -> Result<Verdict> + Send + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            guests: vec![guest],
            disk_images: false,
            programs: Vec::new(),
            body: Box::new(body),
        }
    }

    /// The row boots a disk image as well.
    pub(crate) fn with_disk_image(mut self, needed: bool) -> Self {
        self.disk_images |= needed;
        self
    }

    /// The row uses programs of this machine, which are installed if they are missing.
    pub(crate) fn with(mut self, programs: &[Need]) -> Self {
        self.programs.extend(programs);
        self
    }
}

static SKIPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Builds what the rows that pass the filter need, runs them, prints the closing line.
pub(crate) fn run(arguments: &Arguments, rows: Vec<Row>) -> ExitCode {
    let mut guests = BTreeSet::new();
    let mut disk_images = false;
    let mut trials = Vec::new();
    for row in rows {
        let Row { name, guests: needed, disk_images: images, programs, body } = row;
        let label = name.clone();
        let body = move || match packages::missing(&programs)? {
            Some(reason) => Ok(Verdict::Skipped(reason)),
            None => body(),
        };
        let trial = Trial::ignorable_test(name, move || judge(&label, body()));
        if !arguments.is_filtered_out(&trial) && !arguments.is_ignored(&trial) {
            guests.extend(needed);
            disk_images |= images;
        }
        trials.push(trial);
    }
    if !arguments.list {
        lab::prepare(&guests.into_iter().collect::<Vec<_>>(), disk_images);
    }
    let conclusion = libtest_mimic::run(arguments, trials);
    if !arguments.list {
        for line in SKIPPED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).iter() {
            println!("{line}");
        }
        let (passed, failed) = (conclusion.num_passed, conclusion.num_failed);
        println!("{passed} passed, {failed} failed, {} skipped", conclusion.num_ignored);
    }
    conclusion.exit_code()
}

fn judge(name: &str, result: Result<Verdict>) -> Result<Completion, Failed> {
    match result {
        Ok(Verdict::Kept) => Ok(Completion::Completed),
        Ok(Verdict::Skipped(reason)) => {
            if let Ok(mut skipped) = SKIPPED.lock() {
                skipped.push(format!("test {name} ... skipped: {reason}"));
            }
            Ok(Completion::ignored_with(format!("skipped: {reason}")))
        }
        Err(error) => Err(format!("{error:#}").into()),
    }
}

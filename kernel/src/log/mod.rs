//! The sink of crate `log`: one line for each record, on every console.
//!
//! `[    0.001234] INFO  kernel::mm: 250 MiB free`, with seconds since the clock began. `log=info` on the command
//! line sets the level, `log=info,kernel::mm=debug` that of single modules too. A line is put together on the
//! stack and written in one piece, so a record may come from a handler or a panic.
//! Neighbours: `console` (where lines go), `pv_ops::monotonic_ns`.
#![forbid(unsafe_code)]

mod filter;
mod line;

use core::{
    fmt::Write,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

pub use ::log::LevelFilter;
use ::log::{Log, Metadata, Record};

use crate::{console, sync::OnceCell};
use filter::Filter;
use line::Line;

/// The level without `log=`.
const DEFAULT_LEVEL: LevelFilter = LevelFilter::Info;

/// What holds for records that no filter names, as [`LevelFilter`] counts.
static LEVEL: AtomicUsize = AtomicUsize::new(DEFAULT_LEVEL as usize);
static FILTER: OnceCell<Filter> = OnceCell::uninit();

struct Sink;

static SINK: Sink = Sink;

/// Begins to log, at the level that the command line asks for.
pub fn init(cmdline: &boot::CommandLine) {
    // It fails only if a logger is set, and this is the only one.
    let _ = ::log::set_logger(&SINK);
    ::log::set_max_level(DEFAULT_LEVEL);
    let mut filter = Filter::default();
    for value in cmdline.values("log") {
        filter.read(value, |word| {
            ::log::warn!("log={word} is unknown, expected a level or MODULE=LEVEL: ignored");
        });
    }
    let level = filter.default_level().unwrap_or(DEFAULT_LEVEL);
    let _ = FILTER.try_init_once(|| filter);
    set_level(level);
}

/// Sets the level of all records but those that `log=MODULE=LEVEL` names.
pub fn set_level(level: LevelFilter) {
    LEVEL.store(level as usize, Relaxed);
    let highest = FILTER.try_get().map_or(level, |filter| filter.highest().max(level));
    ::log::set_max_level(highest);
}

/// The level of records that no `log=MODULE=LEVEL` names.
pub fn level() -> LevelFilter {
    LevelFilter::iter().nth(LEVEL.load(Relaxed)).unwrap_or(DEFAULT_LEVEL)
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let named = FILTER.try_get().ok().and_then(|filter| filter.level_of(metadata.target()));
        metadata.level() <= named.unwrap_or_else(level)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let us = pv_ops::monotonic_ns() / 1000;
        let (level, target) = (record.level(), record.target());
        let mut line = Line::default();
        // A line takes everything and cuts what is too long.
        let _ = write!(
            line,
            "[{:5}.{:06}] {level:<5} {target}: {}",
            us / 1_000_000,
            us % 1_000_000,
            record.args()
        );
        console::write_bytes(line.end());
    }

    fn flush(&self) {
        console::flush();
    }
}

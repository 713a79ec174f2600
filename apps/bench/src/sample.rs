//! Measuring: one operation many times in a row, the row many times.

use alloc::format;
use core::{fmt, hint::black_box};

use kernel::pv_ops;

/// Operations between two looks at the counter: enough that looking costs nothing.
const IN_A_ROW: u64 = 1024;
/// Of them so many are written out, so that the loop costs nothing either.
const UNROLLED: u64 = 16;
/// Rows at most, and cycles after which it is enough of them: some hosts emulate each instruction.
const ROWS: usize = 101;
const ENOUGH_CYCLES: u64 = 100_000_000;

/// Tenths of a cycle by which two measurements of nothing differ.
pub(crate) const NOISE: u64 = 5;

/// Tenths of a cycle for one operation.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    least: u64,
    median: u64,
}

impl Sample {
    /// Measures `op`. It is handed its own last result, so that the compiler can leave out none.
    #[inline(never)]
    pub(crate) fn of(op: impl Fn(u64) -> u64) -> Self {
        let mut rows = [0; ROWS];
        // The first one fetches code and translations.
        let mut spent = row(&op);
        let mut count = 0;
        while count < ROWS && (count == 0 || spent < ENOUGH_CYCLES) {
            rows[count] = row(&op);
            spent += rows[count];
            count += 1;
        }
        let rows = &mut rows[..count];
        rows.sort_unstable();
        let each = |cycles: u64| (cycles * 10 + IN_A_ROW / 2) / IN_A_ROW;
        Self { least: each(rows[0]), median: each(rows[count / 2]) }
    }

    /// Tenths of a cycle at best.
    pub(crate) fn least(self) -> u64 {
        self.least
    }
}

/// Cycles of one row.
#[inline(always)]
fn row(op: &impl Fn(u64) -> u64) -> u64 {
    let mut value = black_box(0);
    let start = pv_ops::rdtsc();
    for _ in 0..IN_A_ROW / UNROLLED {
        macro_rules! sixteen {
            ($($time:literal)*) => { $({ let _ = $time; value = op(value); })* };
        }
        sixteen!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
    }
    let end = pv_ops::rdtsc();
    black_box(value);
    end.saturating_sub(start)
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { least, median } = self;
        f.pad(&format!("{}.{} ({}.{})", least / 10, least % 10, median / 10, median % 10))
    }
}

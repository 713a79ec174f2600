//! One row: an operation some times over, and what it costs.

use alloc::vec::Vec;
use core::future::Future;

use kernel::{cpu::percpu, irq::vectors, println, pv_ops};

/// Times that a row is measured.
const ROWS: usize = 15;

/// Measures `run`, which does `count` operations.
pub(super) fn row(name: &str, count: u32, mut run: impl FnMut()) {
    run();
    let mut rows = Rows::new();
    for _ in 0..ROWS {
        let start = Moment::now();
        run();
        rows.add(start, count);
    }
    rows.print(name);
}

/// As [`row`], for what awaits.
pub(super) async fn row_async<F: Future<Output = ()>>(name: &str, count: u32, run: impl Fn() -> F) {
    run().await;
    let mut rows = Rows::new();
    for _ in 0..ROWS {
        let start = Moment::now();
        run().await;
        rows.add(start, count);
    }
    rows.print(name);
}

/// A point in time, by both clocks.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    ns: u64,
    cycles: u64,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { ns: pv_ops::monotonic_ns(), cycles: pv_ops::rdtsc() }
    }
}

/// What was measured, and the interrupts since the first of it.
pub(super) struct Rows {
    each: Vec<Moment>,
    operations: u64,
    before: Interrupts,
}

impl Rows {
    pub(super) fn new() -> Self {
        Self { each: Vec::new(), operations: 0, before: Interrupts::now() }
    }

    /// Adds `count` operations that began at `start` and end now.
    pub(super) fn add(&mut self, start: Moment, count: u32) {
        let (end, count) = (Moment::now(), u64::from(count));
        self.put(
            Moment { ns: (end.ns - start.ns) / count, cycles: (end.cycles - start.cycles) / count },
            count,
        );
    }

    /// Adds what was found out about `count` operations.
    pub(super) fn put(&mut self, each: Moment, count: u64) {
        self.each.push(each);
        self.operations += count;
    }

    /// Adds one operation of `ns` nanoseconds, of which the cycles are not known.
    pub(super) fn put_ns(&mut self, ns: u64) {
        self.put(Moment { ns, cycles: 0 }, 1);
    }

    pub(super) fn print(mut self, name: &str) {
        let counted = Interrupts::now();
        self.each.sort_unstable_by_key(|row| row.ns);
        let (least, median) = (self.each[0], self.each[self.each.len() / 2]);
        // Hundredths, as the least and the median are whole nanoseconds.
        let hundredths = |count: u64| (count * 100 + self.operations / 2) / self.operations;
        let all = hundredths(counted.all - self.before.all);
        let ipis = hundredths(counted.ipis - self.before.ipis);
        println!(
            "{name}: {} ({}) ns, {} cycles, {}.{:02} interrupts, {}.{:02} IPIs",
            least.ns,
            median.ns,
            least.cycles,
            all / 100,
            all % 100,
            ipis / 100,
            ipis % 100
        );
    }
}

/// Interrupts of all CPUs so far.
#[derive(Clone, Copy)]
struct Interrupts {
    all: u64,
    ipis: u64,
}

impl Interrupts {
    fn now() -> Self {
        let of = |vector| percpu::all().map(|cpu| cpu.interrupts(vector)).sum::<u64>();
        Self { all: (vectors::EXCEPTION_COUNT..=u8::MAX).map(of).sum(), ipis: of(vectors::CPU_REQUEST) }
    }
}

//! Time: how late a sleeper is woken, and a guest that does nothing.

use core::time::Duration;

use kernel::{println, pv_ops, task, time};

use super::row::Rows;

const SLEEPS: u32 = 200;

/// How late a sleeper of 1 ms is.
pub(super) async fn measure() {
    if !time::has_timer() {
        return;
    }
    let mut rows = Rows::new();
    for _ in 0..SLEEPS {
        let deadline = time::now() + Duration::from_millis(1);
        task::sleep_until(deadline).await;
        rows.put_ns(pv_ops::monotonic_ns() - deadline.as_ns());
    }
    rows.print("timer of 1 ms, late by");
}

/// Does nothing for so many seconds, and tells when that begins and ends.
pub(crate) async fn idle(seconds: u64) {
    println!("idle");
    task::sleep(Duration::from_secs(seconds)).await;
    println!("idle no more");
}

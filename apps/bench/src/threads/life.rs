//! Starts and ends: of threads, of tasks.

use kernel::{
    task,
    thread::{self, Builder},
};

use super::row::{row, row_async};

pub(super) async fn measure() {
    row("start and join a thread", 50, || (0..50).for_each(|_| thread::spawn(|| ()).join()));
    row("start and join, 16 KiB stack", 50, || {
        for _ in 0..50 {
            if let Ok(handle) = Builder::new().stack_size(16 << 10).spawn(|| ()) {
                handle.join();
            }
        }
    });
    row_async("spawn and await a task", 200, || async {
        for _ in 0..200 {
            task::spawn(async {}).await;
        }
    })
    .await;
    let in_a_task = task::spawn(async {
        row_async("turn of a task", 1000, || async {
            for _ in 0..1000 {
                task::yield_now().await;
            }
        })
        .await;
    });
    in_a_task.await;
}

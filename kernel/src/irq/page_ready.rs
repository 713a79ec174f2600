//! Pages that the host is still fetching: who touches one waits, and the other tasks run meanwhile.
//! Neighbours: `exceptions` (a page fault asks here first), `pv_ops::backend::Services` (what the host says), `task`.
#![forbid(unsafe_code)]

use super::{dispatch, vectors};
use crate::{cpu, hypervisor, sync::IrqMutex, task};
use core::{
    future::poll_fn,
    task::{Poll, Waker},
};
use pv_ops::backend::ALL_PAGES;

/// Pages that are waited for at the same time: more than a host lets be.
const PLACES: usize = 64;

/// A page that is waited for; the state of a place that nobody has is 0, so that all of them are zeroes in the image.
struct Wait {
    state: u32,
    token: u32,
    waker: Option<Waker>,
}

const FREE: u32 = 0;
const WAITING: u32 = 1;
const READY: u32 = 2;

static WAITS: IrqMutex<[Wait; PLACES]> =
    IrqMutex::new([const { Wait { state: FREE, token: 0, waker: None } }; PLACES]);

/// Handles the host's interrupt.
pub(super) fn init() {
    dispatch::handle(vectors::PAGE_READY, "page ready", || {
        let Some(token) = (hypervisor::services().page_ready)() else { return };
        let mut waits = WAITS.lock();
        let mut known = false;
        for wait in
            waits.iter_mut().filter(|wait| wait.is_for(token) || token == ALL_PAGES && wait.state != FREE)
        {
            known = true;
            wait.state = READY;
            wait.waker.take().into_iter().for_each(Waker::wake);
        }
        // The page was faster than its fault.
        if !known && token != ALL_PAGES {
            place(&mut waits, token, READY);
        }
    });
}

/// Asked by the handler of page faults. If the page is the host's to fetch: runs the other tasks, or halts, until it is
/// there. Where it cannot wait it returns at once, and the access is tried again.
pub(super) fn wait_for_host() -> bool {
    let Some(token) = (hypervisor::services().page_fault)() else { return false };
    if !cpu::current().stays() && begin(token) {
        // The host tells of pages only to who takes interrupts.
        pv_ops::irq_enable();
        task::block_on(poll_fn(|context| poll(token, context.waker())));
        pv_ops::irq_disable();
    }
    true
}

impl Wait {
    fn is_for(&self, token: u32) -> bool {
        self.state != FREE && self.token == token
    }
}

/// Notes that somebody waits. Not if there is no room.
fn begin(token: u32) -> bool {
    let mut waits = WAITS.lock();
    waits.iter().any(|wait| wait.is_for(token)) || place(&mut waits, token, WAITING)
}

fn place(waits: &mut [Wait; PLACES], token: u32, state: u32) -> bool {
    let free = waits.iter_mut().find(|wait| wait.state == FREE);
    free.map(|place| *place = Wait { state, token, waker: None }).is_some()
}

fn poll(token: u32, waker: &Waker) -> Poll<()> {
    let mut waits = WAITS.lock();
    match waits.iter_mut().find(|wait| wait.is_for(token)) {
        Some(wait) if wait.state == WAITING => {
            wait.waker = Some(waker.clone());
            Poll::Pending
        }
        Some(wait) => {
            wait.state = FREE;
            Poll::Ready(())
        }
        None => Poll::Ready(()),
    }
}

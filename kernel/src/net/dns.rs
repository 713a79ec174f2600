//! Names to addresses (RFC 1035), by the servers that DHCP or the command line names.
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::{future::poll_fn, net::IpAddr, task::Poll};

use smoltcp::{
    socket::dns::{GetQueryResultError, QueryHandle, Socket, StartQueryError},
    wire::DnsQueryType,
};

use super::{Error, Release, Shared, shared};

/// The addresses of `name`, those of IPv4 first; an address in writing is its own.
///
/// # Errors
/// There is no such name, nobody answers, or the network is not [up](super::up).
pub async fn resolve(name: &str) -> Result<Vec<IpAddr>, Error> {
    if let Ok(address) = name.parse() {
        return Ok(alloc::vec![address]);
    }
    let shared = shared()?;
    let mut found = query(shared, name, DnsQueryType::A).await;
    match (&mut found, query(shared, name, DnsQueryType::Aaaa).await) {
        (Ok(found), Ok(more)) => found.extend(more),
        (Err(_), more) => found = more,
        (Ok(_), Err(_)) => {}
    }
    found
}

async fn query(shared: &'static Shared, name: &str, kind: DnsQueryType) -> Result<Vec<IpAddr>, Error> {
    let query = {
        let mut stack = shared.stack.lock();
        let stack = &mut *stack;
        let socket = stack.services.get_mut::<Socket>(stack.dns);
        let query = socket.start_query(stack.interface.context(), name, kind);
        stack.touch();
        query.map_err(|error| match error {
            StartQueryError::NoFreeSlot => Error::OutOfMemory,
            StartQueryError::InvalidName | StartQueryError::NameTooLong => Error::NoSuchName,
        })?
    };
    let mut query = Query(Some(query));
    poll_fn(|cx| {
        let Some(handle) = query.0 else { return Poll::Ready(Err(Error::NoSuchName)) };
        let mut stack = shared.stack.lock();
        let dns = stack.dns;
        let socket = stack.services.get_mut::<Socket>(dns);
        let result = match socket.get_query_result(handle) {
            Ok(addresses) => Ok(addresses.into_iter().map(IpAddr::from).collect()),
            Err(GetQueryResultError::Failed) => Err(Error::NoSuchName),
            Err(GetQueryResultError::Pending) => {
                socket.register_query_waker(handle, cx.waker());
                return Poll::Pending;
            }
        };
        query.0 = None;
        Poll::Ready(result)
    })
    .await
}

/// A question that has no answer yet. Dropping it withdraws it.
struct Query(Option<QueryHandle>);

impl Drop for Query {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            super::release(Release::Query(handle));
        }
    }
}

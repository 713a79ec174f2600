//! Devices that another domain serves: found in xenstore below `device/`, connected by states (io/xenbus.h).
//!
//! ```text
//! device/<kind>/<id>/  backend = <path>, backend-id = <domain>, state, and what the frontend offers
//! <backend>/           state, and what the backend says of the device
//! error/device/<kind>/<id>/error   what went wrong here, for who looks from outside
//! ```
//! [`Bus`] tells which devices come and go, while the guest runs too. [`serve`] brings one up and down; a
//! [`Frontend`] fills in what is the device's own.
//! Files: `state` (who may do what when), `bus` (what is there), this one (a device, and its life).
#![forbid(unsafe_code)]

mod bus;
mod state;
#[cfg(test)]
mod tests;

pub use bus::{Bus, Change, Id};
pub use state::{State, Step, step};

use super::{
    DomainId,
    xenstore::{Changed, Error, Transaction, Watch, Xenstore},
};
use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll},
};

/// A device, seen from its frontend.
pub struct Device {
    store: Arc<Xenstore>,
    id: Id,
    backend: String,
    backend_domain: DomainId,
    backend_state: Watch,
    state: State,
    /// As the store counts its lives.
    life: u32,
}

impl Device {
    /// Finds the backend of a device and begins to watch it. What an earlier life of the guest left is reset.
    ///
    /// # Errors
    /// When the nodes are not there or make no sense; see [`Error`].
    pub async fn open(store: &Arc<Xenstore>, id: Id) -> Result<Self, Error> {
        let life = store.restarts();
        let read = async |key: &str| store.read(Transaction::NONE, &format!("{}/{key}", id.path())).await;
        let backend = read("backend").await?;
        let backend_domain = read("backend-id").await?.trim().parse().map_err(|_| Error::Nonsense)?;
        let state = State::parse(&read("state").await?);
        let backend_state = store.watch(&format!("{backend}/state")).await?;
        let backend_domain = DomainId(backend_domain);
        let mut device =
            Self { store: store.clone(), id, backend, backend_domain, backend_state, state, life };
        if device.state != State::Initialising {
            device.set_state(State::Initialising).await?;
        }
        Ok(device)
    }

    /// Which device it is.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// The domain that serves it.
    pub fn backend_domain(&self) -> DomainId {
        self.backend_domain
    }

    /// What the backend says under this name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn backend_value(&self, key: &str) -> Result<Option<String>, Error> {
        self.store.find(Transaction::NONE, &format!("{}/{key}", self.backend)).await
    }

    /// Waits until something happens at the backend's state, the first time at once; what it is then.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn backend_state(&mut self) -> Result<State, Error> {
        let (Changed::Path(_) | Changed::Missed) = self.backend_state.next().await?;
        Ok(self.backend_value("state").await?.map_or(State::Unknown, |text| State::parse(&text)))
    }

    /// Sets values of this device and then its state, all at once for who looks.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn publish(&mut self, values: &[(String, String)], state: State) -> Result<(), Error> {
        let (store, path) = (&self.store, self.id.path());
        store
            .transaction(|transaction| {
                let path = &path;
                async move {
                    for (key, value) in values {
                        store.write(transaction, &format!("{path}/{key}"), value).await?;
                    }
                    // A device that was removed meanwhile is not made again by half.
                    store.read(transaction, &format!("{path}/backend")).await?;
                    store.write(transaction, &format!("{path}/state"), &state.to_string()).await
                }
            })
            .await?;
        self.state = state;
        Ok(())
    }

    /// Sets the state.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn set_state(&mut self, state: State) -> Result<(), Error> {
        self.publish(&[], state).await
    }

    /// Says in the store, for who looks from outside, why this device is not driven, and gives it up.
    #[doc(alias = "xenbus_dev_fatal")]
    pub async fn fail(&mut self, reason: &str) {
        let node = format!("error/{}/error", self.id.path());
        // A domain that may not write there can still close its device.
        let _ = self.store.write(Transaction::NONE, &node, &format!("-5 {reason}")).await;
        self.leave(State::Closing).await;
    }

    /// Whether the domain was restored since: then this backend is not the device's any more.
    fn is_stale(&self) -> bool {
        self.store.restarts() != self.life
    }

    /// Sets one of the last states of a device, whose nodes may be gone already.
    async fn leave(&mut self, state: State) {
        let _ = self.set_state(state).await;
        self.state = state;
    }
}

/// What a frontend tells its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Names below the device's node, and values: `ring-ref`, `event-channel` and the like.
    pub values: Vec<(String, String)>,
    /// The state to take with it: [`State::Initialised`] if the backend is to answer first, or
    /// [`State::Connected`].
    pub state: State,
}

/// What one kind of device does at each step. A failure is a sentence, told in the store.
pub trait Frontend {
    /// The backend waits: makes rings and channels, and says where they are.
    fn offer(&mut self, device: &Device) -> impl Future<Output = Result<Offer, String>> + Send;

    /// The backend has taken them: reads what it says of the device, and begins.
    fn connect(&mut self, device: &Device) -> impl Future<Output = Result<(), String>> + Send;

    /// Whether the device has failed while it was in use, in a sentence; else calls the waker when it has.
    fn poll_fault(&mut self, cx: &mut Context<'_>) -> Poll<String>;

    /// The device ends: lets go of rings and channels. May be called at any time, and more than once.
    fn close(&mut self);
}

/// How serving a device ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The backend closed it, or something failed.
    Closed,
    /// The domain was restored: the device is there again, from its beginning.
    Restored,
}

/// Drives a device from its beginning to its end.
///
/// # Errors
/// When the store does not do its part; the frontend is closed then too.
pub async fn serve(device: &mut Device, frontend: &mut impl Frontend) -> Result<End, Error> {
    let result = negotiate(device, frontend).await;
    frontend.close();
    if device.is_stale() {
        return Ok(End::Restored);
    }
    device.leave(State::Closed).await;
    result.map(|()| End::Closed)
}

async fn negotiate(device: &mut Device, frontend: &mut impl Frontend) -> Result<(), Error> {
    loop {
        let own = device.state;
        let backend = {
            let mut backend = pin!(device.backend_state());
            poll_fn(|cx| match frontend.poll_fault(cx) {
                Poll::Ready(fault) => Poll::Ready(Ok(Err(fault))),
                Poll::Pending => backend.as_mut().poll(cx).map_ok(Ok),
            })
            .await?
        };
        if device.is_stale() {
            return Ok(());
        }
        let backend = match backend {
            Ok(backend) => backend,
            Err(fault) => {
                device.fail(&fault).await;
                return Ok(());
            }
        };
        let outcome = match step(own, backend) {
            Step::Wait => Ok(()),
            Step::Close => {
                device.leave(State::Closing).await;
                return Ok(());
            }
            Step::Offer => match frontend.offer(device).await {
                Ok(offer) => {
                    device.publish(&offer.values, offer.state).await?;
                    Ok(())
                }
                Err(reason) => Err(reason),
            },
            Step::Connect => match frontend.connect(device).await {
                Ok(()) => {
                    device.set_state(State::Connected).await?;
                    Ok(())
                }
                Err(reason) => Err(reason),
            },
        };
        if let Err(reason) = outcome {
            device.fail(&reason).await;
            return Ok(());
        }
    }
}

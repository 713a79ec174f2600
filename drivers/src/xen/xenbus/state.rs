//! The states through which frontend and backend of a device meet and part (io/xenbus.h), and what this side does next.
//! Pure. Neighbours: `mod` (does it).
#![forbid(unsafe_code)]

use core::fmt;

/// What one side of a device says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "xenbus_state")]
pub enum State {
    /// Not there, or not understood.
    Unknown = 0,
    /// Made by the toolstack.
    Initialising = 1,
    /// Backend: has said what it can do, waits for the frontend.
    InitWait = 2,
    /// Frontend: has said where its rings are.
    Initialised = 3,
    /// In use.
    Connected = 4,
    /// About to end.
    Closing = 5,
    /// Ended.
    Closed = 6,
    /// Backend: its device changes.
    Reconfiguring = 7,
    /// Backend: has changed.
    Reconfigured = 8,
}

impl State {
    const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Initialising,
        Self::InitWait,
        Self::Initialised,
        Self::Connected,
        Self::Closing,
        Self::Closed,
        Self::Reconfiguring,
        Self::Reconfigured,
    ];

    /// From the value of a node; anything odd is [`State::Unknown`].
    pub fn parse(text: &str) -> Self {
        text.trim()
            .parse()
            .ok()
            .and_then(|number: usize| Self::ALL.get(number).copied())
            .unwrap_or(Self::Unknown)
    }
}

/// As the value of a node.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (*self as u32).fmt(f)
    }
}

/// What the frontend does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The backend must move first.
    Wait,
    /// Tell the backend where the rings are.
    Offer,
    /// The backend has taken them: begin.
    Connect,
    /// Let go of everything.
    Close,
}

/// What a frontend in state `own` does when its backend is in state `backend`.
pub fn step(own: State, backend: State) -> Step {
    match (own, backend) {
        (State::Closing | State::Closed, _) => Step::Wait,
        (_, State::Closing | State::Closed | State::Unknown) if own != State::Initialising => Step::Close,
        // A backend that is gone for good: its node was removed. `Closed` is what the last life of this device left.
        (State::Initialising, State::Unknown) => Step::Close,
        (State::Initialising, State::InitWait) => Step::Offer,
        (State::Initialised, State::Connected) => Step::Connect,
        _ => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_go_by_their_numbers() {
        for state in State::ALL {
            assert_eq!(State::parse(&std::format!("{state}")), state);
        }
        for odd in ["", "9", "-1", "4294967296", "four", "18446744073709551616"] {
            assert_eq!(State::parse(odd), State::Unknown);
        }
    }

    #[test]
    fn the_ordinary_way_up_and_down() {
        use State::*;
        let way = [
            (Initialising, Initialising, Step::Wait),
            (Initialising, InitWait, Step::Offer),
            (Initialised, InitWait, Step::Wait),
            (Initialised, Connected, Step::Connect),
            (Connected, Connected, Step::Wait),
            (Connected, Reconfiguring, Step::Wait),
            (Connected, Closing, Step::Close),
            (Closed, Closing, Step::Wait),
        ];
        for (own, backend, expected) in way {
            assert_eq!(step(own, backend), expected, "{own:?} {backend:?}");
        }
    }

    /// Whatever the backend says: rings are offered once, used after an offer only, and given up once.
    #[test]
    fn no_order_of_backend_states_leads_astray() {
        for own in State::ALL {
            for backend in State::ALL {
                match step(own, backend) {
                    Step::Offer => assert_eq!((own, backend), (State::Initialising, State::InitWait)),
                    Step::Connect => assert_eq!((own, backend), (State::Initialised, State::Connected)),
                    Step::Close => assert!(!matches!(own, State::Closing | State::Closed)),
                    Step::Wait => {}
                }
            }
        }
    }
}

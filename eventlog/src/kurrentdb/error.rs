//! What can go wrong between this store and its server.
//!
//! The rule of this file: every failure says whether it passes by itself, and none of them shows
//! the address, because that holds the password.

use eventstore::Error as Client;

/// KurrentDB could not be asked, or its answer is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KurrentdbError {
    /// The address is none.
    #[error(
        "the address of the event store cannot be used ({0}): write it as kurrentdb://user:password@host:2113, or kurrentdb://host:2113?tls=false for a server without certificates"
    )]
    Address(String),
    /// Nobody answers, or whoever answers cannot serve now.
    #[error(
        "KurrentDB at {nodes} does not answer: see that it runs and that --event-store names it, this goes on by itself when it is back"
    )]
    Unreachable {
        /// The hosts and ports of the address.
        nodes: String,
        /// What the client says.
        #[source]
        source: Box<Client>,
    },
    /// The user is unknown, the password is wrong, or the user lacks a right.
    #[error(
        "KurrentDB at {nodes} refuses the user of --event-store: see its name, its password and its right to read $all and to append"
    )]
    Denied {
        /// The hosts and ports of the address.
        nodes: String,
    },
    /// The server does not do what it was asked, and would not the next time.
    #[error("KurrentDB refused the request: look at the reason and at the server's log")]
    Refused(#[source] Box<Client>),
    /// An append may or may not be stored.
    #[error(
        "KurrentDB did not say whether it stored the request: send it again under the same key, it is stored once in any case"
    )]
    Unanswered(#[source] Box<Client>),
    /// Others appended to the same stream again and again.
    #[error(
        "{0} is appended to by too many at once: try again, nothing of this request was stored"
    )]
    Contended(String),
    /// A server before 22.6 tells the position of an event only when all streams are read.
    #[error(
        "KurrentDB is too old to tell an event's position in its stream: upgrade it to 22.10 or newer"
    )]
    TooOld,
    /// A position that a JSON number cannot hold.
    #[error(
        "the event log has reached position {0}, and 2^53 - 1 is the last that can be told: move it into a new database by export and import"
    )]
    TooFar(u64),
    /// Somebody else's event.
    #[error(
        "the event at position {position} was not written by prodgy: give it a database, or a ?namespace= in --event-store, of its own"
    )]
    Foreign {
        /// Where.
        position: u64,
        /// What is missing.
        #[source]
        source: serde_json::Error,
    },
}

impl KurrentdbError {
    /// Whether it may pass without this process being started anew: what is sent again later may
    /// succeed. A user can be given its right, or its password, at the server.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self,
            KurrentdbError::Unreachable { .. }
                | KurrentdbError::Denied { .. }
                | KurrentdbError::Unanswered(_)
                | KurrentdbError::Contended(_)
        )
    }
}

/// What to do after the client has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Ask again: the client has turned to the leader that the answer named.
    Follow,
    /// Ask again with a new client: the old one's connection, or all of it, is gone.
    Renew,
    /// Asking again does not help.
    GiveUp,
}

/// What to do after this failure. The codes are gRPC's: `Aborted` is a time-out inside the server.
pub(super) fn remedy(error: &Client) -> Remedy {
    match error {
        Client::NotLeaderException(_) => Remedy::Follow,
        Client::ServerError(_)
        | Client::ConnectionClosed
        | Client::GrpcConnectionError(_)
        | Client::DeadlineExceeded => Remedy::Renew,
        Client::Grpc { code, .. } if IS_TEMPORARY.contains(&(*code as i32)) => Remedy::Renew,
        _ => Remedy::GiveUp,
    }
}

/// `Cancelled`, `ResourceExhausted`, `Aborted`, as numbers: the client's type for them is not ours.
const IS_TEMPORARY: [i32; 3] = [1, 8, 10];

/// The failure of a request that is given up.
pub(super) fn failure(error: Client, nodes: &str) -> KurrentdbError {
    match error {
        Client::AccessDenied => KurrentdbError::Denied { nodes: nodes.into() },
        error if remedy(&error) == Remedy::GiveUp => KurrentdbError::Refused(Box::new(error)),
        error => KurrentdbError::Unreachable { nodes: nodes.into(), source: Box::new(error) },
    }
}

//! Who asks, and how a command is told apart from its own retry.
//!
//! The rule of this file: everything that a retried command derives from [`Ask`] (ids of what it
//! makes, ids of its follow-up commands) comes out the same the second time.

use std::sync::Arc;

use domain::values::derived_id;
use eventlog::{Metadata, RecordedEvent, event_id};
use uuid::Uuid;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A person, in a session.
    User(Uuid),
    /// A program, by an API token.
    Token(Uuid),
    /// A part of the server: a process manager, the command line.
    System(&'static str),
    /// Nobody that we know.
    Anonymous,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Actor::User(id) => write!(f, "user:{id}"),
            Actor::Token(id) => write!(f, "token:{id}"),
            Actor::System(name) => write!(f, "system:{name}"),
            Actor::Anonymous => f.write_str("anonymous"),
        }
    }
}

/// One command's circumstances: who, on whose behalf, and under which command id.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What goes into the envelope of every event that follows.
    pub metadata: Arc<Metadata>,
    /// The same id is carried out once.
    pub command_id: Uuid,
    /// The command id can have been used before: it comes from an `Idempotency-Key`, a delivery or
    /// an event, and is looked up before the domain is asked.
    pub repeatable: bool,
    /// A keyed hash of the request, where the command id is the client's.
    pub request_hash: Option<String>,
    /// The sequences that the client means (`If-Match`); any, when there is no list.
    pub if_match: Option<Vec<u64>>,
}

impl Ask {
    /// A command of the server itself, carried out once however often it is asked: its id is made
    /// from `parts`.
    pub fn system(
        name: &'static str,
        organization: Uuid,
        product: Option<Uuid>,
        parts: &[&[u8]],
    ) -> Ask {
        let command_id = derived_id(parts);
        Ask {
            metadata: Arc::new(Metadata {
                organization,
                product,
                actor: Actor::System(name).to_string(),
                correlation: command_id,
                causation: None,
                request_id: None,
                traceparent: None,
                address: None,
                user_agent: None,
            }),
            command_id,
            repeatable: true,
            request_hash: None,
            if_match: None,
        }
    }

    /// A command of the server itself that is carried out as often as it is asked.
    pub fn once(name: &'static str, organization: Uuid, product: Option<Uuid>) -> Ask {
        let command_id = Uuid::now_v7();
        Ask {
            command_id,
            repeatable: false,
            ..Ask::system(name, organization, product, &[command_id.as_bytes()])
        }
    }

    /// A command that follows from an event, carried out once for that event and these `parts`.
    pub fn because_of(event: &RecordedEvent, name: &'static str, parts: &[&[u8]]) -> Ask {
        let origin = Metadata {
            organization: event.organization,
            product: event.product,
            actor: String::new(),
            correlation: event.correlation,
            causation: None,
            request_id: event.request_id.clone(),
            traceparent: event.traceparent.clone(),
            address: None,
            user_agent: None,
        };
        Ask::following(event.id, origin, name, parts)
    }

    /// The circumstances of the command that an event came of, for who does what is left of it: what follows up has the
    /// ids that it would have had then.
    pub(crate) fn rest_of(event: &RecordedEvent) -> Ask {
        let metadata = Metadata {
            organization: event.organization,
            product: event.product,
            actor: event.actor.clone(),
            correlation: event.correlation,
            causation: event.causation,
            request_id: event.request_id.clone(),
            traceparent: event.traceparent.clone(),
            address: event.address.clone(),
            user_agent: event.user_agent.clone(),
        };
        Ask {
            metadata: Arc::new(metadata),
            command_id: event.command_id,
            repeatable: true,
            request_hash: event.request_hash.clone(),
            if_match: None,
        }
    }

    /// As [`Ask::because_of`] the first event of this command, which is not stored yet.
    pub(crate) fn because_of_its_first(&self, name: &'static str, parts: &[&[u8]]) -> Ask {
        let origin = Metadata { address: None, user_agent: None, ..(*self.metadata).clone() };
        Ask::following(event_id(self.command_id, 0), origin, name, parts)
    }

    /// A command of the server itself because of an event that came of `origin`.
    fn following(cause: Uuid, origin: Metadata, name: &'static str, parts: &[&[u8]]) -> Ask {
        let mut identity = vec![name.as_bytes(), cause.as_bytes()];
        identity.extend(parts);
        let actor = Actor::System(name).to_string();
        let metadata = Metadata { actor, causation: Some(cause), ..origin };
        Ask {
            metadata: Arc::new(metadata),
            command_id: derived_id(&identity),
            repeatable: true,
            request_hash: None,
            if_match: None,
        }
    }

    /// The id of something that this command makes. A repeatable command gets the same id each time
    /// (UUIDv8), any other a new one (UUIDv7).
    pub fn new_id(&self, what: &str) -> Uuid {
        if self.repeatable {
            derived_id(&[b"resource", self.command_id.as_bytes(), what.as_bytes()])
        } else {
            Uuid::now_v7()
        }
    }

    /// The same circumstances for a follow-up command on another stream.
    pub fn follow_up(&self, what: &str) -> Ask {
        Ask {
            command_id: derived_id(&[b"follow-up", self.command_id.as_bytes(), what.as_bytes()]),
            if_match: None,
            ..self.clone()
        }
    }

    /// The same circumstances, inside a product.
    pub fn in_product(&self, product: Uuid) -> Ask {
        if self.metadata.product == Some(product) {
            return self.clone();
        }
        let metadata = Metadata { product: Some(product), ..(*self.metadata).clone() };
        Ask { metadata: Arc::new(metadata), ..self.clone() }
    }

    /// The tenant.
    pub fn organization(&self) -> Uuid {
        self.metadata.organization
    }
}

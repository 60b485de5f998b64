//! What tests append to a log by hand.

use std::sync::Arc;

use domain::event::encode;
use eventlog::{Append, Expected, Metadata, NewEvent, StreamId};
use serde::Serialize;
use uuid::Uuid;

/// Somebody does something, of themselves.
pub(crate) fn metadata(organization: Uuid, product: Option<Uuid>, actor: &str) -> Arc<Metadata> {
    Arc::new(Metadata {
        organization,
        product,
        actor: actor.to_owned(),
        correlation: Uuid::now_v7(),
        causation: None,
        request_id: None,
        traceparent: None,
        address: None,
        user_agent: None,
    })
}

/// One event, wherever its stream stands.
pub(crate) fn append<E: Serialize>(stream: StreamId, metadata: Arc<Metadata>, event: &E) -> Append {
    let (event_type, data) = encode(event);
    Append {
        stream,
        expected: Expected::Any,
        command_id: Uuid::now_v7(),
        request_hash: None,
        metadata,
        keys: Vec::new(),
        events: vec![NewEvent { event_type, data, metadata: None }],
    }
}

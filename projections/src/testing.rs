//! A log that tests write by hand, what they append to it, and its read models.

use std::path::Path;
use std::sync::Arc;

use domain::event::encode;
use eventlog::{
    Append, EventStore, Expected, Metadata, NewEvent, SqliteOptions, SqliteStore, StreamId,
};
use serde::Serialize;
use uuid::Uuid;

use crate::Views;

/// A log in a folder, and what the read models make of it.
pub(crate) fn log_and_views(folder: &Path) -> (Arc<dyn EventStore>, Views) {
    let log = SqliteStore::open(&folder.join("events.db"), SqliteOptions::default());
    let log: Arc<dyn EventStore> = Arc::new(log.unwrap());
    let views = Views::open(&folder.join("views"), log.clone()).unwrap();
    (log, views)
}

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

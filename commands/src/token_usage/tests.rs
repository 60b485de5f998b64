//! Writing uses down.

use std::sync::Arc;

use eventlog::{Append, NewEvent, StreamId};
use serde_json::value::RawValue;

use super::*;
use crate::testing::{open_commands, open_log};

fn used(token: Uuid) -> Usage {
    Usage {
        token,
        organization: Uuid::from_u128(1),
        product: Uuid::from_u128(2),
        method: "GET".into(),
        route: "/api/products".into(),
        status: 200,
        address: None,
    }
}

#[tokio::test]
async fn uses_are_written_without_reading_those_before() {
    let folder = tempfile::tempdir().unwrap();
    let commands = open_commands(folder.path(), open_log(folder.path())).await;
    let token = Uuid::now_v7();
    let stream = StreamId::new("token_usage", token);
    // Whoever read the stream would fail.
    let unreadable = NewEvent {
        event_type: "token_usage.unheard_of.v1".into(),
        data: RawValue::from_string("{}".into()).unwrap(),
        metadata: None,
    };
    let ask = Ask::once("test", Uuid::from_u128(1), None);
    let append = Append {
        stream: stream.clone(),
        expected: eventlog::Expected::Any,
        command_id: ask.command_id,
        request_hash: None,
        metadata: Arc::clone(&ask.metadata),
        keys: vec![],
        events: vec![unreadable],
    };
    commands.log.append(append).await.unwrap();

    let pending = PendingUses::default();
    pending.count(used(token));
    commands.record_uses(&pending, None).await.unwrap();

    let stored = commands.log.read_stream(&stream, 1, 10).await.unwrap();
    let types: Vec<&str> = stored.iter().map(|event| event.event_type.as_str()).collect();
    assert_eq!(types, ["token_usage.recorded.v1"]);
}

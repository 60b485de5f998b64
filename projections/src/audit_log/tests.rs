//! How the audit log is asked: what narrows it is found, and not looked for row by row.

use std::sync::Arc;
use std::time::Duration;

use domain::Name;
use domain::product::ProductEvent;
use eventlog::{Metadata, StreamId};

use super::*;
use crate::testing::{append, log_and_views, metadata};

#[test]
fn nothing_that_names_one_thing_is_looked_for_row_by_row() {
    let db = Connection::open_in_memory().unwrap();
    db.execute_batch(AuditLog.schema()).unwrap();
    let id = Uuid::now_v7();
    let text = || Some(id.to_string());
    for (filter, index) in [
        (Filter { resource_id: text(), ..Filter::default() }, "audit_by_resource"),
        (Filter { actor: text(), ..Filter::default() }, "audit_by_actor"),
        (Filter { product: Some(id), ..Filter::default() }, "audit_by_product"),
        (Filter { request_id: text(), ..Filter::default() }, "audit_by_request"),
    ] {
        let plan = question(Uuid::nil(), &filter).plan(&db, Window::first(50)).unwrap();
        assert!(plan.contains(index) && !plan.contains("SCAN audit"), "{index}:\n{plan}");
    }
}

#[tokio::test]
async fn what_a_request_led_to_is_found_by_its_id_whatever_it_looks_like() {
    let folder = tempfile::tempdir().unwrap();
    let (log, views) = log_and_views(folder.path());
    // Of two ids that are nearly one, and of one in two spellings, each is its own.
    let (id, like) = (Uuid::from_u64_pair(7, 1), Uuid::from_u64_pair(7, 2));
    let requests =
        [id.to_string(), id.simple().to_string(), like.to_string(), "of mine".to_owned()];
    let mut positions = Vec::new();
    for request in requests.iter().map(Some).chain([None]) {
        let by = metadata(Uuid::nil(), None, "user:ada");
        let by = Metadata { request_id: request.cloned(), ..by.as_ref().clone() };
        let name = Some(Name::parse("Shop").unwrap());
        let event = ProductEvent::Changed { name, description: None };
        let append = append(StreamId::new("product", Uuid::now_v7()), Arc::new(by), &event);
        positions.push(log.append(append).await.unwrap().position());
    }
    assert!(views.all_caught_up(positions[4], Duration::from_secs(60)).await);

    let found = |request: &str| {
        let filter = Filter { request_id: Some(request.to_owned()), ..Filter::default() };
        let listing = views.read(|db| list(db, Uuid::nil(), &filter, Window::first(50))).unwrap();
        listing.items.iter().map(|entry| entry.position).collect::<Vec<_>>()
    };
    for (request, position) in requests.iter().zip(&positions) {
        assert_eq!(found(request), [position.0], "{request}");
    }
    assert!(found("of nobody").is_empty());
}

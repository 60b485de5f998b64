//! What is said of a product, as the log has it.

use domain::{Name, Sealed};
use eventlog::StreamId;
use vault::{MasterKey, Place, Vault};

use super::*;
use crate::testing::{append, log_and_views, metadata};

#[tokio::test]
async fn what_was_said_in_the_clear_is_read_until_something_else_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (log, views) = log_and_views(folder.path());
    let kept = folder.path().join("vault");
    let vault = Vault::local(&kept, MasterKey::generate().unwrap()).await.unwrap();
    let id = Uuid::now_v7();
    let (key, stream) = (format!("product-{id}"), StreamId::new("product", id));
    vault.create_key(&key).await.unwrap();
    let place = Place {
        organization: Uuid::nil(),
        stream: stream.as_str(),
        event_type: "product.described.v1",
        field: "description",
    };
    let sealed = vault.seal(&key, &place, b"Sealed").await.unwrap();
    let clear = |text| Some(Description::parse(text).unwrap());
    let created = ProductEvent::Created {
        name: Name::parse("Shop").unwrap(),
        description: clear("Clear | and old"),
        knowledge_base: Uuid::now_v7(),
    };
    let changed = |text| ProductEvent::Changed { name: None, description: clear(text) };
    let described = |text| ProductEvent::Described { description: text };

    for (event, said) in [
        (created, Some("Clear | and old")),
        (changed(""), None),
        (changed("Other"), Some("Other")),
        (described(Some(Sealed(sealed.into_string()))), Some("Sealed")),
        (ProductEvent::Changed { name: None, description: None }, Some("Sealed")),
        (described(None), None),
    ] {
        let by = metadata(Uuid::nil(), Some(id), "user:ada");
        let append = append(stream.clone(), by, &event);
        let position = log.append(append).await.unwrap().position();
        assert!(views.caught_up(position, std::time::Duration::from_secs(60)).await);
        let shown = views.read(|db| get(db, id)).unwrap().unwrap().description;
        let opened = Said::open(shown, &vault, Uuid::nil(), stream.as_str()).await.unwrap();
        assert_eq!(opened.as_deref(), said, "after {event:?}");
    }
}

//! The table: who can read it, who can change it, and that its bytes are those of every store.

use std::path::Path;
use std::sync::Arc;

use cqrs_es::event_sink::EventSink;
use cqrs_es::persist::{PersistedEventRepository, PersistedEventStore};
use cqrs_es::{Aggregate, DomainEvent, EventStore as _};
use eventlog::conformance::{command, command_with, event};
use eventlog::{
    AppendError, EventStore, Expected, NewEvent, PostgresOptions, PostgresStore, SqliteOptions,
    SqliteStore, StreamId,
};
use postgres_es::PostgresEventRepository;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use crate::cluster::Cluster;
use crate::{Database, open};

/// An aggregate as the domain writes them, to be loaded by postgres-es.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counter {
    total: i64,
    notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum CounterEvent {
    #[serde(rename = "counter.moved.v1")]
    Moved { by: i64 },
    #[serde(rename = "counter.noted.v2")]
    Noted { id: String, data: String },
}

impl DomainEvent for CounterEvent {
    fn event_type(&self) -> String {
        match self {
            CounterEvent::Moved { .. } => "counter.moved.v1".into(),
            CounterEvent::Noted { .. } => "counter.noted.v2".into(),
        }
    }

    fn event_version(&self) -> String {
        self.event_type().rsplit('.').next().unwrap().into()
    }
}

impl Aggregate for Counter {
    const TYPE: &'static str = "counter";
    type Command = ();
    type Event = CounterEvent;
    type Error = std::io::Error;
    type Services = ();

    async fn handle(&mut self, (): (), (): &(), _: &EventSink<Self>) -> Result<(), Self::Error> {
        Ok(())
    }

    fn apply(&mut self, event: CounterEvent) {
        match event {
            CounterEvent::Moved { by } => self.total += by,
            CounterEvent::Noted { id, data } => self.notes.push(id + &data),
        }
    }
}

fn stored(event: &CounterEvent) -> NewEvent {
    let tagged = serde_json::to_value(event).unwrap();
    let payload = tagged.as_object().unwrap().values().next().unwrap();
    let data = serde_json_canonicalizer::to_string(payload).unwrap();
    NewEvent {
        event_type: event.event_type(),
        data: RawValue::from_string(data).unwrap(),
        metadata: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_es_loads_an_aggregate_from_what_is_stored() {
    let database = Database::new();
    let store = database.open().await;
    let id = "01936f6e-0000-7000-8000-000000000004";
    // What would fool whoever cuts an envelope carelessly.
    let awkward = r#"","data":{},"id":"\u0000","x":"🦀"#;
    let events = [
        CounterEvent::Moved { by: 2 },
        CounterEvent::Noted { id: "\0".into(), data: awkward.into() },
        CounterEvent::Moved { by: -7 },
    ];
    for (sequence, event) in (0..).zip(&events) {
        let mut append = command_with(id, Expected::Sequence(sequence), vec![stored(event)]);
        append.stream = StreamId::new("counter", id);
        let metadata = Arc::make_mut(&mut append.metadata);
        metadata.actor = r#"user:"data":{"id":"1"}"#.into();
        metadata.user_agent = Some(r#"x","id":"2","time":"never"#.into());
        append.keys = vec![r#"a,"#.into(), "id".into(), r#"":"b"#.into()];
        store.append(append).await.unwrap();
    }
    store.append(command(id, Expected::Any)).await.unwrap();

    let pool = sqlx::PgPool::connect(&database.url()).await.unwrap();
    let repository = PostgresEventRepository::new(pool.clone());
    let found = repository.get_events::<Counter>(id).await.unwrap();
    assert_eq!(found.len(), 3);
    for (index, (found, event)) in found.iter().zip(&events).enumerate() {
        assert_eq!(found.aggregate_type, "counter");
        assert_eq!(found.aggregate_id, id);
        assert_eq!(found.sequence, index + 1);
        assert_eq!(found.event_type, event.event_type());
        assert_eq!(found.event_version, event.event_version());
        assert_eq!(found.payload, serde_json::to_value(event).unwrap());
        assert_eq!(found.metadata["position"], (index + 1).to_string());
    }
    let log = store.read_stream(&StreamId::new("counter", id), 0, 10).await.unwrap();
    assert_eq!(found[0].metadata["id"], log[0].id.to_string());
    let time = serde_json::to_value(&log[0]).unwrap()["time"].clone();
    assert_eq!(found[0].metadata["time"], time);

    let events_of_store =
        PersistedEventStore::<_, Counter>::new_event_store(PostgresEventRepository::new(pool));
    let context = events_of_store.load_aggregate(id).await.unwrap();
    let expected = Counter { total: -5, notes: vec![format!("\0{awkward}")] };
    assert_eq!(context.aggregate, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_are_those_that_sqlite_stores() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let database = Database::new();
    let stores: [Arc<dyn EventStore>; 2] = [
        Arc::new(SqliteStore::open(&path, SqliteOptions::default()).unwrap()),
        database.open().await,
    ];
    for n in 0..30_u64 {
        let events = (0..=n % 3)
            .map(|m| event(&json!({ "n": n, "m": m, "ü": "\0\u{7f}\"\\🦀", "\u{e000}": 1e21 })));
        let mut append = command_with(n % 5, Expected::Any, events.collect());
        Arc::make_mut(&mut append.metadata).traceparent = (n % 2 == 0).then(|| "trace".into());
        append.request_hash = (n % 3 == 0).then(|| "hash".into());
        for store in &stores {
            store.append(append.clone()).await.unwrap();
        }
    }
    for store in &stores {
        store.close().await;
    }

    let sqlite = Connection::open(&path).unwrap();
    let mut statement = sqlite.prepare("SELECT envelope FROM events ORDER BY position").unwrap();
    let sqlite: Vec<String> =
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut connection = connect(&database.url()).await;
    let postgres: Vec<String> =
        sqlx::query_scalar("SELECT envelope FROM event_log ORDER BY position")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert_eq!(postgres.len(), 60);
    let timeless = |envelopes: &[String]| {
        envelopes.iter().map(|envelope| without_time(envelope)).collect::<Vec<_>>()
    };
    assert_eq!(timeless(&postgres), timeless(&sqlite));
}

/// An envelope with another time: the two stores committed it one after the other.
fn without_time(envelope: &str) -> String {
    let start = envelope.rfind(r#","time":""#).unwrap();
    let end = start + r#","time":"2026-11-23T16:00:00.000000Z""#.len();
    assert!(envelope[..end].ends_with(r#"Z""#), "six decimals: {envelope}");
    format!("{}{}", &envelope[..start], &envelope[end..])
}

async fn connect(url: &str) -> sqlx::PgConnection {
    use sqlx::Connection;
    sqlx::PgConnection::connect(url).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_never_changed_nor_deleted_even_by_hand() {
    let database = Database::new();
    let store = database.open().await;
    store.append(command("a", Expected::Any)).await.unwrap();

    for statement in [
        "UPDATE event_log SET envelope = '{}'",
        "UPDATE event_log SET position = 7",
        "DELETE FROM event_log",
        "TRUNCATE event_log",
        "UPDATE event_log_head SET only_row = true",
        "DELETE FROM event_log_head",
        "TRUNCATE event_log_head",
        "DELETE FROM events",
        "UPDATE events SET sequence = 7",
    ] {
        let refused = Cluster::shared().try_sql(&database.url(), statement).unwrap_err();
        let is_clear = refused.contains("append-only") || refused.contains("view \"events\"");
        assert!(is_clear, "{statement}: {refused}");
    }
    assert_eq!(database.sql("SELECT count(*) FROM event_log"), "1");
}

/// The SQL of the documented role, as `migrations/events/postgres/README.md` has it.
fn documented_role() -> String {
    let path = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
        .join("../migrations/events/postgres/README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, sql) = text.split_once("```sql\n").unwrap();
    sql.split_once("```").unwrap().0.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_role_appends_and_reads_and_can_do_nothing_else() {
    let database = Database::new();
    database.open().await.close().await;
    // Roles belong to the whole cluster: this one is named after the database.
    let role = format!("role_of_{}", database.name);
    let sql = documented_role()
        .replace("prodgy_server", &role)
        .replace("DATABASE prodgy", &format!("DATABASE {}", database.name));
    database.sql(&sql);
    database.sql(&format!("ALTER ROLE {role} PASSWORD 'secret'"));
    let port = Cluster::shared().port();
    let url = format!("postgres://{role}:secret@127.0.0.1:{port}/{}", database.name);

    let store = open(&url).await;
    let append = command("a", Expected::Any);
    store.append(append.clone()).await.unwrap();
    assert!(store.append(append).await.unwrap().replayed);
    let refused = store.append(command("a", Expected::Sequence(7))).await;
    assert!(matches!(refused, Err(AppendError::Conflict { actual: 1, .. })), "{refused:?}");
    store.close().await;
    let store = open(&url).await;
    assert_eq!(crate::checks::everything(&*store).await.len(), 1);

    for statement in [
        "UPDATE event_log SET envelope = '{}'",
        "DELETE FROM event_log",
        "TRUNCATE event_log",
        "DROP TABLE event_log",
        "ALTER TABLE event_log DISABLE TRIGGER ALL",
        "DROP TRIGGER events_are_never_changed ON event_log",
        "CREATE OR REPLACE FUNCTION refuse_to_change_the_event_log() RETURNS trigger
         LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "SET session_replication_role = replica",
        "UPDATE event_log_head SET only_row = true",
        "DELETE FROM event_log_schema",
        "INSERT INTO event_log_schema VALUES (99)",
        "CREATE TABLE other (n int)",
    ] {
        let refused = Cluster::shared().try_sql(&url, statement).unwrap_err();
        let is_refused = ["permission denied", "must be owner", "append-only"];
        assert!(is_refused.iter().any(|word| refused.contains(word)), "{statement}: {refused}");
    }
    assert_eq!(database.sql("SELECT count(*) FROM event_log"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_row_can_hold_fails_its_own_command_only() {
    let database = Database::new();
    let store = database.open().await;
    let long = "x".repeat(5_000);
    for stream in ["thing-a\0b", "without_a_dash", &format!("thing-{long}")] {
        let mut append = command("a", Expected::Any);
        append.stream = StreamId::from(stream);
        let (refused, stored) =
            tokio::join!(store.append(append), store.append(command("b", Expected::Any)));
        assert!(matches!(refused, Err(AppendError::Malformed(_))), "{refused:?}");
        stored.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_envelope_is_named_by_its_position() {
    let database = Database::new();
    let store = database.open().await;
    store.append(command("a", Expected::Any)).await.unwrap();
    store.close().await;
    // As only a superuser can.
    database.sql(
        "SET session_replication_role = replica;
         UPDATE event_log SET envelope = '#' || substr(envelope, 2)",
    );

    let store = database.open().await;
    let error = store.read_after(eventlog::Position::START, 10).await.unwrap_err();

    assert!(matches!(error, eventlog::Error::Corrupt { position: 1, .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_back_orders_nothing_anew() {
    let database = Database::new();
    let store = database.open().await;
    store.append(command("a", Expected::Any)).await.unwrap();
    // An event that another node committed when its clock stood in the future.
    database.sql(
        "INSERT INTO event_log
         SELECT 2, aggregate_type, aggregate_id, 2, event_type, NULL, regexp_replace(replace(replace(
             envelope, '\"position\":1', '\"position\":2'), '\"sequence\":1', '\"sequence\":2'),
             '\"time\":\"[^\"]*\"', '\"time\":\"2199-01-01T00:00:00.000000Z\"') FROM event_log",
    );

    let appended = store.append(command("a", Expected::Sequence(2))).await.unwrap();

    assert_eq!(appended.events[0].time.to_rfc3339(), "2199-01-01T00:00:00+00:00");
    assert_eq!(appended.position().0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_far_behind_the_tail_catches_up_from_the_table() {
    let database = Database::new();
    let store = database.open().await;
    let behind = database.open().await;
    // More than the tail holds, and more than a follower reads one by one.
    for _ in 0..100 {
        let events = (0..100).map(|n| event(&json!({ "n": n }))).collect();
        store.append(command_with("a", Expected::Any, events)).await.unwrap();
    }
    let mut watch = behind.watch();
    let reached = watch.wait_for(|head| head.0 == 10_000);
    tokio::time::timeout(crate::checks::PATIENCE, reached).await.expect("news come").unwrap();

    for store in [&store, &behind] {
        let all = crate::checks::everything(&**store).await;
        assert_eq!(all.len(), 10_000);
        assert!(all.iter().enumerate().all(|(index, event)| event.position.0 == index as u64 + 1));
    }
}

#[tokio::test]
async fn a_log_that_is_not_there_is_not_made_by_reading_it() {
    let database = Database::new();
    let options = PostgresOptions { read_only: true, ..PostgresOptions::default() };

    let missing = PostgresStore::open(&database.url(), options).await.err().unwrap();

    assert!(matches!(missing, eventlog::Error::Missing(_)), "{missing:?}");
    assert_eq!(database.sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'event_log%'"), "0");
}

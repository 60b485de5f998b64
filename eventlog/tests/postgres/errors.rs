//! What goes wrong with a server: each fault is told apart, says what to do, and passes by itself
//! when its cause has.

use std::net::TcpListener;
use std::time::Duration;

use eventlog::conformance::command;
use eventlog::{
    AppendError, Error, EventStore, Expected, Position, PostgresOptions, PostgresStore,
};

use crate::cluster::{Cluster, PASSWORD, USER};
use crate::{Database, open, open_impatient};

async fn refusal(url: &str) -> Error {
    let error = PostgresStore::open(url, PostgresOptions::default()).await.err().unwrap();
    let text = format!("{error} {error:?}");
    assert!(!text.contains(PASSWORD) && !text.contains("p%40ss"), "no password: {text}");
    error
}

#[tokio::test]
async fn a_wrong_address_is_told() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = Cluster::shared().url("postgres");
    let (credentials, _) = url.split_once('@').unwrap();

    for host in [nobody.to_string(), "no-such-host.invalid:5432".into()] {
        let error = refusal(&format!("{credentials}@{host}/prodgy")).await;
        assert!(
            matches!(&error, Error::Unreachable { address, .. } if *address == host),
            "{error:?}"
        );
        assert!(error.to_string().contains(&host) && error.to_string().contains("--event-store"));
        assert!(error.is_temporary());
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_on() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://{USER}@{}/prodgy", silent.local_addr().unwrap());
    let options = PostgresOptions {
        connect_timeout: Duration::from_millis(300),
        ..PostgresOptions::default()
    };

    let error = PostgresStore::open(&url, options).await.err().unwrap();

    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_wrong_password_and_a_wrong_user_are_told() {
    let port = Cluster::shared().port();
    for user in [USER, "nobody"] {
        let error = refusal(&format!("postgres://{user}:wrong@127.0.0.1:{port}/postgres")).await;
        assert!(
            matches!(&error, Error::Credentials { user: told, .. } if told == user),
            "{error:?}"
        );
        assert!(error.to_string().contains("password"), "{error}");
    }
}

#[tokio::test]
async fn a_missing_database_is_told() {
    let error = refusal(&Cluster::shared().url("nowhere")).await;
    assert!(matches!(&error, Error::NoDatabase { database, .. } if database == "nowhere"));
    assert!(error.to_string().contains("createdb nowhere"), "{error}");
}

#[tokio::test]
async fn an_encrypted_connection_that_cannot_be_had_is_told() {
    let error = refusal(&format!("{}?sslmode=require", Cluster::shared().url("postgres"))).await;
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains("sslmode"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_connection_is_made_and_its_certificate_is_checked() {
    let cluster = Cluster::start();
    let authority = cluster.encrypt();
    let name = cluster.database();
    let url = cluster.url(&name);

    let unknown = refusal(&format!("{url}?sslmode=verify-full")).await;
    assert!(matches!(unknown, Error::Tls { .. }), "{unknown:?}");
    let full = format!("{url}?sslmode=verify-full&sslrootcert={}", authority.display());
    let elsewhere = refusal(&full.replace("127.0.0.1", "localhost")).await;
    assert!(matches!(elsewhere, Error::Tls { .. }), "{elsewhere:?}");

    for address in [full, format!("{url}?sslmode=require")] {
        let store = open(&address).await;
        store.append(command("a", Expected::Any)).await.unwrap();
        let open_text = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                         WHERE application_name = 'prodgy' AND NOT ssl";
        assert_eq!(cluster.sql(&name, open_text), "0", "appender, readers and listener");
        store.close().await;
    }
}

#[tokio::test]
async fn an_address_that_is_none_is_told() {
    for url in ["postgres://u:p%40ss@host:port/x", "postgres://u:p%40ss@host/x?sslmode=sometimes"] {
        let error = refusal(url).await;
        assert!(matches!(error, Error::Address(_)), "{error:?}");
        assert!(!error.is_temporary());
    }
    for address in ["mysql://host/x", "events.db", "", "sqlite:"] {
        let error = eventlog::open(address, false).await.err().unwrap();
        assert!(matches!(error, Error::Address(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_schema_of_a_newer_version_is_left_alone() {
    let database = Database::new();
    database.open().await.close().await;
    database.sql("INSERT INTO event_log_schema (version) VALUES (99)");

    for read_only in [false, true] {
        let options = PostgresOptions { read_only, ..PostgresOptions::default() };
        let newer = PostgresStore::open(&database.url(), options).await.err().unwrap();
        assert!(matches!(newer, Error::Newer { found: 99, known: 2 }), "{newer:?}");
        assert!(newer.to_string().contains("upgrade"), "{newer}");
    }
    assert_eq!(database.sql("SELECT max(version) FROM event_log_schema"), "99");
}

#[tokio::test]
async fn a_database_that_is_used_for_something_else_is_left_alone() {
    let database = Database::new();
    database.sql("CREATE TABLE events (n int)");

    let error = refusal(&database.url()).await;

    assert!(matches!(error, Error::Unsuitable(_)), "{error:?}");
    assert!(error.to_string().contains("a database of its own"), "{error}");
    let tables = "SELECT count(*) FROM pg_class WHERE relname LIKE 'event_log%'";
    assert_eq!(database.sql(tables), "0", "nothing is half made");
}

#[tokio::test]
async fn a_database_with_an_encoding_that_cannot_hold_all_text_is_refused() {
    let cluster = Cluster::shared();
    let name = cluster.database();
    cluster.sql("postgres", &format!("DROP DATABASE {name}"));
    let create = format!("CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    cluster.sql("postgres", &create);

    let error = refusal(&cluster.url(&name)).await;

    assert!(matches!(error, Error::Unsuitable(_)), "{error:?}");
    assert!(error.to_string().contains("UTF8"), "{error}");
}

#[tokio::test]
async fn a_user_without_rights_is_told() {
    let database = Database::new();
    database.open().await.close().await;
    let role = format!("stranger_to_{}", database.name);
    database.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'"));
    let port = Cluster::shared().port();

    let url = format!("postgres://{role}:secret@127.0.0.1:{port}/{}", database.name);
    let error = refusal(&url).await;

    assert!(matches!(error, Error::Denied(_)), "{error:?}");
    assert!(error.to_string().contains("README.md"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_only_reads_refuses_appends_until_it_writes_again() {
    let database = Database::new();
    let store = database.open().await;
    store.append(command("a", Expected::Sequence(0))).await.unwrap();
    store.close().await;
    let set = |what| {
        let name = &database.name;
        let sql = format!("ALTER DATABASE {name} {what}");
        Cluster::shared().sql("postgres", &sql);
    };
    set("SET default_transaction_read_only = on");

    let store = database.open().await;
    let append = command("a", Expected::Sequence(1));
    let refused = store.append(append.clone()).await.unwrap_err();
    assert!(matches!(refused, AppendError::Store(Error::ReadOnlyServer { .. })), "{refused:?}");
    assert!(refused.to_string().contains("only reads"), "{refused}");
    assert_eq!(store.read_after(Position::START, 10).await.unwrap().len(), 1, "reading goes on");

    set("RESET default_transaction_read_only");
    assert_eq!(store.append(append).await.unwrap().position(), Position(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_told_and_all_goes_on_when_it_is_back() {
    let cluster = Cluster::start();
    let url = cluster.url(&cluster.database());
    let store = open_impatient(&url).await;
    store.append(command("a", Expected::Sequence(0))).await.unwrap();
    let stream = command("a", Expected::Any).stream;
    tokio::task::block_in_place(|| cluster.stop());

    let append = command("a", Expected::Sequence(1));
    for _ in 0..2 {
        let refused = store.append(append.clone()).await.unwrap_err();
        let AppendError::Store(error) = &refused else { panic!("{refused:?}") };
        assert!(
            matches!(
                error,
                Error::Unreachable { .. } | Error::Unavailable { .. } | Error::Unanswered { .. }
            ),
            "{error:?}"
        );
        assert!(error.is_temporary());
    }
    let gone = store.head().await.unwrap_err();
    assert!(gone.is_temporary(), "{gone:?}");
    assert!(store.read_stream(&stream, 0, 10).await.unwrap_err().is_temporary());
    assert_eq!(store.read_after(Position::START, 10).await.unwrap().len(), 1, "from memory");

    tokio::task::block_in_place(|| cluster.start_again());
    let appended = store.append(append).await.unwrap();
    assert_eq!(appended.position(), Position(2));
    assert_eq!(store.read_stream(&stream, 0, 10).await.unwrap().len(), 2);
    assert_eq!(open(&url).await.head().await.unwrap(), Position(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_never_given_is_not_waited_for_for_ever() {
    let database = Database::new();
    database.open().await.close().await;
    let options = PostgresOptions {
        statement_timeout: Duration::from_millis(300),
        ..PostgresOptions::default()
    };
    let store = PostgresStore::open(&database.url(), options).await.unwrap();
    use sqlx::Connection;
    let mut holder = sqlx::PgConnection::connect(&database.url()).await.unwrap();
    let hold = "BEGIN; SELECT FROM event_log_head FOR UPDATE";
    sqlx::raw_sql(hold).execute(&mut holder).await.unwrap();

    let append = command("a", Expected::Sequence(0));
    let busy = store.append(append.clone()).await.unwrap_err();
    assert!(matches!(busy, AppendError::Store(Error::Overloaded { .. })), "{busy:?}");

    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    assert!(!store.append(append).await.unwrap().replayed);
}

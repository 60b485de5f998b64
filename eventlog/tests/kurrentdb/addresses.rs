//! Addresses that lead nowhere, or to somebody who does not let us in.

use std::time::Duration;

use eventlog::{Error, KurrentdbError, KurrentdbOptions, KurrentdbStore};
use tokio::net::TcpListener;

use kurrentdb_double::Double;

async fn refused(address: &str) -> KurrentdbError {
    let options = KurrentdbOptions { patience: Duration::ZERO, read_only: false };
    match KurrentdbStore::open(address, options).await.err() {
        Some(Error::Kurrentdb(error)) => error,
        other => panic!("{address} had to be refused, but: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_where_nobody_is_may_be_right_later() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = listener.local_addr().unwrap();
    drop(listener);

    let error = refused(&format!("kurrentdb://admin:changeit@{nobody}?tls=false")).await;

    assert!(matches!(error, KurrentdbError::Unreachable { .. }), "{error:?}");
    assert!(error.is_temporary());
    assert!(error.to_string().contains(&nobody.to_string()), "{error}");
    assert!(error.to_string().contains("--event-store"), "{error}");
    assert!(!format!("{error} {error:?}").contains("changeit"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_named_and_not_shown() {
    let double = Double::start().await;
    for user in ["admin:wrong@", "nobody:changeit@", ""] {
        let address = double.url().replace("admin:changeit@", user);

        let error = refused(&address).await;

        assert!(matches!(error, KurrentdbError::Denied { .. }), "{user}: {error:?}");
        assert!(error.is_temporary(), "the user can be made, or its password, at the server");
        assert!(error.to_string().contains("password"), "{error}");
        assert!(!format!("{error} {error:?}").contains("wrong@"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_something_else_does_not_answer() {
    let double = Double::start().await;

    // Certificates are asked of a server that has none.
    let error = refused(&double.url().replace("tls=false", "tls=true")).await;

    assert!(matches!(error, KurrentdbError::Unreachable { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_address_is_refused_with_an_example() {
    for address in ["kurrentdb://", "kurrentdb://a:b@c:port", "esdb://a?namespace=b-c"] {
        let error = refused(address).await;

        assert!(matches!(error, KurrentdbError::Address(_)), "{error:?}");
        assert!(!error.is_temporary());
        assert!(error.to_string().contains("kurrentdb://user:password@host:2113"), "{error}");
    }
}

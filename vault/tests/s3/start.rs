//! Opening a vault where it cannot be: said at once, with what to do about it.

use std::{sync::Arc, time::Duration};

use tempfile::TempDir;
use vault::{Error, MasterKey, S3Address, Vault};

use crate::server::S3Server;
use crate::support::{Store, body, place};

type Environment = Vec<(String, String)>;

async fn open(address: &str, environment: &Environment) -> Error {
    let address: S3Address = address.parse().unwrap();
    let opened = Vault::s3(&address, environment, MasterKey::generate().unwrap()).await;
    opened.expect_err("this store cannot be opened")
}

fn with(mut environment: Environment, name: &str, value: &str) -> Environment {
    environment.retain(|(said, _)| said != name);
    environment.push((name.to_owned(), value.to_owned()));
    environment
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_named() {
    let server = S3Server::start();
    let error = open("s3://no-such-bucket/prefix", &server.environment()).await;
    assert!(matches!(error, Error::BucketMissing { .. }), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("s3://no-such-bucket/prefix at http://127.0.0.1:"), "{said}");
    assert!(said.contains("aws s3 mb"), "{said}");
}

#[tokio::test]
async fn wrong_credentials_are_named_and_not_repeated() {
    let server = S3Server::start();
    server.make_bucket("bucket");
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        let environment = with(server.environment(), name, "canary-credential");
        let error = open("s3://bucket", &environment).await;
        assert!(matches!(error, Error::StoreRefused { .. }), "{error:?}");
        assert!(error.to_string().contains("check AWS_ACCESS_KEY_ID"), "{error}");
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_named() {
    let server = S3Server::start();
    let environment = server.environment();
    drop(server);
    let error = open("s3://bucket", &environment).await;
    assert!(matches!(error, Error::StoreUnreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("AWS_ENDPOINT_URL"), "{error}");
}

#[tokio::test]
async fn credentials_that_nobody_gives_are_said_to_be_missing() {
    let server = S3Server::start();
    server.make_bucket("bucket");
    // Nobody listens there: this machine is none that the cloud gives credentials to.
    let mut environment =
        vec![("AWS_METADATA_ENDPOINT".to_owned(), "http://127.0.0.1:9".to_owned())];
    let endpoint = server.environment().into_iter().find(|(name, _)| name == "AWS_ENDPOINT_URL");
    environment.extend(endpoint);
    let error = open("s3://bucket", &environment).await;
    assert!(matches!(error, Error::StoreRefused { .. }), "{error:?}");
    assert!(error.to_string().contains("check AWS_ACCESS_KEY_ID"), "{error}");
}

#[tokio::test]
async fn http_is_refused_for_a_store_that_is_elsewhere() {
    let environment = vec![
        ("AWS_ACCESS_KEY_ID".to_owned(), "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), "secret".to_owned()),
        ("AWS_ENDPOINT_URL".to_owned(), "http://store.invalid:9000".to_owned()),
    ];
    let error = open("s3://bucket", &environment).await;
    let chain = format!("{error} {error:?}");
    assert!(chain.contains("AWS_ALLOW_HTTP"), "{chain}");
}

#[tokio::test]
async fn a_store_that_ignores_conditional_puts_is_refused() {
    let server = Arc::new(S3Server::start());
    let store = Store::on(server.clone()).await;
    server.ignore_conditions(true);
    let refused = store.opened_with(store.master.clone()).await;
    assert!(matches!(refused, Err(Error::NoConditionalPuts { .. })), "{refused:?}");
    server.ignore_conditions(false);
    store.reopened().await;
}

#[tokio::test]
async fn a_key_file_is_made_for_an_empty_store_and_for_no_other() {
    let server = S3Server::start();
    server.make_bucket("bucket");
    let address: S3Address = "s3://bucket".parse().unwrap();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("master.key");
    let open = async || Vault::s3_with_key_file(&address, &server.environment(), &file).await;
    assert!(open().await.unwrap().1);
    assert!(!open().await.unwrap().1);
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(open().await, Err(Error::MasterKeyMissing { .. })));
    assert!(!file.exists());
}

#[tokio::test]
async fn a_bucket_that_keeps_versions_works() {
    let server = S3Server::start();
    server.make_bucket_with_versions("versioned");
    let address: S3Address = "s3://versioned/prodgy".parse().unwrap();
    let master = MasterKey::generate().unwrap();
    let vault = Vault::s3(&address, &server.environment(), master).await.unwrap();
    vault.create_key("user-1").await.unwrap();
    let sealed = vault.seal("user-1", &place("email"), b"ada").await.unwrap();
    vault.shred_key("user-1").await.unwrap();
    assert!(vault.open(&sealed, &place("email")).await.unwrap().clear().is_none());
}

#[tokio::test]
async fn what_is_long_unfinished_is_cleared_and_what_is_young_is_not() {
    let server = Arc::new(S3Server::start());
    let (store, product) = Store::with_product_on(server).await;
    store.vault.put_blob(product, body(b"text", 4), 4).await.unwrap();
    store.overwrite("unfinished/0193", b"half a blob").await;
    store.reopened().await;
    assert_eq!(store.unfinished().await, 1);
    store.age(Duration::from_secs(25 * 3600)).await;
    store.reopened().await;
    assert_eq!(store.unfinished().await, 0);
    assert_eq!(store.names("blobs").await.len(), 1);
}

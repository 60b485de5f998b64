//! `prodgy model fetch`, from a hub on loopback that has the real files, and the server that finds them afterwards.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::header::{CONTENT_RANGE, ETAG, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};
use tests::support::{TestApp, prodgy};

use super::{stderr, stdout};

const LEAVE: &str = "Every employee has 25 days of paid leave.";

/// The files of the model as `scripts/fetch-model` leaves them.
fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/all-MiniLM-L6-v2")
}

const FILES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

/// The files of a model, each with its digest.
type Files = Arc<HashMap<&'static str, (Vec<u8>, String)>>;

fn files(folder: &Path) -> Files {
    let read = |name: &'static str| {
        let content = std::fs::read(folder.join(name)).unwrap();
        let digest = hex::encode(Sha256::digest(&content));
        (name, (content, digest))
    };
    Arc::new(FILES.into_iter().map(read).collect())
}

/// Answers a part of a file, as the hub does: with its digest, and the commit that it is of.
async fn part(
    State(files): State<Files>,
    UrlPath(file): UrlPath<String>,
    headers: HeaderMap,
) -> Response {
    let Some((content, digest)) = files.get(file.as_str()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let range = headers[RANGE].to_str().unwrap().strip_prefix("bytes=").unwrap();
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let last = last.min(content.len() - 1);
    let headers = [
        (CONTENT_RANGE.as_str(), format!("bytes {first}-{last}/{}", content.len())),
        (ETAG.as_str(), format!("\"{digest}\"")),
        ("x-repo-commit", "0123456789abcdef0123456789abcdef01234567".to_owned()),
    ];
    (StatusCode::PARTIAL_CONTENT, headers, Body::from(content[first..=last].to_vec()))
        .into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_was_fetched_is_the_one_that_the_server_uses() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hub = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new()
        .route("/sentence-transformers/all-MiniLM-L6-v2/resolve/main/{*file}", get(part))
        .with_state(files(&model()));
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let home = tempfile::tempdir().unwrap();
    let mut fetch = prodgy(home.path(), &["model", "fetch"]);
    fetch.env("HF_ENDPOINT", &hub).env("HF_HOME", home.path()).env_remove("PRODGY_MODEL_DIR");

    let fetched = tokio::task::spawn_blocking(move || fetch.output().unwrap()).await.unwrap();

    assert_eq!(fetched.status.code(), Some(0), "{}", stderr(&fetched));
    let place = PathBuf::from(stdout(&fetched).trim());
    assert!(place.starts_with(home.path()), "{}", place.display());
    assert!(files(&place) == files(&model()), "what was fetched is not what the hub has");
    let cache = home.path().to_str().unwrap();
    let app = TestApp::spawn_with(&[("PRODGY_MODEL_DIR", ""), ("HF_HOME", cache)]).await;
    let product = app.product().await;
    let file = app.text_file(&product, "leave.txt", LEAVE).await;
    app.wait_ready(&file).await;
    assert!(app.finds(&product, "How many holidays are there?", LEAVE).await);
}

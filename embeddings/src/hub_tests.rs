//! A hub on loopback that speaks as much of the real one's protocol as hf-hub asks for: `GET` with `Range`, the file's tag, size and
//! the repository's commit in headers, a large file behind a redirect.

use std::collections::HashMap;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::get;
use parking_lot::Mutex;

use super::*;

const REPOSITORY: &str = "sentence-transformers/all-MiniLM-L6-v2";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A file, and the tag that the hub says it has.
#[derive(Clone)]
struct Served {
    content: Vec<u8>,
    tag: String,
}

impl Served {
    fn honest(content: &[u8]) -> Self {
        Self { content: content.to_vec(), tag: hex::encode(Sha256::digest(content)) }
    }
}

type Files = Arc<HashMap<&'static str, Served>>;

fn part(file: &Served, headers: &HeaderMap) -> Response<Body> {
    let range = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let (first, last) = range.expect("hf-hub asks for ranges");
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let last = last.min(file.content.len() - 1);
    Response::builder()
        .status(StatusCode::PARTIAL_CONTENT)
        .header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{}", file.content.len()))
        .header(header::ETAG, format!("\"{}\"", file.tag))
        .header("x-repo-commit", COMMIT)
        .body(Body::from(file.content[first..=last].to_vec()))
        .unwrap()
}

/// As the hub does: the weights lie elsewhere, their tag is in a header of the redirect.
async fn resolve(
    State(files): State<Files>,
    UrlPath(file): UrlPath<String>,
    headers: HeaderMap,
) -> Response<Body> {
    match files.get(file.as_str()) {
        None => Response::builder().status(StatusCode::NOT_FOUND).body(Body::empty()).unwrap(),
        Some(served) if file == WEIGHTS_FILE => Response::builder()
            .status(StatusCode::FOUND)
            .header(
                header::LOCATION,
                format!("http://{}/elsewhere/{file}", headers[header::HOST].to_str().unwrap()),
            )
            .header("x-repo-commit", COMMIT)
            .header("x-linked-etag", format!("\"{}\"", served.tag))
            .body(Body::empty())
            .unwrap(),
        Some(served) => part(served, &headers),
    }
}

async fn elsewhere(
    State(files): State<Files>,
    UrlPath(file): UrlPath<String>,
    headers: HeaderMap,
) -> Response<Body> {
    part(&files[file.as_str()], &headers)
}

/// Starts a hub and answers a builder that points at it, and an empty cache.
async fn hub(files: HashMap<&'static str, Served>) -> (ApiBuilder, Cache, tempfile::TempDir) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new()
        .route(&format!("/{REPOSITORY}/resolve/main/{{*file}}"), get(resolve))
        .route("/elsewhere/{file}", get(elsewhere))
        .with_state(Arc::new(files));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let home = tempfile::tempdir().unwrap();
    let cache = Cache::new(home.path().join("hub"));
    (ApiBuilder::from_cache(cache.clone()).with_endpoint(endpoint), cache, home)
}

fn files() -> HashMap<&'static str, Served> {
    HashMap::from([
        (CONFIG_FILE, Served::honest(b"{\"model_type\": \"bert\"}")),
        (TOKENIZER_FILE, Served::honest(b"{}")),
        // How it is to be used, as far as the model's people say it.
        (POOLING_FILE, Served::honest(b"{\"pooling_mode_mean_tokens\": true}")),
        // More than hf-hub fetches in one request.
        (WEIGHTS_FILE, Served::honest(&b"weights!".repeat(2_000_000))),
    ])
}

#[tokio::test]
async fn the_model_comes_from_the_hub_whole_and_is_found_again() {
    let (hub, cache, _home) = hub(files()).await;
    let reports = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&reports);
    let progress: Callback = Arc::new(move |progress: Progress<'_>| {
        seen.lock().push((progress.file.to_owned(), progress.received, progress.total));
    });
    let directory = fetch_with(hub, &cache, REPOSITORY, progress).await.unwrap();
    assert!(!directory.join(PROMPTS_FILE).exists(), "the hub has none");
    for (name, served) in files() {
        assert!(std::fs::read(directory.join(name)).unwrap() == served.content, "{name}");
    }
    let reports = reports.lock().clone();
    assert!(reports.contains(&(WEIGHTS_FILE.to_owned(), 16_000_000, 16_000_000)));
    assert!(
        reports.iter().any(|(_, received, total)| 0 < *received && received < total),
        "progress on the way"
    );

    // The second time nothing is asked: this endpoint does not exist.
    let offline =
        ApiBuilder::from_cache(cache.clone()).with_endpoint("http://127.0.0.1:1".to_owned());
    assert_eq!(fetch_with(offline, &cache, REPOSITORY, Arc::new(|_| {})).await.unwrap(), directory);
}

#[tokio::test]
async fn a_hub_that_does_not_answer_is_an_error_that_says_what_else_to_do() {
    let home = tempfile::tempdir().unwrap();
    let cache = Cache::new(home.path().join("hub"));
    let nobody =
        ApiBuilder::from_cache(cache.clone()).with_endpoint("http://127.0.0.1:1".to_owned());
    let error = fetch_with(nobody, &cache, REPOSITORY, Arc::new(|_| {})).await.unwrap_err();
    assert!(error.to_string().contains("scripts/fetch-model"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_not_what_the_hub_announced_is_thrown_away() {
    let mut files = files();
    files.insert(
        WEIGHTS_FILE,
        Served {
            content: b"something else".to_vec(),
            tag: hex::encode(Sha256::digest(b"weights")),
        },
    );
    let (hub, cache, _home) = hub(files).await;
    let error = fetch_with(hub, &cache, REPOSITORY, Arc::new(|_| {})).await.unwrap_err();
    assert!(matches!(error, ModelError::Hub { file: WEIGHTS_FILE, .. }), "{error:?}");
    assert_eq!(cache.model(REPOSITORY.to_owned()).get(WEIGHTS_FILE), None);
}

#[tokio::test]
async fn a_file_that_the_hub_does_not_have_is_named() {
    let mut files = files();
    files.remove(TOKENIZER_FILE);
    let (hub, cache, _home) = hub(files).await;
    let error = fetch_with(hub, &cache, REPOSITORY, Arc::new(|_| {})).await.unwrap_err();
    assert!(matches!(error, ModelError::Hub { file: TOKENIZER_FILE, .. }), "{error:?}");
}

#[tokio::test]
async fn what_need_not_be_there_may_be_absent_and_not_damaged() {
    let mut files = files();
    let tag = hex::encode(Sha256::digest(b"something else"));
    files.insert(PROMPTS_FILE, Served { content: b"{}".to_vec(), tag });
    let (hub, cache, _home) = hub(files).await;
    let error = fetch_with(hub, &cache, REPOSITORY, Arc::new(|_| {})).await.unwrap_err();
    assert!(matches!(error, ModelError::Hub { file: PROMPTS_FILE, .. }), "{error:?}");
}

#[test]
fn a_model_without_an_owner_is_of_those_who_made_the_first_ones() {
    assert_eq!(repository("all-MiniLM-L12-v2"), "sentence-transformers/all-MiniLM-L12-v2");
    assert_eq!(repository("intfloat/e5-small-v2"), "intfloat/e5-small-v2");
}

#[test]
fn a_named_directory_is_never_passed_over() {
    let named = Path::new("/nowhere/at/all");
    assert_eq!(locate(Some(named)).as_deref(), Some(named));
}

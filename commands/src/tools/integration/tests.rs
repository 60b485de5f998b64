//! How pages and waits are read, and what is remembered between calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State as With;
use axum::http::HeaderMap as Headers;
use axum::routing::post;
use domain::integration::kind::{Secrets, Told as InTheClear};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, LINK, RETRY_AFTER};
use serde_json::json;
use tokio::net::TcpListener;
use url::Url;

use super::client::{asked_to_wait, below, next_page};
use super::*;
use crate::tools::http::HttpTool;

#[test]
fn the_next_page_is_on_the_same_server_or_it_is_none() {
    let from = Url::parse("https://api.example.com/repos/a/b/commits?page=1").unwrap();
    let next = |link: &str| {
        let headers = HeaderMap::from_iter([(LINK, link.parse().unwrap())]);
        next_page(&headers, &from).map(String::from)
    };
    assert_eq!(
        next(
            "<https://api.example.com/x?page=9>; rel=\"last\", <https://api.example.com/x?page=2>; rel=\"next\""
        ),
        Some("https://api.example.com/x?page=2".to_owned())
    );
    assert_eq!(next("</x?page=2>; rel=\"next\""), Some("https://api.example.com/x?page=2".into()));
    assert_eq!(next("<https://evil.example.com/x>; rel=\"next\""), None);
    assert_eq!(next("<http://api.example.com/x>; rel=\"next\""), None);
    assert_eq!(next("<https://api.example.com/x>; rel=\"prev\""), None);
    assert_eq!(next("nonsense"), None);
}

#[test]
fn a_part_of_a_path_cannot_lead_out_of_its_place() {
    let url = |path: &[&str]| String::from(below("https://api.example.com/v3/", path).unwrap());
    assert_eq!(url(&["repos", "a/b", "c?d#e"]), "https://api.example.com/v3/repos/a%2Fb/c%3Fd%23e");
    assert_eq!(url(&["repos", "%2e%2e"]), "https://api.example.com/v3/repos/%252e%252e");
    assert!(url(&["repos", "..", "x"]).starts_with("https://api.example.com/v3/"));
    assert!(below("nonsense", &[]).is_err());
}

#[test]
fn a_header_of_any_answer_says_to_wait_only_where_the_status_does() {
    let headers = |more: &[(&'static str, &'static str)]| {
        HeaderMap::from_iter(more.iter().map(|(name, value)| {
            (name.parse().expect("a header"), value.parse().expect("a value"))
        }))
    };
    let endless = ("x-ratelimit-reset", "18446744073709551615");
    let used_up = headers(&[endless, ("x-ratelimit-remaining", "0")]);
    let day = Some(Duration::from_secs(86_400));
    assert_eq!(asked_to_wait(StatusCode::OK, &used_up), None);
    assert_eq!(asked_to_wait(StatusCode::FORBIDDEN, &used_up), day);
    assert_eq!(asked_to_wait(StatusCode::FORBIDDEN, &headers(&[endless])), None);
    assert_eq!(asked_to_wait(StatusCode::TOO_MANY_REQUESTS, &headers(&[endless])), day);
    let in_seconds = headers(&[("ratelimit-reset", "30")]);
    let wait = asked_to_wait(StatusCode::TOO_MANY_REQUESTS, &in_seconds);
    assert_eq!(wait, Some(Duration::from_secs(30)));
    let plain = asked_to_wait(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new());
    assert_eq!(plain, Some(Duration::from_secs(1)));
    assert_eq!(
        asked_to_wait(StatusCode::BAD_GATEWAY, &headers(&[(RETRY_AFTER.as_str(), "5")])),
        None
    );
}

/// A Teams that gives tokens by number, and takes only those from the least one on.
#[derive(Clone, Default)]
struct Teams {
    given: Arc<AtomicU64>,
    least: Arc<AtomicU64>,
    posted: Arc<AtomicU64>,
    tells_to_wait: Arc<AtomicU64>,
}

impl Teams {
    async fn start(&self) -> String {
        let give = |With(teams): With<Teams>| async move {
            let number = teams.given.fetch_add(1, Ordering::SeqCst) + 1;
            axum::Json(json!({ "access_token": format!("token-{number}"), "expires_in": 3600 }))
        };
        let take = |With(teams): With<Teams>, headers: Headers| async move {
            let seconds = teams.tells_to_wait.load(Ordering::SeqCst);
            if seconds > 0 {
                let wait = [("retry-after", seconds.to_string())];
                return (StatusCode::TOO_MANY_REQUESTS, wait, axum::Json(json!({})));
            }
            let sent = headers["authorization"].to_str().expect("a text");
            let number: u64 = sent.trim_start_matches("Bearer token-").parse().expect("a number");
            let wait = [("x-other", String::new())];
            if number < teams.least.load(Ordering::SeqCst) {
                return (StatusCode::UNAUTHORIZED, wait, axum::Json(json!({})));
            }
            teams.posted.fetch_add(1, Ordering::SeqCst);
            (StatusCode::CREATED, wait, axum::Json(json!({ "id": "1" })))
        };
        let router = Router::new()
            .route("/t/oauth2/v2.0/token", post(give))
            .route("/v3/conversations/{id}/activities", post(take))
            .with_state(self.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    fn given(&self) -> u64 {
        self.given.load(Ordering::SeqCst)
    }
}

fn connectors() -> Connectors {
    let policy = AddressPolicy::new(vec!["127.0.0.0/8".parse().expect("a network")]);
    let http = HttpTool::new(policy.clone()).expect("a client");
    Connectors::new(http.client(), policy, Duration::from_secs(60))
}

fn bot(url: &str) -> OpenIntegration {
    let config = json!({ "app_id": "bot", "tenant": "t", "login_url": url, "service_url": url });
    let secrets = [("app_password".to_owned(), "app-password".to_owned())];
    OpenIntegration {
        id: Uuid::nil(),
        organization: Uuid::nil(),
        product: None,
        kind: IntegrationKind::Teams,
        enabled: true,
        told: InTheClear {
            config: config.as_object().cloned().expect("an object"),
            secrets: Secrets(secrets.into_iter().collect()),
        },
        secrets_version: 1,
        key: "integration".to_owned(),
    }
}

async fn post_once(connectors: &Connectors, bot: &OpenIntegration) -> Result<Value, ToolError> {
    let told = json!({ "text": "hello", "channel": "19:x" });
    connectors.post_message(bot, Arguments(told.as_object().expect("an object")), "key").await
}

#[tokio::test]
async fn a_token_that_is_not_taken_any_more_is_exchanged_once() {
    let (teams, connectors) = (Teams::default(), connectors());
    let bot = bot(&teams.start().await);
    post_once(&connectors, &bot).await.expect("posted");
    post_once(&connectors, &bot).await.expect("posted");
    assert_eq!(teams.given(), 1, "it is kept while it is good");
    teams.least.store(2, Ordering::SeqCst);
    post_once(&connectors, &bot).await.expect("posted with a new token");
    assert_eq!((teams.given(), teams.posted.load(Ordering::SeqCst)), (2, 3));
    // One that was never good is not asked for again and again.
    teams.least.store(u64::MAX, Ordering::SeqCst);
    let error = post_once(&connectors, &bot).await.expect_err("refused");
    assert_eq!((error.code.as_str(), teams.given()), ("unauthorized", 3));
}

#[tokio::test]
async fn a_test_really_connects_and_another_configuration_is_another_credential() {
    let (teams, connectors) = (Teams::default(), connectors());
    let mut bot = bot(&teams.start().await);
    post_once(&connectors, &bot).await.expect("posted");
    assert_eq!(connectors.test(&bot).await.failure, None);
    assert_eq!(teams.given(), 2, "it asked for a token");
    bot.told.config.insert("app_id".to_owned(), "other".into());
    post_once(&connectors, &bot).await.expect("posted");
    assert_eq!(teams.given(), 3, "that of another bot is not shown");
}

#[tokio::test]
async fn whoever_was_told_to_wait_is_asked_again_with_another_configuration_or_by_a_test() {
    let (teams, connectors) = (Teams::default(), connectors());
    let mut bot = bot(&teams.start().await);
    teams.tells_to_wait.store(3_600, Ordering::SeqCst);
    let error = post_once(&connectors, &bot).await.expect_err("too often");
    assert_eq!(error.code, "rate_limited");
    teams.tells_to_wait.store(0, Ordering::SeqCst);
    let error = post_once(&connectors, &bot).await.expect_err("it waits");
    assert_eq!(error.code, "rate_limited");
    assert_eq!(teams.posted.load(Ordering::SeqCst), 0);
    let told = bot.told.config.clone();
    bot.told.config.insert("conversation".to_owned(), "19:y".into());
    post_once(&connectors, &bot).await.expect("posted");
    bot.told.config = told;
    assert_eq!(connectors.test(&bot).await.failure, None);
    post_once(&connectors, &bot).await.expect("posted");
}

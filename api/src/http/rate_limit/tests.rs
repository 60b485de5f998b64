//! Counting, refusing, refilling and forgetting.

use axum::Router;
use axum::http::header::RETRY_AFTER;
use axum::routing::get;

use super::*;
use crate::http::client::{TrustedProxies, find_address};
use crate::http::request_id;
use crate::http::testing::{self, Answer, layer, local, send, with};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: u64 = 1_000_000_000;

/// A bad credential is one that begins with "bad".
fn app(limit: Option<RateLimit>) -> Router {
    let routes = Router::new().route(
        "/",
        get(async |headers: HeaderMap| {
            let presented = headers.get(X_API_TOKEN).or(headers.get(AUTHORIZATION));
            let text = presented.and_then(|value| value.to_str().ok()).unwrap_or_default();
            if text.contains("bad") {
                return Err(Problem::unauthenticated("bad_token", "make another token"));
            }
            Ok("fine")
        }),
    );
    let routes = match limit {
        Some(limit) => routes.layer(layer!(enforce, limit)),
        None => routes,
    };
    let routes = routes.layer(layer!(find_address, TrustedProxies::default()));
    local(routes.layer(layer!(request_id::establish)))
}

fn limits(answer: &Answer) -> (&str, &str, &str) {
    (
        answer.header(RATELIMIT_LIMIT),
        answer.header(RATELIMIT_REMAINING),
        answer.header(RATELIMIT_RESET),
    )
}

#[tokio::test]
async fn every_answer_says_where_its_client_stands() {
    let app = app(RateLimit::per_address(3, MINUTE));

    let first = send(&app, testing::get("/")).await;
    assert_eq!((first.status.as_u16(), limits(&first)), (200, ("3", "2", "20")));
    let second = send(&app, testing::get("/")).await;
    assert_eq!(limits(&second), ("3", "1", "40"));
    send(&app, testing::get("/")).await;
    let fourth = send(&app, testing::get("/")).await;

    fourth.problem(429, "rate_limited");
    assert_eq!(limits(&fourth), ("3", "0", "60"));
    assert_eq!(fourth.header(RETRY_AFTER), "20");
}

#[tokio::test]
async fn a_limit_of_nothing_is_no_limit() {
    assert!(RateLimit::per_credential(0, MINUTE).is_none());

    let answer = send(&app(None), testing::get("/")).await;

    assert_eq!(answer.status, 200);
    assert!(!answer.headers.contains_key(RATELIMIT_LIMIT));
}

#[tokio::test]
async fn each_credential_has_its_own_bucket_in_whichever_header() {
    let app = app(RateLimit::per_credential(2, MINUTE));
    let ask = async |name, value: &str| send(&app, with(testing::get("/"), name, value)).await;

    assert_eq!(limits(&ask("x-api-token", "prodgy_a").await).1, "1");
    assert_eq!(limits(&ask("authorization", "bearer prodgy_a").await).1, "0");
    ask("x-api-token", "prodgy_a").await.problem(429, "rate_limited");
    assert_eq!(limits(&ask("x-api-token", "prodgy_b").await).1, "1");
    assert_eq!(limits(&send(&app, testing::get("/")).await).1, "1");
}

#[tokio::test]
async fn made_up_credentials_use_up_the_limit_of_their_address() {
    let app = app(RateLimit::per_credential(3, MINUTE));
    for guess in 0..3 {
        let request = with(testing::get("/"), "x-api-token", &format!("bad{guess}"));
        send(&app, request).await.problem(401, "bad_token");
    }

    let next_guess = send(&app, with(testing::get("/"), "x-api-token", "bad4")).await;
    next_guess.problem(429, "rate_limited");
    assert_eq!(next_guess.header(RETRY_AFTER), "20");
    send(&app, testing::get("/")).await.problem(429, "rate_limited");
}

#[tokio::test]
async fn a_narrower_limit_speaks_for_the_wider_one() {
    let inner = app(RateLimit::per_address(2, MINUTE));
    let wide = RateLimit::per_credential(1000, Duration::from_secs(1)).unwrap();
    let both = inner.layer(layer!(enforce, wide));
    let both = both.layer(layer!(find_address, TrustedProxies::default()));

    assert_eq!(limits(&send(&local(both), testing::get("/")).await).0, "2");
}

#[test]
fn a_bucket_refills_evenly() {
    let limit = RateLimit::per_address(10, MINUTE).unwrap();
    let key = Key::Others;
    for remaining in (0..10).rev() {
        assert_eq!(limit.take(key, 0).remaining, remaining);
    }
    assert_eq!(limit.take(key, 0).wait, Some(Duration::from_secs(6)));
    assert_eq!(limit.take(key, 5 * SECOND).wait, Some(Duration::from_secs(1)));

    assert_eq!(limit.take(key, 6 * SECOND).wait, None);
    assert!(limit.take(key, 6 * SECOND).wait.is_some());
    assert_eq!(limit.take(key, 600 * SECOND).remaining, 9);
}

#[test]
fn being_refused_costs_nothing() {
    let limit = RateLimit::per_address(1, MINUTE).unwrap();
    limit.take(Key::Others, 0);
    for second in 1..60 {
        assert!(limit.take(Key::Others, second * SECOND).wait.is_some());
    }

    assert_eq!(limit.take(Key::Others, 60 * SECOND).wait, None);
}

#[test]
fn looking_takes_nothing() {
    let limit = RateLimit::per_address(1, MINUTE).unwrap();

    assert_eq!(limit.look(Key::Others, 0).wait, None);
    assert_eq!(limit.look(Key::Others, 0).wait, None);
    assert_eq!(limit.take(Key::Others, 0).wait, None);
    assert!(limit.look(Key::Others, 0).wait.is_some());
}

fn numbered(number: u32) -> Key {
    Key::Address(std::net::Ipv4Addr::from_bits(number).into())
}

#[test]
fn idle_keys_are_forgotten() {
    let limit = RateLimit::per_address(1, Duration::from_secs(1)).unwrap();
    for number in 0..50_000_u64 {
        // A thousand new addresses a second, each of which is idle a second later.
        limit.take(numbered(number as u32), number * SECOND / 1000);
    }

    let remembered = limit.0.buckets.lock().full_at.len();
    assert!(remembered < 4_000, "{remembered} keys are remembered");
}

#[test]
fn memory_is_bounded_and_those_without_room_share() {
    let limit = RateLimit::per_address(2, MINUTE).unwrap();
    for number in 0..MAX_KEYS as u32 {
        assert!(limit.take(numbered(number), 1).wait.is_none());
    }
    assert!(limit.take(numbered(4_000_000), 1).wait.is_none());
    assert!(limit.take(numbered(4_000_001), 1).wait.is_none());
    assert!(limit.take(numbered(4_000_002), 1).wait.is_some(), "the newcomers share one bucket");
    assert!(limit.take(numbered(0), 1).wait.is_none(), "a known key keeps its own");
    assert!(limit.0.buckets.lock().full_at.len() <= MAX_KEYS + 1);

    assert!(limit.take(numbered(4_000_003), 300 * SECOND).wait.is_none());
    assert!(limit.0.buckets.lock().full_at.len() < 10, "after a rest there is room again");
}

#[test]
fn an_ipv6_client_is_its_network() {
    let network = |text: &str| network_of(text.parse().unwrap()).to_string();

    assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    assert_eq!(network("192.0.2.1"), "192.0.2.1");
}

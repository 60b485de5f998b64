//! Parameters are read strictly, and every faulty one is named.

use axum::Router;
use axum::routing::get;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use uuid::Uuid;

use super::*;
use crate::http::testing::{self, Answer, send};

#[derive(Debug, Deserialize)]
struct Filters {
    q: Option<String>,
    #[serde(rename = "productId")]
    product: Option<Uuid>,
    seconds: Option<u8>,
    kind: Option<Kind>,
    keep: Option<bool>,
    #[expect(dead_code, reason = "only how it is refused is looked at")]
    at: Option<DateTime<Utc>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Some,
}

#[derive(Debug, Deserialize)]
struct Required {
    #[expect(dead_code, reason = "only its presence counts")]
    after: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paper {
    format: Option<String>,
}

fn app() -> Router {
    let show = async |Query(filters): Query<Filters>| {
        let Filters { q, product, seconds, kind, keep, .. } = filters;
        format!("{q:?} {} {seconds:?} {} {keep:?}", product.is_some(), kind.is_some())
    };
    let both = async |Queries(one, other): Queries<Paper, Filters>| {
        format!("{:?} {:?}", one.format, other.q)
    };
    Router::new()
        .route("/", get(show))
        .route("/required", get(async |_: Query<Required>| "fine"))
        .route("/both", get(both))
}

async fn ask(query: &str) -> Answer {
    send(&app(), testing::get(&format!("/?{query}"))).await
}

#[tokio::test]
async fn good_parameters_are_read() {
    let id = "019357b8-0000-7000-8000-000000000000";

    let answer =
        ask(&format!("q=a+b%20%C3%A9%2B&productId={id}&seconds=60&kind=some&keep=true")).await;

    assert_eq!(answer.body, "Some(\"a b é+\") true Some(60) true Some(true)");
    assert_eq!(ask("").await.body, "None false None false None");
    assert_eq!(send(&app(), testing::get("/")).await.status, 200);
}

#[tokio::test]
async fn a_faulty_parameter_is_named() {
    for (query, field, code) in [
        ("page=1", "/page", "unknown"),
        ("product=1", "/product", "unknown"),
        ("a%2Fb=1", "/a~1b", "unknown"),
        ("q", "/q", "empty"),
        ("seconds=", "/seconds", "empty"),
        ("q=1&q=2", "/q", "repeated"),
        ("q=1&%71=2", "/q", "repeated"),
        ("seconds=256", "/seconds", "invalid"),
        ("seconds=-1", "/seconds", "invalid"),
        ("seconds=ten", "/seconds", "invalid"),
        ("productId=7", "/productId", "invalid"),
        ("kind=other", "/kind", "invalid"),
        ("keep=1", "/keep", "invalid"),
    ] {
        let answer = ask(query).await;
        answer.problem(400, "invalid_parameters");
        assert_eq!(answer.fault(), (field.to_owned(), code.to_owned()), "{query}");
    }
}

#[tokio::test]
async fn a_faulty_parameter_says_what_to_send() {
    let with = |meant: &'static str| move |query: &'static str| (query, meant);
    let times =
        ["at=yesterday", "at=2026-01-01", "at=2026-13-01T00:00:00Z", "at=2026-01-01T00:00:00Zz"];
    let numbers = ["seconds=256", "seconds=-1", "seconds=ten"];
    let all = times.map(with(TIME)).into_iter().chain(numbers.map(with(NUMBER)));
    for (query, meant) in all.chain([("productId=7", ID), ("keep=1", "must be true or false")]) {
        let body = ask(query).await.problem(400, "invalid_parameters");
        assert_eq!(body["errors"][0]["message"], meant, "{query}");
        let name = query.split('=').next().unwrap();
        assert_eq!(body["message"], format!("bad query parameter {name}: {meant}"));
    }
}

#[tokio::test]
async fn unknown_parameters_are_all_named_with_those_that_are_known() {
    let body = ask("x=1&seconds=2&y=").await.problem(400, "invalid_parameters");

    assert_eq!(
        body["message"],
        "bad query parameters: x, y; x: unknown here; known are at, keep, kind, productId, q, seconds"
    );
    assert_eq!(
        body["errors"][0]["message"],
        "unknown here; known are at, keep, kind, productId, q, seconds"
    );
}

#[tokio::test]
async fn what_is_not_utf_8_is_malformed() {
    ask("q=%FF").await.problem(400, "malformed_query");
    ask("q=+%FF").await.problem(400, "malformed_query");
}

#[tokio::test]
async fn a_missing_parameter_is_named() {
    let answer = send(&app(), testing::get("/required")).await;

    answer.problem(400, "invalid_parameters");
    assert_eq!(answer.fault(), ("/after".to_owned(), "missing".to_owned()));
}

#[tokio::test]
async fn two_sets_of_parameters_are_read_from_one_query() {
    let ask = async |query: &str| send(&app(), testing::get(&format!("/both?{query}"))).await;

    assert_eq!(ask("q=a&format=csv").await.body, "Some(\"csv\") Some(\"a\")");
    assert_eq!(ask("").await.body, "None None");
    let answer = ask("q=a&page=1").await;
    answer.problem(400, "invalid_parameters");
    assert_eq!(answer.fault(), ("/page".to_owned(), "unknown".to_owned()));
    assert_eq!(ask("kind=other&format=csv").await.fault().0, "/kind");
}

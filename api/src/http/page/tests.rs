//! Which part of a list is asked for, and the links to the others.

use axum::Router;
use axum::http::header::LINK;
use axum::routing::get;
use serde_json::json;

use super::*;
use crate::http::testing::{self, Answer, send};

#[derive(Clone, Debug, Deserialize)]
struct Filters {
    status: Option<String>,
}

/// A list of the numbers below 120, counted up to 100 when its status is "capped".
fn app() -> Router {
    let list = async |query: ListQuery<Filters>| -> Result<ListReply<u64>, Problem> {
        let begin = query.cursor::<u64>()?.map_or(query.offset(), |last| last + 1);
        let items: Vec<u64> = (begin..120).take(query.size() as usize).collect();
        let total = match query.filters.status.as_deref() {
            Some("capped") => {
                let cursor = items.last().map(|last| query.cursor_after(last));
                Total::capped(100).with_cursor(cursor)
            }
            Some("none") => return Ok(query.reply("Nothing.", vec![], Total::exact(0))),
            _ => Total::exact(120),
        };
        Ok(query.reply("Numbers.", items, total))
    };
    let nested = Router::new().route(
        "/inner",
        get(async |query: ListQuery<NoFilters>| {
            query.reply("Nothing.", Vec::<u8>::new(), Total::exact(0))
        }),
    );
    Router::new().route("/list", get(list)).nest("/outer", nested)
}

async fn ask(query: &str) -> Answer {
    send(&app(), testing::get(&format!("/list{query}"))).await
}

#[tokio::test]
async fn the_first_page_has_fifty_items() {
    let answer = ask("").await;

    let body = answer.json();
    assert_eq!(body["success"], true);
    assert_eq!(body["message"], "Numbers.");
    assert_eq!(body["data"].as_array().map(Vec::len), Some(50));
    assert_eq!(
        body["pagination"],
        json!({ "page": 1, "page_size": 50, "total": 120, "total_pages": 3 })
    );
    assert_eq!(
        answer.header(LINK),
        "</list?page=1>; rel=\"first\", </list?page=2>; rel=\"next\", </list?page=3>; rel=\"last\""
    );
}

#[tokio::test]
async fn links_keep_all_other_parameters() {
    let answer = ask("?status=a%20b&page=2&pageSize=50").await;

    assert_eq!(answer.json()["data"][0], 50);
    assert_eq!(
        answer.header(LINK),
        "</list?status=a%20b&pageSize=50&page=1>; rel=\"first\", \
         </list?status=a%20b&pageSize=50&page=1>; rel=\"prev\", \
         </list?status=a%20b&pageSize=50&page=3>; rel=\"next\", \
         </list?status=a%20b&pageSize=50&page=3>; rel=\"last\""
    );
}

#[tokio::test]
async fn a_page_after_the_last_is_empty() {
    let answer = ask("?page=9").await;

    assert_eq!(answer.json()["data"], json!([]));
    assert_eq!(answer.json()["pagination"]["page"], 9);
    assert!(!answer.header(LINK).contains("next"));
}

#[tokio::test]
async fn an_empty_list_has_one_page_to_link_to() {
    let answer = ask("?status=none").await;

    assert_eq!(answer.json()["pagination"]["total_pages"], 0);
    assert_eq!(
        answer.header(LINK),
        "</list?status=none&page=1>; rel=\"first\", </list?status=none&page=1>; rel=\"last\""
    );
}

#[tokio::test]
async fn a_limit_asks_for_the_first_so_many() {
    let answer = ask("?limit=110").await;

    assert_eq!(answer.json()["data"].as_array().map(Vec::len), Some(110));
    assert_eq!(
        answer.json()["pagination"],
        json!({ "page": 1, "page_size": 110, "total": 120, "total_pages": 2 })
    );
    assert_eq!(answer.header(LINK), "</list?limit=110>; rel=\"first\"");
}

#[tokio::test]
async fn a_cursor_goes_on_where_counting_stopped() {
    let first = ask("?status=capped&pageSize=100").await;
    assert_eq!(first.json()["pagination"]["total_is_capped"], true);
    assert!(!first.header(LINK).contains("last"), "the last page is not known");
    let next = first.header(LINK).split(", ").find(|link| link.contains("next"));
    let target = next.and_then(|link| link.split(['<', '>']).nth(1)).expect("a next link");

    let second = send(&app(), testing::get(target)).await.json();

    assert_eq!(second["data"][0], 100);
    assert_eq!(second["data"].as_array().map(Vec::len), Some(20));
    assert_eq!(second["pagination"]["page"], 2);
}

#[tokio::test]
async fn bad_paging_is_refused_never_clamped() {
    for (query, field, code) in [
        ("page=0", "/page", "out_of_range"),
        ("page=-1", "/page", "out_of_range"),
        ("page=1.5", "/page", "out_of_range"),
        ("page=99999999999", "/page", "out_of_range"),
        ("page=one", "/page", "out_of_range"),
        ("pageSize=0", "/pageSize", "out_of_range"),
        ("pageSize=201", "/pageSize", "out_of_range"),
        ("limit=0", "/limit", "out_of_range"),
        ("limit=1001", "/limit", "out_of_range"),
        ("page_size=10", "/page_size", "unknown"),
        ("page=", "/page", "empty"),
        ("page=1&page=2", "/page", "repeated"),
        ("limit=5&page=1", "/limit", "exclusive"),
        ("limit=5&pageSize=1", "/limit", "exclusive"),
        ("cursor=e30&limit=1", "/limit", "exclusive"),
        ("cursor=e30&page=1", "/cursor", "exclusive"),
        ("cursor=nonsense", "/cursor", "invalid"),
        ("cursor=e30", "/cursor", "invalid"),
    ] {
        let answer = ask(&format!("?{query}")).await;
        answer.problem(400, "invalid_parameters");
        assert_eq!(answer.fault(), (field.to_owned(), code.to_owned()), "{query}");
    }
    // The extremes themselves are fine.
    assert_eq!(ask("?pageSize=200&page=4294967295").await.status, 200);
    assert_eq!(ask("?limit=1000").await.status, 200);
}

#[tokio::test]
async fn a_cursor_of_another_list_is_refused() {
    let foreign = URL_SAFE_NO_PAD.encode(r#"{"page":2,"key":"text"}"#);

    let answer = ask(&format!("?cursor={foreign}")).await;

    answer.problem(400, "invalid_parameters");
}

#[tokio::test]
async fn links_name_the_path_that_the_client_asked_for() {
    let answer = send(&app(), testing::get("/outer/inner")).await;

    assert!(answer.header(LINK).starts_with("</outer/inner?page=1>"));
}

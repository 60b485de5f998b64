//! Ids in paths.

use axum::Router;
use axum::routing::get;
use uuid::Uuid;

use super::*;
use crate::http::testing::{self, send};

fn app() -> Router {
    Router::new()
        .route("/{id}", get(async |Path(id): Path<Uuid>| id.to_string()))
        .route("/{id}/{number}", get(async |Path((_, n)): Path<(Uuid, u8)>| n.to_string()))
        .route("/wrong/by/{design}", get(async |_: Path<(u8, u8)>| "never"))
}

#[tokio::test]
async fn an_id_is_read() {
    let id = "019357b8-0000-7000-8000-000000000000";

    assert_eq!(send(&app(), testing::get(&format!("/{id}"))).await.body, id);
    assert_eq!(send(&app(), testing::get(&format!("/{id}/7"))).await.body, "7");
}

#[tokio::test]
async fn an_id_that_cannot_exist_is_not_found() {
    for path in ["/7", "/%FF", "/019357b8-0000-7000-8000-00000000000", "/a/7"] {
        send(&app(), testing::get(path)).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn a_route_that_disagrees_with_its_handler_is_our_fault() {
    send(&app(), testing::get("/wrong/by/1")).await.problem(500, "internal");
}

//! The document and its pages, for a small API.

use axum::http::StatusCode;
use axum::http::header::LOCATION;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::*;
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::testing::{self, send};
use crate::http::{ListQuery, ListReply, Total};

#[derive(Serialize, ToSchema)]
struct Product {
    name: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ProductFilters {
    /// Words of the name.
    #[expect(dead_code, reason = "only documented here")]
    q: Option<String>,
}

#[utoipa::path(get, path = "/api/products", params(PageParams, MinPositionParam, ProductFilters),
    responses((status = 200, body = ListEnvelope<Product>), ReadFailures))]
async fn list(query: ListQuery<ProductFilters>) -> ListReply<Product> {
    query.reply("Products.", vec![Product { name: "One".to_owned() }], Total::exact(1))
}

#[utoipa::path(post, path = "/api/products", params(IdempotencyKeyParam),
    responses((status = 201, body = Envelope<Product>), WriteFailures))]
async fn create() -> StatusCode {
    StatusCode::CREATED
}

fn app() -> (Router, utoipa::openapi::OpenApi) {
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(list, create))
        .split_for_parts();
    (router.merge(json(&document).unwrap()).merge(page()), document)
}

async fn document() -> Value {
    send(&app().0, testing::get("/swagger.json")).await.json()
}

#[tokio::test]
async fn the_document_is_openapi_3_1() {
    let document = document().await;

    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{document}");
    assert_eq!(document["info"]["title"], "Prodgy");
}

#[tokio::test]
async fn credentials_are_described() {
    let document = document().await;

    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes["bearer"]["scheme"], "bearer");
    assert_eq!(schemes["api_token"]["in"], "header");
    assert_eq!(schemes["api_token"]["name"], "X-API-Token");
    assert_eq!(document["security"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_route_documents_its_failures_in_one_word() {
    let document = document().await;

    let statuses = |method: &str| -> Vec<String> {
        let responses = document["paths"]["/api/products"][method]["responses"].as_object();
        responses.unwrap().keys().cloned().collect()
    };
    assert_eq!(statuses("get"), ["200", "400", "401", "403", "404", "429", "503"]);
    assert_eq!(
        statuses("post"),
        ["201", "400", "401", "403", "404", "409", "412", "413", "415", "422", "429", "503"]
    );
    let conflict = &document["paths"]["/api/products"]["post"]["responses"]["409"];
    assert_eq!(
        conflict["content"]["application/problem+json"]["schema"]["$ref"],
        "#/components/schemas/Problem"
    );
}

#[tokio::test]
async fn parameters_are_named_as_they_are_read() {
    let document = document().await;

    let parameters = document["paths"]["/api/products"]["get"]["parameters"].as_array().unwrap();
    let names: Vec<&str> = parameters.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["page", "pageSize", "limit", "cursor", "X-Min-Position", "q"]);
    assert!(parameters.iter().all(|parameter| parameter["required"] == false));
}

#[tokio::test]
async fn every_reference_leads_somewhere() {
    let document = document().await;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[tokio::test]
async fn the_envelope_of_the_document_is_the_one_that_is_sent() {
    let document = document().await;
    let sent = send(&app().0, testing::get("/api/products")).await.json();

    let answer = &document["paths"]["/api/products"]["get"]["responses"]["200"];
    let reference = answer["content"]["application/json"]["schema"]["$ref"].as_str().unwrap();
    let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
    let described: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    let mut written: Vec<&String> = sent.as_object().unwrap().keys().collect();
    written.sort();
    assert_eq!(described, written);
}

#[tokio::test]
async fn the_pages_are_in_the_binary() {
    let redirect = send(&app().0, testing::get("/swagger")).await;
    assert_eq!(redirect.header(LOCATION), "/swagger/");

    let page = send(&app().0, testing::get("/swagger/")).await;
    assert_eq!(page.status, 200);
    assert!(page.header(CONTENT_SECURITY_POLICY).contains("script-src 'self'"));
    assert!(
        !String::from_utf8_lossy(&page.body).contains("://"),
        "a page that loads from elsewhere"
    );

    let script = send(&app().0, testing::get("/swagger/swagger-initializer.js")).await;
    assert!(String::from_utf8_lossy(&script.body).contains("/swagger.json"));
    assert_eq!(send(&app().0, testing::get("/swagger/swagger-ui-bundle.js")).await.status, 200);
}

//! What is shown of a path, and what is not.

use super::*;

const ID: &str = "01936f6e-7d3c-7a10-8000-000000000000";
const TOKEN: &str = "prodgy_4f7Kq2Xw9ZbT6mRc8VhN1sLd3Jp5Yg0A";

#[track_caller]
fn is_shown(route: Option<&str>, path: &str, shown: &str) {
    assert_eq!(ShownPath { route, path }.to_string(), shown);
}

#[test]
fn ids_and_numbers_are_shown_in_the_place_of_a_parameter() {
    let route = Some("/api/api-tokens/{id}/revoke");
    is_shown(
        route,
        &format!("/api/api-tokens/{ID}/revoke"),
        &format!("/api/api-tokens/{ID}/revoke"),
    );
    is_shown(
        Some("/api/audit-logs/{position}/proof"),
        "/api/audit-logs/42/proof",
        "/api/audit-logs/42/proof",
    );
}

#[test]
fn nothing_else_is_shown_in_the_place_of_a_parameter() {
    let bare = ID.replace('-', "");
    for secret in [TOKEN, "ada@example.com", "ada%40example.com", "api", &bare, "12345678901234567"]
    {
        is_shown(
            Some("/api/api-tokens/{id}"),
            &format!("/api/api-tokens/{secret}"),
            "/api/api-tokens/…",
        );
    }
    is_shown(Some("/api/webhook/{*path}"), &format!("/api/webhook/a/{TOKEN}/b"), "/api/webhook/…");
}

#[test]
fn of_a_path_without_a_route_the_words_of_routes_and_ids_are_shown() {
    is_shown(None, "/api/products", "/api/products");
    is_shown(None, &format!("/api/products/{ID}/nothing"), &format!("/api/products/{ID}/…"));
    is_shown(None, &format!("/api/products/{TOKEN}/ada@example.com/"), "/api/products/…/…/");
    is_shown(None, "/wp-login.php", "/…");
    is_shown(None, "/", "/");
}

#[test]
fn a_path_without_a_route_is_shown_up_to_a_length() {
    assert!(ShownPath { route: None, path: &"/a".repeat(10_000) }.to_string().len() < 100);
}

//! Whose word about an address is believed.

use axum::http::HeaderValue;
use axum::routing::get;
use axum::{Extension, Router};

use super::*;
use crate::http::testing::{self, layer, send};

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let line = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in lines.iter().map(line) {
        headers.append(name, value);
    }
    headers
}

fn behind(header: ForwardedHeader) -> TrustedProxies {
    let networks = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
    TrustedProxies::new(networks.to_vec(), header)
}

#[track_caller]
fn assert_client(peer: &str, lines: &[(&'static str, &str)], expected: &str) {
    let header = match lines.first() {
        Some(("forwarded", _)) => ForwardedHeader::Forwarded,
        _ => ForwardedHeader::XForwardedFor,
    };
    let client = behind(header).client(peer.parse().unwrap(), &headers(lines));
    assert_eq!(client.to_string(), expected, "{peer} {lines:?}");
}

#[test]
fn a_stranger_is_not_believed() {
    assert_client("192.0.2.9", &[("x-forwarded-for", "198.51.100.1")], "192.0.2.9");
    assert_client("192.0.2.9", &[], "192.0.2.9");
}

#[test]
fn a_proxy_is_believed_as_far_as_the_chain_holds() {
    assert_client("10.0.0.1", &[("x-forwarded-for", "198.51.100.1")], "198.51.100.1");
    assert_client("10.0.0.1", &[("x-forwarded-for", "6.6.6.6, 198.51.100.1")], "198.51.100.1");
    assert_client(
        "10.0.0.1",
        &[("x-forwarded-for", "6.6.6.6, 198.51.100.1, 10.0.0.2")],
        "198.51.100.1",
    );
    assert_client("10.0.0.1", &[("x-forwarded-for", "10.9.9.9,10.0.0.2")], "10.9.9.9");
    assert_client("10.0.0.1", &[], "10.0.0.1");
}

#[test]
fn lines_are_read_as_one_list() {
    let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "198.51.100.1, 10.0.0.2")];

    assert_client("10.0.0.1", &lines, "198.51.100.1");
}

#[test]
fn what_cannot_be_read_ends_the_chain() {
    assert_client("10.0.0.1", &[("x-forwarded-for", "198.51.100.1, unknown")], "10.0.0.1");
    assert_client("10.0.0.1", &[("x-forwarded-for", "198.51.100.1, x, 10.0.0.2")], "10.0.0.2");
    assert_client("10.0.0.1", &[("x-forwarded-for", "")], "10.0.0.1");
    assert_client("10.0.0.1", &[("forwarded", "for=198.51.100.1, for=_hidden")], "10.0.0.1");
    assert_client("10.0.0.1", &[("forwarded", "proto=https")], "10.0.0.1");
}

#[test]
fn ports_brackets_and_mapped_addresses_are_understood() {
    assert_client("10.0.0.1", &[("x-forwarded-for", "198.51.100.1:443")], "198.51.100.1");
    assert_client("10.0.0.1", &[("x-forwarded-for", "[2001:db8::1]:443")], "2001:db8::1");
    assert_client("10.0.0.1", &[("x-forwarded-for", "2001:db8::1")], "2001:db8::1");
    assert_client("::ffff:10.0.0.1", &[("x-forwarded-for", "::ffff:198.51.100.1")], "198.51.100.1");
    assert_client(
        "fd00::1",
        &[("forwarded", "For=\"[2001:db8::1]:47\";proto=https")],
        "2001:db8::1",
    );
    assert_client(
        "10.0.0.1",
        &[("forwarded", "for=6.6.6.6, for=198.51.100.1;by=10.0.0.2, for=10.0.0.2")],
        "198.51.100.1",
    );
}

#[test]
fn only_the_configured_header_is_read() {
    let lines = headers(&[("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "198.51.100.1")]);
    let peer = "10.0.0.1".parse().unwrap();

    let client = behind(ForwardedHeader::XForwardedFor).client(peer, &lines);

    assert_eq!(client.to_string(), "198.51.100.1");
}

#[tokio::test]
async fn handlers_are_told_the_address() {
    let peer = ConnectInfo(SocketAddr::from(([192, 0, 2, 9], 80)));
    let app = Router::new()
        .route("/", get(async |ClientAddress(address): ClientAddress| address.to_string()))
        .layer(layer!(find_address, TrustedProxies::default()));

    assert_eq!(
        send(&app.clone().layer(Extension(peer)), testing::get("/")).await.body,
        "192.0.2.9"
    );
    send(&app, testing::get("/")).await.problem(500, "internal");
}

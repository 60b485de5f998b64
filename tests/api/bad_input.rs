//! Bad input: each gets a clear error that says what to do, and leaves nothing half written.

use std::process::{Command, Output};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::{Value, json};
use vault::{Opened, Place, Sealed, Vault};

use super::support::{self, Client, Reply, TestApp, eventually};

const UPLOAD: &str = "/api/knowledge-base/storage/upload";

/// Sends a body as it is.
async fn raw(
    client: &Client,
    path: &str,
    media_type: &str,
    body: impl Into<reqwest::Body>,
) -> Reply {
    client
        .send(client.request(Method::POST, path).header("content-type", media_type).body(body))
        .await
}

#[tokio::test]
async fn a_body_that_is_no_json_or_not_the_right_json_says_where() {
    let app = TestApp::spawn().await;
    let head = app.head().await;
    let bodies: [(&[u8], u16, &str, &str); 13] = [
        (b"", 400, "malformed_json", ""),
        (b"{", 400, "malformed_json", ""),
        (b"{} {}", 400, "malformed_json", ""),
        (b"name=Handbook", 400, "malformed_json", ""),
        (b"{\"name\": \"\xff\xfe\"}", 400, "malformed_json", ""),
        (b"{\"name\": \"\\ud800\"}", 400, "malformed_json", ""),
        (b"{\"name\": \"a\", \"name\": \"b\"}", 400, "duplicate_key", "/name"),
        (b"[]", 422, "invalid_body", ""),
        (b"null", 422, "invalid_body", ""),
        (b"{}", 422, "invalid_body", "/name"),
        (b"{\"name\": 7}", 422, "invalid_body", "/name"),
        (b"{\"name\": null}", 422, "invalid_body", "/name"),
        (b"{\"name\": \"a\", \"colour\": \"red\"}", 422, "invalid_body", "/colour"),
    ];
    for (body, status, code, place) in bodies {
        let reply =
            raw(&app, "/api/products", "application/json", body).await.expect_problem(status, code);
        if !place.is_empty() {
            assert_eq!(reply.body["errors"][0]["field"], place, "{reply:?}");
        }
    }
    for name in ["", "   ", &"x".repeat(201), "a\u{0}b"] {
        let reply = app.post("/api/products", json!({ "name": name })).await.expect_status(422);
        assert_eq!(reply.body["errors"][0]["field"], "/name", "{reply:?}");
    }
    let deep = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
    raw(&app, "/api/products", "application/json", deep).await.expect_status(400);

    for media_type in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
        "nonsense",
    ] {
        raw(&app, "/api/products", media_type, "{\"name\": \"a\"}").await.expect_status(415);
    }
    let without = app.request(Method::POST, "/api/products").body("{\"name\": \"a\"}");
    app.send(without).await.expect_status(415);

    assert_eq!(app.get("/api/products").await.body["pagination"]["total"], 0);
    let events = new_events(&app, head).await;
    assert!(events.iter().all(|kind| kind == "access_log.rejected.v2"), "{events:?}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_whether_it_says_so_or_not() {
    let app = TestApp::spawn_with(&[("PRODGY_BODY_LIMIT_BYTES", "2048")]).await;
    let name = "x".repeat(4_000);

    app.post("/api/products", json!({ "name": name })).await.expect_problem(413, "too_large");
    let chunks = vec![Ok::<_, std::io::Error>(json!({ "name": name }).to_string())];
    let chunked = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
    raw(&app, "/api/products", "application/json", chunked).await.expect_problem(413, "too_large");

    app.post("/api/products", json!({ "name": "Small" })).await.expect_status(201);
}

#[tokio::test]
async fn unknown_ids_and_ids_that_are_none_are_not_the_servers_fault() {
    let app = TestApp::spawn().await;
    let unknown = "01890000-0000-7000-8000-000000000000";
    for (path, code) in [
        ("/api/products/", "product_not_found"),
        ("/api/users/", "user_not_found"),
        ("/api/api-tokens/", "api_token_not_found"),
        ("/api/agent-base/", "agent_not_found"),
        ("/api/agent-base/triggers/", "trigger_not_found"),
        ("/api/knowledge-base/base/", "knowledge_base_not_found"),
        ("/api/knowledge-base/storage/file/", "file_not_found"),
    ] {
        app.get(&format!("{path}{unknown}")).await.expect_problem(404, code);
        for nonsense in [
            "7",
            "not-a-uuid",
            "..%2f..%2fetc%2fpasswd",
            "%00",
            "01890000-0000-7000-8000-00000000000g",
        ] {
            let reply = app.get(&format!("{path}{nonsense}")).await;
            assert!([400, 404].contains(&reply.status), "{path}{nonsense}: {reply:?}");
        }
    }
}

#[tokio::test]
async fn an_upload_over_the_limit_is_refused_and_leaves_nothing() {
    let app = TestApp::spawn_with(&[("PRODGY_UPLOAD_LIMIT_BYTES", "65536")]).await;
    let product = app.product().await;
    let head = app.head().await;
    let large = vec![b'x'; 1 << 20];

    let reply = app.upload(&product.knowledge_base, &[("large.txt", "text/plain", &large)]).await;
    reply.expect_problem(413, "too_large");
    let small_first: [(&str, &str, &[u8]); 2] =
        [("small.txt", "text/plain", b"small"), ("large.txt", "text/plain", &large)];
    app.upload(&product.knowledge_base, &small_first).await.expect_problem(413, "too_large");

    let files = app.get(&format!("/api/knowledge-base/storage/{}", product.knowledge_base)).await;
    assert_eq!(files.body["pagination"]["total"], 0, "{files:?}");
    assert!(new_events(&app, head).await.iter().all(|kind| kind == "access_log.rejected.v2"));
    let reply = app.upload(&product.knowledge_base, &[("small.txt", "text/plain", b"small")]).await;
    assert!(reply.is_success(), "{reply:?}");
}

#[tokio::test]
async fn a_file_that_lies_about_its_type_fails_and_stays_downloadable() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let picture: &[u8] = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\xff\xfe";
    for (name, media_type, bytes) in [
        ("notes.txt", "text/plain", picture),
        ("notes.json", "application/json", b"this is no JSON" as &[u8]),
        ("notes.md", "text/markdown", b"\xff\xfe\xfa not UTF-8 at all \xc3\x28"),
    ] {
        let reply = app.upload(&product.knowledge_base, &[(name, media_type, bytes)]).await;
        assert!(reply.is_success(), "{reply:?}");
        let id = reply.data()[0]["id"].as_str().unwrap();

        let file = app.wait_ended(id, "failed").await;
        assert!(file["error"].to_string().len() > 4, "the reason is missing: {file}");
        let path = format!("/api/knowledge-base/storage/file/{id}/download");
        assert_eq!(app.get(&path).await.expect_status(200).bytes, bytes, "{name}");
    }
}

#[tokio::test]
async fn a_broken_multipart_body_stores_nothing() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let head = app.head().await;
    let whole = format!(
        "--cut\r\nContent-Disposition: form-data; name=\"knowledge_base_id\"\r\n\r\n{}\r\n\
         --cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\ntext\r\n--cut--\r\n",
        product.knowledge_base
    );
    let form = "multipart/form-data; boundary=cut";

    for length in [0, 10, whole.len() / 2, whole.len() - 12] {
        let reply = raw(&app, UPLOAD, form, whole[..length].to_owned()).await;
        assert!([400, 422].contains(&reply.status), "the first {length} bytes: {reply:?}");
    }
    raw(&app, UPLOAD, "multipart/form-data", whole.clone()).await.expect_status(400);
    raw(&app, UPLOAD, "multipart/form-data; boundary=other", whole.clone())
        .await
        .expect_status(400);
    raw(&app, UPLOAD, "application/json", "{}").await.expect_status(415);
    let no_base = whole.replace("knowledge_base_id", "unknown_field");
    raw(&app, UPLOAD, form, no_base).await.expect_status(422);
    let no_uuid = whole.replace(&product.knowledge_base, "seven");
    raw(&app, UPLOAD, form, no_uuid).await.expect_status(422);
    let no_file = whole.replace("name=\"file\"; filename=\"a.txt\"", "name=\"source\"");
    raw(&app, UPLOAD, form, no_file).await.expect_status(422);

    assert!(new_events(&app, head).await.iter().all(|kind| kind == "access_log.rejected.v2"));
    let reply = raw(&app, UPLOAD, form, whole).await;
    assert!(reply.is_success(), "{reply:?}");
}

#[tokio::test]
async fn a_forged_session_opens_nothing() {
    let mut app = TestApp::spawn().await;
    let good = app.owner().credential().to_owned();
    let parts: Vec<&str> = good.split('.').collect();
    let header: Value = serde_json::from_slice(&BASE64.decode(parts[0]).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&BASE64.decode(parts[1]).unwrap()).unwrap();
    let jwks = app.nobody().get("/.well-known/jwks.json").await.expect_status(200).body;
    let public = BASE64.decode(jwks["keys"][0]["x"].as_str().unwrap()).unwrap();
    let key_id = header["kid"].as_str().unwrap().to_owned();
    let sign = |claims: &Value, algorithm, key: &EncodingKey| {
        let header = Header { kid: Some(key_id.clone()), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, claims, key).unwrap()
    };
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };

    // The server's own key, taken out of the stopped server: only the claims are wrong then.
    app.stop();
    let own = EncodingKey::from_ed_der(&signing_key(&app).await);
    app.start();
    let is_good = app.bearer(&sign(&claims, Algorithm::EdDSA, &own)).get("/api/auth/me").await;
    assert_eq!(is_good.status, 200, "the forgeries below must differ from this one: {is_good:?}");

    let none = BASE64.encode(json!({ "alg": "none", "typ": "JWT", "kid": key_id }).to_string());
    let stranger = SigningKey::from_bytes(&[7; 32]).to_pkcs8_der().unwrap();
    let (payload, signature) = (parts[1], parts[2]);
    let other_payload = BASE64.encode(with("sub", json!(uuid::Uuid::now_v7())).to_string());
    let forgeries = [
        ("alg none", format!("{none}.{payload}.")),
        ("alg none with a signature", format!("{none}.{payload}.{signature}")),
        (
            "HS256 with the public key",
            sign(&claims, Algorithm::HS256, &EncodingKey::from_secret(&public)),
        ),
        (
            "another key",
            sign(&claims, Algorithm::EdDSA, &EncodingKey::from_ed_der(stranger.as_bytes())),
        ),
        ("no signature", format!("{}.{payload}.", parts[0])),
        ("another payload", format!("{}.{other_payload}.{signature}", parts[0])),
        ("another audience", sign(&with("aud", json!("elsewhere")), Algorithm::EdDSA, &own)),
        ("another issuer", sign(&with("iss", json!("elsewhere")), Algorithm::EdDSA, &own)),
        ("expired", sign(&with("exp", json!(1_700_000_000)), Algorithm::EdDSA, &own)),
        ("not yet good", sign(&with("nbf", json!(4_000_000_000_u64)), Algorithm::EdDSA, &own)),
        (
            "another session",
            sign(&with("sid", json!(uuid::Uuid::now_v7())), Algorithm::EdDSA, &own),
        ),
        ("another user", sign(&with("sub", json!(uuid::Uuid::now_v7())), Algorithm::EdDSA, &own)),
        ("another tenant", sign(&with("org", json!(uuid::Uuid::now_v7())), Algorithm::EdDSA, &own)),
    ];
    for (what, forgery) in forgeries {
        let reply = app.bearer(&forgery).get("/api/auth/me").await;
        assert_eq!((reply.status, reply.error()), (401, "session_invalid"), "{what}: {reply:?}");
        assert!(!reply.header("www-authenticate").is_empty(), "{what}");
    }
}

/// The private key that signs sessions, as PKCS #8.
async fn signing_key(app: &TestApp) -> Vec<u8> {
    let folder = app.data_dir();
    let log = Connection::open(folder.join("events.db")).unwrap();
    let envelope: String = log
        .query_row(
            "select envelope from events where envelope like '%instance.key_added.v1%'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let envelope: Value = serde_json::from_str(&envelope).unwrap();
    let sealed = Sealed::parse(envelope["data"]["private_key"].as_str().unwrap()).unwrap();
    let place = Place {
        organization: envelope["organization"].as_str().unwrap().parse().unwrap(),
        stream: envelope["stream"].as_str().unwrap(),
        event_type: "instance.key_added.v1",
        field: "private_key",
    };
    let (vault, is_new) =
        Vault::local_with_key_file(&folder.join("vault"), &folder.join("master.key"))
            .await
            .unwrap();
    assert!(!is_new);
    let Opened::Clear(key) = vault.open(&sealed, &place).await.unwrap() else {
        panic!("the key was shredded")
    };
    SigningKey::from_pkcs8_der(&key).unwrap();
    key.to_vec()
}

#[tokio::test]
async fn an_access_token_runs_out() {
    let app = TestApp::spawn_with(&[("PRODGY_ACCESS_TOKEN_SECONDS", "1")]).await;

    let refused = eventually("the access token is still good", async || {
        Some(app.get("/api/auth/me").await).filter(|reply| reply.status != 200)
    });
    refused.await.expect_problem(401, "session_invalid");
}

#[tokio::test]
async fn a_credential_that_cannot_be_read_is_refused() {
    let app = TestApp::spawn().await;
    for (name, value) in [
        ("authorization", "Basic b3duZXI6cGFzc3dvcmQ="),
        ("authorization", "Bearer"),
        ("authorization", "Bearer "),
        ("authorization", "Bearer a.b.c"),
        ("authorization", "Bearer prodgy_"),
        ("x-api-token", ""),
        ("x-api-token", "prodgy_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    ] {
        let reply = app.nobody().get_with("/api/products", name, value).await;
        assert_eq!(reply.status, 401, "{name}: {value}: {reply:?}");
    }
    // A good session does not help a bad token beside it.
    app.get_with("/api/products", "x-api-token", "prodgy_nonsense").await.expect_status(401);
}

#[tokio::test]
async fn a_data_directory_in_use_is_refused_and_its_user_goes_on() {
    let app = TestApp::spawn().await;

    let second = start_again(&app);
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("in use by another prodgy"), "{said}");
    assert!(said.contains("--data-dir"), "it does not say what to do: {said}");

    app.post("/api/products", json!({ "name": "Handbook" })).await.expect_status(201);
}

#[tokio::test]
async fn a_data_directory_of_a_newer_version_is_left_as_it_is() {
    let mut app = TestApp::spawn().await;
    app.product().await;
    app.stop();
    let path = app.data_dir().join("events.db");
    let version = |change: i64| {
        let log = Connection::open(&path).unwrap();
        let known: i64 = log.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        log.pragma_update(None, "user_version", known + change).unwrap();
    };

    version(1);
    let refused = start_again(&app);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("upgrade prodgy"), "{said}");

    version(-1);
    app.start();
    assert_eq!(app.get("/api/products").await.body["pagination"]["total"], 1);
}

#[tokio::test]
async fn a_master_key_that_is_another_ones_is_refused() {
    let mut app = TestApp::spawn().await;
    app.stop();
    let mut command = serve(&app);
    let refused = command.env("PRODGY_MASTER_KEY", "ab".repeat(32)).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("master key"), "{refused:?}");

    std::fs::rename(app.data_dir().join("master.key"), app.data_dir().join("elsewhere.key"))
        .unwrap();
    let refused = start_again(&app);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("master.key"), "{refused:?}");

    std::fs::rename(app.data_dir().join("elsewhere.key"), app.data_dir().join("master.key"))
        .unwrap();
    app.start();
    app.get("/api/products").await.expect_status(200);
}

/// A second server on the data directory of a first.
fn serve(app: &TestApp) -> Command {
    support::prodgy(app.data_dir().parent().unwrap(), &["serve", "--listen", "127.0.0.1:0"])
}

fn start_again(app: &TestApp) -> Output {
    serve(app).output().unwrap()
}

/// The types of the events after a position.
async fn new_events(app: &TestApp, after: u64) -> Vec<String> {
    let reply = app.get(&format!("/api/events?after={after}&limit=1000")).await.expect_status(200);
    reply
        .data()
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect()
}

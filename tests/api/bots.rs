//! Google Chat and Microsoft Teams from outside: what they send is verified, agents answer, and the answer
//! is sent as they document it. Both are small servers on loopback that check what they are sent.

use std::sync::{Arc, Mutex};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use reqwest::Method;
use serde_json::{Value, json};

use crate::integration::other_side::{OtherSide, Says, Seen, gives, says};
use crate::oidc::issuer::{Signer, key_set, message, now, sign_by_secret};
use crate::support::{Product, Reply, TestApp, eventually};

const PROJECT: &str = "1234567890";
const CHAT: &str = "chat@system.gserviceaccount.com";
const BOT: &str = "5d1b8c52-0000-4000-8000-1234567890ab";
const FRAMEWORK: &str = "https://api.botframework.com";
const TOKEN: &str = "a-token-of-the-other-side";

type Posted = Arc<Mutex<Vec<Value>>>;

struct World {
    app: TestApp,
    product: Product,
    id: String,
    posted: Posted,
    /// Where it is heard.
    door: String,
}

impl World {
    async fn new(kind: &str, config: Value, secrets: Value, posted: Posted) -> World {
        let app = TestApp::spawn_with(&[("PRODGY_HTTP_ALLOW", "127.0.0.0/8")]).await;
        let product = app.product().await;
        let mut config = config;
        config["ingest_files"] = json!(product.knowledge_base);
        let body = json!({
            "product_id": product.id, "type": kind, "title": "Chat", "config": config, "secrets": secrets,
        });
        let made = app.post("/api/integrations-base", body).await.expect_status(201);
        let id = made.data()["id"].as_str().unwrap().to_owned();
        let door = match kind {
            "teams" => format!("/api/communicator/botframework/{id}/messages"),
            _ => format!("/api/communicator/webhook/{id}"),
        };
        let manifest = json!({
            "manifest": "prodgy.agent/1", "name": "acme.echo", "version": "1.0.0", "title": "Echo",
            "requires": { "integrations": [{ "slot": "talk", "kinds": [kind] }] },
            "triggers": [{ "id": "asked", "type": "message", "slot": "talk" }],
            "steps": [{ "id": "one", "type": "transform",
                        "with": { "value": { "template": "{{ input.sender.name }} said: {{ input.text }}" } } }],
            "output": { "cel": "steps.one.output.value" },
        });
        let body = json!({ "product_id": product.id, "manifest": manifest });
        app.post("/api/agent-base/install", body).await.expect_status(201);
        World { app, product, id, posted, door }
    }

    async fn send(&self, token: &str, body: &Value) -> Reply {
        self.send_raw(&format!("Bearer {token}"), body.to_string().into_bytes()).await
    }

    async fn send_raw(&self, authorization: &str, body: Vec<u8>) -> Reply {
        let nobody = self.app.nobody();
        let request = nobody
            .request(Method::POST, &self.door)
            .header("authorization", authorization)
            .header("content-type", "application/json");
        nobody.send(request.body(body)).await
    }

    /// Waits until so many messages were posted.
    async fn posted(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} messages were not posted"), async || {
            let posted = self.posted.lock().unwrap().clone();
            (posted.len() >= count).then_some(posted)
        })
        .await
    }

    /// The names of the files of the knowledge base.
    async fn files(&self) -> Vec<String> {
        let path = format!("/api/knowledge-base/storage/{}", self.product.knowledge_base);
        let files = self.app.get(&path).await.expect_status(200);
        let files = files.data().as_array().unwrap().iter();
        let mut names: Vec<_> =
            files.map(|file| file["file_name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    async fn messages(&self) -> usize {
        let path = "/api/audit-logs?action=message_received&limit=1000";
        self.app.get(path).await.expect_status(200).data().as_array().unwrap().len()
    }

    /// Under which code the last refusal was recorded, of this integration.
    async fn recorded(&self) -> String {
        let path = format!("/api/audit-logs?action=rejected&resource_id={}", self.id);
        let rows = self.app.get(&path).await.expect_status(200);
        rows.data()[0]["details"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

/// The Chat API, Google's tokens and Google's keys.
async fn google(keys: Value, account: &Signer, posted: Posted) -> OtherSide {
    let public = account.public_pem.clone();
    OtherSide::start(move |seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", "/keys") => says(200, keys.clone()),
        ("GET", "/v1/media/Cl9zcGFjZXM=/part") => {
            assert_eq!(seen.query, "alt=media");
            assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));
            gives(200, "text/plain", "Tea is served at four.")
        }
        ("POST", "/token") => google_token(seen, &public),
        ("POST", "/v1/spaces/AAA/messages") => {
            assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));
            assert!(seen.query.contains("requestId="), "{}", seen.query);
            assert!(
                seen.query.contains("messageReplyOption=REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD"),
                "{}",
                seen.query
            );
            let message: Value = serde_json::from_str(&seen.body).unwrap();
            for (field, _) in message.as_object().unwrap() {
                assert!(["text", "thread"].contains(&field.as_str()), "{message}");
            }
            posted.lock().unwrap().push(message.clone());
            let name = format!("spaces/AAA/messages/r{}", posted.lock().unwrap().len());
            says(200, json!({ "name": name, "thread": message["thread"], "text": message["text"] }))
        }
        _ => says(404, json!({ "error": { "code": 404, "message": "not found" } })),
    })
    .await
}

/// A JWT bearer grant (RFC 7523), as Google asks for it.
fn google_token(seen: &Seen, public: &str) -> Says {
    let form: std::collections::HashMap<String, String> =
        reqwest::Url::parse(&format!("http://x/?{}", seen.body))
            .unwrap()
            .query_pairs()
            .into_owned()
            .collect();
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let mut validation = Validation::new(Algorithm::RS256);
    validation.validate_aud = false;
    let key = DecodingKey::from_rsa_pem(public.as_bytes()).unwrap();
    let claims = jsonwebtoken::decode::<Value>(&form["assertion"], &key, &validation).unwrap();
    assert_eq!(claims.claims["scope"], "https://www.googleapis.com/auth/chat.bot");
    assert_eq!(claims.claims["iss"], "bot@acme.iam.gserviceaccount.com");
    says(200, json!({ "access_token": TOKEN, "expires_in": 3_600, "token_type": "Bearer" }))
}

async fn google_world(audience: &str, keys: Value) -> World {
    let (account, posted) = (Signer::rsa("account"), Posted::default());
    let side = google(keys, &account, posted.clone()).await;
    let key = json!({
        "type": "service_account", "client_email": "bot@acme.iam.gserviceaccount.com", "private_key_id": "account",
        "private_key": account.private_pem, "token_uri": format!("{}/token", side.url),
    });
    let config = json!({
        "audience": audience, "base_url": side.url, "keys_url": format!("{}/keys", side.url),
    });
    let secrets = json!({ "service_account_key": key.to_string() });
    World::new("google-chat", config, secrets, posted).await
}

fn chat_event(message: &str, text: &str) -> Value {
    json!({
        "type": "MESSAGE", "eventTime": "2026-11-26T10:00:00Z",
        "space": { "name": "spaces/AAA", "type": "ROOM", "spaceType": "SPACE" },
        "user": { "name": "users/1", "displayName": "Ada", "type": "HUMAN" },
        "message": {
            "name": format!("spaces/AAA/messages/{message}"),
            "text": format!("@Prodgy {text}"), "argumentText": format!(" {text}"),
            "sender": { "name": "users/1", "displayName": "Ada", "type": "HUMAN" },
            "thread": { "name": "spaces/AAA/threads/t1" },
        },
    })
}

#[tokio::test]
async fn google_chat_is_heard_by_its_project_and_answered_in_the_thread() {
    let (signer, other) = (Signer::rsa("one"), Signer::rsa("two"));
    let world = google_world(PROJECT, json!({ "one": signer.certificate })).await;
    let claims = || json!({ "iss": CHAT, "aud": PROJECT, "iat": now(), "exp": now() + 3_600 });
    let good = signer.sign(&claims());

    for _ in 0..3 {
        let heard = world.send(&good, &chat_event("m1", "good morning")).await.expect_status(200);
        assert_eq!(heard.body, json!({}), "no message at once");
    }
    let posted = world.posted(1).await;
    assert_eq!(
        posted[0],
        json!({ "text": "Ada said: good morning", "thread": { "name": "spaces/AAA/threads/t1" } })
    );
    let hmac = json!({ "alg": "HS256", "kid": "one" });
    let none = message(&json!({ "alg": "none", "kid": "one" }), &claims());
    for (token, code) in [
        (signer.sign(&with(claims(), "iss", json!("https://x.example"))), "jwt_issuer_wrong"),
        (signer.sign(&with(claims(), "aud", json!("999"))), "jwt_audience_wrong"),
        (signer.sign(&with(claims(), "exp", json!(now() - 310))), "jwt_expired"),
        (signer.sign(&with(claims(), "nbf", json!(now() + 310))), "jwt_not_yet_good"),
        (other.sign(&claims()), "jwt_key_unknown"),
        (other.sign_under(&signer.header(), &claims()), "jwt_signature_wrong"),
        (format!("{none}."), "jwt_algorithm_refused"),
        (sign_by_secret(&hmac, &claims(), signer.certificate.as_bytes()), "jwt_algorithm_refused"),
        (String::new(), "jwt_malformed"),
    ] {
        let refused = world.send(&token, &chat_event("forged", "forged")).await;
        refused.expect_problem(401, "token_refused");
        assert_eq!(world.recorded().await, code);
    }
    let basic = world.send_raw("Basic x", chat_event("m2", "x").to_string().into_bytes()).await;
    basic.expect_problem(401, "token_refused");
    // Bad bodies under a good token, and what starts nothing.
    for body in [&b""[..], b"[]", b"{\"type\":\"MESSAGE\"}", b"\xff\xfe"] {
        let refused = world.send_raw(&format!("Bearer {good}"), body.to_vec()).await;
        refused.expect_problem(400, "body_malformed");
    }
    let mut bot = chat_event("m3", "hello");
    bot["message"]["sender"]["type"] = json!("BOT");
    world.send(&good, &bot).await.expect_status(200);

    world.send(&good, &chat_event("m4", "good night")).await.expect_status(200);
    let posted = world.posted(2).await;
    assert_eq!((posted.len(), &posted[1]["text"]), (2, &json!("Ada said: good night")));
    assert_eq!(world.messages().await, 2, "one for each that was genuine, of a person, and new");
}

#[tokio::test]
async fn google_chat_is_heard_by_its_address_too() {
    let signer = Signer::rsa("one");
    let audience = "https://prodgy.example/chat";
    let world = google_world(audience, key_set(&[&signer])).await;
    let claims = || {
        json!({
            "iss": "https://accounts.google.com", "aud": audience, "email": CHAT, "email_verified": true,
            "iat": now(), "exp": now() + 3_600,
        })
    };
    for (claims, code) in [
        (with(claims(), "email", json!("eve@example.com")), "jwt_claim_wrong"),
        (with(claims(), "email_verified", json!(false)), "jwt_claim_wrong"),
        (with(claims(), "aud", json!("https://prodgy.example/other")), "jwt_audience_wrong"),
        (with(claims(), "iss", json!(CHAT)), "jwt_issuer_wrong"),
    ] {
        let refused = world.send(&signer.sign(&claims), &chat_event("forged", "x")).await;
        refused.expect_problem(401, "token_refused");
        assert_eq!(world.recorded().await, code);
    }
    world.send(&signer.sign(&claims()), &chat_event("m1", "hello")).await.expect_status(200);
    assert_eq!(world.posted(1).await[0]["text"], "Ada said: hello");
    assert_eq!(world.messages().await, 1);
}

#[tokio::test]
async fn an_integration_without_an_audience_hears_nobody() {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let body = json!({
        "product_id": product.id, "type": "google-chat", "title": "Chat", "config": {},
        "secrets": { "webhook_url": "https://chat.googleapis.com/v1/spaces/AAA/messages?key=k&token=t" },
    });
    let made = app.post("/api/integrations-base", body).await.expect_status(201);
    let id = made.data()["id"].as_str().unwrap();
    let door = format!("/api/communicator/webhook/{id}");
    let refused = app.bearer("x.y.z").post(&door, chat_event("m1", "hello")).await;
    refused.expect_problem(401, "signature_invalid");
    let door = format!("/api/communicator/botframework/{id}/messages");
    let elsewhere = app.bearer("x.y.z").post(&door, json!({})).await;
    elsewhere.expect_problem(404, "communicator_not_found");
}

/// The Bot Framework: its metadata and keys, its tokens, and the service of a tenant.
async fn bot_framework(keys: Value, posted: Posted) -> OtherSide {
    OtherSide::start(move |seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", "/metadata") => {
            let jwks = format!("http://{}/keys", seen.header("host"));
            says(200, json!({ "issuer": FRAMEWORK, "jwks_uri": jwks }))
        }
        ("GET", "/keys") => says(200, keys.clone()),
        ("POST", "/acme/oauth2/v2.0/token") => {
            for field in [
                "grant_type=client_credentials",
                &format!("client_id={BOT}"),
                "client_secret=s3cret",
                "scope=https%3A%2F%2Fapi.botframework.com%2F.default",
            ] {
                assert!(seen.body.split('&').any(|told| told == field), "{}", seen.body);
            }
            says(200, json!({ "access_token": TOKEN, "expires_in": 3_600, "token_type": "Bearer" }))
        }
        ("GET", "/onedrive/tea.md") => {
            assert_eq!(seen.header("authorization"), "", "our token is for the Bot Framework");
            gives(200, "application/octet-stream", "# Tea\n\nTea is served at four.")
        }
        ("GET", "/emea/v3/attachments/1/views/original") => {
            assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));
            gives(200, "text/plain", "Coffee is served at three.")
        }
        ("POST", path) if path.starts_with("/emea/v3/conversations/") => {
            assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));
            let mut message: Value = serde_json::from_str(&seen.body).unwrap();
            assert_eq!(message["type"], "message");
            message["path"] = json!(path);
            posted.lock().unwrap().push(message);
            says(201, json!({ "id": format!("r{}", posted.lock().unwrap().len()) }))
        }
        _ => says(404, json!({ "error": { "code": "NotFound", "message": "not found" } })),
    })
    .await
}

async fn teams_world(signer: &Signer, endorsements: Value) -> (World, String) {
    let posted = Posted::default();
    let mut keys = key_set(&[signer]);
    keys["keys"][0]["endorsements"] = endorsements;
    let side = bot_framework(keys, posted.clone()).await;
    let config = json!({
        "app_id": BOT, "tenant": "acme", "login_url": side.url,
        "metadata_url": format!("{}/metadata", side.url), "service_url": format!("{}/teams", side.url),
    });
    let world = World::new("teams", config, json!({ "app_password": "s3cret" }), posted).await;
    (world, format!("{}/emea/", side.url))
}

fn activity(id: &str, service: &str, text: &str) -> Value {
    json!({
        "type": "message", "id": id, "timestamp": "2026-11-26T10:00:00Z", "channelId": "msteams",
        "serviceUrl": service,
        "from": { "id": "29:ada", "name": "Ada", "aadObjectId": "x" },
        "recipient": { "id": "28:bot", "name": "Prodgy" },
        "conversation": { "id": "19:abc@thread.tacv2;messageid=17", "conversationType": "channel", "isGroup": true },
        "text": format!("<at>Prodgy</at> {text}\n"),
        "entities": [{ "type": "mention", "mentioned": { "id": "28:bot", "name": "Prodgy" }, "text": "<at>Prodgy</at>" }],
    })
}

fn bot_claims(service: &str) -> Value {
    json!({
        "iss": FRAMEWORK, "aud": BOT, "serviceurl": service, "nbf": now() - 10, "exp": now() + 3_600,
    })
}

#[tokio::test]
async fn teams_is_heard_by_every_check_and_answered_at_its_service() {
    let (signer, other) = (Signer::rsa("one"), Signer::rsa("two"));
    let (world, service) = teams_world(&signer, json!(["msteams"])).await;
    let claims = || bot_claims(&service);
    let good = signer.sign(&claims());

    for _ in 0..3 {
        let heard = world.send(&good, &activity("17", &service, "good morning")).await;
        assert!(heard.expect_status(200).bytes.is_empty());
    }
    let posted = world.posted(1).await;
    assert_eq!(
        posted[0],
        json!({
            "type": "message", "text": "Ada said: good morning", "textFormat": "markdown", "replyToId": "17",
            "path": "/emea/v3/conversations/19:abc@thread.tacv2;messageid=17/activities/17",
        })
    );
    let hmac = json!({ "alg": "HS256", "kid": "one" });
    let none = message(&json!({ "alg": "none", "kid": "one" }), &claims());
    let evil = "https://evil.example/";
    let forged = activity("18", &service, "forged");
    let elsewhere = activity("18", evil, "forged");
    let mut emulated = forged.clone();
    emulated["channelId"] = json!("emulator");
    let cases = [
        (
            signer.sign(&with(claims(), "iss", json!("https://x.example"))),
            &forged,
            "jwt_issuer_wrong",
        ),
        (signer.sign(&with(claims(), "aud", json!("another"))), &forged, "jwt_audience_wrong"),
        (signer.sign(&with(claims(), "exp", json!(now() - 310))), &forged, "jwt_expired"),
        (signer.sign(&with(claims(), "nbf", json!(now() + 310))), &forged, "jwt_not_yet_good"),
        (signer.sign(&with(claims(), "serviceurl", json!(evil))), &forged, "jwt_claim_wrong"),
        (good.clone(), &elsewhere, "jwt_claim_wrong"),
        (signer.sign(&bot_claims(evil)), &elsewhere, "jwt_claim_wrong"),
        (good.clone(), &emulated, "jwt_claim_wrong"),
        (other.sign(&claims()), &forged, "jwt_key_unknown"),
        (other.sign_under(&signer.header(), &claims()), &forged, "jwt_signature_wrong"),
        (format!("{none}."), &forged, "jwt_algorithm_refused"),
        (
            sign_by_secret(&hmac, &claims(), signer.public_pem.as_bytes()),
            &forged,
            "jwt_algorithm_refused",
        ),
        ("x".to_owned(), &forged, "jwt_malformed"),
    ];
    for (token, body, code) in cases {
        world.send(&token, body).await.expect_problem(403, "token_refused");
        assert_eq!(world.recorded().await, code);
    }
    for kind in ["conversationUpdate", "installationUpdate", "typing"] {
        let mut activity = activity("19", &service, "");
        activity["type"] = json!(kind);
        world.send(&good, &activity).await.expect_status(200);
    }
    for body in [&b""[..], b"[]", b"{}", b"\xff\xfe"] {
        let refused = world.send_raw(&format!("Bearer {good}"), body.to_vec()).await;
        refused.expect_problem(400, "body_malformed");
    }
    // Slack's and Google's door is not the one of Teams.
    let door = format!("/api/communicator/webhook/{}", world.id);
    let wrong = world.app.bearer(&good).post(&door, activity("20", &service, "x")).await;
    wrong.expect_problem(404, "communicator_not_found");

    world.send(&good, &activity("21", &service, "good night")).await.expect_status(200);
    let posted = world.posted(2).await;
    assert_eq!((posted.len(), &posted[1]["text"]), (2, &json!("Ada said: good night")));
    assert_eq!(world.messages().await, 2);
}

#[tokio::test]
async fn a_key_that_is_not_endorsed_for_teams_speaks_for_nobody_there() {
    let signer = Signer::rsa("one");
    let (world, service) = teams_world(&signer, json!(["webchat"])).await;
    let good = signer.sign(&bot_claims(&service));
    world
        .send(&good, &activity("17", &service, "hello"))
        .await
        .expect_problem(403, "token_refused");
    assert_eq!((world.recorded().await.as_str(), world.messages().await), ("jwt_claim_wrong", 0));
    assert!(world.posted.lock().unwrap().is_empty() && !world.product.id.is_empty());
}

#[tokio::test]
async fn files_that_are_sent_in_google_chat_come_into_the_knowledge_base() {
    let signer = Signer::rsa("one");
    let world = google_world(PROJECT, json!({ "one": signer.certificate })).await;
    let claims = json!({ "iss": CHAT, "aud": PROJECT, "iat": now(), "exp": now() + 3_600 });
    let mut event = chat_event("m1", "two files");
    event["message"]["attachment"] = json!([
        { "name": "spaces/AAA/messages/m1/attachments/a1", "contentName": "tea.txt",
          "contentType": "text/plain", "source": "UPLOADED_CONTENT",
          "attachmentDataRef": { "resourceName": "Cl9zcGFjZXM=/part" } },
        { "contentName": "plan.pdf", "contentType": "application/pdf", "source": "DRIVE_FILE",
          "driveDataRef": { "driveFileId": "d1" } },
    ]);
    world.send(&signer.sign(&claims), &event).await.expect_status(200);
    let posted = world.posted(2).await;
    let report = posted[0]["text"].as_str().unwrap();
    assert!(
        report.starts_with("I took tea.txt in, and read it now.\nI did not take plan.pdf in: ")
    );
    assert!(report.contains("Google Drive"), "{report}");
    assert_eq!(posted[1]["text"], "Ada said: two files");
    assert_eq!(world.files().await, ["tea.txt"]);
}

#[tokio::test]
async fn files_that_are_sent_in_teams_come_into_the_knowledge_base() {
    let signer = Signer::rsa("one");
    let (world, service) = teams_world(&signer, json!(["msteams"])).await;
    let side = service.strip_suffix("/emea/").unwrap();
    let mut message = activity("17", &service, "files");
    message["attachments"] = json!([
        { "contentType": "text/html", "content": "<p>files</p>" },
        { "contentType": "application/vnd.microsoft.teams.file.download.info", "name": "tea.md",
          "contentUrl": "https://acme.sharepoint.com/personal/ada/tea.md",
          "content": { "downloadUrl": format!("{side}/onedrive/tea.md"), "uniqueId": "u1", "fileType": "md" } },
        { "contentType": "text/plain", "name": "coffee.txt",
          "contentUrl": format!("{service}v3/attachments/1/views/original") },
        { "contentType": "text/plain", "name": "evil.txt", "contentUrl": "https://evil.example/evil.txt" },
    ]);
    world.send(&signer.sign(&bot_claims(&service)), &message).await.expect_status(200);
    let posted = world.posted(2).await;
    let report = posted[0]["text"].as_str().unwrap();
    let lines: Vec<_> = report.lines().collect();
    assert_eq!(lines[0], "I took tea.md in, and read it now.");
    assert_eq!(lines[1], "I took coffee.txt in, and read it now.");
    assert!(
        lines[2].starts_with("I did not take evil.txt in: its bytes are not where Teams"),
        "{report}"
    );
    assert_eq!(posted[1]["text"], "Ada said: files");
    assert_eq!(world.files().await, ["coffee.txt", "tea.md"]);
}

#[tokio::test]
async fn what_is_changed_or_deleted_in_teams_is_noted_and_what_is_invoked_is_refused_and_on_record()
{
    let signer = Signer::rsa("one");
    let (world, service) = teams_world(&signer, json!(["msteams"])).await;
    let good = signer.sign(&bot_claims(&service));
    world.send(&good, &activity("17", &service, "good morning")).await.expect_status(200);
    world.posted(1).await;

    let revised = |kind: &str, id: &str, text: &str, at: &str| {
        let mut activity = activity(id, &service, text);
        activity["type"] = json!(kind);
        activity["timestamp"] = json!(at);
        activity
    };
    let changed = revised("messageUpdate", "17", "good evening", "2026-11-26T10:01:00Z");
    for _ in 0..3 {
        world.send(&good, &changed).await.expect_status(200);
    }
    let deleted = revised("messageDelete", "17", "", "2026-11-26T10:02:00Z");
    for _ in 0..2 {
        world.send(&good, &deleted).await.expect_status(200);
    }
    // Of what was never heard there is nothing to note.
    for kind in ["messageUpdate", "messageDelete"] {
        let unheard = revised(kind, "99", "hello", "2026-11-26T10:03:00Z");
        world.send(&good, &unheard).await.expect_status(200);
    }
    let mut invoke = activity("18", &service, "");
    invoke["type"] = json!("invoke");
    invoke["name"] = json!("adaptiveCard/action");
    world.send(&good, &invoke).await.expect_problem(501, "invoke_not_supported");
    assert_eq!(world.recorded().await, "invoke_not_supported");

    let list = format!("/api/communicator/conversations?integration_id={}", world.id);
    let list = world.app.get(&list).await.expect_status(200);
    assert_eq!(
        (list.data().as_array().unwrap().len(), &list.data()[0]["messages"]),
        (1, &json!(1))
    );
    let path =
        format!("/api/communicator/conversations/{}", list.data()[0]["id"].as_str().unwrap());
    let turns = world.app.get(&format!("{path}/messages")).await.expect_status(200);
    let said = turns.data()[1].clone();
    assert_eq!(
        (&said["text"], &said["changed_text"]),
        (&json!("good morning"), &json!("good evening"))
    );
    assert!(said["changed_at"].is_string() && said["withdrawn_at"].is_string(), "{said}");
    for (action, count) in [("message_changed", 1), ("message_withdrawn", 1)] {
        let rows = world.app.get(&format!("/api/audit-logs?action={action}")).await;
        assert_eq!(rows.data().as_array().unwrap().len(), count, "{action}");
    }
    world.send(&good, &activity("21", &service, "good night")).await.expect_status(200);
    assert_eq!(world.posted(2).await.len(), 2);
    world.app.verified();
}

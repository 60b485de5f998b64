//! Each check of Google Chat's tokens, broken one at a time, for both audiences.

use serde_json::{Value, json};

use super::*;
use crate::jwt::testing::{self, Shelf, Signer, key_set, now, sign_by_secret};
use crate::jwt::{Download, KeyLimits, KeySource};

const PROJECT: &str = "1234567890";
const ENDPOINT: &str = "https://prodgy.example/api/communicator/webhook/1";

async fn keys(document: impl ToString) -> KeySet {
    let shelf = Shelf::open().await;
    shelf.put("keys", document);
    let source = KeySource::Address(shelf.url("keys"));
    KeySet::new(source, KeyLimits::default(), Download::trusted().unwrap())
}

fn for_project() -> Value {
    json!({ "iss": CHAT, "aud": PROJECT, "iat": now(), "exp": now() + 3_600 })
}

fn for_endpoint() -> Value {
    json!({
        "iss": "https://accounts.google.com", "aud": ENDPOINT, "email": CHAT, "email_verified": true,
        "sub": "117", "azp": "117", "iat": now(), "exp": now() + 3_600,
    })
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

#[test]
fn an_audience_is_a_project_by_its_number_and_an_address_otherwise() {
    assert_eq!(Audience::new(PROJECT), Audience::Project(PROJECT));
    assert_eq!(Audience::new(ENDPOINT), Audience::Endpoint(ENDPOINT));
    assert_ne!(Audience::new(PROJECT).keys(), Audience::new(ENDPOINT).keys());
}

#[tokio::test]
async fn a_token_for_a_project_is_verified_by_the_certificates_of_google_chat() {
    let (signer, other) = (Signer::rsa("one"), Signer::rsa("two"));
    let keys = keys(json!({ "one": signer.certificate() })).await;
    let verify =
        async |token: String| verify(Audience::Project(PROJECT), None, &token, &keys).await;
    verify(signer.sign(&for_project())).await.unwrap();

    let header = signer.header();
    let hmac = json!({ "alg": "HS256", "kid": "one" });
    let none = testing::message(&json!({ "alg": "none", "kid": "one" }), &for_project());
    for (token, why) in [
        (
            signer.sign(&with(for_project(), "iss", json!("https://accounts.google.com"))),
            TokenError::Issuer,
        ),
        (signer.sign(&with(for_project(), "aud", json!("1234567891"))), TokenError::Audience),
        (signer.sign(&with(for_project(), "exp", json!(now() - 301))), TokenError::Expired),
        (signer.sign(&with(for_project(), "nbf", json!(now() + 310))), TokenError::NotYet),
        (other.sign(&for_project()), TokenError::KeyUnknown),
        (other.sign_under(&header, &for_project()), TokenError::Signature),
        (format!("{none}."), TokenError::Algorithm),
        (
            sign_by_secret(&hmac, &for_project(), signer.public_pem().as_bytes()),
            TokenError::Algorithm,
        ),
        (
            sign_by_secret(&hmac, &for_project(), signer.certificate().as_bytes()),
            TokenError::Algorithm,
        ),
    ] {
        assert_eq!(verify(token.clone()).await.unwrap_err(), why, "{token}");
    }
}

#[tokio::test]
async fn a_token_for_an_address_must_be_google_chats_own() {
    let signer = Signer::rsa("one");
    let keys = keys(key_set(&[&signer])).await;
    let verify = async |claims: Value| {
        verify(Audience::Endpoint(ENDPOINT), None, &signer.sign(&claims), &keys).await
    };
    verify(for_endpoint()).await.unwrap();
    verify(with(for_endpoint(), "iss", json!("accounts.google.com"))).await.unwrap();

    let claim = |name: &str| TokenError::Claim(name.to_owned());
    for (claims, why) in [
        (with(for_endpoint(), "iss", json!(CHAT)), TokenError::Issuer),
        (with(for_endpoint(), "iss", json!("http://accounts.google.com")), TokenError::Issuer),
        (with(for_endpoint(), "aud", json!(format!("{ENDPOINT}/"))), TokenError::Audience),
        (with(for_endpoint(), "exp", json!(now() - 301)), TokenError::Expired),
        (with(for_endpoint(), "email", json!("eve@example.com")), claim("email")),
        (with(for_endpoint(), "email", Value::Null), claim("email")),
        (with(for_endpoint(), "email_verified", json!(false)), claim("email_verified")),
        (with(for_endpoint(), "email_verified", Value::Null), claim("email_verified")),
        (for_project(), TokenError::Issuer),
    ] {
        assert_eq!(verify(claims.clone()).await.unwrap_err(), why, "{claims}");
    }
}

#[tokio::test]
async fn an_add_on_is_called_by_its_own_account_and_by_no_other_project_s() {
    let signer = Signer::rsa("one");
    let keys = keys(key_set(&[&signer])).await;
    let account = "service-1234567890@gcp-sa-gsuiteaddons.iam.gserviceaccount.com";
    let verify = async |audience: Audience<'_>, email: &str| {
        let token = signer.sign(&with(for_endpoint(), "email", json!(email)));
        verify(audience, Some(account), &token, &keys).await
    };
    let here = Audience::Endpoint(ENDPOINT);
    verify(here, account).await.unwrap();
    let another = "service-1234567891@gcp-sa-gsuiteaddons.iam.gserviceaccount.com";
    for email in [CHAT, another] {
        assert_eq!(
            verify(here, email).await.unwrap_err(),
            TokenError::Claim("email".to_owned()),
            "{email}"
        );
    }
    assert_eq!(
        verify(Audience::Endpoint("https://else"), account).await.unwrap_err(),
        TokenError::Audience
    );
}

fn event(more: Value) -> Value {
    let mut event = json!({
        "type": "MESSAGE", "eventTime": "2026-11-26T10:00:00Z",
        "space": { "name": "spaces/AAA", "type": "ROOM", "spaceType": "SPACE" },
        "user": { "name": "users/1", "displayName": "Ada", "type": "HUMAN" },
        "message": {
            "name": "spaces/AAA/messages/m1", "text": "@Prodgy good morning", "argumentText": " good morning",
            "sender": { "name": "users/1", "displayName": "Ada", "type": "HUMAN" },
            "thread": { "name": "spaces/AAA/threads/t1" },
        },
    });
    event.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    event
}

fn changed(pointer: &str, value: Value) -> Value {
    let mut event = event(json!({}));
    *event.pointer_mut(pointer).unwrap() = value;
    event
}

fn heard(event: &Value) -> IncomingMessage {
    match read(event.to_string().as_bytes()) {
        Ok(Incoming::Message(message)) => *message,
        other => panic!("{event}: {other:?}"),
    }
}

#[test]
fn a_message_is_heard_without_our_name() {
    for kind in ["MESSAGE", "ADDED_TO_SPACE"] {
        let heard = heard(&event(json!({ "type": kind })));
        assert_eq!(heard.delivery_id, "spaces/AAA/messages/m1");
        assert_eq!(heard.conversation, "spaces/AAA/threads/t1");
        let Said { text, sender, kind, address, communicator, .. } = heard.said;
        assert_eq!((text.as_str(), kind.as_str()), ("good morning", "mention"));
        assert_eq!(communicator, "google-chat");
        assert_eq!(sender, Sender { id: "users/1".into(), name: Some("Ada".into()) });
        let thread = Some("spaces/AAA/threads/t1".to_owned());
        assert_eq!(address, Address { channel: Some("spaces/AAA".into()), thread, service: None });
    }
}

#[test]
fn direct_messages_are_one_conversation_and_commands_are_told_apart() {
    let direct = heard(&changed("/space", json!({ "name": "spaces/DM", "type": "DM" })));
    assert_eq!((direct.said.kind.as_str(), direct.conversation.as_str()), ("direct", "spaces/DM"));
    let mut command = event(json!({}));
    command["message"]["annotations"] = json!([{ "type": "SLASH_COMMAND", "slashCommand": { "commandName": "/ask", "commandId": "1" } }]);
    let said = heard(&command).said;
    assert_eq!((said.kind.as_str(), said.command.as_deref()), ("command", Some("/ask")));
}

/// What a Workspace add-on that extends Chat is told of a message, as its event object is documented.
fn add_on(payload: &str, more: Value) -> Value {
    let message = event(json!({}));
    let mut told = json!({ "space": message["space"], "message": message["message"] });
    told.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    json!({
        "commonEventObject": { "userLocale": "en-US", "hostApp": "CHAT", "platform": "WEB",
                               "timeZone": { "id": "Europe/Berlin", "offset": 3600000 } },
        "authorizationEventObject": { "userOAuthToken": "…", "userIdToken": "…", "systemIdToken": "…" },
        "chat": {
            "user": { "name": "users/1", "displayName": "Ada", "email": "ada@example.com", "type": "HUMAN" },
            "eventTime": "2026-11-26T10:00:00.000000Z",
            payload: told,
        },
    })
}

#[test]
fn an_add_on_hears_what_an_app_of_chat_alone_hears() {
    assert_eq!(heard(&add_on("messagePayload", json!({}))), heard(&event(json!({}))));
    let direct = json!({ "space": { "name": "spaces/DM", "spaceType": "DIRECT_MESSAGE" } });
    let direct = heard(&add_on("messagePayload", direct));
    assert_eq!((direct.said.kind.as_str(), direct.conversation.as_str()), ("direct", "spaces/DM"));
    let mut nameless = add_on("messagePayload", json!({}));
    nameless["chat"]["messagePayload"]["message"].as_object_mut().unwrap().remove("sender");
    assert_eq!(heard(&nameless).said.sender.id, "users/1");
}

#[test]
fn an_add_on_s_slash_command_is_a_command_and_its_other_commands_say_nothing() {
    let command = |kind: &str| {
        let mut told = add_on(
            "appCommandPayload",
            json!({
                "appCommandMetadata": { "appCommandId": 1, "appCommandType": kind },
                "thread": { "name": "spaces/AAA/threads/t2" }, "isDialogEvent": false,
            }),
        );
        let message = &mut told["chat"]["appCommandPayload"]["message"];
        message["text"] = json!("/ask when?");
        message["argumentText"] = json!(" when?");
        message["slashCommand"] = json!({ "commandId": "1" });
        message.as_object_mut().unwrap().remove("thread");
        told
    };
    let heard = heard(&command("SLASH_COMMAND"));
    assert_eq!((heard.said.kind.as_str(), heard.said.text.as_str()), ("command", "when?"));
    assert_eq!(heard.conversation, "spaces/AAA/threads/t2");
    for kind in ["QUICK_COMMAND", "MESSAGE_ACTION"] {
        let told = command(kind).to_string();
        assert_eq!(read(told.as_bytes()), Ok(Incoming::Nothing), "{kind}");
    }
    for payload in [
        "addedToSpacePayload",
        "removedFromSpacePayload",
        "buttonClickedPayload",
        "widgetUpdatedPayload",
    ] {
        let told = add_on(payload, json!({})).to_string();
        assert_eq!(read(told.as_bytes()), Ok(Incoming::Nothing), "{payload}");
    }
    let mut empty = add_on("messagePayload", json!({}));
    empty["chat"]["messagePayload"].as_object_mut().unwrap().remove("message");
    assert!(matches!(read(empty.to_string().as_bytes()), Err(NotHeard::Malformed(_))));
}

#[test]
fn bots_and_what_starts_nothing_are_not_heard() {
    let mut added = event(json!({ "type": "ADDED_TO_SPACE" }));
    added.as_object_mut().unwrap().remove("message");
    for event in [
        changed("/message/sender/type", json!("BOT")),
        event(json!({ "type": "REMOVED_FROM_SPACE" })),
        event(json!({ "type": "CARD_CLICKED" })),
        added,
    ] {
        assert_eq!(read(event.to_string().as_bytes()), Ok(Incoming::Nothing), "{event}");
    }
}

#[test]
fn what_is_no_event_is_said_to_be_none() {
    let broken = ["/message", "/message/sender", "/space/name", "/type"];
    let broken = broken.map(|pointer| changed(pointer, Value::Null).to_string().into_bytes());
    for body in broken.iter().map(Vec::as_slice).chain([&b""[..], b"[]", b"{}", b"\xff"]) {
        assert!(matches!(read(body), Err(NotHeard::Malformed(_))), "{body:?}");
    }
}

#[test]
fn nobody_calls_a_whole_space_through_us() {
    assert!(!as_markup("<users/all> come").contains("<users/all>"));
    assert_eq!(as_markup("*bold* <https://a.example|a>"), "*bold* <https://a.example|a>");
    assert_eq!(as_markup(&"x".repeat(LONGEST + 1)).chars().count(), LONGEST + 1);
}

//! Each check of the Bot Framework, broken one at a time; and where our own token may go.

use serde_json::json;

use super::*;
use crate::jwt::testing::{self, Shelf, Signer, key_set, now, sign_by_secret};
use crate::jwt::{Download, KeyLimits, KeySource};

const APP: &str = "5d1b8c52-0000-4000-8000-1234567890ab";
const SERVICE: &str = "https://smba.trafficmanager.net/emea/";

fn bot(config: Value) -> Bot {
    Bot::new(config.as_object().unwrap())
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": APP, "serviceurl": SERVICE, "nbf": now() - 10, "exp": now() + 3_600,
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

async fn judge(
    bot: &Bot,
    token: &str,
    channel: &str,
    service: &str,
    keys: &KeySet,
) -> Result<(), TokenError> {
    let body = json!({ "type": "message", "channelId": channel, "serviceUrl": service });
    let activity = Activity::read(body.to_string().as_bytes()).unwrap();
    check(bot, &verify(bot, token, keys).await?, &activity)
}

/// Metadata and keys as the Bot Framework publishes them, the key endorsed for these channels.
async fn keys(signer: &Signer, endorsements: Value) -> KeySet {
    let shelf = Shelf::open().await;
    let mut set = key_set(&[signer]);
    set["keys"][0]["endorsements"] = endorsements;
    shelf.put("keys", set);
    let metadata = json!({ "issuer": ISSUER, "jwks_uri": shelf.url("keys").as_str() });
    shelf.put("metadata", metadata);
    let source = KeySource::Discovery { document: shelf.url("metadata"), issuer: ISSUER.into() };
    KeySet::new(source, KeyLimits::default(), Download::trusted().unwrap())
}

#[tokio::test]
async fn an_activity_of_teams_passes_every_check_and_none_that_is_broken() {
    let (signer, other) = (Signer::rsa("one"), Signer::rsa("two"));
    let keys = keys(&signer, json!(["msteams", "webchat"])).await;
    let bot = bot(json!({ "app_id": APP }));
    let verify = async |token: &str, channel: &str, service: &str| {
        judge(&bot, token, channel, service, &keys).await
    };
    let good = signer.sign(&claims());
    verify(&good, "msteams", SERVICE).await.unwrap();

    let header = signer.header();
    let hmac = json!({ "alg": "HS256", "kid": "one" });
    let none = testing::message(&json!({ "alg": "none", "kid": "one" }), &claims());
    let claim = |name: &str| TokenError::Claim(name.to_owned());
    for (token, why) in [
        (signer.sign(&with("iss", json!("https://sts.windows.net/x/"))), TokenError::Issuer),
        (signer.sign(&with("aud", json!("another bot"))), TokenError::Audience),
        (signer.sign(&with("exp", json!(now() - 301))), TokenError::Expired),
        (signer.sign(&with("nbf", json!(now() + 310))), TokenError::NotYet),
        (signer.sign(&with("serviceurl", json!("https://evil.example/"))), claim("serviceurl")),
        (signer.sign(&with("serviceurl", Value::Null)), claim("serviceurl")),
        (other.sign(&claims()), TokenError::KeyUnknown),
        (other.sign_under(&header, &claims()), TokenError::Signature),
        (format!("{none}."), TokenError::Algorithm),
        (sign_by_secret(&hmac, &claims(), signer.public_pem().as_bytes()), TokenError::Algorithm),
        ("no token".to_owned(), TokenError::Malformed),
    ] {
        assert_eq!(verify(&token, "msteams", SERVICE).await.unwrap_err(), why, "{token}");
    }
    // Not even the service that it names itself, if nobody named it.
    let evil = "https://evil.example/";
    let token = signer.sign(&with("serviceurl", json!(evil)));
    assert_eq!(verify(&token, "msteams", evil).await.unwrap_err(), claim("serviceurl"));
    // What the activity itself says.
    let elsewhere = "https://smba.trafficmanager.net/amer/";
    assert_eq!(verify(&good, "msteams", elsewhere).await.unwrap_err(), claim("serviceurl"));
    for channel in ["emulator", "", "MSTEAMS"] {
        let refused = verify(&good, channel, SERVICE).await.unwrap_err();
        assert_eq!(refused, claim("endorsements"), "{channel}");
    }
}

#[tokio::test]
async fn a_key_that_is_endorsed_for_no_channel_speaks_for_none() {
    let signer = Signer::rsa("one");
    let bot = bot(json!({ "app_id": APP }));
    for endorsements in [json!([]), json!(["webchat"])] {
        let keys = keys(&signer, endorsements).await;
        let refused = judge(&bot, &signer.sign(&claims()), "msteams", SERVICE, &keys).await;
        assert_eq!(refused.unwrap_err(), TokenError::Claim("endorsements".into()));
    }
}

#[tokio::test]
async fn metadata_of_another_issuer_leads_to_no_key() {
    let signer = Signer::rsa("one");
    let mut keys = keys(&signer, json!(["msteams"])).await;
    let shelf = Shelf::open().await;
    shelf.put(
        "metadata",
        json!({ "issuer": "https://evil.example", "jwks_uri": shelf.url("k").as_str() }),
    );
    let source = KeySource::Discovery { document: shelf.url("metadata"), issuer: ISSUER.into() };
    let bot = bot(json!({ "app_id": APP }));
    let token = signer.sign(&claims());
    judge(&bot, &token, "msteams", SERVICE, &keys).await.unwrap();
    keys = KeySet::new(source, KeyLimits::default(), Download::trusted().unwrap());
    let refused = judge(&bot, &token, "msteams", SERVICE, &keys).await.unwrap_err();
    assert_eq!(refused, TokenError::KeysUnavailable);
}

#[test]
fn our_token_goes_to_services_that_were_named_alone() {
    let teams =
        bot(json!({ "app_id": APP, "service_url": "https://smba.trafficmanager.net/teams" }));
    for service in [
        SERVICE,
        "https://smba.trafficmanager.net/teams",
        "https://SMBA.trafficmanager.net/x",
        "https://europe.botframework.com/",
        "https://a.b.botframework.com",
    ] {
        assert!(teams.trusts(service), "{service}");
    }
    for service in [
        "",
        "smba.trafficmanager.net",
        "http://smba.trafficmanager.net/emea/",
        "https://smba.trafficmanager.net:8443/",
        "https://smba.trafficmanager.net.evil.example/",
        "https://smba.trafficmanager.net@evil.example/",
        "https://evil.example/smba.trafficmanager.net",
        "https://botframework.com/",
        "https://evilbotframework.com/",
        "https://.botframework.com/",
        "https://127.0.0.1/",
    ] {
        assert!(!teams.trusts(service), "{service}");
    }
    // Another cloud, or a test: its own service, and nothing else.
    let other = bot(json!({
        "app_id": APP, "service_url": "http://127.0.0.1:8080/teams", "service_hosts": ["teams.example"],
    }));
    assert!(other.trusts("http://127.0.0.1:8080/emea/") && other.trusts("https://teams.example/"));
    assert!(!other.trusts("http://127.0.0.1:8081/") && !other.trusts(SERVICE));
}

fn activity(more: Value) -> Value {
    let mut activity = json!({
        "type": "message", "id": "17", "channelId": "msteams", "serviceUrl": SERVICE,
        "from": { "id": "29:ada", "name": "Ada" }, "recipient": { "id": "28:bot", "name": "Prodgy" },
        "conversation": { "id": "19:abc@thread.tacv2;messageid=17", "conversationType": "channel" },
        "text": "<at>Prodgy</at> good morning",
        "entities": [
            { "type": "clientInfo", "locale": "en-GB" },
            { "type": "mention", "mentioned": { "id": "28:bot" }, "text": "<at>Prodgy</at>" },
        ],
    });
    activity.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    activity
}

fn heard(activity: &Value) -> Result<Incoming, NotHeard> {
    Activity::read(activity.to_string().as_bytes())?.into_incoming()
}

fn message(activity: &Value) -> IncomingMessage {
    match heard(activity) {
        Ok(Incoming::Message(message)) => *message,
        other => panic!("{activity}: {other:?}"),
    }
}

#[test]
fn a_mention_in_a_channel_is_heard_without_our_name() {
    let heard = message(&activity(json!({})));
    assert_eq!(heard.delivery_id, "19:abc@thread.tacv2;messageid=17/17");
    assert_eq!(heard.conversation, "19:abc@thread.tacv2;messageid=17");
    let Said { text, sender, kind, address, communicator, .. } = heard.said;
    assert_eq!(
        (text.as_str(), kind.as_str(), communicator.as_str()),
        ("good morning", "mention", "teams")
    );
    assert_eq!(sender, Sender { id: "29:ada".into(), name: Some("Ada".into()) });
    let channel = Some("19:abc@thread.tacv2;messageid=17".to_owned());
    let (thread, service) = (Some("17".to_owned()), Some(SERVICE.to_owned()));
    assert_eq!(address, Address { channel, thread, service });
}

#[test]
fn what_is_written_to_us_alone_is_direct() {
    let chat = json!({ "id": "a:1", "conversationType": "personal" });
    let direct = activity(json!({ "conversation": chat, "text": "hello", "entities": [] }));
    let heard = message(&direct);
    assert_eq!((heard.said.kind.as_str(), heard.said.text.as_str()), ("direct", "hello"));
}

#[test]
fn bots_and_what_starts_nothing_are_not_heard() {
    for more in [
        json!({ "from": { "id": "28:other" } }),
        json!({ "from": { "id": "x", "role": "bot" } }),
        json!({ "from": { "id": "28:bot" } }),
        json!({ "entities": [] }),
        json!({ "type": "conversationUpdate", "membersAdded": [{ "id": "29:eve" }] }),
        json!({ "type": "installationUpdate", "action": "add" }),
        json!({ "type": "typing" }),
        json!({ "type": "messageReaction" }),
    ] {
        assert_eq!(heard(&activity(more.clone())), Ok(Incoming::Nothing), "{more}");
    }
    // It waits for an answer, so it gets one.
    let invoke = json!({ "type": "invoke", "name": "adaptiveCard/action", "value": {} });
    let unknown = Incoming::Unknown("adaptiveCard/action".to_owned());
    assert_eq!(heard(&activity(invoke)), Ok(unknown));
}

#[test]
fn what_is_no_activity_is_said_to_be_none() {
    for body in [&b""[..], b"[]", b"{}", b"\xff", br#"{"type":7}"#] {
        assert!(matches!(Activity::read(body), Err(NotHeard::Malformed(_))));
    }
    for missing in ["from", "conversation", "id"] {
        let mut activity = activity(json!({}));
        activity.as_object_mut().unwrap().remove(missing);
        assert!(matches!(heard(&activity), Err(NotHeard::Malformed(_))), "{missing}");
    }
}

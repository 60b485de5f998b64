//! What Slack sends, and what is made of it.

use std::collections::BTreeMap;

use domain::integration::kind::{Secrets, Told};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::HeaderValue;
use serde_json::{Map, json};
use sha2::Sha256;
use uuid::Uuid;

use super::*;

/// The example of Slack's documentation.
const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
const TIME: i64 = 1_531_420_618;
const COMMAND: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
const SIGNATURE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
const FORM: &str = "application/x-www-form-urlencoded";

fn integration() -> OpenIntegration {
    let secrets = BTreeMap::from([("signing_secret".to_owned(), SECRET.to_owned())]);
    OpenIntegration {
        id: Uuid::nil(),
        organization: Uuid::nil(),
        product: Some(Uuid::nil()),
        kind: IntegrationKind::Slack,
        enabled: true,
        told: Told { config: Map::new(), secrets: Secrets(secrets) },
        secrets_version: 1,
        key: "integration".to_owned(),
    }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(TIME + seconds, 0).unwrap()
}

fn headers(content_type: &str, time: &str, signature: &str) -> HeaderMap {
    let value = |text: &str| HeaderValue::from_str(text).unwrap();
    HeaderMap::from_iter([
        (CONTENT_TYPE, value(content_type)),
        ("x-slack-request-timestamp".parse().unwrap(), value(time)),
        ("x-slack-signature".parse().unwrap(), value(signature)),
    ])
}

/// What is made of a body that is signed as it should be.
fn heard(content_type: &str, body: &[u8]) -> Result<Incoming, NotHeard> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("v0:{TIME}:").as_bytes());
    mac.update(body);
    let signature = format!("v0={}", hex::encode(mac.finalize().into_bytes()));
    let headers = headers(content_type, &TIME.to_string(), &signature);
    hear(&integration(), &headers, body, at(0))
}

fn event(event: Value) -> Result<Incoming, NotHeard> {
    let callback = json!({
        "type": "event_callback", "event_id": "Ev1", "team_id": "T1", "event": event,
        "authorizations": [{ "team_id": "T1", "user_id": "UBOT", "is_bot": true }],
    });
    heard("application/json", callback.to_string().as_bytes())
}

fn message(incoming: Result<Incoming, NotHeard>) -> IncomingMessage {
    match incoming {
        Ok(Incoming::Message(message)) => *message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_documented_example_is_genuine_and_a_command() {
    let time = TIME.to_string();
    let hear =
        |headers: &HeaderMap, body: &str, now| hear(&integration(), headers, body.as_bytes(), now);
    let good = headers(FORM, &time, SIGNATURE);
    let heard = message(hear(&good, COMMAND, at(0)));
    assert_eq!(heard.delivery_id, "398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c");
    let Said { sender, kind, command, address, text, .. } = heard.said;
    assert_eq!(sender, Sender { id: "U2CERLKJA".into(), name: Some("roadrunner".into()) });
    assert_eq!((kind.as_str(), command.as_deref()), ("command", Some("/webhook-collect")));
    assert_eq!(address, Address { channel: Some("G8PSS9T3V".into()), thread: None, service: None });
    assert_eq!(text, "");

    for seconds in [-300, 300] {
        assert!(hear(&good, COMMAND, at(seconds)).is_ok());
        let over = seconds.signum();
        let why = hear(&good, COMMAND, at(seconds + over)).unwrap_err();
        assert!(matches!(why, NotHeard::NotVerified(why) if why.contains("five minutes")));
    }
    let mut twice = good.clone();
    twice.append("x-slack-signature", HeaderValue::from_static(SIGNATURE));
    let mut none = good.clone();
    none.remove("x-slack-signature");
    for bad in [
        twice,
        none,
        headers(FORM, "yesterday", SIGNATURE),
        headers(FORM, "", SIGNATURE),
        headers(FORM, &format!(" {time}"), SIGNATURE),
        headers(FORM, &time, &SIGNATURE.replace("v0=", "v1=")),
        headers(FORM, &time, &SIGNATURE.replace("b503", "b504")),
        headers(FORM, &time, "v0="),
    ] {
        let why = hear(&bad, COMMAND, at(0)).unwrap_err();
        assert!(matches!(why, NotHeard::NotVerified(_)), "{why:?}");
    }
    let why = hear(&good, &COMMAND.replace("text=", "text=x"), at(0)).unwrap_err();
    assert!(matches!(why, NotHeard::NotVerified(_)));
    let mut nameless = integration();
    nameless.told.secrets.0.clear();
    let why = super::hear(&nameless, &good, COMMAND.as_bytes(), at(0)).unwrap_err();
    assert!(matches!(why, NotHeard::NotVerified(_)), "an empty secret verifies nothing");
}

#[test]
fn a_mention_begins_a_thread_or_goes_on_with_one() {
    let mention = json!({
        "type": "app_mention", "user": "U1", "text": "<@UBOT>  what is 1 &lt; 2 &amp;&amp; &lt;@U7&gt;?",
        "channel": "C1", "ts": "17.1", "event_ts": "17.1",
    });
    let first = message(event(mention.clone()));
    assert_eq!(first.delivery_id, "Ev1");
    assert_eq!(first.said.text, "what is 1 < 2 && <@U7>?");
    assert_eq!((first.said.kind.as_str(), first.said.message_id.as_str()), ("mention", "17.1"));
    let place = Address { channel: Some("C1".into()), thread: Some("17.1".into()), service: None };
    assert_eq!(first.said.address, place);
    let mut next = mention;
    next["ts"] = json!("18.1");
    next["thread_ts"] = json!("17.1");
    let next = message(event(next));
    assert_eq!(next.conversation, first.conversation);
    assert_eq!(next.said.address, place);
}

#[test]
fn who_is_no_person_and_what_is_not_said_to_us_is_not_heard() {
    let direct = json!({
        "type": "message", "channel_type": "im", "user": "U1", "text": "hello", "channel": "D1", "ts": "1.1",
    });
    assert_eq!(message(event(direct.clone())).said.kind, "direct");
    let with = |field: &str, value: Value| {
        let mut changed = direct.clone();
        changed[field] = value;
        event(changed)
    };
    message(with("subtype", json!("file_share")));
    for (field, value) in [
        ("bot_id", json!("B1")),
        ("user", json!("UBOT")),
        ("user", json!(null)),
        ("subtype", json!("bot_message")),
        ("channel_type", json!("channel")),
        ("channel_type", json!(null)),
        ("type", json!("reaction_added")),
    ] {
        assert_eq!(with(field, value.clone()), Ok(Incoming::Nothing), "{field}: {value}");
    }
    for body in [
        json!({ "type": "app_rate_limited" }),
        json!({ "type": "event_callback" }),
        json!({ "type": "x", "event": {} }),
    ] {
        let heard = heard("application/json", body.to_string().as_bytes());
        assert!(!matches!(heard, Ok(Incoming::Message(_) | Incoming::Challenge(_))), "{body}");
    }
    assert_eq!(heard(FORM, b"payload=%7B%7D"), Ok(Incoming::Nothing));
    assert_eq!(heard(FORM, b"ssl_check=1&token=x"), Ok(Incoming::Nothing));
}

/// A change of a message as Slack documents it, in a direct message.
fn changed() -> Value {
    json!({
        "type": "message", "subtype": "message_changed", "hidden": true, "channel": "D1",
        "channel_type": "im", "ts": "1358878755.000001", "event_ts": "1358878755.000001",
        "message": {
            "type": "message", "user": "U1", "text": "Hello, world!", "ts": "1355517523.000005",
            "edited": { "user": "U1", "ts": "1358878755.000001" },
        },
        "previous_message": { "type": "message", "user": "U1", "text": "Hello", "ts": "1355517523.000005" },
    })
}

fn revision(incoming: Result<Incoming, NotHeard>) -> Revision {
    match incoming {
        Ok(Incoming::Revised(revision)) => *revision,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_is_of_the_message_that_it_names_wherever_that_stands() {
    let now = revision(event(changed()));
    assert_eq!(now.of, Revised::Message("1355517523.000005".to_owned()));
    assert_eq!(now.conversation, "D1/1355517523.000005");
    assert_eq!(now.at, "1358878755.000001");
    let said = now.said.unwrap();
    assert_eq!((said.text.as_str(), said.kind.as_str()), ("Hello, world!", "direct"));
    assert_eq!(said.sender.id, "U1");

    let mut in_thread = changed();
    in_thread["channel"] = json!("C1");
    in_thread["channel_type"] = json!("channel");
    in_thread["message"]["thread_ts"] = json!("1355517000.000001");
    in_thread["message"]["text"] = json!("<@UBOT> &lt;hello&gt;");
    let now = revision(event(in_thread));
    assert_eq!(now.conversation, "C1/1355517000.000001");
    let said = now.said.unwrap();
    assert_eq!((said.text.as_str(), said.kind.as_str()), ("<hello>", "mention"));
}

#[test]
fn what_slack_changes_itself_and_what_bots_change_is_not_heard() {
    let with = |change: fn(&mut Value)| {
        let mut changed = changed();
        change(&mut changed["message"]);
        event(changed)
    };
    let unedited = |message: &mut Value| drop(message.as_object_mut().unwrap().remove("edited"));
    assert_eq!(with(unedited), Ok(Incoming::Nothing), "a preview was added");
    assert_eq!(with(|message| message["bot_id"] = json!("B1")), Ok(Incoming::Nothing));
    assert_eq!(with(|message| message["user"] = json!("UBOT")), Ok(Incoming::Nothing));
    let mut empty = changed();
    empty.as_object_mut().unwrap().remove("message");
    assert!(matches!(event(empty), Err(NotHeard::Malformed(_))));
}

#[test]
fn a_deleted_message_is_taken_back_answered_or_not() {
    let deleted = json!({
        "type": "message", "subtype": "message_deleted", "hidden": true, "channel": "D1", "channel_type": "im",
        "ts": "1358878755.000001", "deleted_ts": "1358878749.000002",
        "previous_message": { "type": "message", "user": "U1", "text": "Hello", "ts": "1358878749.000002",
                              "thread_ts": "1358878700.000001" },
    });
    let now = revision(event(deleted.clone()));
    assert_eq!(now.of, Revised::Message("1358878749.000002".to_owned()));
    assert_eq!(now.conversation, "D1/1358878700.000001");
    assert_eq!((now.at.as_str(), now.said), ("1358878755.000001", None));
    for field in ["channel", "ts", "deleted_ts"] {
        let mut broken = deleted.clone();
        broken.as_object_mut().unwrap().remove(field);
        assert!(matches!(event(broken), Err(NotHeard::Malformed(_))), "{field}");
    }

    let mut tombstone = changed();
    tombstone["message"] = json!({
        "type": "message", "subtype": "tombstone", "user": "USLACKBOT", "hidden": true,
        "text": "This message was deleted.", "ts": "1355517523.000005", "thread_ts": "1355517523.000005",
    });
    let now = revision(event(tombstone));
    assert_eq!(now.of, Revised::Message("1355517523.000005".to_owned()));
    assert_eq!((now.conversation.as_str(), now.said), ("D1/1355517523.000005", None));
}

#[test]
fn what_is_no_event_is_malformed_and_harms_nobody() {
    let deep = "[".repeat(100_000);
    let nested = format!(r#"{{"type":"event_callback","event":{}"#, r#"{"a":"#.repeat(5_000));
    for body in
        [b"".as_slice(), b"\xff\xfe{}", deep.as_bytes(), nested.as_bytes(), b"[]", b"{}", b"7"]
    {
        let heard = heard("application/json", body);
        assert!(matches!(heard, Err(NotHeard::Malformed(_))), "{heard:?}");
    }
    for field in ["channel", "ts"] {
        let mut said =
            json!({ "type": "app_mention", "user": "U1", "text": "a", "channel": "C", "ts": "1" });
        said.as_object_mut().unwrap().remove(field);
        assert!(matches!(event(said), Err(NotHeard::Malformed(_))), "{field}");
    }
    for missing in ["trigger_id", "channel_id", "user_id"] {
        let form = ["command=%2Fa", "trigger_id=1", "channel_id=C", "user_id=U"];
        let form: Vec<_> = form.into_iter().filter(|it| !it.starts_with(missing)).collect();
        let heard = heard(FORM, form.join("&").as_bytes());
        assert!(matches!(heard, Err(NotHeard::Malformed(_))), "{missing}");
    }
}

#[test]
fn a_challenge_is_answered_with_itself() {
    let body = br#"{"token":"x","challenge":"3eZbrw1aB10","type":"url_verification"}"#;
    assert_eq!(heard("application/json", body), Ok(Incoming::Challenge("3eZbrw1aB10".to_owned())));
}

#[test]
fn nobody_is_called_through_us() {
    assert_eq!(as_markup("<!channel> a & b <@U1>"), "&lt;!channel&gt; a &amp; b &lt;@U1&gt;");
    let long = as_markup(&"ä".repeat(LONGEST + 1));
    assert_eq!(long.chars().count(), LONGEST + 1);
    assert!(long.ends_with("ä…"));
    assert_eq!(as_markup(&"ä".repeat(LONGEST)).chars().count(), LONGEST);
}

//! How deliveries are read: whose they are, and what they say.

use super::*;

fn webhook(configuration: Value) -> Webhook {
    let configuration = configuration.as_object().cloned().expect("an object");
    match Setting::parse(TriggerKind::Webhook, &configuration).expect("a setting") {
        Setting::Webhook(webhook) => *webhook,
        other => panic!("{other:?}"),
    }
}

fn read(webhook: &Webhook, sent: &[(&'static str, &str)], body: &str) -> GoodDelivery {
    let headers = sent
        .iter()
        .map(|(name, value)| (name.parse().expect("a header"), value.parse().expect("a value")));
    read_delivery(webhook, &HeaderMap::from_iter(headers), body.as_bytes()).expect("it is good")
}

#[test]
fn an_id_is_put_together_of_its_parts_and_of_no_others() {
    let azure = webhook(json!({
        "verify": "none", "delivery_id": ["/subscriptionId", "/notificationId", "X-Part"],
    }));
    let id =
        |body: Value, part: &str| read(&azure, &[("x-part", part)], &body.to_string()).content.id;
    let one = id(json!({ "subscriptionId": "a", "notificationId": 1 }), "p");
    assert_eq!(one.as_deref(), Some(r#"["a","1","p"]"#));
    assert_eq!(id(json!({ "subscriptionId": "a", "notificationId": 1 }), "p"), one);
    for other in [
        id(json!({ "subscriptionId": "a", "notificationId": 2 }), "p"),
        id(json!({ "subscriptionId": "b", "notificationId": 1 }), "p"),
        id(json!({ "subscriptionId": "a\",\"1", "notificationId": "p" }), "x"),
    ] {
        assert!(other.is_some() && other != one);
    }
    // Of a part alone nobody knows which delivery it is.
    assert_eq!(id(json!({ "subscriptionId": "a" }), "p"), None);
    assert_eq!(id(json!({ "subscriptionId": "a", "notificationId": "" }), "p"), None);
    let single = webhook(json!({ "verify": "none", "delivery_id": ["/id"] }));
    assert_eq!(read(&single, &[], r#"{"id":"a"}"#).content.id.as_deref(), Some("a"));
    let long = "a".repeat(MAX_KEPT);
    let hashed = id(json!({ "subscriptionId": long, "notificationId": 1 }), "p").expect("an id");
    assert_eq!(hashed.len(), 64);
}

#[test]
fn github_may_send_its_json_in_a_form_and_nobody_else() {
    let form = "payload=%7B%22ref%22%3A+%22refs%2Fheads%2Fmain%22%7D&other=1";
    let github = webhook(json!({ "verify": "github" }));
    let sent = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
    let read = read(&github, &sent, form);
    assert_eq!(read.body, json!({ "ref": "refs/heads/main" }));
    assert_eq!(read.content.body, r#"{"ref": "refs/heads/main"}"#);
    let none = webhook(json!({ "verify": "none" }));
    for (webhook, sent, body) in [
        (&none, sent, form),
        (&github, sent, "other=1"),
        (&github, sent, "payload=%7B"),
        (&github, [("content-type", "application/json")], form),
    ] {
        let headers = sent.iter().map(|(name, value)| {
            (name.parse().expect("a header"), value.parse().expect("a value"))
        });
        let read = read_delivery(webhook, &HeaderMap::from_iter(headers), body.as_bytes());
        assert!(matches!(read, Err(BadDelivery::Malformed(_))), "{body}");
    }
}

#[test]
fn github_sends_more_than_others() {
    let hook = |verify: &str| Hook {
        trigger: Uuid::nil(),
        organization: Uuid::nil(),
        product: Uuid::nil(),
        details: TriggerDetails {
            agent: Uuid::nil(),
            version_id: Uuid::nil(),
            key: "push".to_owned(),
            kind: TriggerKind::Webhook,
            enabled: true,
            configuration: Map::new(),
            secret: None,
        },
        webhook: webhook(json!({ "verify": verify })),
    };
    assert_eq!(hook("github").max_bytes(), 25 * 1024 * 1024);
    assert_eq!(hook("gitlab").max_bytes(), 1024 * 1024);
}

#[test]
fn a_delivery_is_known_by_the_id_that_its_provider_gives_it() {
    for (verify, sent, id) in [
        ("github", &[("x-github-delivery", "72d3")][..], Some("72d3")),
        ("github", &[("x-request-id", "of a proxy"), ("idempotency-key", "k")], None),
        ("gitlab", &[("idempotency-key", "k"), ("x-gitlab-event-uuid", "e")], Some("k")),
        ("gitlab", &[("x-gitlab-event-uuid", "e"), ("x-gitlab-webhook-uuid", "w")], Some("e")),
        ("gitlab", &[("webhook-id", "m"), ("x-gitlab-event-uuid", "e")], Some("m")),
        ("bitbucket", &[("x-request-id", "of a proxy"), ("x-request-uuid", "u")], Some("u")),
        ("bitbucket", &[("x-request-id", "r"), ("x-hook-uuid", "h")], Some("r")),
        ("standard-webhooks", &[("webhook-id", "m"), ("idempotency-key", "k")], Some("m")),
        ("basic", &[("idempotency-key", "k"), ("webhook-id", "m")], Some("k")),
        ("none", &[("webhook-id", "m"), ("x-request-id", "of a proxy")], Some("m")),
        ("none", &[("x-request-id", "of a proxy")], None),
        ("github", &[("x-github-delivery", " ")], None),
    ] {
        let hook = webhook(json!({ "verify": verify }));
        assert_eq!(read(&hook, sent, "{}").content.id.as_deref(), id, "{verify} {sent:?}");
    }
    // Where its place is named, no other counts.
    for place in ["X-Mine", "/id"] {
        let hook = webhook(json!({ "verify": "gitlab", "delivery_id": place }));
        let sent = [("idempotency-key", "k"), ("x-mine", "mine")];
        assert_eq!(read(&hook, &sent, r#"{"id":"mine"}"#).content.id.as_deref(), Some("mine"));
        assert_eq!(read(&hook, &sent[..1], "{}").content.id, None, "{place}");
    }
}

#[test]
fn no_header_that_proves_who_sends_is_kept() {
    let sent = [
        ("x-github-event", "push"),
        ("content-type", "application/json"),
        ("authorization", "Basic bWU6d29yZA=="),
        ("cookie", "session=1"),
        ("x-gitlab-token", "token"),
        ("x-hub-signature", "sha256=00"),
        ("x-hub-signature-256", "sha256=00"),
        ("webhook-signature", "v1,00"),
        ("x-api-token", "token"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-mine-id", "secret"),
    ];
    let kept = |hook: Value| {
        let headers = read(&webhook(hook), &sent, "{}").content.headers;
        headers.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(kept(json!({ "verify": "basic" })), ["content-type", "x-github-event", "x-mine-id"]);
    // Not even where it looks like an id.
    for verify in ["token", "hmac-sha256"] {
        let hook = json!({ "verify": verify, "header": "X-Mine-Id" });
        assert_eq!(kept(hook), ["content-type", "x-github-event"], "{verify}");
    }
}

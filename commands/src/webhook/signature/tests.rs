//! Every scheme by the vectors of those who made it, and broken one way at a time.

use std::time::Duration;

use super::*;

const GITHUB: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
const BITBUCKET: &str = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9";
const BODY: &[u8] = b"Hello, World!";
const PLAIN: &str = "It's a Secret to Everybody";

const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const STANDARD_ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const STANDARD_TIME: &str = "1614265330";
const STANDARD_BODY: &[u8] = br#"{"test": 2432232314}"#;
const STANDARD_SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

#[test]
fn the_vector_of_github_holds_and_nothing_like_it() {
    let how = Verify::Github;
    let good = |value: &str| verified(&how, PLAIN, &[("x-hub-signature-256", value)], BODY);
    assert_eq!(good(GITHUB), Ok(()));
    assert_eq!(good(&GITHUB.to_uppercase().replace("SHA256", "sha256")), Ok(()));
    assert_eq!(good(&GITHUB.replacen("757", "758", 1)), Err(WRONG));
    assert_eq!(good(&GITHUB[..GITHUB.len() - 2]), Err(WRONG), "half a signature is none");
    assert_eq!(good(&GITHUB[7..]), Err("the signature is not sha256= and hex"));
    assert!(good("sha256=").is_err() && good("").is_err() && good("sha1=00").is_err());
    let header = [("x-hub-signature-256", GITHUB)];
    assert_eq!(verified(&how, PLAIN, &header, b"Hello, World?"), Err(WRONG));
    assert_eq!(verified(&how, "another", &header, BODY), Err(WRONG));
    // The older header, with the weaker hash, is not looked at.
    assert!(verified(&how, PLAIN, &[("x-hub-signature", GITHUB)], BODY).is_err());
    assert!(verified(&how, PLAIN, &[], BODY).is_err());
    let twice = [("x-hub-signature-256", GITHUB), ("x-hub-signature-256", "sha256=00")];
    assert_eq!(verified(&how, PLAIN, &twice, BODY), Err("a header that it needs came twice"));
}

#[test]
fn the_vector_of_bitbucket_holds_and_nothing_like_it() {
    let body = b"Hello World!";
    let how = Verify::Bitbucket;
    assert_eq!(verified(&how, PLAIN, &[("x-hub-signature", BITBUCKET)], body), Ok(()));
    assert_eq!(verified(&how, PLAIN, &[("x-hub-signature", GITHUB)], body), Err(WRONG));
    assert!(verified(&how, PLAIN, &[("x-hub-signature-256", BITBUCKET)], body).is_err());
}

#[test]
fn the_vector_of_standard_webhooks_holds_and_nothing_like_it() {
    let good = || {
        [
            ("webhook-id", STANDARD_ID),
            ("webhook-timestamp", STANDARD_TIME),
            ("webhook-signature", STANDARD_SIGNATURE),
        ]
    };
    let at = |offset: i64, headers: &[(&str, &str)], body: &[u8]| {
        let now = DateTime::from_timestamp(1_614_265_330 + offset, 0).unwrap();
        verified_at(&Verify::StandardWebhooks, STANDARD_SECRET, headers, body, now)
    };
    for offset in [0, 300, -300] {
        assert_eq!(at(offset, &good(), STANDARD_BODY), Ok(()));
    }
    for offset in [301, -301] {
        assert_eq!(
            at(offset, &good(), STANDARD_BODY),
            Err("webhook-timestamp is more than five minutes off")
        );
    }
    assert_eq!(at(0, &good(), br#"{"test":2432232314}"#), Err(WRONG));
    for broken in 0..3 {
        let mut headers = good();
        headers[broken].1 = ["msg_other", "1614265331", "v1,AAAA"][broken];
        assert_eq!(at(0, &headers, STANDARD_BODY), Err(WRONG), "{broken}");
        let missing: Vec<_> =
            good().into_iter().enumerate().filter(|(at, _)| *at != broken).map(|it| it.1).collect();
        assert_eq!(at(0, &missing, STANDARD_BODY), Err("a header that it needs is missing"));
    }
    // One of a list is enough, of whichever version.
    for (list, fits) in [
        (format!("v1,AAAA {STANDARD_SIGNATURE}"), true),
        (format!("v1a,AAAA v2,AAAA {STANDARD_SIGNATURE} v1,BBBB"), true),
        (STANDARD_SIGNATURE.replace("v1,", "v2,"), false),
        (STANDARD_SIGNATURE.replace("v1,", "v1a,"), false),
        (STANDARD_SIGNATURE.replace("v1,", ""), false),
        ("v1,".to_owned(), false),
    ] {
        let mut headers = good();
        headers[2].1 = &list;
        assert_eq!(at(0, &headers, STANDARD_BODY).is_ok(), fits, "{list}");
    }
    let mut headers = good();
    headers[1].1 = "yesterday";
    assert!(at(0, &headers, STANDARD_BODY).is_err());

    // The prefix of the secret may be left out, as the libraries do.
    let now = DateTime::from_timestamp(1_614_265_330, 0).unwrap();
    let bare = &STANDARD_SECRET[SYMMETRIC.len()..];
    let how = Verify::StandardWebhooks;
    assert_eq!(verified_at(&how, bare, &good(), STANDARD_BODY, now), Ok(()));
}

#[test]
fn standard_webhooks_may_be_signed_by_a_key_of_which_only_the_public_half_is_known() {
    use ed25519_dalek::{Signer, SigningKey};
    let key = SigningKey::from_bytes(&[7; 32]);
    let signature = key.sign(&[b"id.1614265330.", STANDARD_BODY].concat()).to_bytes();
    let list = format!("v1a,{}", STANDARD.encode(signature));
    let secret = format!("{PUBLIC}{}", STANDARD.encode(key.verifying_key().as_bytes()));
    let headers =
        [("webhook-id", "id"), ("webhook-timestamp", STANDARD_TIME), ("webhook-signature", &list)];
    let now = DateTime::from_timestamp(1_614_265_330, 0).unwrap();
    let how = Verify::StandardWebhooks;
    assert_eq!(verified_at(&how, &secret, &headers, STANDARD_BODY, now), Ok(()));
    assert_eq!(verified_at(&how, &secret, &headers, b"{}", now), Err(WRONG));
    // The public half is no secret: what is signed with it as one is refused.
    let mut mac = Hmac::<Sha256>::new_from_slice(key.verifying_key().as_bytes()).unwrap();
    mac.update(&[b"id.1614265330.", STANDARD_BODY].concat());
    let forged = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let headers = [
        ("webhook-id", "id"),
        ("webhook-timestamp", STANDARD_TIME),
        ("webhook-signature", &forged),
    ];
    assert_eq!(verified_at(&how, &secret, &headers, STANDARD_BODY, now), Err(WRONG));
}

#[test]
fn gitlab_goes_by_its_token_unless_it_has_one_that_signs() {
    let how = Verify::Gitlab;
    assert_eq!(verified(&how, "token", &[("x-gitlab-token", "token")], BODY), Ok(()));
    for wrong in ["token ", "Token", "toke", ""] {
        assert!(verified(&how, "token", &[("x-gitlab-token", wrong)], BODY).is_err(), "{wrong}");
    }
    let now = DateTime::from_timestamp(1_614_265_330, 0).unwrap();
    let signed = [
        ("webhook-id", STANDARD_ID),
        ("webhook-timestamp", STANDARD_TIME),
        ("webhook-signature", STANDARD_SIGNATURE),
    ];
    assert_eq!(verified_at(&how, STANDARD_SECRET, &signed, STANDARD_BODY, now), Ok(()));
    let sent = [("x-gitlab-token", STANDARD_SECRET)];
    assert!(verified_at(&how, STANDARD_SECRET, &sent, STANDARD_BODY, now).is_err());
}

#[test]
fn the_generic_ways_hold_and_nothing_like_them() {
    let how = hmac(HmacHash::Sha256, None, None);
    let bytes = hex::decode(&GITHUB[7..]).unwrap();
    for value in [
        GITHUB.to_owned(),
        GITHUB[7..].to_owned(),
        STANDARD.encode(&bytes),
        URL_SAFE_NO_PAD.encode(&bytes),
        format!("sha256={}", STANDARD.encode(&bytes)),
    ] {
        assert_eq!(verified(&how, PLAIN, &[("x-signature", &value)], BODY), Ok(()), "{value}");
        assert_eq!(verified(&how, "b", &[("x-signature", &value)], BODY), Err(WRONG), "{value}");
    }
    for value in ["", "sha256=", "sha1=aa", "!", &GITHUB[7..20]] {
        assert!(verified(&how, PLAIN, &[("x-signature", value)], BODY).is_err(), "{value}");
    }

    let basic =
        |value: &str| verified(&Verify::Basic, "me:pass:word", &[("authorization", value)], BODY);
    let encoded = STANDARD.encode("me:pass:word");
    assert_eq!(basic(&format!("Basic {encoded}")), Ok(()));
    assert_eq!(basic(&format!("basic {encoded}")), Ok(()));
    for wrong in [
        encoded.clone(),
        format!("Bearer {encoded}"),
        "Basic bWU6".to_owned(),
        "Basic !".to_owned(),
    ] {
        assert!(basic(&wrong).is_err(), "{wrong}");
    }

    let token = |header: &str, value: &str| {
        let how = Verify::Token { header: header.to_owned() };
        verified(&how, "token", &[(header, value)], BODY)
    };
    assert_eq!(token("x-token", "token"), Ok(()));
    assert_eq!(token("authorization", "Bearer token"), Ok(()));
    assert!(token("x-token", "Bearer token").is_err() && token("x-token", "other").is_err());
}

fn hmac(hash: HmacHash, encoding: Option<HmacEncoding>, prefix: Option<&str>) -> Verify {
    let (header, prefix) = ("x-signature".to_owned(), prefix.map(str::to_owned));
    Verify::Hmac { hash, header, encoding, prefix }
}

#[test]
fn an_hmac_is_of_the_hash_the_encoding_and_the_prefix_that_it_needs() {
    use HmacEncoding::{Base64, Base64Url, Hex};
    // As OpenSSL computes them, of the same secret and body.
    let sha1 = "01dc10d0c83e72ed246219cdd91669667fe2ca59";
    let sha512 = "11ed355a617e98134e842012a7944ccf59c10256cb182357bd7e3a42013ff07c376f8c14cf5cc1923da20b51d64256b2fb8ebbf100aa67a61326f61fea8111bc";
    for (hash, text, customary) in
        [(HmacHash::Sha1, sha1, "sha1="), (HmacHash::Sha512, sha512, "sha512=")]
    {
        let bytes = hex::decode(text).unwrap();
        let fits = |how: Verify, value: &str| {
            verified(&how, PLAIN, &[("x-signature", value)], BODY).is_ok()
        };
        let (base64, base64url) = (STANDARD.encode(&bytes), URL_SAFE.encode(&bytes));
        for value in [text, &base64, &format!("{customary}{text}")] {
            assert!(fits(hmac(hash, None, None), value), "{value}");
        }
        assert!(fits(hmac(hash, Some(Hex), None), &text.to_uppercase()));
        assert!(fits(hmac(hash, Some(Base64), Some("v1 ")), &format!("v1 {base64}")));
        assert!(fits(hmac(hash, Some(Base64Url), Some("")), &base64url));
        assert!(!fits(hmac(hash, Some(Base64), None), text));
        assert!(!fits(hmac(hash, Some(Hex), None), &base64));
        assert!(!fits(hmac(hash, None, Some("v1=")), text), "the prefix is missing");
        assert!(!fits(hmac(hash, None, Some("")), &format!("{customary}{text}")));
        assert!(!fits(hmac(HmacHash::Sha256, None, None), text), "it is another hash");
    }
}

#[test]
fn while_a_secret_is_exchanged_either_is_good() {
    let secrets = ["new", PLAIN].map(|secret| Zeroizing::new(secret.as_bytes().to_vec()));
    let headers = headers(&[("x-hub-signature-256", GITHUB)]);
    let now = Utc::now() + Duration::from_secs(1);
    assert_eq!(verify(&Verify::Github, &secrets, &headers, BODY, now), Ok(()));
    assert_eq!(verify(&Verify::Github, &secrets[..1], &headers, BODY, now), Err(WRONG));
    assert_eq!(verify(&Verify::Github, &[], &headers, BODY, now), Err(WRONG));
}

#[test]
fn a_secret_that_can_verify_nothing_is_refused_when_it_is_set() {
    let code = |how: &Verify, secret: &str| check_secret(how, secret).map_err(|fault| fault.code);
    let header = "x-a".to_owned();
    assert_eq!(code(&Verify::Github, "anything"), Ok(()));
    assert_eq!(code(&Verify::Github, ""), Err("secret_invalid"));
    assert_eq!(code(&Verify::Token { header }, &"a".repeat(1_025)), Err("secret_invalid"));
    assert_eq!(code(&Verify::None, "a"), Err("secret_unused"));
    assert_eq!(code(&Verify::StandardWebhooks, STANDARD_SECRET), Ok(()));
    for wrong in ["whsec_!", "whsec_", "whpk_AAAA", "no base64"] {
        assert_eq!(code(&Verify::StandardWebhooks, wrong), Err("secret_invalid"), "{wrong}");
    }
    assert_eq!(code(&Verify::Gitlab, "whsec_!"), Err("secret_invalid"));
    assert_eq!(code(&Verify::Gitlab, "plain"), Ok(()));
    assert_eq!(code(&Verify::Basic, "nobody"), Err("secret_invalid"));
    // What everybody may know proves nothing.
    let public = format!("whpk_{}", STANDARD.encode([7; 32]));
    let token = Verify::Token { header: "x-a".to_owned() };
    for how in [Verify::Github, Verify::Gitlab, token, hmac(HmacHash::Sha256, None, None)] {
        assert_eq!(code(&how, &public), Err("secret_invalid"), "{how:?}");
    }
}

fn verified(how: &Verify, secret: &str, sent: &[(&str, &str)], body: &[u8]) -> Result<(), Why> {
    verified_at(how, secret, sent, body, Utc::now())
}

fn verified_at(
    how: &Verify,
    secret: &str,
    sent: &[(&str, &str)],
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<(), Why> {
    let secret = Zeroizing::new(secret.as_bytes().to_vec());
    verify(how, &[secret], &headers(sent), body, now)
}

fn headers(sent: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in sent {
        let name: reqwest::header::HeaderName = name.parse().unwrap();
        headers.append(name, value.parse().unwrap());
    }
    headers
}

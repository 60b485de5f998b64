//! Each check, broken one at a time.

use serde_json::json;

use super::testing::{Shelf, Signer, key_set, message, now, sign_by_secret};
use super::*;

const ISSUER: &str = "https://issuer.example";

struct Case {
    signer: Signer,
    shelf: Shelf,
    keys: KeySet,
    expected: Expected,
}

impl Case {
    async fn new(signer: Signer) -> Case {
        let shelf = Shelf::open().await;
        shelf.put("keys", key_set(&[&signer]));
        let source = KeySource::Address(shelf.url("keys"));
        let keys = KeySet::new(source, KeyLimits::default(), Download::trusted().unwrap());
        let expected = Expected {
            issuers: vec![ISSUER.into()],
            audiences: vec!["prodgy".into()],
            algorithms: ASYMMETRIC,
        };
        Case { signer, shelf, keys, expected }
    }

    async fn verify(&self, token: &str) -> Result<Verified, TokenError> {
        verify(token, &self.expected, &self.keys).await
    }

    async fn refusal(&self, claims: Value) -> TokenError {
        self.verify(&self.signer.sign(&claims)).await.unwrap_err()
    }
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": "prodgy", "sub": "ada", "exp": now() + 60, "nbf": now() - 60 })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[tokio::test]
async fn a_token_that_is_right_is_good_by_rsa_and_by_elliptic_curve() {
    for signer in [Signer::rsa("one"), Signer::ec("one")] {
        let case = Case::new(signer).await;
        let verified = case.verify(&case.signer.sign(&claims())).await.unwrap();
        assert_eq!(verified.text("sub"), Ok("ada"));
        assert_eq!(verified.key.id.as_deref(), Some("one"));
        let listed = with("aud", json!(["other", "prodgy"]));
        case.verify(&case.signer.sign(&listed)).await.unwrap();
    }
}

#[tokio::test]
async fn each_claim_that_is_wrong_is_refused_under_its_own_name() {
    let case = Case::new(Signer::ec("one")).await;
    for (claims, why) in [
        (with("iss", json!("https://other.example")), TokenError::Issuer),
        (with("iss", json!(format!("{ISSUER}/"))), TokenError::Issuer),
        (with("iss", json!([ISSUER])), TokenError::Issuer),
        (with("aud", json!("other")), TokenError::Audience),
        (with("aud", json!([])), TokenError::Audience),
        (with("aud", json!(7)), TokenError::Claim("aud".into())),
        (with("exp", json!(now() - SKEW - 5)), TokenError::Expired),
        (with("exp", json!("tomorrow")), TokenError::Claim("exp".into())),
        (with("exp", json!(-1)), TokenError::Claim("exp".into())),
        (with("nbf", json!(now() + SKEW + 5)), TokenError::NotYet),
        (with("nbf", json!("soon")), TokenError::Claim("nbf".into())),
        (without("iss"), TokenError::Claim("iss".into())),
        (without("aud"), TokenError::Claim("aud".into())),
        (without("exp"), TokenError::Claim("exp".into())),
    ] {
        assert_eq!(case.refusal(claims.clone()).await, why, "{claims}");
    }
}

#[tokio::test]
async fn clocks_may_differ_by_five_minutes() {
    let case = Case::new(Signer::ec("one")).await;
    for claims in [with("exp", json!(now() - SKEW + 5)), with("nbf", json!(now() + SKEW - 5))] {
        case.verify(&case.signer.sign(&claims)).await.unwrap();
    }
}

#[tokio::test]
async fn a_token_that_nobody_signed_is_refused() {
    let case = Case::new(Signer::rsa("one")).await;
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let unsigned = message(&json!({ "alg": alg, "kid": "one" }), &claims());
        for signature in ["", "AAAA"] {
            let refused = case.verify(&format!("{unsigned}.{signature}")).await.unwrap_err();
            assert_eq!(refused, TokenError::Algorithm, "{alg}");
        }
    }
    let good = case.signer.sign(&claims());
    let (signed, _) = good.rsplit_once('.').unwrap();
    assert_eq!(case.verify(&format!("{signed}.")).await.unwrap_err(), TokenError::Signature);
}

#[tokio::test]
async fn the_public_key_is_no_secret_to_sign_with() {
    let case = Case::new(Signer::rsa("one")).await;
    let header = json!({ "alg": "HS256", "kid": "one", "typ": "JWT" });
    let jwk = case.signer.jwk();
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    let pem = case.signer.public_pem();
    for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), &modulus, jwk.to_string().as_bytes()]
    {
        let forged = sign_by_secret(&header, &claims(), secret);
        assert_eq!(case.verify(&forged).await.unwrap_err(), TokenError::Algorithm);
    }
    // Not even where an issuer publishes a shared secret.
    let secret = json!({ "kty": "oct", "kid": "shared", "alg": "HS256", "k": "c2VjcmV0" });
    case.shelf.put("keys", json!({ "keys": [secret, case.signer.jwk()] }));
    let header = json!({ "alg": "HS256", "kid": "shared" });
    let forged = sign_by_secret(&header, &claims(), b"secret");
    assert_eq!(case.verify(&forged).await.unwrap_err(), TokenError::Algorithm);
    let as_rsa = json!({ "alg": "RS256", "kid": "shared" });
    let forged = sign_by_secret(&as_rsa, &claims(), b"secret");
    assert_eq!(case.verify(&forged).await.unwrap_err(), TokenError::KeyUnknown);
}

#[tokio::test]
async fn a_key_that_the_issuer_does_not_have_signs_nothing() {
    let case = Case::new(Signer::ec("one")).await;
    let other = Signer::ec("other");
    let token = other.sign(&claims());
    assert_eq!(case.verify(&token).await.unwrap_err(), TokenError::KeyUnknown);
    // Under the name of a key that is there.
    let token = other.sign_under(&case.signer.header(), &claims());
    assert_eq!(case.verify(&token).await.unwrap_err(), TokenError::Signature);
    // The header's own key is not looked at.
    let mut header = case.signer.header();
    header["jwk"] = other.jwk();
    let token = other.sign_under(&header, &claims());
    assert_eq!(case.verify(&token).await.unwrap_err(), TokenError::Signature);
}

#[tokio::test]
async fn a_signature_is_good_for_what_was_signed_alone() {
    let case = Case::new(Signer::ec("one")).await;
    let token = case.signer.sign(&claims());
    let (_, signature) = token.rsplit_once('.').unwrap();
    let other = message(&case.signer.header(), &with("sub", json!("eve")));
    let refused = case.verify(&format!("{other}.{signature}")).await.unwrap_err();
    assert_eq!(refused, TokenError::Signature);
}

#[tokio::test]
async fn an_algorithm_that_was_not_asked_for_is_refused() {
    let mut case = Case::new(Signer::ec("one")).await;
    case.expected.algorithms = &[Algorithm::RS256];
    assert_eq!(case.refusal(claims()).await, TokenError::Algorithm);
    assert_eq!(case.shelf.asked(), 0, "nobody's keys were read for it");
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let case = Case::new(Signer::ec("one")).await;
    let good = case.signer.sign(&claims());
    let critical = json!({ "alg": "ES256", "kid": "one", "crit": ["b64"], "b64": false });
    for text in [
        "",
        ".",
        "..",
        "a.b.c",
        "{}.{}.{}",
        &format!("{good}.x"),
        &good[1..],
        &format!("{}.{good}", "x".repeat(LONGEST)),
        &case.signer.sign_under(&critical, &claims()),
    ] {
        assert_eq!(case.verify(text).await.unwrap_err(), TokenError::Malformed, "{text}");
    }
    let no_object = case.signer.sign(&json!("text"));
    assert_eq!(case.verify(&no_object).await.unwrap_err(), TokenError::Malformed);
}

#[test]
fn the_issuer_that_a_token_claims_is_read_without_belief() {
    let token = format!("{}.", message(&json!({ "alg": "none" }), &claims()));
    assert_eq!(claimed_issuer(&token).as_deref(), Some(ISSUER));
    assert_eq!(claimed_issuer("prodgy"), None);
}

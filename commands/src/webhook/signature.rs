//! Whether a delivery is genuine.
//!
//! The rule of this file: it is judged on the raw bytes, in constant time, and by one header of each
//! name: a second one is refused and never looked at.

use base64::Engine;
use base64::engine::general_purpose::{
    GeneralPurpose, STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD,
};
use chrono::{DateTime, TimeDelta, Utc};
use domain::refusal::Fault;
use domain::trigger::webhook::{HmacEncoding, HmacHash, Verify};
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::HeaderMap;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// How far the clock of a sender may be off, either way.
const WINDOW: TimeDelta = TimeDelta::minutes(5);

/// The longest secret.
const MAX_SECRET: usize = 1_024;

/// What a symmetric secret, and a public key, of Standard Webhooks begin with.
const SYMMETRIC: &str = "whsec_";
const PUBLIC: &str = "whpk_";

/// Why a delivery is not genuine, as its sender may know it.
type Why = &'static str;

const WRONG: Why = "the signature does not fit the body and the secret";

/// Whether one of these secrets says that a delivery is genuine.
pub(super) fn verify(
    how: &Verify,
    secrets: &[Zeroizing<Vec<u8>>],
    headers: &HeaderMap,
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<(), Why> {
    let mut why = WRONG;
    for secret in secrets {
        match verify_by(how, secret, headers, body, now) {
            Ok(()) => return Ok(()),
            Err(reason) => why = reason,
        }
    }
    Err(why)
}

fn verify_by(
    how: &Verify,
    secret: &[u8],
    headers: &HeaderMap,
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<(), Why> {
    match how {
        Verify::None => Ok(()),
        Verify::Github => hex_with_prefix(secret, one(headers, "x-hub-signature-256")?, body),
        Verify::Bitbucket => hex_with_prefix(secret, one(headers, "x-hub-signature")?, body),
        // A signing token is told apart by its form: whoever has one accepts nothing less.
        Verify::Gitlab if secret.starts_with(SYMMETRIC.as_bytes()) => {
            standard(secret, headers, body, now)
        }
        Verify::Gitlab => equal(one(headers, "x-gitlab-token")?.as_bytes(), secret),
        Verify::StandardWebhooks => standard(secret, headers, body, now),
        Verify::Hmac { hash, header, encoding, prefix } => {
            let value = one(headers, header)?;
            let value = match prefix {
                Some(prefix) => value
                    .strip_prefix(prefix.as_str())
                    .ok_or("the signature does not begin with the prefix that it needs")?,
                None => value.strip_prefix(hash.customary_prefix()).unwrap_or(value),
            };
            let signature = decoded(*hash, *encoding, value)
                .ok_or("the signature is not written in the encoding that it needs")?;
            match hash {
                HmacHash::Sha1 => mac_fits::<Hmac<Sha1>>(secret, &[body], &signature),
                HmacHash::Sha256 => mac_fits::<Hmac<Sha256>>(secret, &[body], &signature),
                HmacHash::Sha512 => mac_fits::<Hmac<Sha512>>(secret, &[body], &signature),
            }
        }
        Verify::Basic => {
            let sent = behind_scheme(one(headers, "authorization")?, "Basic")
                .and_then(|sent| STANDARD.decode(sent).ok())
                .ok_or("send user name and password as Authorization: Basic")?;
            equal(&Zeroizing::new(sent), secret)
        }
        Verify::Token { header } => {
            let value = one(headers, header)?;
            let token = match header.as_str() {
                "authorization" => behind_scheme(value, "Bearer").unwrap_or(value),
                _ => value,
            };
            equal(token.as_bytes(), secret)
        }
    }
}

/// The value of a header that is there once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Why> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| "a header that is looked at is no text"),
        (None, _) => Err("a header that it needs is missing"),
        (Some(_), Some(_)) => Err("a header that it needs came twice"),
    }
}

fn behind_scheme<'a>(value: &'a str, scheme: &str) -> Option<&'a str> {
    let (sent, rest) = value.split_once(' ')?;
    sent.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

fn hex_with_prefix(secret: &[u8], value: &str, body: &[u8]) -> Result<(), Why> {
    let signature = value.strip_prefix("sha256=").and_then(|hex| hex::decode(hex).ok());
    hmac_fits(secret, &[body], &signature.ok_or("the signature is not sha256= and hex")?)
}

/// The bytes of an HMAC; without an encoding it is hex where it is as long as that.
fn decoded(hash: HmacHash, encoding: Option<HmacEncoding>, text: &str) -> Option<Vec<u8>> {
    let by = |engines: [&GeneralPurpose; 2]| {
        engines.into_iter().find_map(|engine| engine.decode(text).ok())
    };
    match encoding {
        Some(HmacEncoding::Hex) => hex::decode(text).ok(),
        Some(HmacEncoding::Base64) => by([&STANDARD, &STANDARD_NO_PAD]),
        Some(HmacEncoding::Base64Url) => by([&URL_SAFE, &URL_SAFE_NO_PAD]),
        None if text.len() == hash.hex_length() => hex::decode(text).ok(),
        None => from_base64(text),
    }
}

fn hmac_fits(secret: &[u8], parts: &[&[u8]], signature: &[u8]) -> Result<(), Why> {
    mac_fits::<Hmac<Sha256>>(secret, parts, signature)
}

fn mac_fits<M: Mac + KeyInit>(secret: &[u8], parts: &[&[u8]], signature: &[u8]) -> Result<(), Why> {
    let mut mac = <M as KeyInit>::new_from_slice(secret).map_err(|_| WRONG)?;
    parts.iter().for_each(|part| mac.update(part));
    mac.verify_slice(signature).map_err(|_| WRONG)
}

/// Whether two texts are the same. They are compared by their hashes, so that neither content nor
/// length shows in the time it takes.
fn equal(sent: &[u8], secret: &[u8]) -> Result<(), Why> {
    let same = Sha256::digest(sent).ct_eq(&Sha256::digest(secret));
    if bool::from(same) { Ok(()) } else { Err("the credential is not the one of this trigger") }
}

/// As standardwebhooks.com says: one signature of a list has to fit.
fn standard(
    secret: &[u8],
    headers: &HeaderMap,
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<(), Why> {
    let (id, time) = (one(headers, "webhook-id")?, one(headers, "webhook-timestamp")?);
    let seconds = time.parse::<i64>().ok().and_then(|at| DateTime::from_timestamp(at, 0));
    let sent_at = seconds.ok_or("webhook-timestamp is not in seconds")?;
    if (now - sent_at).abs() > WINDOW {
        return Err("webhook-timestamp is more than five minutes off");
    }
    let key =
        StandardKey::parse(secret).ok_or("the secret of the trigger is not of this scheme")?;
    let signatures = one(headers, "webhook-signature")?.split(' ');
    let fits = |signature: &str| match (&key, signature.split_once(',')) {
        (StandardKey::Symmetric(key), Some(("v1", text))) => {
            let parts = [id.as_bytes(), b".", time.as_bytes(), b".", body];
            from_base64(text).is_some_and(|it| hmac_fits(key, &parts, &it).is_ok())
        }
        (StandardKey::Public(key), Some(("v1a", text))) => {
            let signed = [id.as_bytes(), b".", time.as_bytes(), b".", body].concat();
            let signature = from_base64(text).and_then(|it| Signature::from_slice(&it).ok());
            signature.is_some_and(|it| key.verify(&signed, &it).is_ok())
        }
        _ => false,
    };
    if signatures.into_iter().any(fits) { Ok(()) } else { Err(WRONG) }
}

/// As Slack signs: version, timestamp and body.
pub(crate) fn verify_slack(
    secret: &[u8],
    headers: &HeaderMap,
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<(), Why> {
    let time = one(headers, "x-slack-request-timestamp")?;
    let seconds = time.parse::<i64>().ok().and_then(|at| DateTime::from_timestamp(at, 0));
    let sent_at = seconds.ok_or("X-Slack-Request-Timestamp is not in seconds")?;
    if (now - sent_at).abs() > WINDOW {
        return Err("X-Slack-Request-Timestamp is more than five minutes off");
    }
    let signature = one(headers, "x-slack-signature")?.strip_prefix("v0=");
    let signature = signature.and_then(|hex| hex::decode(hex).ok());
    let parts = [b"v0:", time.as_bytes(), b":", body];
    hmac_fits(secret, &parts, &signature.ok_or("X-Slack-Signature is not v0= and hex")?)
}

enum StandardKey {
    Symmetric(Zeroizing<Vec<u8>>),
    Public(VerifyingKey),
}

impl StandardKey {
    fn parse(secret: &[u8]) -> Option<StandardKey> {
        let text = std::str::from_utf8(secret).ok()?;
        if let Some(key) = text.strip_prefix(PUBLIC) {
            let bytes: [u8; 32] = from_base64(key)?.try_into().ok()?;
            return VerifyingKey::from_bytes(&bytes).ok().map(StandardKey::Public);
        }
        let key = Zeroizing::new(from_base64(text.strip_prefix(SYMMETRIC).unwrap_or(text))?);
        (!key.is_empty()).then_some(StandardKey::Symmetric(key))
    }
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let engines = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD];
    engines.into_iter().find_map(|engine| engine.decode(text).ok())
}

/// What is wrong with a secret, as it is set.
pub(crate) fn check_secret(how: &Verify, secret: &str) -> Result<(), Fault> {
    let fault = |code, message: &str| Err(Fault::new("/secret", code, message));
    if !how.needs_secret() {
        return fault("secret_unused", "`verify: none` verifies nothing: leave `secret` out");
    }
    if secret.is_empty() || secret.len() > MAX_SECRET {
        return fault("secret_invalid", "a secret has 1 to 1024 bytes");
    }
    let is_standard = *how == Verify::StandardWebhooks
        || (*how == Verify::Gitlab && secret.starts_with(SYMMETRIC));
    if is_standard && StandardKey::parse(secret.as_bytes()).is_none() {
        let message =
            "a secret of Standard Webhooks is base64, as whsec_… (or whpk_… for a public key)";
        return fault("secret_invalid", message);
    }
    if *how != Verify::StandardWebhooks && secret.starts_with(PUBLIC) {
        let message = "this is a public key, which everybody may know: only `verify: standard-webhooks` verifies by one";
        return fault("secret_invalid", message);
    }
    if *how == Verify::Basic && !secret.contains(':') {
        return fault("secret_invalid", "write user name and password as name:password");
    }
    Ok(())
}

#[cfg(test)]
mod tests;

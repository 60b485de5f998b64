//! Tokens that somebody else signed: JSON Web Tokens (RFC 7519), and whether they are good.
//!
//! The rule of this file: one verifier for every outside issuer, and nothing is good that was not asked
//! for by name: an algorithm, an issuer, an audience, a key. The signature is looked at before what is
//! signed.

mod keys;
#[cfg(test)]
pub(crate) mod testing;

use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
pub use jsonwebtoken::Algorithm;
use jsonwebtoken::Validation;
use jsonwebtoken::errors::ErrorKind;
use serde::Deserialize;
use serde_json::{Map, Value};

pub use keys::{Download, KeyLimits, KeySet, KeySource, PublicKey};

/// How many seconds the clock of an issuer may be off.
pub const SKEW: u64 = 300;

/// The longest token that is looked at.
const LONGEST: usize = 16 * 1_024;

/// The longest name of a key.
const LONGEST_KEY_ID: usize = 512;

/// Every algorithm with a public key that there is. None of them is one with a shared secret: with such a
/// one, whoever knows the public key could sign.
pub const ASYMMETRIC: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// What a token must be to be good.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Who may have issued it.
    pub issuers: Vec<String>,
    /// Whom it may be for: one of these.
    pub audiences: Vec<String>,
    /// How it may be signed.
    pub algorithms: &'static [Algorithm],
}

/// A token that is good: what it says, and the key that says so.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Its claims.
    pub claims: Map<String, Value>,
    /// What it was signed with.
    pub key: Arc<PublicKey>,
}

impl Verified {
    /// A claim that is a text.
    ///
    /// # Errors
    /// It is missing, empty, or no text.
    pub fn text(&self, name: &str) -> Result<&str, TokenError> {
        let text = self.claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.ok_or_else(|| TokenError::Claim(name.to_owned()))
    }

    /// Until when it is good, in seconds since 1970, the skew not counted.
    pub fn expires_at(&self) -> i64 {
        let seconds = self.claims.get("exp").and_then(Value::as_f64).unwrap_or_default();
        seconds as i64
    }
}

/// Why a token is not good, for the audit log. Who sent it only hears that it is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no JSON Web Token with a signature.
    #[error("it is no signed JSON Web Token")]
    Malformed,
    /// It is signed in a way that was not asked for, or not at all.
    #[error("it is signed by an algorithm that is not accepted")]
    Algorithm,
    /// The issuer has no such key.
    #[error("it names a key that its issuer does not have")]
    KeyUnknown,
    /// It cannot be known now which keys the issuer has.
    #[error("the keys of its issuer cannot be read now")]
    KeysUnavailable,
    /// The key did not sign it.
    #[error("its signature does not fit")]
    Signature,
    /// Another one issued it.
    #[error("it is from another issuer")]
    Issuer,
    /// It is for somebody else.
    #[error("it is for another audience")]
    Audience,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not good yet")]
    NotYet,
    /// A claim is missing, or is not as it must be.
    #[error("its claim `{0}` is missing, or not as it must be")]
    Claim(String),
}

impl TokenError {
    /// A stable name.
    pub fn code(&self) -> &'static str {
        match self {
            TokenError::Malformed => "jwt_malformed",
            TokenError::Algorithm => "jwt_algorithm_refused",
            TokenError::KeyUnknown => "jwt_key_unknown",
            TokenError::KeysUnavailable => "jwt_keys_unavailable",
            TokenError::Signature => "jwt_signature_wrong",
            TokenError::Issuer => "jwt_issuer_wrong",
            TokenError::Audience => "jwt_audience_wrong",
            TokenError::Expired => "jwt_expired",
            TokenError::NotYet => "jwt_not_yet_good",
            TokenError::Claim(_) => "jwt_claim_wrong",
        }
    }
}

/// What a token says of itself before anything of it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// How it says that it is signed.
    pub algorithm: Algorithm,
    /// The key that it names.
    pub key_id: Option<String>,
    /// What kind of token it is, in lower case.
    pub kind: Option<String>,
}

impl Header {
    /// Reads the header of a token.
    ///
    /// # Errors
    /// It is no token, or names an algorithm that there is not: `none` above all.
    pub fn read(token: &str) -> Result<Header, TokenError> {
        #[derive(Deserialize)]
        struct Raw {
            alg: String,
            kid: Option<String>,
            typ: Option<String>,
            crit: Option<Value>,
        }

        let raw: Raw = part(token, 0)?;
        // What must be understood, and is not (RFC 7515, section 4.1.11).
        if raw.crit.is_some() || raw.kid.as_ref().is_some_and(|id| id.len() > LONGEST_KEY_ID) {
            return Err(TokenError::Malformed);
        }
        let algorithm = Algorithm::from_str(&raw.alg).map_err(|_| TokenError::Algorithm)?;
        let kind = raw.typ.map(|kind| kind.to_ascii_lowercase());
        Ok(Header { algorithm, key_id: raw.kid, kind })
    }
}

/// The issuer that a token names, which nobody has looked at yet: to find who can judge the token.
pub fn claimed_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Raw {
        iss: String,
    }

    part(token, 1).ok().map(|Raw { iss }| iss)
}

fn part<T: serde::de::DeserializeOwned>(token: &str, place: usize) -> Result<T, TokenError> {
    if token.len() > LONGEST || token.split('.').count() != 3 {
        return Err(TokenError::Malformed);
    }
    let text = token.split('.').nth(place).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

/// Verifies a token with the keys of its issuer.
///
/// # Errors
/// Why it is not good.
pub async fn verify(
    token: &str,
    expected: &Expected,
    keys: &KeySet,
) -> Result<Verified, TokenError> {
    let header = Header::read(token)?;
    // Before a key is looked for: an algorithm that nobody accepts makes nobody read keys again.
    if !expected.algorithms.contains(&header.algorithm) {
        return Err(TokenError::Algorithm);
    }
    let key = keys.find(&header).await?;
    let claims = check(token, expected, header.algorithm, &key)?;
    Ok(Verified { claims, key })
}

/// Checks signature, issuer, audience and times. The key is one of this algorithm's family.
fn check(
    token: &str,
    expected: &Expected,
    algorithm: Algorithm,
    key: &PublicKey,
) -> Result<Map<String, Value>, TokenError> {
    let mut validation = Validation::new(algorithm);
    validation.set_issuer(&expected.issuers);
    validation.set_audience(&expected.audiences);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.validate_nbf = true;
    validation.leeway = SKEW;
    let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation);
    let claims = decoded.map_err(|error| why(error.kind()))?.claims;
    // The library takes a list that holds the issuer as well.
    let issuer = claims.get("iss").and_then(Value::as_str);
    if issuer.is_some_and(|issuer| expected.issuers.iter().any(|known| known == issuer)) {
        Ok(claims)
    } else {
        Err(TokenError::Issuer)
    }
}

fn why(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => TokenError::Algorithm,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYet,
        ErrorKind::MissingRequiredClaim(name) | ErrorKind::InvalidClaimFormat(name) => {
            TokenError::Claim(name.clone())
        }
        ErrorKind::InvalidToken | ErrorKind::Base64(_) | ErrorKind::Json(_) => {
            TokenError::Malformed
        }
        _ => TokenError::Signature,
    }
}

#[cfg(test)]
mod tests;

//! Idempotent requests: which change a request means, and whether two requests say the same.
//!
//! The one rule: the id of a command depends on nothing but who asks, the key, the method and the
//! path; everything else that a request says is in its digest.
//!
//! Without an `Idempotency-Key` a request means a change of its own: its command id is new.

use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::header::IDEMPOTENCY_KEY;
use super::{Problem, query};

/// The parameter that says how long the sender waits for the end of what it asks for.
const WAITING: &str = "wait_seconds";

/// What identifies the change that a request means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    key: Option<String>,
    method: Method,
    path: String,
    query: String,
}

impl Idempotency {
    /// The client's key, if it sent one.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The id of the command that this request is. `credential` is a stable name of who asks.
    pub fn command_id(&self, organization: Uuid, credential: &str) -> Uuid {
        match &self.key {
            Some(key) => {
                let target = format!("{} {}", self.method, self.path);
                command_id(organization, credential, key, &target)
            }
            None => Uuid::now_v7(),
        }
    }

    /// What the request says: its query, save for how long it waits, and the parts of its body, as they came.
    ///
    /// It is a bare hash. Key it before it is stored: a body may be short enough to guess.
    pub fn digest(&self, body: &[&[u8]]) -> [u8; 32] {
        let mut parts = vec![self.query.as_bytes()];
        parts.extend(body);
        hash(&parts)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Idempotency {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let key = match (values.next(), values.next()) {
            (None, _) => None,
            (Some(value), None) if is_key(value.as_bytes()) => {
                value.to_str().ok().map(str::to_owned)
            }
            _ => {
                return Err(Problem::malformed(
                    "malformed_idempotency_key",
                    "Idempotency-Key must be one value of 1 to 255 visible ASCII characters",
                ));
            }
        };
        let uri = query::original_uri(parts);
        Ok(Idempotency {
            key,
            method: parts.method.clone(),
            path: uri.path().to_owned(),
            query: meaning_of(uri.query().unwrap_or_default()),
        })
    }
}

/// What a query says of the change: not how long its sender waits for it.
fn meaning_of(query: &str) -> String {
    let is_meant = |pair: &&str| pair.split('=').next() != Some(WAITING);
    query.split('&').filter(is_meant).collect::<Vec<_>>().join("&")
}

/// The id of the command that a key names: a UUIDv8 of a hash. `target` is method and path.
pub fn command_id(organization: Uuid, credential: &str, key: &str, target: &str) -> Uuid {
    let parts = [organization.as_bytes(), credential.as_bytes(), key.as_bytes(), target.as_bytes()];
    let hash = hash(&parts);
    Uuid::new_v8(*hash.first_chunk().expect("32 bytes have a first half"))
}

/// SHA-256 over parts, each after its length: no two lists of parts hash the same bytes.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

fn is_key(bytes: &[u8]) -> bool {
    (1..=255).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests;

//! What a webhook trigger asks of a delivery: where it comes in, how it is verified, what is done with it.
//!
//! The rule of this file: no secret stands in a configuration, and a delivery that nobody verifies is
//! asked for by name.

use serde_json::Value;

use super::setting::read_input;
use crate::expression::{Cel, Place};
use crate::reader::Reader;

/// The longest path.
const MAX_PATH: usize = 200;

/// What a webhook trigger listens to.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// Where deliveries come in, below `/api/webhook/`; one that nobody can guess without it.
    pub path: Option<String>,
    /// How they are verified.
    pub verify: Verify,
    /// Where the id of a delivery stands, if its sender has no custom of its own.
    pub delivery_id: Option<DeliveryIdPlace>,
    /// Which of them start an execution; all of them without it.
    pub filter: Option<Cel>,
    /// The input of the execution, with its expressions; the body of the delivery without it.
    pub input: Option<Value>,
}

/// How deliveries are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Not at all.
    None,
    /// As GitHub signs.
    Github,
    /// As GitLab signs, or by its token.
    Gitlab,
    /// As Bitbucket signs.
    Bitbucket,
    /// As standardwebhooks.com says.
    StandardWebhooks,
    /// By the HMAC-SHA256 of the body in a header.
    HmacSha256 {
        /// The header, in lower case.
        header: String,
    },
    /// By user name and password.
    Basic,
    /// By a token in a header.
    Token {
        /// The header, in lower case.
        header: String,
    },
}

impl Verify {
    /// Its name in a configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Verify::None => "none",
            Verify::Github => "github",
            Verify::Gitlab => "gitlab",
            Verify::Bitbucket => "bitbucket",
            Verify::StandardWebhooks => "standard-webhooks",
            Verify::HmacSha256 { .. } => "hmac-sha256",
            Verify::Basic => "basic",
            Verify::Token { .. } => "token",
        }
    }

    /// Whether it verifies by a secret.
    pub fn needs_secret(&self) -> bool {
        *self != Verify::None
    }
}

/// Where the id of a delivery stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryIdPlace {
    /// In a header, in lower case.
    Header(String),
    /// In the body, behind a JSON pointer.
    Pointer(String),
}

pub(super) fn read(read: &mut Reader<'_>) -> Option<Webhook> {
    if read.document.contains_key("secret") {
        let message = "no secret stands in a manifest: set it with PUT \
                       /api/agent-base/triggers/{triggerId} when the agent is installed";
        read.fault("/secret", "secret_misplaced", message);
    }
    read.only(&["path", "verify", "secret", "header", "delivery_id", "match", "input"]);
    let path = read.text("path");
    if let Some(path) = &path {
        read.require(is_path(path), "/path", "path_invalid", || {
            format!(
                "a path is words of letters, digits and . _ ~ - joined by slashes, at most {MAX_PATH} \
                 characters, as acme/push"
            )
        });
    }
    let verify = read_verify(read);
    let delivery_id = read.text("delivery_id").and_then(|place| match place.strip_prefix('/') {
        Some(_) => Some(DeliveryIdPlace::Pointer(place)),
        None => read_header(read, "delivery_id", &place).map(DeliveryIdPlace::Header),
    });
    let filter = read.document.get("match").and_then(|filter| {
        Cel::parse(filter, Place::Webhook, &std::collections::BTreeSet::new())
            .map_err(|faults| read.add(faults.into_iter().map(|fault| fault.within("/match"))))
            .ok()
    });
    let input = read_input(read, Place::Webhook);
    Some(Webhook { path, verify: verify?, delivery_id, filter, input })
}

fn read_verify(read: &mut Reader<'_>) -> Option<Verify> {
    const KNOWN: &str =
        "github, gitlab, bitbucket, standard-webhooks, hmac-sha256, basic, token or none";
    let Some(name) = read.text("verify") else {
        if !read.document.contains_key("verify") {
            let message = format!("`verify` is missing: say how deliveries are verified: {KNOWN}");
            read.fault("/verify", "field_missing", message);
        }
        return None;
    };
    let header = read.text("header");
    let header = header.and_then(|header| read_header(read, "header", &header));
    let takes_header = ["hmac-sha256", "token"].contains(&name.as_str());
    read.require(
        takes_header || !read.document.contains_key("header"),
        "/header",
        "field_unused",
        || format!("`verify: {name}` knows where to look: leave `header` out"),
    );
    match name.as_str() {
        "none" => Some(Verify::None),
        "github" => Some(Verify::Github),
        "gitlab" => Some(Verify::Gitlab),
        "bitbucket" => Some(Verify::Bitbucket),
        "standard-webhooks" => Some(Verify::StandardWebhooks),
        "basic" => Some(Verify::Basic),
        "hmac-sha256" | "token" => {
            if !read.document.contains_key("header") {
                let message = "`header` is missing: say in which header it stands, as X-Signature";
                read.fault("/header", "field_missing", message);
            }
            let header = header?;
            Some(match name.as_str() {
                "token" => Verify::Token { header },
                _ => Verify::HmacSha256 { header },
            })
        }
        _ => {
            let message = format!("`{name}` is not known here: use {KNOWN}");
            read.fault("/verify", "choice_unknown", message);
            None
        }
    }
}

/// The name of a header, in lower case.
fn read_header(read: &mut Reader<'_>, field: &str, name: &str) -> Option<String> {
    let is_header = (1..=100).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    read.require(is_header, &format!("/{field}"), "header_invalid", || {
        "write the name of a header, as X-Signature".to_owned()
    });
    is_header.then(|| name.to_ascii_lowercase())
}

/// Whether every way of writing it in an address is the same.
fn is_path(path: &str) -> bool {
    let is_word = |word: &str| {
        !["", ".", ".."].contains(&word)
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
    };
    path.len() <= MAX_PATH && path.split('/').all(is_word)
}

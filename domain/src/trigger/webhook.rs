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

/// The longest text before an HMAC.
const MAX_PREFIX: usize = 100;

/// The most places that the id of a delivery is put together of.
const MAX_PLACES: usize = 5;

/// What a webhook trigger listens to.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// Where deliveries come in, below `/api/webhook/`; one that nobody can guess without it.
    pub path: Option<String>,
    /// How they are verified.
    pub verify: Verify,
    /// Where the id of a delivery stands, if its sender has no custom of its own: in these places together.
    pub delivery_id: Vec<DeliveryIdPlace>,
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
    /// By an HMAC of the body in a header.
    Hmac {
        /// The hash that it is made with.
        hash: HmacHash,
        /// The header, in lower case.
        header: String,
        /// How it is written; as it looks, without it.
        encoding: Option<HmacEncoding>,
        /// What stands before it; perhaps the name of the hash and `=`, without it.
        prefix: Option<String>,
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
            Verify::Hmac { hash: HmacHash::Sha1, .. } => "hmac-sha1",
            Verify::Hmac { hash: HmacHash::Sha256, .. } => "hmac-sha256",
            Verify::Hmac { hash: HmacHash::Sha512, .. } => "hmac-sha512",
            Verify::Basic => "basic",
            Verify::Token { .. } => "token",
        }
    }

    /// Whether it verifies by a secret.
    pub fn needs_secret(&self) -> bool {
        *self != Verify::None
    }
}

/// The hash of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacHash {
    /// SHA-1, which is good enough for this and for little else.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl HmacHash {
    /// What stands before an HMAC where nobody says otherwise, if anything does.
    pub fn customary_prefix(self) -> &'static str {
        match self {
            HmacHash::Sha1 => "sha1=",
            HmacHash::Sha256 => "sha256=",
            HmacHash::Sha512 => "sha512=",
        }
    }

    /// How many hexadecimal digits an HMAC has.
    pub fn hex_length(self) -> usize {
        match self {
            HmacHash::Sha1 => 40,
            HmacHash::Sha256 => 64,
            HmacHash::Sha512 => 128,
        }
    }
}

/// How an HMAC is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacEncoding {
    /// In hexadecimal digits, large or small.
    Hex,
    /// In base64 (RFC 4648), padded or not.
    Base64,
    /// In base64 for addresses, padded or not.
    Base64Url,
}

/// Where the id of a delivery stands, or a part of it.
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
    read.only(&[
        "path",
        "verify",
        "secret",
        "header",
        "encoding",
        "prefix",
        "delivery_id",
        "match",
        "input",
    ]);
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
    let delivery_id = read_delivery_id(read);
    let filter = read.document.get("match").and_then(|filter| {
        Cel::parse(filter, Place::Webhook, &std::collections::BTreeSet::new())
            .map_err(|faults| read.add(faults.into_iter().map(|fault| fault.within("/match"))))
            .ok()
    });
    let input = read_input(read, Place::Webhook);
    Some(Webhook { path, verify: verify?, delivery_id: delivery_id?, filter, input })
}

fn read_verify(read: &mut Reader<'_>) -> Option<Verify> {
    const KNOWN: &str = "github, gitlab, bitbucket, standard-webhooks, hmac-sha1, hmac-sha256, hmac-sha512, basic, token \
                         or none";
    let Some(name) = read.text("verify") else {
        if !read.document.contains_key("verify") {
            let message = format!("`verify` is missing: say how deliveries are verified: {KNOWN}");
            read.fault("/verify", "field_missing", message);
        }
        return None;
    };
    match name.as_str() {
        "none" => read_knowing(read, Verify::None),
        "github" => read_knowing(read, Verify::Github),
        "gitlab" => read_knowing(read, Verify::Gitlab),
        "bitbucket" => read_knowing(read, Verify::Bitbucket),
        "standard-webhooks" => read_knowing(read, Verify::StandardWebhooks),
        "basic" => read_knowing(read, Verify::Basic),
        "hmac-sha1" => read_hmac(read, HmacHash::Sha1),
        "hmac-sha256" => read_hmac(read, HmacHash::Sha256),
        "hmac-sha512" => read_hmac(read, HmacHash::Sha512),
        "token" => {
            refuse_unused(read, "token", &["encoding", "prefix"]);
            Some(Verify::Token { header: read_place(read)? })
        }
        _ => {
            let message = format!("`{name}` is not known here: use {KNOWN}");
            read.fault("/verify", "choice_unknown", message);
            None
        }
    }
}

/// One that knows where to look.
fn read_knowing(read: &mut Reader<'_>, verify: Verify) -> Option<Verify> {
    refuse_unused(read, verify.as_str(), &["header", "encoding", "prefix"]);
    Some(verify)
}

fn read_hmac(read: &mut Reader<'_>, hash: HmacHash) -> Option<Verify> {
    let header = read_place(read);
    let encodings = [
        ("hex", HmacEncoding::Hex),
        ("base64", HmacEncoding::Base64),
        ("base64url", HmacEncoding::Base64Url),
    ];
    let encoding = read.choice("encoding", &encodings);
    let prefix = read.text("prefix");
    if let Some(prefix) = &prefix {
        let is_prefix =
            prefix.len() <= MAX_PREFIX && prefix.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        read.require(is_prefix, "/prefix", "prefix_invalid", || {
            format!("a prefix is at most {MAX_PREFIX} signs of ASCII, as sha512=")
        });
    }
    Some(Verify::Hmac { hash, header: header?, encoding, prefix })
}

/// The header that must be named.
fn read_place(read: &mut Reader<'_>) -> Option<String> {
    if !read.document.contains_key("header") {
        let message = "`header` is missing: say in which header it stands, as X-Signature";
        read.fault("/header", "field_missing", message);
    }
    let header = read.text("header")?;
    read_header(read, "/header", &header)
}

fn refuse_unused(read: &mut Reader<'_>, verify: &str, fields: &[&str]) {
    for field in fields {
        let is_there = read.document.contains_key(*field);
        read.require(!is_there, &format!("/{field}"), "field_unused", || {
            format!("`verify: {verify}` knows where to look, and for what: leave `{field}` out")
        });
    }
}

/// Where the id of a delivery stands: a place, or a list of places that it is put together of.
fn read_delivery_id(read: &mut Reader<'_>) -> Option<Vec<DeliveryIdPlace>> {
    let (places, is_list) = match read.document.get("delivery_id") {
        None => return Some(Vec::new()),
        Some(Value::Array(_)) => (read.texts("delivery_id")?, true),
        Some(_) => (vec![read.text("delivery_id")?], false),
    };
    let has_room = (1..=MAX_PLACES).contains(&places.len());
    read.require(has_room, "/delivery_id", "delivery_id_invalid", || {
        format!("`delivery_id` names 1 to {MAX_PLACES} places")
    });
    let mut read_at = |(index, place): (usize, String)| match place.strip_prefix('/') {
        Some(_) => Some(DeliveryIdPlace::Pointer(place)),
        None => {
            let at = if is_list { format!("/delivery_id/{index}") } else { "/delivery_id".into() };
            read_header(read, &at, &place).map(DeliveryIdPlace::Header)
        }
    };
    places.into_iter().enumerate().map(&mut read_at).collect()
}

/// The name of a header, in lower case.
fn read_header(read: &mut Reader<'_>, at: &str, name: &str) -> Option<String> {
    let is_header = (1..=100).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    read.require(is_header, at, "header_invalid", || {
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

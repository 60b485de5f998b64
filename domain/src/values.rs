//! Values: the words that events and commands are made of.
//!
//! The rule of this file: what comes from outside becomes a value through `parse`, which may refuse.
//! Deserialising trusts, because it reads history, and history is never refused.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::refusal::{Refusal, RefusalKind};

/// A moment, in whole microseconds: what is decided on is exactly what is written, as
/// `2026-11-23T16:00:00.000000Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(DateTime<Utc>);

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Timestamp(time.trunc_subsecs(6))
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(time: Timestamp) -> Self {
        time.0
    }
}

impl Deref for Timestamp {
    type Target = DateTime<Utc>;

    fn deref(&self) -> &DateTime<Utc> {
        &self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DateTime::<Utc>::deserialize(deserializer).map(Timestamp::from)
    }
}

/// A JSON object that is somebody else's: a manifest, or the configuration of a trigger.
pub type Object = serde_json::Map<String, serde_json::Value>;

/// Ciphertext. Opaque here: it is sealed and opened elsewhere, and names the data key it needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub String);

impl Sealed {
    /// The ciphertext.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Sealed {
    fn from(text: String) -> Self {
        Sealed(text)
    }
}

/// Free text of people and agents: sealed in the event, or in a blob when it is long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// The ciphertext itself.
    Sealed(Sealed),
    /// The ciphertext is the content of a blob.
    Blob {
        /// The data key that opens it.
        #[serde(rename = "key")]
        key_id: String,
        /// The name of the blob.
        name: String,
        /// The size of the blob in bytes.
        size: u64,
    },
}

/// Bytes that are kept outside the log, named by a keyed hash of their content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// 64 hexadecimal digits.
    pub name: String,
    /// In bytes.
    pub size: u64,
}

/// A hash of 32 bytes, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// Writes down a hash that was made elsewhere.
    pub fn new(bytes: [u8; 32]) -> Self {
        Digest(hex::encode(bytes))
    }

    /// The SHA-256 of some bytes.
    pub fn sha256(bytes: impl AsRef<[u8]>) -> Self {
        Digest::new(Sha256::digest(bytes).into())
    }

    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not the value it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A name without a visible character.
    #[error("the name is empty: give it at least one visible character")]
    NameEmpty,
    /// A name that no list can show.
    #[error("the name is too long: shorten it to {} characters", Name::MAX_CHARACTERS)]
    NameTooLong,
    /// A name with line breaks or other control characters.
    #[error("the name holds a control character: write it on one line")]
    NameNotPrintable,
    /// A description that is a document.
    #[error(
        "the description is too long: shorten it to {} characters",
        Description::MAX_CHARACTERS
    )]
    DescriptionTooLong,
    /// A file name that is empty, or only a path.
    #[error("the file has no name: send one with the file")]
    FileNameEmpty,
    /// A file name that no file system takes.
    #[error("the file's name is too long: shorten it to {} bytes", FileName::MAX_BYTES)]
    FileNameTooLong,
    /// A file name with line breaks or other control characters.
    #[error("the file's name holds a control character: rename the file")]
    FileNameNotPrintable,
    /// Not an e-mail address.
    #[error("this is not an e-mail address: write it as name@example.com")]
    EmailInvalid,
    /// A role that does not exist.
    #[error("there is no such role: use owner, admin, member or viewer")]
    RoleUnknown,
    /// A scope that does not exist.
    #[error("there is no scope `{0}`: use one of those that the documentation lists")]
    ScopeUnknown(String),
    /// Not the visible part of an API token.
    #[error("this is not the prefix of an API token: it is `prodgy_` and 8 letters or digits")]
    TokenPrefixInvalid,
    /// Longer than anything lasts.
    #[error(
        "deleted files are kept for at most {} days: send fewer, or null to keep them until somebody erases them",
        Retention::MOST_DAYS
    )]
    RetentionTooLong,
}

impl Refusal for ValueError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        let code = match self {
            ValueError::NameEmpty => "name_empty",
            ValueError::NameTooLong => "name_too_long",
            ValueError::NameNotPrintable => "name_not_printable",
            ValueError::DescriptionTooLong => "description_too_long",
            ValueError::FileNameEmpty => "file_name_empty",
            ValueError::FileNameTooLong => "file_name_too_long",
            ValueError::FileNameNotPrintable => "file_name_not_printable",
            ValueError::EmailInvalid => "email_invalid",
            ValueError::RoleUnknown => "role_unknown",
            ValueError::ScopeUnknown(_) => "scope_unknown",
            ValueError::TokenPrefixInvalid => "token_prefix_invalid",
            ValueError::RetentionTooLong => "retention_too_long",
        };
        (RefusalKind::Invalid, code)
    }
}

/// What a person calls a thing: one line of 1 to 200 characters, without space around it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(String);

impl Name {
    /// The longest a name may be.
    pub const MAX_CHARACTERS: usize = 200;

    /// Trims and checks.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(ValueError::NameEmpty);
        }
        if text.chars().count() > Self::MAX_CHARACTERS {
            return Err(ValueError::NameTooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(ValueError::NameNotPrintable);
        }
        Ok(Name(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a person says about a thing: up to 4,000 characters, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Description(String);

impl Description {
    /// The longest a description may be.
    pub const MAX_CHARACTERS: usize = 4_000;

    /// Trims and checks.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        if text.chars().count() > Self::MAX_CHARACTERS {
            return Err(ValueError::DescriptionTooLong);
        }
        Ok(Description(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What people say about a thing, as its history has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// Nothing.
    #[default]
    Nothing,
    /// This, in the clear: it was said before descriptions were sealed.
    Clear(Description),
    /// This, sealed.
    Sealed(Sealed),
}

impl From<Description> for Said {
    fn from(text: Description) -> Said {
        match text.as_str() {
            "" => Said::Nothing,
            _ => Said::Clear(text),
        }
    }
}

impl From<Option<Sealed>> for Said {
    fn from(text: Option<Sealed>) -> Said {
        text.map_or(Said::Nothing, Said::Sealed)
    }
}

/// What is to be said about a thing. The same words sealed twice are two texts, so whoever sends a command
/// compares the clear ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rewording {
    /// The same as before.
    #[default]
    Kept,
    /// Nothing any more.
    Removed,
    /// This, sealed.
    Sealed(Sealed),
}

impl Rewording {
    /// The event of a change, if anything changes; nothing in it where nothing is said any more.
    pub(crate) fn event<E>(self, old: &Said, make: impl Fn(Option<Sealed>) -> E) -> Option<E> {
        match (self, old) {
            (Rewording::Sealed(text), _) => Some(make(Some(text))),
            (Rewording::Removed, Said::Clear(_) | Said::Sealed(_)) => Some(make(None)),
            (Rewording::Removed, Said::Nothing) | (Rewording::Kept, _) => None,
        }
    }
}

/// How long what was deleted in a product is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// So many days after it was deleted, a file is erased. Without a number that is done only when it is asked for.
    pub deleted_files_days: Option<u32>,
}

impl Retention {
    /// The longest that a rule can keep something.
    pub const MOST_DAYS: u32 = 36_500;

    /// Checks.
    pub fn parse(deleted_files_days: Option<u32>) -> Result<Retention, ValueError> {
        match deleted_files_days {
            Some(days) if days > Self::MOST_DAYS => Err(ValueError::RetentionTooLong),
            deleted_files_days => Ok(Retention { deleted_files_days }),
        }
    }
}

/// The name of a file, without the folders it came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileName(String);

impl FileName {
    /// What file systems take.
    pub const MAX_BYTES: usize = 255;

    /// Takes the last part of a path of either kind, trims and checks.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let text = text.rsplit(['/', '\\']).next().unwrap_or_default().trim();
        if text.is_empty() || text == "." || text == ".." {
            return Err(ValueError::FileNameEmpty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(ValueError::FileNameTooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(ValueError::FileNameNotPrintable);
        }
        Ok(FileName(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An e-mail address. It is personal data: in events it is only ever sealed, so this is not
/// serialised, and not shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Email(String);

impl Email {
    /// Trims, checks, and writes the domain in lower case. The part before the `@` stays as it is:
    /// it belongs to the receiving server.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let text = text.trim();
        let options = email_address::Options::default().without_display_text();
        let address = email_address::EmailAddress::parse_with_options(text, options)
            .map_err(|_| ValueError::EmailInvalid)?;
        Ok(Email(format!("{}@{}", address.local_part(), address.domain().to_lowercase())))
    }

    /// The address as it is written to people.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address in lower case throughout: what makes two addresses one. Nobody means two people
    /// by `Ada@example.com` and `ada@example.com`.
    pub fn unique_form(&self) -> String {
        self.0.to_lowercase()
    }
}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Email(…)")
    }
}

/// What a user may do in the organization. Ordered: a later role may do all that an earlier one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads, and works with products.
    Member,
    /// Manages users and tokens too.
    Admin,
    /// Makes and unmakes other owners too.
    Owner,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Member, Role::Admin, Role::Owner];

    /// The role as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Member => "member",
            Role::Admin => "admin",
            Role::Owner => "owner",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        Role::ALL.into_iter().find(|role| role.as_str() == text).ok_or(ValueError::RoleUnknown)
    }
}

/// What an API token may do in its product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "a scope is its own name")]
pub enum Scope {
    #[serde(rename = "agents:read")]
    AgentsRead,
    #[serde(rename = "agents:write")]
    AgentsWrite,
    #[serde(rename = "assistant:chat")]
    AssistantChat,
    #[serde(rename = "audit:read")]
    AuditRead,
    #[serde(rename = "events:read")]
    EventsRead,
    #[serde(rename = "executions:read")]
    ExecutionsRead,
    #[serde(rename = "executions:write")]
    ExecutionsWrite,
    #[serde(rename = "integrations:read")]
    IntegrationsRead,
    #[serde(rename = "integrations:write")]
    IntegrationsWrite,
    #[serde(rename = "knowledge:read")]
    KnowledgeRead,
    #[serde(rename = "knowledge:write")]
    KnowledgeWrite,
    #[serde(rename = "products:read")]
    ProductsRead,
}

impl Scope {
    /// Every scope, in the order in which they are written.
    pub const ALL: [Scope; 12] = [
        Scope::AgentsRead,
        Scope::AgentsWrite,
        Scope::AssistantChat,
        Scope::AuditRead,
        Scope::EventsRead,
        Scope::ExecutionsRead,
        Scope::ExecutionsWrite,
        Scope::IntegrationsRead,
        Scope::IntegrationsWrite,
        Scope::KnowledgeRead,
        Scope::KnowledgeWrite,
        Scope::ProductsRead,
    ];

    /// The scope as it is written.
    pub fn as_str(self) -> &'static str {
        serde_variant::to_variant_name(&self).expect("a scope is an enum of plain names")
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let found = Scope::ALL.into_iter().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| ValueError::ScopeUnknown(text.to_owned()))
    }
}

/// The part of an API token that may be shown: `prodgy_` and the first 8 characters behind it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenPrefix(String);

impl TokenPrefix {
    /// How every token begins.
    pub const START: &'static str = "prodgy_";

    /// Cuts the prefix off a token, or takes one that was cut off already.
    pub fn parse(token: &str) -> Result<Self, ValueError> {
        let shown = token.strip_prefix(Self::START).and_then(|random| random.get(..8));
        match shown {
            Some(shown) if shown.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                Ok(TokenPrefix(format!("{}{shown}", Self::START)))
            }
            _ => Err(ValueError::TokenPrefixInvalid),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The stream and event type that addresses and user agents of requests are sealed for: one request
/// can change several streams, so they are bound to none.
pub const CLIENT: &str = "client";

/// An id that is made from what it names: UUIDv8 of a SHA-256. The lengths of the parts go into the
/// hash, so that no two lists of parts run together.
pub fn derived_id(parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    Uuid::new_v8(bytes)
}

#[cfg(test)]
mod tests;

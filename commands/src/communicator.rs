//! Communicators: what people say to us through Slack, Google Chat and Microsoft Teams, and how it is
//! answered.
//!
//! The rule of this file: nothing is looked at that was not verified. Another communicator is a file
//! beside this one, an arm in [`Connectors::hear`] and one in [`Connectors::say`]; what follows from a
//! message knows none of them.

mod google_chat;
mod slack;
mod teams;

use std::borrow::Cow;

use chrono::Utc;
use domain::integration::IntegrationKind;
use domain::integration::operation::Operation;
use domain::step::{IntegrationCall, Target};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::OpenIntegration;
use crate::jwt::TokenError;
use crate::policies::ToolError;
use crate::tools::integration::Connectors;
use crate::tools::integration::files::Fetched;

/// The longest request of a communicator, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// What a communicator wants of us.
#[derive(Debug, PartialEq)]
pub enum Incoming {
    /// Somebody says something.
    Message(Box<IncomingMessage>),
    /// Somebody says something else in place of what was said, or takes it back.
    Revised(Box<Revision>),
    /// It wants us to do something at once that we cannot: by this name.
    Unknown(String),
    /// It wants to hear this, to see that we are there.
    Challenge(String),
    /// Nothing that concerns us: what a bot says, or we ourselves.
    Nothing,
}

/// What somebody says.
#[derive(Debug, PartialEq)]
pub struct IncomingMessage {
    /// The id that the other side gave the delivery: the same when it comes once more.
    pub delivery_id: String,
    /// What the other side calls the conversation: a thread of a channel.
    pub conversation: String,
    /// What is said.
    pub said: Said,
}

/// What somebody says in place of what was said.
#[derive(Debug, PartialEq)]
pub struct Revision {
    /// Which message.
    pub of: Revised,
    /// What the other side calls the conversation.
    pub conversation: String,
    /// When it was revised, as the other side says: the same when it comes once more.
    pub at: String,
    /// What is said now; none where it is taken back.
    pub said: Option<Said>,
}

/// A message that was heard before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revised {
    /// The one that this delivery brought.
    Delivery(String),
    /// The one that the other side calls so.
    Message(String),
}

/// What somebody says, and where: the sealed content of its event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// Through what, as `slack`.
    pub communicator: String,
    /// The words, without our own name in front.
    pub text: String,
    /// Who says it.
    pub sender: Sender,
    /// `mention`, `direct` or `command`.
    pub kind: String,
    /// The command, as `/ask`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What the other side calls the message.
    pub message_id: String,
    /// Where it is answered.
    pub address: Address,
    /// The files that come with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<SentFile>,
}

/// A file that somebody sends, as it was told: its bytes are still there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentFile {
    /// What it is called.
    pub name: String,
    /// What it is said to be, as `text/markdown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// In bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// What the other side calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where its bytes are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// Who says something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// What the other side calls it.
    pub id: String,
    /// Its name, where it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Where something is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// A channel of Slack, a space of Google Chat, a conversation of Teams; the integration's, without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The thread in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// The service of the Bot Framework that answers are sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// What is to be said, and where: the sealed content of its event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saying {
    /// Where.
    pub address: Address,
    /// The words.
    pub text: String,
}

/// The token of a request: the one of its one `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Result<&str, TokenError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(TokenError::Malformed);
    };
    let (scheme, token) =
        value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(TokenError::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(TokenError::Malformed);
    }
    Ok(token.trim())
}

/// A body that was verified, as JSON.
fn json<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, NotHeard> {
    serde_json::from_slice(body)
        .map_err(|error| NotHeard::Malformed(format!("it is not {what} ({error})")))
}

/// As much of a text as is said at once.
fn cut(text: &str, longest: usize) -> String {
    let mut short: String = text.chars().take(longest).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// A member of a JSON object that is a text.
fn text_of(value: &Value, member: &str) -> Option<String> {
    value.get(member)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Why the bytes of a file are not asked for where they are said to be.
fn not_fetched(code: &str, message: &str) -> ToolError {
    ToolError::lasting(code, message)
}

/// Why a request of a communicator is not heard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotHeard {
    /// It is not genuine, or too old.
    #[error("the request could not be verified: {0}")]
    NotVerified(&'static str),
    /// Its token is not good.
    #[error("the request could not be verified: its token is not good")]
    BadToken {
        /// Why, for the audit log.
        why: TokenError,
        /// The other side wants to hear that it may not, and not that nobody knows it.
        is_forbidden: bool,
    },
    /// It is not what the communicator is documented to send.
    #[error("the request is not understood: {0}")]
    Malformed(String),
    /// People are not heard through integrations of this kind, or not at this address.
    #[error("nobody is heard here through an integration of type {}", .0.as_str())]
    NotHere(IntegrationKind),
}

impl Connectors {
    /// Whether a request is genuine, and what it says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn hear(
        &self,
        integration: &OpenIntegration,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Incoming, NotHeard> {
        match integration.kind {
            IntegrationKind::Slack => slack::hear(integration, headers, body, Utc::now()),
            IntegrationKind::GoogleChat => {
                google_chat::hear(integration, headers, body, |source| self.keys(source)).await
            }
            IntegrationKind::Teams => {
                teams::hear(integration, headers, body, |source| self.keys(source)).await
            }
            kind => Err(NotHeard::NotHere(kind)),
        }
    }

    /// Begins to fetch a file that somebody sent.
    ///
    /// # Errors
    /// It cannot be reached, or is not given to us.
    pub(crate) async fn fetch(
        &self,
        integration: &OpenIntegration,
        file: &SentFile,
    ) -> Result<Fetched, ToolError> {
        match integration.kind {
            IntegrationKind::Slack => slack::fetch(self, integration, file).await,
            IntegrationKind::GoogleChat => {
                self.open_file(integration, &google_chat::place(integration, file)?).await
            }
            _ => self.open_file(integration, &teams::place(integration, file)?).await,
        }
    }

    /// Says something. The key is the same for every attempt, so that the other side can tell a second one
    /// from a second wish, if it cares to. Answers `{"id", "thread", "channel"}`.
    ///
    /// # Errors
    /// The other side cannot be reached, or does not take it.
    pub(crate) async fn say(
        &self,
        integration: &OpenIntegration,
        saying: &Saying,
        key: &str,
    ) -> Result<Value, ToolError> {
        let Address { channel, thread, service } = saying.address.clone();
        let mut integration = Cow::Borrowed(integration);
        let text = match integration.kind {
            IntegrationKind::Slack => slack::as_markup(&saying.text),
            IntegrationKind::GoogleChat => {
                google_chat::check_space(&integration, channel.as_deref())?;
                google_chat::as_markup(&saying.text)
            }
            IntegrationKind::Teams => {
                integration = Cow::Owned(teams::at_service(&integration, service.as_deref())?);
                teams::as_markup(&saying.text)
            }
            _ => saying.text.clone(),
        };
        let post = Operation::find("post_message");
        let Some(operation) = post.filter(|it| it.kinds.contains(&integration.kind)) else {
            let message = format!(
                "nobody talks through an integration of type {}: use a communicator",
                integration.kind.as_str()
            );
            return Err(ToolError::lasting("not_a_communicator", message));
        };
        let told = [("text", Some(text)), ("channel", channel), ("thread", thread)];
        let arguments: Map<String, Value> = told
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
            .collect();
        let target = Target::Integration(integration.id);
        self.call(&integration, &IntegrationCall { target, operation, arguments }, key).await
    }
}

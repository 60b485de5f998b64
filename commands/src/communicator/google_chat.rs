//! Google Chat: whether a request is Google's, and what it says.
//!
//! The rule of this file: whom a token is for decides how it is judged: the number of a Cloud project, or
//! the address that Google calls. Who says something is a person, or it is not heard.

use domain::integration::IntegrationKind;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{Address, Incoming, IncomingMessage, NotHeard, Said, Sender, SentFile};
use crate::OpenIntegration;
use crate::jwt::{self, Algorithm, Expected, KeySet, KeySource, TokenError, Verified};
use crate::policies::ToolError;
use crate::tools::integration::files::{FilePlace, below};

/// How much is said at once, in characters.
const LONGEST: usize = 4_000;

/// Who calls on behalf of Google Chat.
const CHAT: &str = "chat@system.gserviceaccount.com";

/// The keys of Google Chat itself: X.509 certificates by key id.
const CHAT_KEYS: &str =
    "https://www.googleapis.com/service_accounts/v1/metadata/x509/chat@system.gserviceaccount.com";

/// The keys of Google's identity tokens.
const GOOGLE_KEYS: &str = "https://www.googleapis.com/oauth2/v3/certs";

/// Google, as it names itself.
const GOOGLE: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];

/// Whom Google's tokens are for, as the Chat app is configured there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience<'a> {
    /// The number of the Cloud project: Chat signs itself.
    Project(&'a str),
    /// The address that is called: Google gives an identity token of Chat's.
    Endpoint(&'a str),
}

impl<'a> Audience<'a> {
    pub(super) fn new(text: &'a str) -> Audience<'a> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { Audience::Project(text) } else { Audience::Endpoint(text) }
    }

    /// Where the keys are that sign for it.
    pub(super) fn keys(self) -> &'static str {
        match self {
            Audience::Project(_) => CHAT_KEYS,
            Audience::Endpoint(_) => GOOGLE_KEYS,
        }
    }

    fn expected(self) -> Expected {
        let (issuers, audience) = match self {
            Audience::Project(number) => (vec![CHAT.to_owned()], number),
            Audience::Endpoint(url) => (GOOGLE.map(str::to_owned).to_vec(), url),
        };
        let audiences = vec![audience.to_owned()];
        Expected { issuers, audiences, algorithms: &[Algorithm::RS256] }
    }

    /// An identity token of Google's may be anybody's: it must be Chat's.
    fn check(self, verified: &Verified) -> Result<(), TokenError> {
        let Audience::Endpoint(_) = self else { return Ok(()) };
        if verified.text("email")? != CHAT {
            return Err(TokenError::Claim("email".to_owned()));
        }
        match verified.claims.get("email_verified") {
            Some(is_verified) if *is_verified == true => Ok(()),
            _ => Err(TokenError::Claim("email_verified".to_owned())),
        }
    }
}

/// Whether a token says that Google Chat calls, and calls this app.
///
/// # Errors
/// Why not.
pub(super) async fn verify(
    audience: Audience<'_>,
    token: &str,
    keys: &KeySet,
) -> Result<(), TokenError> {
    let verified = jwt::verify(token, &audience.expected(), keys).await?;
    audience.check(&verified)
}

/// What Google Chat says, if it is Google Chat.
pub(super) async fn hear(
    integration: &OpenIntegration,
    headers: &HeaderMap,
    body: &[u8],
    keys: impl Fn(KeySource) -> KeySet,
) -> Result<Incoming, NotHeard> {
    let told = |name: &str| integration.told.config.get(name).and_then(Value::as_str);
    let Some(audience) = told("audience").map(Audience::new) else {
        return Err(NotHeard::NotVerified("the integration has no audience: give it one"));
    };
    let refused = |why: TokenError| NotHeard::BadToken { why, is_forbidden: false };
    let token = super::bearer(headers).map_err(refused)?;
    let url = Url::parse(told("keys_url").unwrap_or(audience.keys()));
    let url = url.map_err(|_| NotHeard::NotVerified("the keys_url of the integration is none"))?;
    verify(audience, token, &keys(KeySource::Address(url))).await.map_err(refused)?;
    read(body)
}

/// What Google Chat sends.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "type")]
    kind: Option<String>,
    space: Option<Space>,
    message: Option<Message>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Space {
    name: Option<String>,
    /// Its kind, as it was called before.
    #[serde(rename = "type")]
    kind: Option<String>,
    space_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    name: String,
    sender: Option<User>,
    #[serde(default)]
    text: String,
    /// The words without our own name.
    argument_text: Option<String>,
    thread: Option<Thread>,
    space: Option<Space>,
    #[serde(default)]
    annotations: Vec<Annotation>,
    #[serde(default, alias = "attachments")]
    attachment: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    name: String,
    display_name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Thread {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Annotation {
    slash_command: Option<SlashCommand>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlashCommand {
    command_name: Option<String>,
}

impl Space {
    fn is_direct(&self) -> bool {
        self.space_type.as_deref() == Some("DIRECT_MESSAGE") || self.kind.as_deref() == Some("DM")
    }
}

/// What a request says that was verified.
pub(super) fn read(body: &[u8]) -> Result<Incoming, NotHeard> {
    let malformed = |what: &str| NotHeard::Malformed(what.to_owned());
    let event: Event = super::json(body, "an event of Google Chat's")?;
    let kind = event.kind.ok_or_else(|| malformed("type is missing"))?;
    // Whoever adds the app by a mention says something at once.
    let message = match (kind.as_str(), event.message) {
        ("MESSAGE", None) => return Err(malformed("message is missing")),
        ("MESSAGE" | "ADDED_TO_SPACE", Some(message)) => message,
        _ => return Ok(Incoming::Nothing),
    };
    let sender = message.sender.ok_or_else(|| malformed("message.sender is missing"))?;
    if sender.kind.as_deref() == Some("BOT") {
        return Ok(Incoming::Nothing);
    }
    let space = event.space.or(message.space);
    let space = space.ok_or_else(|| malformed("space is missing"))?;
    let is_direct = space.is_direct();
    let space = space.name.ok_or_else(|| malformed("space.name is missing"))?;
    let command = message.annotations.into_iter().find_map(|annotation| annotation.slash_command);
    let kind = match (&command, is_direct) {
        (Some(_), _) => "command",
        (None, true) => "direct",
        (None, false) => "mention",
    };
    let thread = message.thread.map(|thread| thread.name);
    // People who write directly do not think in threads.
    let conversation = thread.clone().filter(|_| !is_direct).unwrap_or_else(|| space.clone());
    let said = Said {
        communicator: IntegrationKind::GoogleChat.as_str().to_owned(),
        text: message.argument_text.unwrap_or(message.text).trim().to_owned(),
        sender: Sender { id: sender.name, name: sender.display_name },
        kind: kind.to_owned(),
        command: command.and_then(|command| command.command_name),
        message_id: message.name.clone(),
        address: Address { channel: Some(space), thread, service: None },
        files: message.attachment.iter().map(sent).collect(),
    };
    let delivery_id = message.name;
    Ok(Incoming::Message(Box::new(IncomingMessage { delivery_id, conversation, said })))
}

/// A file, as Google Chat tells of it. Of one that was uploaded it tells the name that its bytes have.
fn sent(attachment: &Value) -> SentFile {
    let text = |member| super::text_of(attachment, member);
    SentFile {
        name: text("contentName").unwrap_or_else(|| "file".to_owned()),
        media_type: text("contentType"),
        size: None,
        id: super::text_of(&attachment["attachmentDataRef"], "resourceName"),
        url: None,
    }
}

/// Where the bytes of a file are.
pub(super) fn place(
    integration: &OpenIntegration,
    file: &SentFile,
) -> Result<FilePlace, ToolError> {
    if !integration.told.secrets.0.contains_key("service_account_key") {
        return Err(super::not_fetched(
            "secret_missing",
            "files of Google Chat are given to its app alone: give the integration the service_account_key of the app",
        ));
    }
    let Some(resource) = &file.id else {
        return Err(super::not_fetched(
            "file_elsewhere",
            "it is a file of Google Drive, which the app may not read: upload the file itself to the chat",
        ));
    };
    let base = integration.told.config.get("base_url").and_then(Value::as_str).unwrap_or_default();
    let mut path = vec!["v1", "media"];
    path.extend(resource.split('/'));
    let mut url = below(base, &path)?;
    url.query_pairs_mut().append_pair("alt", "media");
    Ok(FilePlace { url, is_ours: true })
}

/// A text as Google Chat shows it, whatever stands in it: nobody calls a whole space through us.
pub(super) fn as_markup(text: &str) -> String {
    super::cut(text, LONGEST).replace("<users/", "<\u{200b}users/")
}

/// Whether what is said in a space can be said there by this integration.
pub(super) fn check_space(
    integration: &OpenIntegration,
    space: Option<&str>,
) -> Result<(), ToolError> {
    let secrets = &integration.told.secrets.0;
    if secrets.contains_key("service_account_key") {
        return Ok(());
    }
    let url = secrets.get("webhook_url").and_then(|url| Url::parse(url).ok());
    let path = url.as_ref().map(Url::path).unwrap_or_default();
    match space {
        Some(space) if !path.contains(&format!("/{space}/")) => Err(ToolError::lasting(
            "space_not_reachable",
            "the incoming webhook of this integration posts into another space: give it the service_account_key of \
             the Chat app",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

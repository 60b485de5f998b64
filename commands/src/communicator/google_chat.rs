//! Google Chat: whether a request is Google's, and what it says.
//!
//! The rule of this file: whom a token is for decides how it is judged: the number of a Cloud project, or
//! the address that Google calls. Who says something is a person, or it is not heard.
//!
//! An app of Chat alone and a Workspace add-on that extends Chat are told the same in two forms; in which one is
//! seen by what is sent.

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

    /// An identity token of Google's may be anybody's: it must be that of who calls.
    fn check(self, caller: &str, verified: &Verified) -> Result<(), TokenError> {
        let Audience::Endpoint(_) = self else { return Ok(()) };
        if verified.text("email")? != caller {
            return Err(TokenError::Claim("email".to_owned()));
        }
        match verified.claims.get("email_verified") {
            Some(is_verified) if *is_verified == true => Ok(()),
            _ => Err(TokenError::Claim("email_verified".to_owned())),
        }
    }
}

/// Whether a token says that Google Chat calls, and calls this app. A Workspace add-on is called by an account of
/// its own.
///
/// # Errors
/// Why not.
pub(super) async fn verify(
    audience: Audience<'_>,
    add_on_account: Option<&str>,
    token: &str,
    keys: &KeySet,
) -> Result<(), TokenError> {
    let verified = jwt::verify(token, &audience.expected(), keys).await?;
    audience.check(add_on_account.unwrap_or(CHAT), &verified)
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
    let keys = keys(KeySource::Address(url));
    verify(audience, told("add_on_account"), token, &keys).await.map_err(refused)?;
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
    /// What a Workspace add-on is told, in place of all that.
    chat: Option<ChatEvent>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChatEvent {
    user: Option<User>,
    message_payload: Option<Payload>,
    app_command_payload: Option<Payload>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    space: Option<Space>,
    message: Option<Message>,
    thread: Option<Thread>,
    app_command_metadata: Option<AppCommand>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AppCommand {
    app_command_type: Option<String>,
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
    slash_command: Option<Value>,
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
    let event: Event = super::json(body, "an event of Google Chat's")?;
    match event.chat {
        Some(chat) => chat.into_incoming(),
        None => event.into_incoming(),
    }
}

impl Event {
    fn into_incoming(self) -> Result<Incoming, NotHeard> {
        let kind = self.kind.ok_or_else(|| missing("type"))?;
        // Whoever adds the app by a mention says something at once.
        match (kind.as_str(), self.message) {
            ("MESSAGE", None) => Err(missing("message")),
            ("MESSAGE" | "ADDED_TO_SPACE", Some(message)) => message.into_incoming(self.space),
            _ => Ok(Incoming::Nothing),
        }
    }
}

impl ChatEvent {
    /// Buttons, previews, and spaces that the app is added to or removed from start nothing: whoever adds it by a
    /// mention says so in a message of its own.
    fn into_incoming(self) -> Result<Incoming, NotHeard> {
        let payload = match (self.message_payload, self.app_command_payload) {
            (Some(payload), _) => payload,
            (None, Some(payload)) => {
                // What is done to somebody's message, and what is chosen from a menu, says nothing.
                let metadata = payload.app_command_metadata.as_ref();
                let kind = metadata.and_then(|command| command.app_command_type.as_deref());
                if kind.is_some_and(|kind| kind != "SLASH_COMMAND") {
                    return Ok(Incoming::Nothing);
                }
                payload
            }
            (None, None) => return Ok(Incoming::Nothing),
        };
        let mut message = payload.message.ok_or_else(|| missing("message"))?;
        message.sender = message.sender.or(self.user);
        message.thread = message.thread.or(payload.thread);
        message.into_incoming(payload.space)
    }
}

impl Message {
    fn into_incoming(self, space: Option<Space>) -> Result<Incoming, NotHeard> {
        let sender = self.sender.ok_or_else(|| missing("message.sender"))?;
        if sender.kind.as_deref() == Some("BOT") {
            return Ok(Incoming::Nothing);
        }
        let space = space.or(self.space).ok_or_else(|| missing("space"))?;
        let is_direct = space.is_direct();
        let space = space.name.ok_or_else(|| missing("space.name"))?;
        let command = self.annotations.into_iter().find_map(|annotation| annotation.slash_command);
        let kind = match (command.is_some() || self.slash_command.is_some(), is_direct) {
            (true, _) => "command",
            (false, true) => "direct",
            (false, false) => "mention",
        };
        let thread = self.thread.map(|thread| thread.name);
        // People who write directly do not think in threads.
        let conversation = thread.clone().filter(|_| !is_direct).unwrap_or_else(|| space.clone());
        let said = Said {
            communicator: IntegrationKind::GoogleChat.as_str().to_owned(),
            text: self.argument_text.unwrap_or(self.text).trim().to_owned(),
            sender: Sender { id: sender.name, name: sender.display_name },
            kind: kind.to_owned(),
            command: command.and_then(|command| command.command_name),
            message_id: self.name.clone(),
            address: Address { channel: Some(space), thread, service: None },
            files: self.attachment.iter().map(sent).collect(),
        };
        let delivery_id = self.name;
        Ok(Incoming::Message(Box::new(IncomingMessage { delivery_id, conversation, said })))
    }
}

fn missing(what: &str) -> NotHeard {
    NotHeard::Malformed(format!("{what} is missing"))
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

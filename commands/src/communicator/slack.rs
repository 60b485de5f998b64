//! Slack: its Events API and slash commands.
//!
//! The rule of this file: a request is verified on its raw bytes, `url_verification` too; who says
//! something, or says it anew, is a person, or it is not heard.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use domain::integration::IntegrationKind;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::{
    Address, Incoming, IncomingMessage, NotHeard, Revised, Revision, Said, Sender, SentFile,
};
use crate::OpenIntegration;
use crate::policies::ToolError;
use crate::tools::integration::Connectors;
use crate::tools::integration::files::{Fetched, FilePlace, is_page};
use crate::webhook::verify_slack;

/// How much is said at once, in characters: Slack cuts what is much longer.
const LONGEST: usize = 12_000;

/// Where files are, of the commercial Slack and of the one for governments.
const HOSTS: [&str; 2] = [".slack.com", ".slack-gov.com"];

/// What people's messages may be marked as; others are joins and what bots say, and what is told of a
/// message that was there.
const SUBTYPES: [&str; 3] = ["file_share", "me_message", "thread_broadcast"];

/// What the Events API sends.
#[derive(Deserialize)]
struct Callback {
    #[serde(rename = "type")]
    kind: String,
    challenge: Option<String>,
    event_id: Option<String>,
    event: Option<Event>,
    #[serde(default)]
    authorizations: Vec<Authorization>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    channel_type: Option<String>,
    channel: Option<String>,
    #[serde(flatten)]
    itself: Message,
    /// Of a message that was changed: what it is now.
    message: Option<Message>,
    /// Of one that was deleted: what it was.
    previous_message: Option<Message>,
    /// Which one was deleted.
    deleted_ts: Option<String>,
}

#[derive(Default, Deserialize)]
struct Message {
    subtype: Option<String>,
    user: Option<String>,
    bot_id: Option<String>,
    #[serde(default)]
    text: String,
    ts: Option<String>,
    thread_ts: Option<String>,
    #[serde(default)]
    files: Vec<Value>,
    edited: Option<Edit>,
}

#[derive(Deserialize)]
struct Edit {
    ts: String,
}

/// For whom an event is sent: our bot is among them.
#[derive(Deserialize)]
struct Authorization {
    user_id: Option<String>,
    #[serde(default)]
    is_bot: bool,
}

pub(super) fn hear(
    integration: &OpenIntegration,
    headers: &HeaderMap,
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<Incoming, NotHeard> {
    let secrets = &integration.told.secrets.0;
    let secret = secrets.get("signing_secret").map(String::as_bytes).unwrap_or_default();
    if secret.is_empty() {
        return Err(NotHeard::NotVerified("the integration has no signing_secret"));
    }
    verify_slack(secret, headers, body, now).map_err(NotHeard::NotVerified)?;
    let is_form = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("application/x-www-form-urlencoded"));
    if is_form { command(body) } else { event(body) }
}

/// A slash command. What buttons and menus send comes as a form, too, and is not for us.
fn command(body: &[u8]) -> Result<Incoming, NotHeard> {
    let mut form: HashMap<String, String> = form_urlencoded::parse(body).into_owned().collect();
    if !form.contains_key("command") {
        return Ok(Incoming::Nothing);
    }
    let mut needed = |name: &str| {
        let value = form.remove(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| NotHeard::Malformed(format!("a slash command has a {name}")))
    };
    let (command, trigger) = (needed("command")?, needed("trigger_id")?);
    let (channel, user) = (needed("channel_id")?, needed("user_id")?);
    let said = Said {
        communicator: IntegrationKind::Slack.as_str().to_owned(),
        text: form.remove("text").unwrap_or_default().trim().to_owned(),
        sender: Sender { id: user, name: form.remove("user_name") },
        kind: "command".to_owned(),
        command: Some(command),
        message_id: trigger.clone(),
        address: Address { channel: Some(channel.clone()), thread: None, service: None },
        files: Vec::new(),
    };
    let conversation = format!("{channel}/{trigger}");
    Ok(Incoming::Message(Box::new(IncomingMessage { delivery_id: trigger, conversation, said })))
}

fn event(body: &[u8]) -> Result<Incoming, NotHeard> {
    let malformed = |what: &str| NotHeard::Malformed(what.to_owned());
    let text = std::str::from_utf8(body).map_err(|_| malformed("it is not UTF-8"))?;
    let value: Value =
        serde_json::from_str(text).map_err(|error| NotHeard::Malformed(error.to_string()))?;
    let callback = Callback::deserialize(value)
        .map_err(|error| NotHeard::Malformed(format!("it is no event of Slack's ({error})")))?;
    if callback.kind == "url_verification" {
        let challenge = callback.challenge.ok_or_else(|| malformed("the challenge is missing"))?;
        return Ok(Incoming::Challenge(challenge));
    }
    let Some(event) = callback.event.filter(|_| callback.kind == "event_callback") else {
        return Ok(Incoming::Nothing);
    };
    let is_direct = event.channel_type.as_deref() == Some("im");
    match (event.kind.as_str(), event.itself.subtype.as_deref()) {
        ("message", Some("message_changed")) => changed(event, &callback.authorizations),
        ("message", Some("message_deleted")) => deleted(event),
        ("app_mention", _) => said(event, "mention", callback.event_id, &callback.authorizations),
        ("message", _) if is_direct => {
            said(event, "direct", callback.event_id, &callback.authorizations)
        }
        _ => Ok(Incoming::Nothing),
    }
}

/// What somebody says, if it is a person.
fn said(
    event: Event,
    kind: &str,
    event_id: Option<String>,
    authorizations: &[Authorization],
) -> Result<Incoming, NotHeard> {
    let Some((conversation, said)) = event.itself.into_said(event.channel, kind, authorizations)?
    else {
        return Ok(Incoming::Nothing);
    };
    let delivery_id = event_id.ok_or_else(|| missing("event_id"))?;
    Ok(Incoming::Message(Box::new(IncomingMessage { delivery_id, conversation, said })))
}

/// What a person says in place of what was said, wherever that was. Slack changes messages itself, too: it adds
/// previews of what they link to.
fn changed(event: Event, authorizations: &[Authorization]) -> Result<Incoming, NotHeard> {
    let message = event.message.ok_or_else(|| missing("event.message"))?;
    // In place of a deleted message that was answered.
    if message.subtype.as_deref() == Some("tombstone") {
        return withdrawn(event.channel, message.ts.clone(), Some(message), event.itself.ts);
    }
    let Some(Edit { ts: at }) = &message.edited else { return Ok(Incoming::Nothing) };
    let at = at.clone();
    let kind = if event.channel_type.as_deref() == Some("im") { "direct" } else { "mention" };
    let Some((conversation, said)) = message.into_said(event.channel, kind, authorizations)? else {
        return Ok(Incoming::Nothing);
    };
    let (of, said) = (Revised::Message(said.message_id.clone()), Some(said));
    Ok(Incoming::Revised(Box::new(Revision { of, conversation, at, said })))
}

fn deleted(event: Event) -> Result<Incoming, NotHeard> {
    withdrawn(event.channel, event.deleted_ts, event.previous_message, event.itself.ts)
}

fn withdrawn(
    channel: Option<String>,
    message: Option<String>,
    was: Option<Message>,
    at: Option<String>,
) -> Result<Incoming, NotHeard> {
    let channel = channel.ok_or_else(|| missing("event.channel"))?;
    let message = message.ok_or_else(|| missing("event.deleted_ts"))?;
    let at = at.ok_or_else(|| missing("event.ts"))?;
    let thread = was.and_then(|was| was.thread_ts).unwrap_or_else(|| message.clone());
    let conversation = format!("{channel}/{thread}");
    let of = Revised::Message(message);
    Ok(Incoming::Revised(Box::new(Revision { of, conversation, at, said: None })))
}

impl Message {
    /// The conversation and what is said in it, if a person says it.
    fn into_said(
        self,
        channel: Option<String>,
        kind: &str,
        authorizations: &[Authorization],
    ) -> Result<Option<(String, Said)>, NotHeard> {
        let is_ours = |user: &str| {
            let of = |it: &Authorization| it.is_bot && it.user_id.as_deref() == Some(user);
            authorizations.iter().any(of)
        };
        let is_other = self.subtype.is_some_and(|it| !SUBTYPES.contains(&it.as_str()));
        let user = self.user.filter(|user| self.bot_id.is_none() && !is_ours(user));
        let Some(user) = user.filter(|_| !is_other) else { return Ok(None) };
        let channel = channel.ok_or_else(|| missing("event.channel"))?;
        let message_id = self.ts.ok_or_else(|| missing("event.ts"))?;
        let thread = self.thread_ts.unwrap_or_else(|| message_id.clone());
        let conversation = format!("{channel}/{thread}");
        let said = Said {
            communicator: IntegrationKind::Slack.as_str().to_owned(),
            text: as_text(&self.text),
            sender: Sender { id: user, name: None },
            kind: kind.to_owned(),
            command: None,
            message_id,
            address: Address { channel: Some(channel), thread: Some(thread), service: None },
            files: self.files.iter().filter(|file| file["mode"] != "tombstone").map(sent).collect(),
        };
        Ok(Some((conversation, said)))
    }
}

fn missing(what: &str) -> NotHeard {
    NotHeard::Malformed(format!("{what} is missing"))
}

/// A file, as Slack tells of it. Of one that comes from another organisation it tells no more than its id.
fn sent(file: &Value) -> SentFile {
    let text = |member| super::text_of(file, member);
    let id = text("id");
    SentFile {
        name: text("name")
            .or_else(|| text("title"))
            .or_else(|| id.clone())
            .unwrap_or_else(|| "file".to_owned()),
        media_type: text("mimetype"),
        size: file["size"].as_u64(),
        url: text("url_private_download").or_else(|| text("url_private")),
        id,
    }
}

/// Begins to fetch a file.
///
/// # Errors
/// It cannot be reached, or is not given to us.
pub(super) async fn fetch(
    connectors: &Connectors,
    integration: &OpenIntegration,
    file: &SentFile,
) -> Result<Fetched, ToolError> {
    let told = match (&file.url, &file.id) {
        (None, Some(id)) => sent(&connectors.slack_file(integration, id).await?).url,
        (url, _) => url.clone(),
    };
    let place = place(integration, told.as_deref())?;
    let fetched = connectors.open_file(integration, &place).await?;
    let is_meant = file.media_type.as_deref() == Some("text/html");
    if is_page(&fetched) && !is_meant {
        return Err(super::not_fetched(
            "forbidden",
            "Slack shows a page in place of the file: give the app the scope files:read, and install it anew",
        ));
    }
    Ok(fetched)
}

/// Where the bytes of a file are: at Slack, or where its API is. Our token goes nowhere else.
fn place(integration: &OpenIntegration, url: Option<&str>) -> Result<FilePlace, ToolError> {
    let elsewhere = || {
        super::not_fetched(
            "file_elsewhere",
            "its bytes are not at Slack: send the file itself, and not a link to it",
        )
    };
    let url = url.and_then(|url| Url::parse(url).ok()).ok_or_else(elsewhere)?;
    let api = integration.told.config.get("base_url").and_then(Value::as_str);
    let is_of_api =
        api.and_then(|api| Url::parse(api).ok()).is_some_and(|api| api.origin() == url.origin());
    let is_slack = url.scheme() == "https"
        && url.port().is_none()
        && url.host_str().is_some_and(|host| HOSTS.iter().any(|known| host.ends_with(known)));
    let is_bare = url.username().is_empty() && url.password().is_none();
    if is_bare && (is_of_api || is_slack) {
        return Ok(FilePlace { url, is_ours: true });
    }
    Err(elsewhere())
}

/// What a person wrote: without the mention that it begins with, and as it was typed.
fn as_text(markup: &str) -> String {
    let markup = markup.trim();
    let rest = markup.strip_prefix("<@").and_then(|rest| rest.split_once('>'));
    let text = rest.map_or(markup, |(_, rest)| rest);
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").trim().to_owned()
}

/// A text as Slack shows it, whatever stands in it: nobody calls a whole channel through us.
pub(super) fn as_markup(text: &str) -> String {
    super::cut(text, LONGEST).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests;

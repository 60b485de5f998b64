//! Microsoft Teams: whether an activity is the Bot Framework's, and what it says.
//!
//! The rule of this file: a token is good for one bot, one service and the channels that its key speaks
//! for; and our own token goes nowhere but to services that were named.

use domain::Object;
use domain::integration::IntegrationKind;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{
    Address, Incoming, IncomingMessage, NotHeard, Revised, Revision, Said, Sender, SentFile,
};
use crate::OpenIntegration;
use crate::jwt::{self, Algorithm, Expected, KeySet, KeySource, TokenError, Verified};
use crate::policies::ToolError;
use crate::tools::integration::files::FilePlace;

/// How much is said at once, in characters.
const LONGEST: usize = 20_000;

/// Where the Bot Framework says which keys it has.
const METADATA: &str = "https://login.botframework.com/v1/.well-known/openidconfiguration";

/// The Bot Framework, as it names itself.
const ISSUER: &str = "https://api.botframework.com";

/// Where the services of Teams are.
const HOSTS: [&str; 2] = ["smba.trafficmanager.net", "*.botframework.com"];

/// The bot that an activity is for, and whom it believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bot {
    pub(super) app_id: String,
    /// Who signs.
    pub(super) issuer: String,
    /// Where its keys are.
    pub(super) metadata: String,
    /// The service of its own.
    service: Option<String>,
    /// Others that it may be called by, as `smba.trafficmanager.net` or `*.botframework.com`.
    hosts: Vec<String>,
}

impl Bot {
    /// The bot of an integration.
    pub(super) fn new(config: &Object) -> Bot {
        let told = |name: &str| config.get(name).and_then(Value::as_str).map(str::to_owned);
        let hosts = config.get("service_hosts").and_then(Value::as_array);
        let hosts = hosts.map(|hosts| hosts.iter().filter_map(Value::as_str).collect());
        let hosts: Vec<&str> = hosts.unwrap_or(HOSTS.to_vec());
        Bot {
            app_id: told("app_id").unwrap_or_default(),
            issuer: told("issuer").unwrap_or_else(|| ISSUER.to_owned()),
            metadata: told("metadata_url").unwrap_or_else(|| METADATA.to_owned()),
            service: told("service_url"),
            hosts: hosts.into_iter().map(str::to_ascii_lowercase).collect(),
        }
    }

    /// Whether our token may go to a service: its own, or one of those that were named, and then safely.
    pub(super) fn trusts(&self, service: &str) -> bool {
        let Ok(url) = Url::parse(service) else { return false };
        if !url.username().is_empty() || url.password().is_some() {
            return false;
        }
        let own = self.service.as_ref().and_then(|own| Url::parse(own).ok());
        if own.is_some_and(|own| own.origin() == url.origin()) {
            return true;
        }
        let Some(host) = url.host_str().filter(|_| url.scheme() == "https" && url.port().is_none())
        else {
            return false;
        };
        self.hosts.iter().any(|named| match named.strip_prefix("*.") {
            Some(domain) => host
                .strip_suffix(domain)
                .is_some_and(|front| front.len() > 1 && front.ends_with('.')),
            None => host == named,
        })
    }
}

/// Whether a token is one of the Bot Framework's, for this bot.
///
/// # Errors
/// Why not.
async fn verify(bot: &Bot, token: &str, keys: &KeySet) -> Result<Verified, TokenError> {
    let expected = Expected {
        issuers: vec![bot.issuer.clone()],
        audiences: vec![bot.app_id.clone()],
        algorithms: &[Algorithm::RS256],
    };
    jwt::verify(token, &expected, keys).await
}

/// Whether a token speaks for an activity: of the same service, by a key that the channel endorses.
///
/// # Errors
/// Why not.
fn check(bot: &Bot, verified: &Verified, activity: &Activity) -> Result<(), TokenError> {
    let wrong = |claim: &str| Err(TokenError::Claim(claim.to_owned()));
    // In lower case, as real tokens have it.
    if verified.text("serviceurl")? != activity.service() || !bot.trusts(activity.service()) {
        return wrong("serviceurl");
    }
    let channel = activity.channel();
    if channel.is_empty() || !verified.key.endorsements.iter().any(|known| known == channel) {
        return wrong("endorsements");
    }
    Ok(())
}

/// What the Bot Framework says, if it is the Bot Framework.
pub(super) async fn hear(
    integration: &OpenIntegration,
    headers: &HeaderMap,
    body: &[u8],
    keys: impl Fn(KeySource) -> KeySet,
) -> Result<Incoming, NotHeard> {
    let bot = Bot::new(&integration.told.config);
    let refused = |why: TokenError| NotHeard::BadToken { why, is_forbidden: true };
    let token = super::bearer(headers).map_err(refused)?;
    let document = Url::parse(&bot.metadata);
    let document = document
        .map_err(|_| NotHeard::NotVerified("the metadata_url of the integration is none"))?;
    let source = KeySource::Discovery { document, issuer: bot.issuer.clone() };
    let verified = verify(&bot, token, &keys(source)).await.map_err(refused)?;
    let activity = Activity::read(body)?;
    check(&bot, &verified, &activity).map_err(refused)?;
    activity.into_incoming()
}

/// What the Bot Framework sends.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Activity {
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    name: Option<String>,
    timestamp: Option<String>,
    service_url: Option<String>,
    channel_id: Option<String>,
    from: Option<Account>,
    recipient: Option<Account>,
    conversation: Option<Conversation>,
    text: Option<String>,
    #[serde(default)]
    entities: Vec<Entity>,
    #[serde(default)]
    attachments: Vec<Value>,
}

#[derive(Clone, Deserialize)]
struct Account {
    id: String,
    name: Option<String>,
    role: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conversation {
    id: String,
    conversation_type: Option<String>,
}

#[derive(Deserialize)]
struct Entity {
    #[serde(rename = "type")]
    kind: Option<String>,
    mentioned: Option<Account>,
    text: Option<String>,
}

impl Activity {
    pub(super) fn read(body: &[u8]) -> Result<Activity, NotHeard> {
        super::json(body, "an activity of the Bot Framework's")
    }

    /// Where it is answered.
    pub(super) fn service(&self) -> &str {
        self.service_url.as_deref().unwrap_or_default()
    }

    /// Through which channel it comes: `msteams`.
    pub(super) fn channel(&self) -> &str {
        self.channel_id.as_deref().unwrap_or_default()
    }

    /// What it says. Members that come and go, and installations start nothing.
    pub(super) fn into_incoming(self) -> Result<Incoming, NotHeard> {
        let malformed = |what: &str| NotHeard::Malformed(format!("{what} is missing"));
        let at = self.timestamp.clone().unwrap_or_default();
        match self.kind.as_str() {
            "message" => self.into_message(),
            "messageUpdate" => Ok(match self.into_message()? {
                Incoming::Message(message) => {
                    let IncomingMessage { delivery_id, conversation, said } = *message;
                    let (of, said) = (Revised::Delivery(delivery_id), Some(said));
                    Incoming::Revised(Box::new(Revision { of, conversation, at, said }))
                }
                other => other,
            }),
            "messageDelete" => {
                let conversation = self.conversation.ok_or_else(|| malformed("conversation"))?.id;
                let message_id = self.id.ok_or_else(|| malformed("id"))?;
                let of = Revised::Delivery(format!("{conversation}/{message_id}"));
                let said = None;
                Ok(Incoming::Revised(Box::new(Revision { of, conversation, at, said })))
            }
            "invoke" => Ok(Incoming::Unknown(self.name.unwrap_or_default())),
            _ => Ok(Incoming::Nothing),
        }
    }

    /// What somebody says, if it is a person, and says it to us.
    fn into_message(self) -> Result<Incoming, NotHeard> {
        let malformed = |what: &str| NotHeard::Malformed(format!("{what} is missing"));
        let from = self.from.ok_or_else(|| malformed("from"))?;
        let us = self.recipient.map(|us| us.id);
        // Bots have ids of their own kind.
        let is_bot = from.role.as_deref() == Some("bot") || from.id.starts_with("28:");
        if is_bot || us.as_ref() == Some(&from.id) {
            return Ok(Incoming::Nothing);
        }
        let conversation = self.conversation.ok_or_else(|| malformed("conversation"))?;
        let message_id = self.id.ok_or_else(|| malformed("id"))?;
        let mut text = self.text.unwrap_or_default();
        let mut is_mentioned = false;
        for entity in self.entities {
            let mentioned = entity.mentioned.map(|mentioned| mentioned.id);
            if entity.kind.as_deref() == Some("mention") && us.is_some() && mentioned == us {
                is_mentioned = true;
                if let Some(name) = entity.text.filter(|name| !name.is_empty()) {
                    text = text.replace(&name, " ");
                }
            }
        }
        let kind = match conversation.conversation_type.as_deref() {
            Some("personal") | None => "direct",
            Some(_) if is_mentioned => "mention",
            // What people say to each other, where the bot may read along.
            Some(_) => return Ok(Incoming::Nothing),
        };
        let said = Said {
            communicator: IntegrationKind::Teams.as_str().to_owned(),
            text: text.trim().to_owned(),
            sender: Sender { id: from.id, name: from.name },
            kind: kind.to_owned(),
            command: None,
            message_id: message_id.clone(),
            address: Address {
                channel: Some(conversation.id.clone()),
                thread: Some(message_id.clone()),
                service: self.service_url,
            },
            files: self.attachments.iter().filter_map(sent).collect(),
        };
        let delivery_id = format!("{}/{message_id}", conversation.id);
        let conversation = conversation.id;
        Ok(Incoming::Message(Box::new(IncomingMessage { delivery_id, conversation, said })))
    }
}

/// What a file in a personal chat comes as.
const FILE: &str = "application/vnd.microsoft.teams.file.download.info";

/// A file among the attachments; cards and the text over again as HTML are none.
fn sent(attachment: &Value) -> Option<SentFile> {
    let text = |member| super::text_of(attachment, member);
    let content_type = text("contentType")?;
    let content = &attachment["content"];
    let name = text("name");
    if content_type == FILE {
        // Its type is what its name ends in.
        let kind = super::text_of(content, "fileType");
        let name = name.unwrap_or_else(|| format!("file.{}", kind.as_deref().unwrap_or("bin")));
        return Some(SentFile {
            name,
            media_type: None,
            size: None,
            id: super::text_of(content, "uniqueId"),
            url: super::text_of(content, "downloadUrl"),
        });
    }
    let url = text("contentUrl")?;
    let name = name.unwrap_or_else(|| "file".to_owned());
    let media_type = Some(content_type).filter(|it| it.contains('/') && !it.ends_with("/*"));
    Some(SentFile { name, media_type, size: None, id: None, url: Some(url) })
}

/// Where the bytes of a file are. What a service keeps that we trust is given to our token; what is in the
/// sender's OneDrive, to the address itself, and to nobody's token.
pub(super) fn place(
    integration: &OpenIntegration,
    file: &SentFile,
) -> Result<FilePlace, ToolError> {
    let elsewhere = || {
        super::not_fetched(
            "file_elsewhere",
            "its bytes are not where Teams keeps files: send the file itself to the bot, in a personal chat",
        )
    };
    let told = file.url.as_deref().ok_or_else(elsewhere)?;
    let url = Url::parse(told).map_err(|_| elsewhere())?;
    let is_ours = Bot::new(&integration.told.config).trusts(told);
    let is_bare = url.username().is_empty() && url.password().is_none();
    // Only a file of a personal chat has an id.
    if is_ours || (is_bare && url.scheme() == "https" && file.id.is_some()) {
        return Ok(FilePlace { is_ours: is_ours && file.id.is_none(), url });
    }
    Err(elsewhere())
}

/// The integration as it answers at a service: its own address is that one then.
///
/// # Errors
/// The service is none of those that were named.
pub(super) fn at_service(
    integration: &OpenIntegration,
    service: Option<&str>,
) -> Result<OpenIntegration, ToolError> {
    let mut integration = integration.clone();
    let Some(service) = service else { return Ok(integration) };
    if !Bot::new(&integration.told.config).trusts(service) {
        return Err(ToolError::lasting(
            "service_not_trusted",
            "the message came from a service that is not among the service_hosts of this integration any more",
        ));
    }
    integration.told.config.insert("service_url".to_owned(), service.into());
    Ok(integration)
}

/// A text as it is said: nobody is called by it, since mentions are told apart from it.
pub(super) fn as_markup(text: &str) -> String {
    super::cut(text, LONGEST)
}

#[cfg(test)]
mod tests;

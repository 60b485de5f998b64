//! Webhooks: finding the trigger that a delivery is meant for, verifying it, keeping it.
//!
//! The rule of this file: a delivery is verified on its raw bytes, and what is answered is in the log
//! before. What it starts is decided afterwards, by the process manager; that it starts nothing is stored
//! with it, where that is plain to see.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use domain::agent::{Agent, Installation, trigger_id};
use domain::claim::{Claim, ClaimCommand, ClaimKind};
use domain::delivery::{Delivery, DeliveryCommand, Receipt};
use domain::manifest::Manifest;
use domain::product::Product;
use domain::trigger::webhook::{DeliveryIdPlace, Verify};
use domain::trigger::{Setting, Trigger, TriggerDetails, TriggerKind, TriggerSecret, Webhook};
use domain::{Sealed, Timestamp, derived_id};
use eventlog::StreamId;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use url::form_urlencoded;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::claim::PATIENCE;
use crate::policies::delivery;
use crate::seal::INLINE;
use crate::{Ask, Commands, Done, Error};

mod signature;

pub(crate) use signature::{check_secret, verify_slack};

/// The longest delivery, in bytes, and the longest of GitHub, which sends more.
const MAX_DELIVERY_BYTES: usize = 1024 * 1024;
const MAX_GITHUB_BYTES: usize = 25 * 1024 * 1024;

/// The longest id of a delivery and value of a header that are kept.
const MAX_KEPT: usize = 512;

pub(crate) const SECRET_SET: &str = "trigger.secret_set.v1";
pub(crate) const SECRET: &str = "secret";
pub(crate) const RECEIVED: &str = "delivery.received.v1";
pub(crate) const CONTENT: &str = "content";

/// A trigger that listens for deliveries.
#[derive(Debug)]
pub struct Hook {
    /// The trigger.
    pub trigger: Uuid,
    /// The tenant.
    pub organization: Uuid,
    /// The product.
    pub product: Uuid,
    pub(crate) details: TriggerDetails,
    pub(crate) webhook: Webhook,
}

impl Hook {
    /// The longest delivery that it takes, in bytes.
    pub fn max_bytes(&self) -> usize {
        match self.webhook.verify {
            Verify::Github => MAX_GITHUB_BYTES,
            _ => MAX_DELIVERY_BYTES,
        }
    }
}

/// A delivery that was found to be genuine and well formed.
pub struct GoodDelivery {
    content: Content,
    /// Its body, read.
    body: Value,
}

/// Why a delivery was turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDelivery {
    /// Nobody can say whether it is genuine.
    #[error(
        "the trigger has no secret to verify this with: set one with PUT /api/agent-base/triggers/{0}"
    )]
    NoSecret(Uuid),
    /// It is not genuine, or too old.
    #[error("the delivery could not be verified: {0}")]
    NotVerified(&'static str),
    /// It is no JSON.
    #[error("the body is not JSON in UTF-8: {0}")]
    Malformed(String),
}

/// What is kept of a delivery: the sealed content of its event.
#[derive(Serialize, Deserialize)]
pub(crate) struct Content {
    /// The id that its sender gave it.
    pub(crate) id: Option<String>,
    /// The headers that matter.
    pub(crate) headers: Map<String, Value>,
    /// The body, as it came; of a form, the JSON in it.
    pub(crate) body: String,
}

impl Commands {
    /// The trigger that listens at a path, if one does.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn webhook_at(&self, path: &str) -> Result<Option<Hook>, Error> {
        let Some(trigger) = self.trigger_at(path).await? else { return Ok(None) };
        let stream = StreamId::new("trigger", trigger);
        let Trigger::Active(details) = self.load::<Trigger>(&stream).await?.0 else {
            return Ok(None);
        };
        let Some(webhook) = webhook_of(&details) else { return Ok(None) };
        // The path of a manifest may have been replaced since.
        if webhook.path.as_deref().is_some_and(|own| own != path) {
            return Ok(None);
        }
        let agent = StreamId::new("agent", details.agent);
        let Agent::Installed(agent) = self.load::<Agent>(&agent).await?.0 else { return Ok(None) };
        if !details.listens(trigger, &agent) {
            return Ok(None);
        }
        let Some((organization, product)) = self.owners_of(&stream).await? else {
            return Ok(None);
        };
        let (state, _) = self.load::<Product>(&StreamId::new("product", product)).await?;
        if !matches!(state, Product::Active { .. }) {
            return Ok(None);
        }
        Ok(Some(Hook { trigger, organization, product, details, webhook }))
    }

    /// The organization and the product of a stream, which are what they were when it began.
    async fn owners_of(&self, stream: &StreamId) -> Result<Option<(Uuid, Uuid)>, Error> {
        if let Some(known) = self.owners.get(stream) {
            return Ok(Some(known));
        }
        let first = self.log.read_stream(stream, 0, 1).await?;
        let owners = first.first().and_then(|first| Some((first.organization, first.product?)));
        if let Some(owners) = owners {
            self.owners.insert(stream.clone(), owners);
        }
        Ok(owners)
    }

    /// Whether a delivery is genuine, and what it says.
    ///
    /// # Errors
    /// Log or vault fail; what is wrong with the delivery is the inner error.
    pub async fn verify_delivery(
        &self,
        hook: &Hook,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Result<GoodDelivery, BadDelivery>, Error> {
        let now = Utc::now();
        if hook.webhook.verify.needs_secret() {
            let secrets = self.secrets_of(hook, now).await?;
            if secrets.is_empty() {
                return Ok(Err(BadDelivery::NoSecret(hook.trigger)));
            }
            if let Err(why) = signature::verify(&hook.webhook.verify, &secrets, headers, body, now)
            {
                return Ok(Err(BadDelivery::NotVerified(why)));
            }
        }
        Ok(read_delivery(&hook.webhook, headers, body))
    }

    /// Keeps a delivery. One whose id was seen before is not kept again.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn receive_delivery(
        &self,
        hook: &Hook,
        delivery: GoodDelivery,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let GoodDelivery { content, body } = delivery;
        let (agent, key) = (hook.details.agent, hook.details.key.as_bytes());
        let name = match &content.id {
            // Of the key and not of the trigger: another version of the agent is no other receiver.
            Some(id) => derived_id(&[b"delivery", agent.as_bytes(), key, id.as_bytes()]),
            None => Uuid::now_v7(),
        };
        let stream = StreamId::new("delivery", name);
        let ask = Ask {
            command_id: derived_id(&[b"receive delivery", name.as_bytes()]),
            repeatable: content.id.is_some(),
            request_hash: None,
            if_match: None,
            ..ask.clone()
        };
        // The log stores a command once. But a long body becomes a blob before that.
        if content.body.len() > INLINE
            && let Some(done) = self.done_before(&stream, &ask).await?
        {
            return Ok(done);
        }
        let digest = Sha256::digest(&content.body);
        let size = content.body.len() as u64;
        let text = serde_json::to_vec(&content)
            .map_err(|source| Error::Decode { stream: stream.to_string(), source })?;
        let text = Zeroizing::new(text);
        let sealed = self
            .seal_payload(hook.organization, hook.product, &stream, RECEIVED, CONTENT, &text)
            .await?;
        let receive = DeliveryCommand::Receive(Receipt {
            trigger: hook.trigger,
            agent,
            verify: hook.webhook.verify.as_str().to_owned(),
            size,
            content_hash: self.secrets.request(&digest),
            content: sealed,
        });
        let follows = self.is_plainly_filtered(hook, &content, body).then(|| {
            let settle = ask.because_of_its_first(delivery::NAME, &[b"settle"]);
            (DeliveryCommand::Filter, settle.metadata)
        });
        let new = (Delivery::default(), 0);
        match self.decide_with(&stream, new, receive.clone(), follows, &ask).await {
            // It is known, though not by this command.
            Err(Error::Conflict) => self.execute_anew::<Delivery>(stream, receive, &ask).await,
            stored => stored,
        }
    }

    /// Where the deliveries of a trigger come in, below `/api/webhook/`.
    pub fn webhook_path(&self, trigger: Uuid, webhook: &Webhook) -> String {
        webhook.path.clone().unwrap_or_else(|| self.unguessable_path(trigger))
    }

    /// The secret of a trigger as it may be shown: masked but for its end. None where it has none, or
    /// its key was shredded.
    ///
    /// # Errors
    /// The vault fails, or it was sealed for another trigger.
    pub async fn masked_secret(
        &self,
        organization: Uuid,
        trigger: Uuid,
        secret: &Sealed,
    ) -> Result<Option<String>, Error> {
        let opened = self.open_secret(organization, trigger, secret).await?;
        Ok(opened.map(|text| crate::agent::masked(&String::from_utf8_lossy(&text))))
    }

    pub(crate) async fn open_secret(
        &self,
        organization: Uuid,
        trigger: Uuid,
        secret: &Sealed,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        let stream = StreamId::new("trigger", trigger);
        self.unseal(organization, &stream, SECRET_SET, SECRET, secret).await
    }

    /// The secrets that are good for a trigger now. One of a manifest that got none goes by that of
    /// the same trigger in the newest version before: publishing a version closes no door.
    async fn secrets_of(
        &self,
        hook: &Hook,
        now: DateTime<Utc>,
    ) -> Result<Vec<Zeroizing<Vec<u8>>>, Error> {
        let (trigger, secret) = match &hook.details.secret {
            Some(secret) => (hook.trigger, secret.clone()),
            None => match self.inherited_secret(hook.trigger, &hook.details).await? {
                Some(inherited) => inherited,
                None => return Ok(Vec::new()),
            },
        };
        let mut good = Vec::new();
        for sealed in secret.good_at(Timestamp::from(now)) {
            good.extend(self.open_secret(hook.organization, trigger, sealed).await?);
        }
        Ok(good)
    }

    /// Whether a trigger without a secret goes by that of an earlier version.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn inherits_secret(&self, trigger: Uuid) -> Result<bool, Error> {
        let (state, _) = self.load::<Trigger>(&StreamId::new("trigger", trigger)).await?;
        let Trigger::Active(details) = state else { return Ok(false) };
        Ok(self.inherited_secret(trigger, &details).await?.is_some())
    }

    pub(crate) async fn inherited_secret(
        &self,
        trigger: Uuid,
        details: &TriggerDetails,
    ) -> Result<Option<(Uuid, TriggerSecret)>, Error> {
        let Some(own) = details.version_of(trigger) else { return Ok(None) };
        let Some(wanted) = webhook_of(details) else { return Ok(None) };
        let agent = StreamId::new("agent", details.agent);
        let Agent::Installed(agent) = self.load::<Agent>(&agent).await?.0 else { return Ok(None) };
        let before = agent.versions.iter().rev().skip_while(|version| version.id != own).skip(1);
        for version in before {
            let trigger = trigger_id(version.id, &details.key);
            let stream = StreamId::new("trigger", trigger);
            let (state, _) = self.load::<Trigger>(&stream).await?;
            if let Trigger::Active(earlier) = state
                && webhook_of(&earlier).is_some_and(|it| it.verify == wanted.verify)
                && let Some(secret) = earlier.secret
            {
                return Ok(Some((trigger, secret)));
            }
        }
        Ok(None)
    }

    /// The trigger that a path belongs to, whether it listens or not.
    async fn trigger_at(&self, path: &str) -> Result<Option<Uuid>, Error> {
        if let Some((trigger, _)) = path.split_once('.')
            && let Ok(trigger) = Uuid::try_parse(trigger)
            && bool::from(self.unguessable_path(trigger).as_bytes().ct_eq(path.as_bytes()))
        {
            // Unless it has got a path of its own since.
            let stream = StreamId::new("trigger", trigger);
            let (state, _) = self.load::<Trigger>(&stream).await?;
            let Trigger::Active(details) = state else { return Ok(None) };
            let is_its = webhook_of(&details).is_some_and(|webhook| webhook.path.is_none());
            return Ok(is_its.then_some(trigger));
        }
        let stream = StreamId::new("claim", self.webhook_claim(path));
        let (Claim::Taken { holder, .. }, _) = self.load::<Claim>(&stream).await? else {
            return Ok(None);
        };
        let holder = StreamId::from(holder.as_str());
        match (holder.category(), holder.uuid()) {
            ("trigger", trigger) => Ok(trigger),
            ("agent", Some(agent)) => {
                let stream = StreamId::new("agent", agent);
                let Agent::Installed(installed) = self.load::<Agent>(&stream).await?.0 else {
                    return Ok(None);
                };
                let manifest = self.manifest_of(agent, installed.version_id).await?;
                let key = keys_at(&manifest, path).next();
                Ok(key.map(|key| trigger_id(installed.version_id, key)))
            }
            _ => Ok(None),
        }
    }

    /// A path that nobody can guess: a keyed hash of the trigger's id, which stands in front of it.
    fn unguessable_path(&self, trigger: Uuid) -> String {
        let hash = self.secrets.claim("generated webhook path", &trigger.to_string()).to_string();
        format!("{}.{}", trigger.simple(), &hash[..32])
    }

    fn webhook_claim(&self, path: &str) -> domain::Digest {
        self.secrets.claim("webhook path", path)
    }

    /// Takes the paths that a manifest names for an agent. Those that it has stay its own.
    ///
    /// # Errors
    /// Somebody else has one of them.
    pub(crate) async fn take_webhook_paths(
        &self,
        agent: Uuid,
        manifest: &Manifest,
        ask: &Ask,
    ) -> Result<(), Error> {
        for trigger in &manifest.triggers {
            if let Setting::Webhook(webhook) = &trigger.setting
                && let Some(path) = &webhook.path
            {
                self.take_webhook_path(path, format!("agent-{agent}"), ask).await?;
            }
        }
        Ok(())
    }

    /// Takes the path of a trigger. One that the manifest of its version names is its agent's, whose
    /// versions share it.
    ///
    /// # Errors
    /// Somebody else has it.
    pub(crate) async fn take_path_of(
        &self,
        trigger: Uuid,
        details: &TriggerDetails,
        path: &str,
        ask: &Ask,
    ) -> Result<(), Error> {
        let mut holder = format!("trigger-{trigger}");
        if let Some(version) = details.version_of(trigger) {
            let manifest = self.manifest_of(details.agent, version).await?;
            if keys_at(&manifest, path).any(|key| key == details.key) {
                holder = format!("agent-{}", details.agent);
            }
        }
        self.take_webhook_path(path, holder, ask).await
    }

    /// Lets go of the path of a trigger that has another one now, unless its agent holds it: that is
    /// taken over when somebody else asks for it.
    pub(crate) async fn release_path_of(
        &self,
        trigger: Uuid,
        path: &str,
        ask: &Ask,
    ) -> Result<(), Error> {
        let name = self.webhook_claim(path);
        let ask = ask.follow_up(&format!("release {name}"));
        let release = ClaimCommand::Release { holder: format!("trigger-{trigger}") };
        self.execute::<Claim>(name, release, &ask).await.map(|_| ())
    }

    async fn take_webhook_path(&self, path: &str, holder: String, ask: &Ask) -> Result<(), Error> {
        let name = self.webhook_claim(path);
        let take = ClaimCommand::Take { kind: ClaimKind::WebhookPath, holder };
        let ask = ask.follow_up(&format!("take {name}"));
        match self.execute::<Claim>(&name, take.clone(), &ask).await {
            Err(Error::Refused { .. }) if self.release_if_unused(path, &name, &ask).await? => {
                self.execute::<Claim>(&name, take, &ask).await.map(|_| ())
            }
            taken => taken.map(|_| ()),
        }
    }

    /// Frees a path whose holder is gone, or has not used it for a while. Answers whether it is free.
    async fn release_if_unused(
        &self,
        path: &str,
        name: &domain::Digest,
        ask: &Ask,
    ) -> Result<bool, Error> {
        let stream = StreamId::new("claim", name);
        let (Claim::Taken { holder, .. }, sequence) = self.load::<Claim>(&stream).await? else {
            return Ok(true);
        };
        let is_free = match self.use_of(path, &StreamId::from(holder.as_str())).await? {
            PathUse::Used => false,
            PathUse::Gone => true,
            PathUse::Unused => {
                let taken = self.log.read_stream(&stream, sequence - 1, 1).await?;
                taken.first().is_some_and(|event| Utc::now() - event.time > PATIENCE)
            }
        };
        if is_free {
            let release = ClaimCommand::Release { holder };
            self.execute::<Claim>(name, release, &ask.follow_up("unused")).await?;
        }
        Ok(is_free)
    }

    async fn use_of(&self, path: &str, holder: &StreamId) -> Result<PathUse, Error> {
        if holder.category() == "trigger" {
            let details = match self.load::<Trigger>(holder).await?.0 {
                Trigger::Deleted => return Ok(PathUse::Gone),
                Trigger::Missing => return Ok(PathUse::Unused),
                Trigger::Active(details) => details,
            };
            // Its agent may be gone, and the trigger be about to go.
            let agent = StreamId::new("agent", details.agent);
            let is_gone = self.load::<Agent>(&agent).await?.0 == Agent::Uninstalled;
            return Ok(match is_at(&details, path) {
                _ if is_gone => PathUse::Gone,
                true => PathUse::Used,
                false => PathUse::Unused,
            });
        }
        match self.load::<Agent>(holder).await?.0 {
            Agent::Uninstalled => Ok(PathUse::Gone),
            Agent::Missing => Ok(PathUse::Unused),
            Agent::Installed(agent) => {
                let id = holder.uuid().unwrap_or_default();
                let is_used = self.is_used_by_version(path, id, &agent).await?;
                Ok(if is_used { PathUse::Used } else { PathUse::Unused })
            }
        }
    }

    async fn is_used_by_version(
        &self,
        path: &str,
        id: Uuid,
        agent: &Installation,
    ) -> Result<bool, Error> {
        for version in &agent.versions {
            let manifest = self.manifest_of(id, version.id).await?;
            for key in keys_at(&manifest, path) {
                let stream = StreamId::new("trigger", trigger_id(version.id, key));
                match self.load::<Trigger>(&stream).await?.0 {
                    Trigger::Active(details) if !is_at(&details, path) => {}
                    Trigger::Deleted => {}
                    // One that is missing is being made.
                    Trigger::Active(_) | Trigger::Missing => return Ok(true),
                }
            }
        }
        Ok(false)
    }
}

/// What becomes of a path whose holder does not use it.
enum PathUse {
    Used,
    /// Its holder will never use it again.
    Gone,
    /// Its holder does not use it now.
    Unused,
}

/// What a webhook trigger listens to; none of another one.
pub(crate) fn webhook_of(details: &TriggerDetails) -> Option<Webhook> {
    match Setting::parse(details.kind, &details.configuration) {
        Ok(Setting::Webhook(webhook)) => Some(*webhook),
        _ => None,
    }
}

/// Whether a trigger says that it listens at a path.
fn is_at(details: &TriggerDetails, path: &str) -> bool {
    details.kind == TriggerKind::Webhook
        && details.configuration.get("path").and_then(Value::as_str) == Some(path)
}

/// The triggers of a manifest that listen at a path.
fn keys_at<'a>(manifest: &'a Manifest, path: &'a str) -> impl Iterator<Item = &'a str> {
    manifest.triggers.iter().filter_map(move |trigger| match &trigger.setting {
        Setting::Webhook(webhook) if webhook.path.as_deref() == Some(path) => {
            Some(trigger.key.as_str())
        }
        _ => None,
    })
}

fn read_delivery(
    webhook: &Webhook,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<GoodDelivery, BadDelivery> {
    let malformed = |error: &dyn std::fmt::Display| BadDelivery::Malformed(error.to_string());
    let text = std::str::from_utf8(body).map_err(|error| malformed(&error))?;
    let text = match webhook.verify {
        Verify::Github if is_form(headers) => payload_of_form(text)
            .ok_or_else(|| malformed(&"a form of GitHub holds it in the field `payload`"))?,
        _ => Cow::Borrowed(text),
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| malformed(&error))?;
    let id = delivery_id(webhook, headers, &value).filter(|id| !id.is_empty());
    let secret_header = match &webhook.verify {
        Verify::Hmac { header, .. } | Verify::Token { header } => Some(header.as_str()),
        _ => None,
    };
    let kept = headers
        .iter()
        .filter(|(name, _)| is_kept(name.as_str()) && Some(name.as_str()) != secret_header)
        .filter(|(_, value)| value.len() <= MAX_KEPT)
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), json!(value.to_str().ok()?))))
        .collect();
    let content = Content { id, headers: kept, body: text.into_owned() };
    Ok(GoodDelivery { content, body: value })
}

fn is_form(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The JSON in what GitHub sends where a hook says so, or says nothing.
fn payload_of_form(text: &str) -> Option<Cow<'_, str>> {
    form_urlencoded::parse(text.as_bytes()).find(|(name, _)| name == "payload").map(|it| it.1)
}

/// The id that the sender gave a delivery. Where the sender has several customs, the first one counts.
fn delivery_id(webhook: &Webhook, headers: &HeaderMap, body: &Value) -> Option<String> {
    let header = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?.trim();
        Some(shortened(value))
    };
    let at = |place: &DeliveryIdPlace| match place {
        DeliveryIdPlace::Header(name) => header(name),
        DeliveryIdPlace::Pointer(pointer) => match body.pointer(pointer)? {
            Value::String(text) => Some(shortened(text)),
            number @ Value::Number(_) => Some(number.to_string()),
            _ => None,
        },
    };
    match webhook.delivery_id.as_slice() {
        [] => {}
        [place] => return at(place),
        places => {
            // As a list it cannot be taken for one that is put together of other parts.
            let parts = places.iter().map(at);
            let parts = parts.map(|part| part.filter(|part| !part.is_empty()));
            let parts: Value = parts.collect::<Option<Vec<_>>>()?.into();
            return Some(shortened(&parts.to_string()));
        }
    }
    let names: &[&str] = match &webhook.verify {
        Verify::Github => &["x-github-delivery"],
        Verify::Gitlab => &["webhook-id", "idempotency-key", "x-gitlab-event-uuid"],
        Verify::Bitbucket => &["x-request-uuid", "x-request-id"],
        Verify::StandardWebhooks => &["webhook-id"],
        Verify::None | Verify::Hmac { .. } | Verify::Basic | Verify::Token { .. } => {
            &["idempotency-key", "webhook-id"]
        }
    };
    names.iter().find_map(|name| header(name))
}

/// An id as it is kept: a long one by its hash, so that two of them stay two.
fn shortened(id: &str) -> String {
    if id.len() <= MAX_KEPT { id.to_owned() } else { hex::encode(Sha256::digest(id)) }
}

/// Whether a header says something about a delivery, and nothing that is secret.
fn is_kept(name: &str) -> bool {
    const KEPT: [&str; 5] =
        ["content-type", "user-agent", "idempotency-key", "webhook-id", "webhook-timestamp"];
    const ENDS: [&str; 8] =
        ["-event", "-topic", "-type", "-delivery", "-id", "-uuid", "-instance", "-number"];
    KEPT.contains(&name) || (name.starts_with("x-") && ENDS.iter().any(|end| name.ends_with(end)))
}

#[cfg(test)]
mod tests;

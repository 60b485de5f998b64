//! The other sides of integrations: whether they let us in, and what steps ask of them.
//!
//! The rule of this file: what was told in confidence is told to the address of the integration and to
//! nobody else, and stands in nothing that comes back.

mod chat;
mod client;
mod code;
pub(crate) mod files;
mod mail;
mod web;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use domain::integration::IntegrationKind;
use domain::step::IntegrationCall;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::address::AddressPolicy;
use crate::OpenIntegration;
use crate::jwt::{Download, KeyLimits, KeySet, KeySource};
use crate::policies::ToolError;
use crate::veil::Veil;
use client::Api;
pub(super) use client::refused_address;

/// How long a test may take.
const TEST_LIMIT: Duration = Duration::from_secs(15);

/// The most access tokens that are kept.
const MOST_TOKENS: usize = 1_000;

/// The most issuers whose keys are kept.
const MOST_KEY_SETS: usize = 200;

/// Calls the other sides of integrations.
pub struct Connectors {
    client: reqwest::Client,
    policy: AddressPolicy,
    /// How long a chat model may send nothing.
    idle_timeout: Duration,
    state: Mutex<State>,
}

/// What is remembered between calls.
#[derive(Default)]
struct State {
    /// Until when nothing is asked of the other side, because it said so.
    closed: HashMap<Told, Instant>,
    /// The keys of those who sign what communicators send, by where they are.
    keys: HashMap<String, KeySet>,
    /// Access tokens that were given for a secret.
    tokens: HashMap<Told, AccessToken>,
}

/// An integration as it was told: one with another configuration or other secrets may be let in where this one
/// was not.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Told {
    integration: Uuid,
    secrets_version: u64,
    config: [u8; 32],
}

impl Told {
    fn of(integration: &OpenIntegration) -> Told {
        let mut config = Sha256::new();
        for (name, value) in &integration.told.config {
            config.update(Value::from(name.as_str()).to_string());
            config.update(value.to_string());
        }
        Told {
            integration: integration.id,
            secrets_version: integration.secrets_version,
            config: config.finalize().into(),
        }
    }
}

#[derive(Clone)]
struct AccessToken {
    text: String,
    good_until: Instant,
}

/// What came of a test.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Why it did not succeed, as `unauthorized`.
    pub failure: Option<String>,
    /// What a person can act on, or may like to know.
    pub message: String,
}

impl Connectors {
    pub(super) fn new(
        client: reqwest::Client,
        policy: AddressPolicy,
        idle_timeout: Duration,
    ) -> Connectors {
        Connectors { client, policy, idle_timeout, state: Mutex::default() }
    }

    /// Connects, whatever is remembered of earlier calls, and says what came of it.
    pub async fn test(&self, integration: &OpenIntegration) -> Tried {
        self.forget(integration);
        let tried = tokio::time::timeout(TEST_LIMIT, self.try_out(integration)).await;
        let hide = self.veil(integration);
        match tried {
            Ok(Ok(message)) => Tried { failure: None, message: hide.text(&message) },
            Ok(Err(error)) => {
                Tried { failure: Some(error.code), message: hide.text(&error.message) }
            }
            Err(_) => Tried {
                failure: Some("timed_out".to_owned()),
                message: format!(
                    "the other side did not answer within {} s: check the address, and whether a firewall is in \
                     between",
                    TEST_LIMIT.as_secs()
                ),
            },
        }
    }

    /// Asks what a step asks. What changes something is sent with the key where the other side knows one, so
    /// that it can tell a second attempt from a second wish.
    ///
    /// # Errors
    /// The other side cannot be reached, or does not do it.
    pub async fn call(
        &self,
        integration: &OpenIntegration,
        call: &IntegrationCall,
        key: &str,
    ) -> Result<Value, ToolError> {
        let told = Arguments(&call.arguments);
        let done = match integration.kind {
            IntegrationKind::Github | IntegrationKind::Gitlab => {
                self.call_code(integration, call.operation.name, told).await
            }
            IntegrationKind::Slack | IntegrationKind::GoogleChat | IntegrationKind::Teams => {
                self.post_message(integration, told, key).await
            }
            IntegrationKind::Smtp => self.send_mail(integration, told, key).await,
            IntegrationKind::OpenaiCompatible => self.chat(integration, told).await,
            IntegrationKind::Http => self.request(integration, told, key).await,
        };
        let veil = self.veil(integration);
        match done {
            Ok(output) => Ok(veil.value(output)),
            Err(error) => Err(ToolError { message: veil.text(&error.message), ..error }),
        }
    }

    async fn try_out(&self, integration: &OpenIntegration) -> Result<String, ToolError> {
        match integration.kind {
            IntegrationKind::Github | IntegrationKind::Gitlab => self.test_code(integration).await,
            IntegrationKind::Slack | IntegrationKind::GoogleChat | IntegrationKind::Teams => {
                self.test_chat(integration).await
            }
            IntegrationKind::Smtp => self.test_mail(integration).await,
            IntegrationKind::OpenaiCompatible | IntegrationKind::Http => {
                self.test_web(integration).await
            }
        }
    }

    /// The keys at a place that an integration names. Where they are and whose says which they are.
    pub(crate) fn keys(&self, source: KeySource) -> KeySet {
        let place = match &source {
            KeySource::Discovery { issuer, .. } => format!("{source} {issuer}"),
            KeySource::Address(_) | KeySource::File(_) => source.to_string(),
        };
        let mut state = self.state.lock();
        if state.keys.len() >= MOST_KEY_SETS {
            state.keys.clear();
        }
        let new = || {
            let download = Download::judged(self.client.clone(), self.policy.clone());
            KeySet::new(source, KeyLimits::default(), download)
        };
        state.keys.entry(place).or_insert_with(new).clone()
    }

    fn api<'a>(&'a self, integration: &'a OpenIntegration) -> Api<'a> {
        Api { connectors: self, integration }
    }

    /// Takes out of what came back what was told in confidence, and what was made of it.
    fn veil(&self, integration: &OpenIntegration) -> Veil {
        let mut secrets = integration.told.secrets.clone();
        if let (Some(user), Some(password)) =
            (told(integration, "user"), secrets.0.get("password").cloned())
        {
            secrets.0.insert("basic".to_owned(), BASE64.encode(format!("{user}:{password}")));
        }
        if let Some(token) = self.known_token(integration) {
            secrets.0.insert("access token".to_owned(), token);
        }
        Veil::of(&secrets)
    }

    /// Forgets what an integration was given, and that it was asked to wait.
    fn forget(&self, integration: &OpenIntegration) {
        let told = Told::of(integration);
        let mut state = self.state.lock();
        state.closed.remove(&told);
        state.tokens.remove(&told);
    }

    /// Forgets an access token that the other side does not take any more. Another one stays.
    fn forget_token(&self, integration: &OpenIntegration, text: &str) {
        let told = Told::of(integration);
        let mut state = self.state.lock();
        if state.tokens.get(&told).is_some_and(|token| token.text == text) {
            state.tokens.remove(&told);
        }
    }

    /// An access token that was given before and is good for a while.
    fn known_token(&self, integration: &OpenIntegration) -> Option<String> {
        let state = self.state.lock();
        let token = state.tokens.get(&Told::of(integration))?;
        (token.good_until > Instant::now()).then(|| token.text.clone())
    }

    fn keep_token(&self, integration: &OpenIntegration, text: &str, good_for: Duration) {
        let mut state = self.state.lock();
        if state.tokens.len() >= MOST_TOKENS {
            state.tokens.clear();
        }
        // Not to the last moment: it has to arrive.
        let good_until = Instant::now() + good_for.saturating_sub(Duration::from_secs(60));
        let token = AccessToken { text: text.to_owned(), good_until };
        state.tokens.insert(Told::of(integration), token);
    }
}

/// What an operation is told, checked before.
#[derive(Clone, Copy)]
struct Arguments<'a>(&'a Map<String, Value>);

impl<'a> Arguments<'a> {
    fn text(self, name: &str) -> Option<&'a str> {
        self.0.get(name).and_then(Value::as_str)
    }

    fn number(self, name: &str) -> Option<u64> {
        self.0.get(name).and_then(Value::as_u64)
    }

    /// A list of texts, or one.
    fn texts(self, name: &str) -> Vec<&'a str> {
        match self.0.get(name) {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
            Some(value) => value.as_str().into_iter().collect(),
            None => Vec::new(),
        }
    }
}

/// An object of those members that there are.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let there = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect())
}

/// A text of an integration's configuration.
fn told<'a>(integration: &'a OpenIntegration, field: &str) -> Option<&'a str> {
    integration.told.config.get(field).and_then(Value::as_str)
}

/// A secret of an integration. The schema of its kind says that it is there.
fn secret<'a>(integration: &'a OpenIntegration, name: &str) -> Result<&'a str, ToolError> {
    integration.told.secrets.0.get(name).map(String::as_str).ok_or_else(|| {
        let message = format!("the integration has no secret `{name}`: give it one");
        ToolError::lasting("secret_missing", message)
    })
}

#[cfg(test)]
mod tests;

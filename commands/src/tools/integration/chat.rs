//! Slack, Google Chat and Microsoft Teams.

use std::time::{Duration, SystemTime};

use domain::integration::IntegrationKind;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::client::{Answer, Request, host};
use super::code::not_spoken;
use super::{Arguments, Connectors, object, secret, told};
use crate::OpenIntegration;
use crate::policies::ToolError;

/// What a Chat app may do with its token.
const GOOGLE_SCOPE: &str = "https://www.googleapis.com/auth/chat.bot";

/// Where Google gives tokens, where a key does not say.
const GOOGLE_TOKENS: &str = "https://oauth2.googleapis.com/token";

/// How long a token of Google's is asked for, in seconds.
const GOOGLE_TTL: u64 = 3_600;

/// What a bot may do with its token.
const TEAMS_SCOPE: &str = "https://api.botframework.com/.default";

/// The key of a service account, as Google gives it out.
#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    token_uri: Option<String>,
}

impl Connectors {
    pub(super) async fn test_chat(
        &self,
        integration: &OpenIntegration,
    ) -> Result<String, ToolError> {
        match integration.kind {
            IntegrationKind::Slack => {
                let answer = self.slack(integration, "auth.test", json!({})).await?;
                let text = |field: &str| answer.body[field].as_str().unwrap_or("?").to_owned();
                Ok(format!("Slack takes the token, as {} in {}", text("user"), text("team")))
            }
            IntegrationKind::GoogleChat if has(integration, "service_account_key") => {
                self.google_token(integration).await?;
                Ok("Google gives a token for the service account".to_owned())
            }
            IntegrationKind::GoogleChat => {
                let url = google_webhook(integration)?;
                let side = host(&url);
                let mut root = url;
                root.set_path("/");
                root.set_query(None);
                self.api(integration).send(&Request::new(Method::GET, root)).await?;
                Ok(format!(
                    "the address is one of an incoming webhook, and {side} answers; whether its key is good is \
                     seen with the first message"
                ))
            }
            _ => {
                self.teams_token(integration).await?;
                Ok("a token is given for the bot".to_owned())
            }
        }
    }

    /// Posts a message. Google Chat keeps the key, and does not post a second time for it. Slack promises
    /// its own clients the same of `client_msg_id`, and others nothing.
    pub(super) async fn post_message(
        &self,
        integration: &OpenIntegration,
        given: Arguments<'_>,
        key: &str,
    ) -> Result<Value, ToolError> {
        let (text, thread) = (given.text("text").unwrap_or_default(), given.text("thread"));
        match integration.kind {
            IntegrationKind::Slack => {
                let channel = channel(integration, given, "channel")?;
                let body = object([
                    ("channel", Some(channel.into())),
                    ("text", Some(text.into())),
                    ("thread_ts", thread.map(Value::from)),
                    ("client_msg_id", Some(key.into())),
                ]);
                let answer = self.slack(integration, "chat.postMessage", body).await?;
                let (ts, channel) = (answer.body.get("ts").cloned(), answer.body.get("channel"));
                Ok(object([
                    ("id", ts.clone()),
                    ("thread", thread.map(Value::from).or(ts)),
                    ("channel", channel.cloned()),
                ]))
            }
            IntegrationKind::GoogleChat => {
                self.post_to_google(integration, given, text, thread, key).await
            }
            _ => {
                let conversation = channel(integration, given, "conversation")?;
                let mut path = vec!["v3", "conversations", conversation, "activities"];
                path.extend(thread);
                let api = self.api(integration);
                let body = object([
                    ("type", Some("message".into())),
                    ("text", Some(text.into())),
                    ("textFormat", Some("markdown".into())),
                    ("replyToId", thread.map(Value::from)),
                ]);
                let request = Request::new(Method::POST, api.url("service_url", &path)?).json(body);
                let id = self.ask_as_bot(integration, &request).await?.body.get("id").cloned();
                Ok(object([
                    ("id", id.clone()),
                    ("thread", thread.map(Value::from).or(id)),
                    ("channel", Some(conversation.into())),
                ]))
            }
        }
    }

    async fn post_to_google(
        &self,
        integration: &OpenIntegration,
        given: Arguments<'_>,
        text: &str,
        thread: Option<&str>,
        key: &str,
    ) -> Result<Value, ToolError> {
        let api = self.api(integration);
        let is_bot = has(integration, "service_account_key");
        let mut request = if is_bot {
            let space = channel(integration, given, "space")?;
            let space = space.strip_prefix("spaces/").unwrap_or(space);
            let url = api.url("base_url", &["v1", "spaces", space, "messages"])?;
            Request::new(Method::POST, url)
        } else {
            Request::new(Method::POST, google_webhook(integration)?)
        };
        request.url.query_pairs_mut().append_pair("requestId", key);
        let thread = thread.map(|thread| {
            let option = "REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD";
            request.url.query_pairs_mut().append_pair("messageReplyOption", option);
            // A thread is known by its name, or by a key of one's own.
            let by = if thread.starts_with("spaces/") { "name" } else { "threadKey" };
            json!({ by: thread })
        });
        let body = object([("text", Some(text.into())), ("thread", thread)]);
        let request = request.json(body);
        let answer = match is_bot {
            true => self.ask_as_bot(integration, &request).await?,
            false => api.ask(&request).await?,
        };
        Ok(object([
            ("id", answer.body.get("name").cloned()),
            ("thread", answer.body.pointer("/thread/name").cloned()),
        ]))
    }

    /// Asks with what the bot shows to be let in. An access token that was given before may have been taken back since:
    /// then with a new one, once.
    pub(super) async fn as_bot<T, F: Future<Output = Result<T, ToolError>>>(
        &self,
        integration: &OpenIntegration,
        request: &Request,
        ask: impl Fn(Request) -> F,
    ) -> Result<T, ToolError> {
        let known = self.known_token(integration);
        match (ask(self.authorized(integration, request).await?).await, known) {
            (Err(error), Some(known)) if error.code == "unauthorized" => {
                self.forget_token(integration, &known);
                ask(self.authorized(integration, request).await?).await
            }
            (answer, _) => answer,
        }
    }

    async fn authorized(
        &self,
        integration: &OpenIntegration,
        request: &Request,
    ) -> Result<Request, ToolError> {
        let token = self.bot_token(integration).await?;
        Ok(request.clone().header("authorization", format!("Bearer {token}")))
    }

    async fn ask_as_bot(
        &self,
        integration: &OpenIntegration,
        request: &Request,
    ) -> Result<Answer, ToolError> {
        let api = &self.api(integration);
        self.as_bot(integration, request, |request| async move { api.ask(&request).await }).await
    }

    /// Calls a method of Slack's Web API, which says of a failure with the status 200.
    async fn slack(
        &self,
        integration: &OpenIntegration,
        method: &str,
        body: Value,
    ) -> Result<Answer, ToolError> {
        let token = secret(integration, "bot_token")?;
        let api = self.api(integration);
        let request = Request::new(Method::POST, api.url("base_url", &[method])?)
            .header("authorization", format!("Bearer {token}"))
            .json(body);
        let answer = api.ask(&request).await?;
        if answer.body["ok"] == true {
            return Ok(answer);
        }
        let Some(error) = answer.body["error"].as_str() else {
            return Err(not_spoken(&request, "its answer says neither yes nor no"));
        };
        Err(slack_refused(error))
    }

    pub(super) async fn google_token(
        &self,
        integration: &OpenIntegration,
    ) -> Result<String, ToolError> {
        if let Some(token) = self.known_token(integration) {
            return Ok(token);
        }
        let invalid = |why: &str| {
            let message = format!(
                "service_account_key is not the JSON file of a service account's key ({why}): download it anew"
            );
            ToolError::lasting("key_invalid", message)
        };
        let key: ServiceAccount = serde_json::from_str(secret(integration, "service_account_key")?)
            .map_err(|_| invalid("it is no JSON with client_email and private_key"))?;
        let token_uri = key.token_uri.as_deref().unwrap_or(GOOGLE_TOKENS);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = now.as_secs();
        let claims = json!({
            "iss": key.client_email, "scope": GOOGLE_SCOPE, "aud": token_uri, "iat": now,
            "exp": now + GOOGLE_TTL,
        });
        let header = Header { kid: key.private_key_id, ..Header::new(Algorithm::RS256) };
        let signed = EncodingKey::from_rsa_pem(key.private_key.as_bytes())
            .and_then(|key| jsonwebtoken::encode(&header, &claims, &key))
            .map_err(|_| invalid("its private_key cannot be used"))?;
        let url = Url::parse(token_uri).map_err(|_| invalid("its token_uri is no address"))?;
        let request = Request::new(Method::POST, url).form(&[
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
            ("assertion", &signed),
        ]);
        self.access_token(integration, &request).await
    }

    pub(super) async fn teams_token(
        &self,
        integration: &OpenIntegration,
    ) -> Result<String, ToolError> {
        if let Some(token) = self.known_token(integration) {
            return Ok(token);
        }
        let tenant = told(integration, "tenant").unwrap_or_default();
        let url = self.api(integration).url("login_url", &[tenant, "oauth2", "v2.0", "token"])?;
        let request = Request::new(Method::POST, url).form(&[
            ("grant_type", "client_credentials"),
            ("client_id", told(integration, "app_id").unwrap_or_default()),
            ("client_secret", secret(integration, "app_password")?),
            ("scope", TEAMS_SCOPE),
        ]);
        self.access_token(integration, &request).await
    }

    /// An access token (RFC 6749), which is kept while it is good.
    async fn access_token(
        &self,
        integration: &OpenIntegration,
        request: &Request,
    ) -> Result<String, ToolError> {
        let api = self.api(integration);
        let answer = api.send(request).await?;
        if answer.status.is_client_error() {
            // Who gives tokens answers 400 for a wrong secret as well.
            let mut error = api.refused(request, &answer);
            let codes = ["invalid_client", "invalid_grant", "unauthorized_client"];
            if answer.body["error"].as_str().is_some_and(|code| codes.contains(&code)) {
                error.code = "unauthorized".to_owned();
            }
            return Err(error);
        }
        if !answer.status.is_success() {
            return Err(api.refused(request, &answer));
        }
        let Some(token) = answer.body["access_token"].as_str() else {
            return Err(not_spoken(request, "its answer holds no access_token"));
        };
        let good_for = answer.body["expires_in"].as_u64().unwrap_or(300);
        self.keep_token(integration, token, Duration::from_secs(good_for));
        Ok(token.to_owned())
    }
}

fn has(integration: &OpenIntegration, name: &str) -> bool {
    integration.told.secrets.0.contains_key(name)
}

/// Where a message goes: what the step names, or else the configuration.
fn channel<'a>(
    integration: &'a OpenIntegration,
    given: Arguments<'a>,
    field: &str,
) -> Result<&'a str, ToolError> {
    given.text("channel").or(told(integration, field)).ok_or_else(|| {
        let message = format!("name the `channel`, or give the integration a {field}");
        ToolError::lasting("channel_missing", message)
    })
}

/// The address of an incoming webhook, if it looks like one.
fn google_webhook(integration: &OpenIntegration) -> Result<Url, ToolError> {
    let invalid = || {
        let message = "webhook_url is not the address of an incoming webhook: it looks as \
                       https://chat.googleapis.com/v1/spaces/…/messages?key=…&token=…";
        ToolError::lasting("webhook_url_invalid", message)
    };
    let url = Url::parse(secret(integration, "webhook_url")?).map_err(|_| invalid())?;
    let path: Vec<&str> = url.path_segments().map(Iterator::collect).unwrap_or_default();
    let is_one = matches!(path.as_slice(), [.., "v1", "spaces", _, "messages"]);
    let holds = |name: &str| url.query_pairs().any(|(key, value)| key == name && !value.is_empty());
    if is_one && holds("key") && holds("token") { Ok(url) } else { Err(invalid()) }
}

pub(super) fn slack_refused(error: &str) -> ToolError {
    let error: String = error.chars().filter(char::is_ascii_graphic).take(80).collect();
    let (code, what) = match error.as_str() {
        "invalid_auth" | "not_authed" | "token_revoked" | "token_expired" | "account_inactive" => (
            "unauthorized",
            "the bot token is mistyped, was revoked or has expired; give the integration another",
        ),
        "missing_scope" | "not_allowed_token_type" | "no_permission" | "access_denied" => (
            "forbidden",
            "the bot token may not do this: give the app the scope, and install it anew",
        ),
        "channel_not_found" | "not_in_channel" | "is_archived" => (
            "not_found",
            "there is no such channel for the bot: check its id, and invite the bot to it",
        ),
        "ratelimited" => {
            let message = "Slack was asked too often: try again in a moment";
            return ToolError::passing("rate_limited", message);
        }
        "internal_error" | "fatal_error" | "service_unavailable" => {
            let message =
                format!("Slack has a trouble of its own ({error}): try again in a moment");
            return ToolError::passing("unavailable", message);
        }
        _ => ("rejected", "look it up in the documentation of Slack's Web API"),
    };
    ToolError::lasting(code, format!("Slack says {error}: {what}"))
}

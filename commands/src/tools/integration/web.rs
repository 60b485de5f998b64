//! Language models behind the chat API of OpenAI, and any API on the web.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use domain::integration::IntegrationKind;
use domain::step::AnswerCall;
use reqwest::header::{AUTHORIZATION, HeaderName};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::client::{Request, host};
use super::code::not_spoken;
use super::{Arguments, Connectors, object, secret, told};
use crate::OpenIntegration;
use crate::policies::ToolError;
use crate::tools::answer::AnswerModel;
use crate::tools::answer::chat::{ChatCompletions, ChatServer};

impl Connectors {
    pub(super) async fn test_web(
        &self,
        integration: &OpenIntegration,
    ) -> Result<String, ToolError> {
        let api = self.api(integration);
        if integration.kind == IntegrationKind::OpenaiCompatible {
            let request = Request::new(Method::GET, api.url("base_url", &["models"])?);
            let request = authorised(integration, request)?;
            let answer = api.ask(&request).await?;
            let Some(models) = answer.body["data"].as_array() else {
                return Err(not_spoken(&request, "its answer is no list of models"));
            };
            let side = host(&request.url);
            let is_there = |name| models.iter().any(|model| model["id"] == name);
            return Ok(match told(integration, "model") {
                Some(model) if !is_there(model) => {
                    format!("{side} lets us in, but does not list the model {model}")
                }
                _ => format!("{side} lets us in, and has {} models", models.len()),
            });
        }
        let request = Request::new(Method::HEAD, api.url("base_url", &[])?);
        let request = authorised(integration, request)?;
        let answer = api.send(&request).await?;
        let is_shut_out = matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if is_shut_out || answer.status.is_server_error() || answer.status.is_redirection() {
            return Err(api.refused(&request, &answer));
        }
        // What stands at the foot of an API is its own affair.
        Ok(format!("{} answers, with {}", host(&request.url), answer.status))
    }
}

impl Connectors {
    /// Lets the model answer a prompt.
    pub(super) async fn chat(
        &self,
        integration: &OpenIntegration,
        given: Arguments<'_>,
    ) -> Result<Value, ToolError> {
        let Some(model) = given.text("model").or(told(integration, "model")) else {
            let message = "name the `model`, or give the integration one";
            return Err(ToolError::lasting("model_missing", message));
        };
        let say = |role: &str, text: &str| json!({ "role": role, "content": text });
        let system = given.text("system").map(|text| say("system", text));
        let prompt = say("user", given.text("prompt").unwrap_or_default());
        let messages: Vec<Value> = system.into_iter().chain([prompt]).collect();
        let body = object([
            ("model", Some(model.into())),
            ("messages", Some(messages.into())),
            ("temperature", given.0.get("temperature").cloned()),
            ("max_tokens", given.0.get("max_tokens").cloned()),
        ]);
        let api = self.api(integration);
        let url = api.url("base_url", &["chat", "completions"])?;
        let request = authorised(integration, Request::new(Method::POST, url).json(body))?;
        let answer = api.ask(&request).await?;
        let Some(text) = answer.body.pointer("/choices/0/message/content").and_then(Value::as_str)
        else {
            return Err(not_spoken(&request, "its answer holds no message"));
        };
        Ok(object([
            ("answer", Some(text.into())),
            ("model", Some(answer.body.get("model").cloned().unwrap_or_else(|| model.into()))),
            ("usage", answer.body.get("usage").cloned()),
        ]))
    }

    /// Lets the model of an integration answer, as the server's own does.
    ///
    /// # Errors
    /// As [`AnswerModel::answer`].
    pub(crate) async fn answer(
        &self,
        integration: &OpenIntegration,
        call: &AnswerCall,
    ) -> Result<Value, ToolError> {
        self.api(integration).wait_till_open().await?;
        let url = self.api(integration).url("base_url", &[])?;
        let server = ChatServer {
            url,
            model: told(integration, "model").map(str::to_owned),
            // A server of one's own may ask for none.
            api_key: secret(integration, "api_key").ok().map(Into::into),
            idle_timeout: self.idle_timeout,
        };
        let model = ChatCompletions::judged(server, self.client.clone(), self.policy.clone());
        let veil = self.veil(integration);
        match model.answer(call).await {
            Ok(output) => Ok(veil.value(output)),
            Err(error) => {
                if let (Some(wait), "llm_status_429") = (error.retry_after, error.code.as_str()) {
                    self.api(integration).close_for(wait);
                }
                Err(ToolError { message: veil.text(&error.message), ..error })
            }
        }
    }

    /// Makes a request below the address of the integration.
    pub(super) async fn request(
        &self,
        integration: &OpenIntegration,
        given: Arguments<'_>,
        key: &str,
    ) -> Result<Value, ToolError> {
        let body = given.0.get("json").cloned();
        let method = given.text("method").unwrap_or(if body.is_some() { "POST" } else { "GET" });
        let methods =
            [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let Some(method) = methods.into_iter().find(|known| known.as_str() == method) else {
            let message = "`method` is GET, HEAD, POST, PUT, PATCH or DELETE";
            return Err(ToolError::lasting("with_invalid", message));
        };
        let path = given.text("path").unwrap_or_default().trim_matches('/');
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if parts.iter().any(|part| matches!(*part, "." | "..")) {
            let message = "`path` stays below base_url: leave . and .. out";
            return Err(ToolError::lasting("with_invalid", message));
        }
        let api = self.api(integration);
        let mut url = api.url("base_url", &parts)?;
        for (name, value) in given.0.get("query").and_then(Value::as_object).into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if !value.is_null() {
                url.query_pairs_mut().append_pair(name, &text);
            }
        }
        let mut request = Request::new(method.clone(), url);
        if !method.is_idempotent() {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = api.ask(&authorised(integration, request)?).await?;
        Ok(json!({ "status": answer.status.as_u16(), "body": answer.body }))
    }
}

/// The request, which says who asks.
fn authorised(integration: &OpenIntegration, request: Request) -> Result<Request, ToolError> {
    let bearer = |token: &str| (AUTHORIZATION, format!("Bearer {token}"));
    let (name, value) = match (integration.kind, told(integration, "auth")) {
        (IntegrationKind::OpenaiCompatible, _) => match secret(integration, "api_key") {
            Ok(key) => bearer(key),
            // A server of one's own may ask for none.
            Err(_) => return Ok(request),
        },
        (_, Some("bearer")) => bearer(secret(integration, "token")?),
        (_, Some("basic")) => {
            let user = told(integration, "user").unwrap_or_default();
            let pair = format!("{user}:{}", secret(integration, "password")?);
            (AUTHORIZATION, format!("Basic {}", BASE64.encode(pair)))
        }
        (_, Some("header")) => {
            let name = told(integration, "header").unwrap_or_default();
            let name = HeaderName::try_from(name).map_err(|_| {
                let message = "the header of the integration is none: mend its configuration";
                ToolError::lasting("header_invalid", message)
            })?;
            let token = secret(integration, "token")?.to_owned();
            return Ok(request.named(name, token));
        }
        _ => return Ok(request),
    };
    Ok(request.named(name, value))
}

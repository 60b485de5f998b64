//! Files that people send through communicators.
//!
//! The rule of this file: no more of a file is held than came over the wire just now; whoever reads it
//! says when it is too large.

use std::time::Duration;

use bytes::Bytes;
use domain::integration::IntegrationKind;
use futures::{Stream, stream};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response};
use serde_json::Value;
use url::Url;

pub(crate) use super::client::below;
use super::client::{Request, cut_off, host};
use super::{Connectors, secret};
use crate::OpenIntegration;
use crate::policies::ToolError;

/// How long the other side may say nothing in the middle of a file.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

/// Where the bytes of a file are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FilePlace {
    pub(crate) url: Url,
    /// Whether they are given to our credential alone, and may be asked for with it.
    pub(crate) is_ours: bool,
}

/// A file that is being fetched.
pub(crate) struct Fetched {
    response: Response,
    url: Url,
}

impl Fetched {
    /// How long it is, where that was said.
    pub(crate) fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// Its bytes, as they come.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Result<Bytes, ToolError>> {
        stream::try_unfold(self, |mut it| async move {
            let chunk = tokio::time::timeout(IDLE_LIMIT, it.response.chunk()).await;
            let chunk = chunk.map_err(|_| {
                let message = format!(
                    "{} stopped in the middle of the file for {} s",
                    host(&it.url),
                    IDLE_LIMIT.as_secs()
                );
                ToolError::passing("timed_out", message)
            })?;
            let chunk = chunk.map_err(|error| cut_off(&error, &it.url))?;
            Ok(chunk.map(|chunk| (chunk, it)))
        })
    }
}

impl Connectors {
    /// Begins to fetch a file.
    ///
    /// # Errors
    /// It cannot be reached, or is not given to us.
    pub(crate) async fn open_file(
        &self,
        integration: &OpenIntegration,
        place: &FilePlace,
    ) -> Result<Fetched, ToolError> {
        let request = Request::new(Method::GET, place.url.clone()).header("accept", "*/*");
        let api = self.api(integration);
        let url = place.url.clone();
        if !place.is_ours {
            return Ok(Fetched { response: api.open(&request).await?, url });
        }
        let api = &api;
        let open = |request: Request| async move { api.open(&request).await };
        let response = self.as_bot(integration, &request, open).await?;
        Ok(Fetched { response, url })
    }

    /// What the bot shows, to be let in.
    pub(super) async fn bot_token(
        &self,
        integration: &OpenIntegration,
    ) -> Result<String, ToolError> {
        match integration.kind {
            IntegrationKind::GoogleChat => self.google_token(integration).await,
            IntegrationKind::Teams => self.teams_token(integration).await,
            _ => secret(integration, "bot_token").map(str::to_owned),
        }
    }

    /// Where Slack keeps a file, which it did not say with the message.
    ///
    /// # Errors
    /// Slack cannot be reached, or does not say.
    pub(crate) async fn slack_file(
        &self,
        integration: &OpenIntegration,
        id: &str,
    ) -> Result<Value, ToolError> {
        let token = secret(integration, "bot_token")?;
        let api = self.api(integration);
        let request = Request::new(Method::POST, api.url("base_url", &["files.info"])?)
            .header("authorization", format!("Bearer {token}"))
            .form(&[("file", id)]);
        let mut answer = api.ask(&request).await?;
        match answer.body["error"].as_str() {
            Some(error) => Err(super::chat::slack_refused(error)),
            None => Ok(answer.body["file"].take()),
        }
    }
}

/// Whether a page came in place of a file: so Slack asks a token without the scope to sign in.
pub(crate) fn is_page(fetched: &Fetched) -> bool {
    let content_type = fetched.response.headers().get(CONTENT_TYPE);
    content_type
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("text/html"))
}

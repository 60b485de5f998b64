//! Manifests as they are sent: JSON, or YAML.
//!
//! The rule of this file: whatever a manifest is written in, its faults have JSON pointers; what cannot be
//! read at all says line and column.

use axum::http::HeaderMap;
use axum_extra::headers::{ContentType, HeaderMapExt};
use domain::manifest::{Capability, Manifest, from_yaml};
use domain::refusal::InvalidDocument;
use mime_guess::mime::{self, Mime};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::app::App;
use crate::http::{FieldError, Problem};

/// A manifest in a body.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[serde(untagged)]
#[expect(dead_code, reason = "only documents what may be sent")]
pub(super) enum ManifestDocument {
    /// As JSON.
    #[schema(value_type = Object)]
    Json(Map<String, Value>),
    /// A text that is one in YAML.
    Yaml(String),
}

/// A manifest that stands in a body at `place`, as JSON or as a text in YAML.
pub(super) fn read_manifest(sent: &Value, place: &str) -> Result<Manifest, Problem> {
    match sent {
        Value::String(text) => read_yaml(text, place),
        document => accept(document, place),
    }
}

/// A manifest in YAML, which stands at `place` of a body; nowhere where it is the body.
pub(super) fn read_yaml(text: &str, place: &str) -> Result<Manifest, Problem> {
    let document = from_yaml(text).map_err(|fault| {
        let (code, message) = (fault.code, fault.message.clone());
        commands::Error::refused(&InvalidDocument { code, message, faults: vec![fault] })
            .within(place)
    })?;
    accept(&document, place)
}

fn accept(document: &Value, place: &str) -> Result<Manifest, Problem> {
    Ok(Manifest::accept(document)
        .map_err(|invalid| commands::Error::refused(&invalid).within(place))?)
}

/// Whether a body says of itself that it is YAML (RFC 9512), in UTF-8.
pub(super) fn is_yaml(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.typed_get::<ContentType>() else { return false };
    let media_type = Mime::from(content_type);
    let is_utf8 = media_type.get_param(mime::CHARSET).is_none_or(|charset| charset == mime::UTF_8);
    media_type.essence_str() == "application/yaml" && is_utf8
}

/// Checks that there is a model that can do what a manifest asks of one. `place` is what asks for it.
pub(super) fn check_model(app: &App, manifest: &Manifest, place: &str) -> Result<(), Problem> {
    match manifest.requires.model {
        Some(Capability::Chat)
            if !app.tools.has_chat_model && manifest.requires.model_slot.is_none() =>
        {
            let code = "model_not_configured";
            let message = "the agent needs a chat model, and this server has none: start it with \
                           --llm-url, the address of one that speaks as OpenAI's does, or give the model of the manifest \
                           a slot, which an integration of type openai-compatible fills";
            Err(Problem::invalid(code, message).with_error(FieldError::new(place, code, message)))
        }
        Some(Capability::Chat) | None => Ok(()),
    }
}

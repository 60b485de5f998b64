//! What an integration can connect to, and what each kind needs to be told.
//!
//! The rule of this file: what a kind takes is said by its JSON Schema (`domain/schemas/integrations`)
//! and nowhere else. A fault never repeats what was given: it may be a secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::refusal::{Fault, InvalidDocument, pointer_segment};
use crate::schema::Schema;
use crate::values::Object;

/// What an integration connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IntegrationKind {
    /// GitHub.
    Github,
    /// GitLab.
    Gitlab,
    /// Slack.
    Slack,
    /// Google Chat.
    GoogleChat,
    /// Microsoft Teams.
    Teams,
    /// A mail server.
    Smtp,
    /// A language model behind the chat API of OpenAI.
    OpenaiCompatible,
    /// Any API on the web.
    Http,
}

impl IntegrationKind {
    /// Every kind there is.
    pub const ALL: [IntegrationKind; 8] = [
        IntegrationKind::Github,
        IntegrationKind::Gitlab,
        IntegrationKind::Slack,
        IntegrationKind::GoogleChat,
        IntegrationKind::Teams,
        IntegrationKind::Smtp,
        IntegrationKind::OpenaiCompatible,
        IntegrationKind::Http,
    ];

    /// The kind as it is written.
    pub fn as_str(self) -> &'static str {
        serde_variant::to_variant_name(&self).expect("a kind is an enum of plain names")
    }

    /// Whether people talk through it.
    pub fn is_communicator(self) -> bool {
        matches!(
            self,
            IntegrationKind::Slack | IntegrationKind::GoogleChat | IntegrationKind::Teams
        )
    }

    /// The kind that is meant.
    pub fn parse(text: &str) -> Option<IntegrationKind> {
        IntegrationKind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The JSON Schema (draft 2020-12) of `{config, secrets}`.
    pub fn schema(self) -> Value {
        let text = match self {
            IntegrationKind::Github => include_str!("../../schemas/integrations/github.json"),
            IntegrationKind::Gitlab => include_str!("../../schemas/integrations/gitlab.json"),
            IntegrationKind::Slack => include_str!("../../schemas/integrations/slack.json"),
            IntegrationKind::GoogleChat => {
                include_str!("../../schemas/integrations/google-chat.json")
            }
            IntegrationKind::Teams => include_str!("../../schemas/integrations/teams.json"),
            IntegrationKind::Smtp => include_str!("../../schemas/integrations/smtp.json"),
            IntegrationKind::OpenaiCompatible => {
                include_str!("../../schemas/integrations/openai-compatible.json")
            }
            IntegrationKind::Http => include_str!("../../schemas/integrations/http.json"),
        };
        serde_json::from_str(text).expect("the schemas are JSON, which a test looks at")
    }

    /// What an integration of this kind was told, with defaults filled in.
    ///
    /// # Errors
    /// `integration_invalid`, with every fault at its place in `{config, secrets}`.
    pub fn check(self, config: Object, secrets: Secrets) -> Result<Told, InvalidDocument> {
        let schema = self.schema();
        let secrets: Map<String, Value> =
            secrets.0.into_iter().map(|(name, text)| (name, Value::String(text))).collect();
        let mut given = json!({ "config": config, "secrets": secrets });
        let mut faults = take_unknown(&schema, &mut given);
        let told = Schema::compile(&schema).map_err(|fault| vec![fault]);
        match told.and_then(|schema| schema.complete(given)) {
            Ok(mut told) if faults.is_empty() => {
                let mut part = |name: &str| match told[name].take() {
                    Value::Object(part) => part,
                    _ => Map::new(),
                };
                let (config, secrets) = (part("config"), part("secrets"));
                let texts = secrets.into_iter().filter_map(|(name, text)| match text {
                    Value::String(text) => Some((name, text)),
                    _ => None,
                });
                Ok(Told { config, secrets: Secrets(texts.collect()) })
            }
            Ok(_) => Err(invalid(self, faults)),
            Err(others) => {
                faults.extend(others);
                Err(invalid(self, faults))
            }
        }
    }
}

/// What an integration was told, and what it was told in confidence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// How to reach the other side, and what is meant where nothing is said.
    pub config: Object,
    /// What lets it in.
    pub secrets: Secrets,
}

/// Secrets by name, in the clear: never shown, not by `Debug` either.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn invalid(kind: IntegrationKind, faults: Vec<Fault>) -> InvalidDocument {
    let message = format!(
        "this is not what an integration of type `{}` needs: mend what `errors` lists, and send it \
         again",
        kind.as_str()
    );
    InvalidDocument { code: "integration_invalid", message, faults }
}

/// Takes out what the kind does not know. The schema would say it too, but not where it stands.
fn take_unknown(schema: &Value, given: &mut Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    for part in ["config", "secrets"] {
        let known = &schema["properties"][part]["properties"];
        let Some(fields) = given[part].as_object_mut() else { continue };
        fields.retain(|field, _| {
            let is_known = known.get(field).is_some();
            if !is_known {
                let pointer = format!("/{part}/{}", pointer_segment(field));
                let message =
                    format!("`{field}` is not known here: leave it out, or see if it is misspelt");
                faults.push(Fault::new(pointer, "field_unknown", message));
            }
            is_known
        });
    }
    faults
}

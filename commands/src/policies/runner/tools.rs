//! What a step does: evaluates what it is told, and asks the knowledge bases.
//!
//! The rule of this file: done twice, it is done once. What a step makes follows from the request of
//! its execution and not from the attempt.

use std::convert::Infallible;

use bytes::Bytes;
use domain::expression::{Item, Scope};
use domain::integration::IntegrationKind;
use domain::integration::operation::Operation;
use domain::manifest::StepSpec;
use domain::step::{AnswerCall, DuplicateOf, StepCall, Target};
use domain::values::derived_id;
use domain::{FileName, expression};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Run, Runner, Work};
use crate::communicator::{Address, Saying};
use crate::file::{FileFacts, NewFile};
use crate::policies::outbox::Notice;
use crate::policies::{KnowledgeQuery, ToolError};
use crate::{Ask, Error, OpenIntegration, evaluate};

impl Runner {
    /// Does what a step is told that reaches outside. `place` is what it is called in the log.
    pub(super) async fn call(
        &self,
        run: &Run,
        work: &Work,
        place: &str,
        call: StepCall,
    ) -> Result<Value, ToolError> {
        match call {
            StepCall::KnowledgeSearch { query, knowledge, limit, min_score, mode, filters } => {
                let knowledge_base = self.base(run, work, knowledge.as_deref()).await?;
                let query = KnowledgeQuery {
                    product: run.product,
                    knowledge_base,
                    query,
                    limit,
                    min_score,
                    mode: mode.to_owned(),
                    filters,
                };
                Ok(json!({ "passages": self.knowledge.search(query).await? }))
            }
            StepCall::KnowledgeIngest { title, text, knowledge, tags, duplicate_of } => {
                let base = self.base(run, work, knowledge.as_deref()).await?;
                self.ingest(run, place, base, Note { title, text, tags, duplicate_of }).await
            }
            StepCall::Answer(call) => self.answer(run, work, place, &call).await,
            StepCall::HttpRequest(call) => {
                // The same for every attempt: a server that keeps it does the work once.
                let key = derived_id(&[b"http.request", run.id.as_bytes(), place.as_bytes()]);
                self.tools.http.call(&call, &key.to_string()).await
            }
            StepCall::Integration(call) => {
                let integration = self.integration(run, work, &call.target).await?;
                let operation = call.operation;
                check_operation(&integration, operation)?;
                self.commands
                    .record_integration_call(
                        &integration,
                        run.id,
                        place,
                        operation.name,
                        &run.requested,
                    )
                    .await
                    .map_err(not_known)?;
                let key = derived_id(&[b"integration.call", run.id.as_bytes(), place.as_bytes()]);
                self.tools.connectors.call(&integration, &call, &key.to_string()).await
            }
            StepCall::Notify(call) => {
                let integration = self.integration(run, work, &call.target).await?;
                check_operation(&integration, call.operation)?;
                let told = |name: &str| {
                    call.arguments.get(name).and_then(Value::as_str).map(str::to_owned)
                };
                let address =
                    Address { channel: told("channel"), thread: told("thread"), service: None };
                let saying = Saying { address, text: told("text").unwrap_or_default() };
                let notice = Notice {
                    integration: integration.id,
                    execution: run.id,
                    place: place.to_owned(),
                    saying,
                };
                // What becomes of it is waited for when it is in the outbox.
                self.outbox.say(notice, &run.requested).await.map(|()| Value::Null)
            }
            // These reach nothing: they are computed, and the clock is asked, before a step begins.
            StepCall::Transform { .. } | StepCall::Condition { .. } | StepCall::Wait(_) => {
                Err(crashed())
            }
        }
    }

    /// Lets a model answer: the one of an integration, where the manifest has a slot for it, or the server's own.
    async fn answer(
        &self,
        run: &Run,
        work: &Work,
        place: &str,
        call: &AnswerCall,
    ) -> Result<Value, ToolError> {
        let Some(integration) = self.model(run, work).await? else {
            return self.tools.answers.answer(call).await;
        };
        if let Some(chat) = Operation::find("chat") {
            check_operation(&integration, chat)?;
            let record = self.commands.record_integration_call(
                &integration,
                run.id,
                place,
                chat.name,
                &run.requested,
            );
            record.await.map_err(not_known)?;
        }
        self.tools.connectors.answer(&integration, call).await
    }

    /// The integration whose model is asked: what stands in the slot, or else the only one that the product
    /// can use. Where it has none, the server's own model does.
    async fn model(&self, run: &Run, work: &Work) -> Result<Option<OpenIntegration>, ToolError> {
        let Some(slot) = &work.manifest.requires.model_slot else { return Ok(None) };
        if self.tools.has_chat_model && !work.bindings.contains_key(slot) {
            let (organization, kind) =
                (run.requested.organization, IntegrationKind::OpenaiCompatible);
            if self.knowledge.integrations(organization, run.product, kind).await?.is_empty() {
                return Ok(None);
            }
        }
        self.integration(run, work, &Target::Slot(slot.clone())).await.map(Some)
    }

    /// The knowledge base that stands in a slot; the product's default one where nothing does.
    async fn base(&self, run: &Run, work: &Work, slot: Option<&str>) -> Result<Uuid, ToolError> {
        let Some(bound) = slot.and_then(|slot| work.bindings.get(slot)) else {
            return self.knowledge.default_base(run.product).await;
        };
        if self.knowledge.has_base(run.product, *bound).await? {
            return Ok(*bound);
        }
        Err(ToolError::lasting(
            "knowledge_base_not_found",
            "the knowledge base that is bound to the agent is gone: install the agent with another",
        ))
    }

    /// The integration that a step means, as it is now: the one that is bound to the slot, or else the only
    /// one of the slot's kinds that the product can use.
    async fn integration(
        &self,
        run: &Run,
        work: &Work,
        target: &Target,
    ) -> Result<OpenIntegration, ToolError> {
        let organization = run.requested.organization;
        let id = match target {
            Target::Integration(id) => *id,
            Target::Slot(slot) => match work.bindings.get(slot) {
                Some(bound) => *bound,
                None => self.unbound(run, work, slot).await?,
            },
        };
        let gone = || {
            let message = "there is no such integration (any more), or it is of another product: bind one that \
                           the product has";
            ToolError::lasting("integration_not_found", message)
        };
        let found = match self.commands.open_integration(id).await {
            Ok(found) => found,
            Err(Error::Refused { .. }) => return Err(gone()),
            Err(error) => return Err(not_known(error)),
        };
        let is_ours = found.organization == organization
            && found.product.is_none_or(|product| product == run.product);
        if !is_ours {
            return Err(gone());
        }
        if !found.enabled {
            let message = "the integration is disabled: enable it before you execute the agent";
            return Err(ToolError::lasting("integration_disabled", message));
        }
        Ok(found)
    }

    /// The only integration of a slot's kinds that the product can use.
    async fn unbound(&self, run: &Run, work: &Work, slot: &str) -> Result<Uuid, ToolError> {
        let slots = &work.manifest.requires.integrations;
        let known = slots.iter().find(|known| known.slot == slot);
        let kinds = known.map(|known| known.kinds.as_slice()).unwrap_or_default();
        let mut found = Vec::new();
        for kind in kinds.iter().filter_map(|kind| IntegrationKind::parse(kind)) {
            let organization = run.requested.organization;
            found.extend(self.knowledge.integrations(organization, run.product, kind).await?);
        }
        match found[..] {
            [only] => Ok(only),
            [] => Err(ToolError::lasting(
                "integration_missing",
                format!(
                    "the slot `{slot}` is bound to nothing, and the product has no integration of type {}: make one",
                    kinds.join(" or ")
                ),
            )),
            _ => Err(ToolError::lasting(
                "integration_ambiguous",
                format!(
                    "the slot `{slot}` is bound to nothing, and {} integrations would do: install the agent with \
                     one bound to it",
                    found.len()
                ),
            )),
        }
    }

    /// Puts a note into a knowledge base.
    async fn ingest(
        &self,
        run: &Run,
        place: &str,
        base: Uuid,
        note: Note,
    ) -> Result<Value, ToolError> {
        let Note { title, text, tags, duplicate_of } = note;
        let name = FileName::parse(&format!("{}.md", title.trim()))
            .map_err(|error| ToolError::lasting("title_invalid", error.to_string()))?;
        let limit = text.len() as u64;
        let body = futures::stream::iter([Ok::<_, Infallible>(Bytes::from(text))]);
        let blob = self.commands.vault().put_blob(run.product, body, limit).await;
        let blob = blob.map_err(|error| match error {
            vault::PutError::Vault(error) => not_stored(error.into()),
            other => ToolError::lasting(NOT_STORED, other.to_string()),
        })?;
        let blob = domain::BlobRef { name: blob.name, size: blob.size };
        let facts = FileFacts {
            source: Some(format!("execution:{}", run.id)),
            tags,
            ..FileFacts::default()
        };
        let ask = Ask::because_of(&run.requested, "runner", &[b"ingest", place.as_bytes()]);
        let file = NewFile { name: name.clone(), media_type: "text/markdown".to_owned(), blob };
        let uploaded = match duplicate_of {
            DuplicateOf::Any => self.commands.upload_file(base, file, &facts, false, &ask).await,
            DuplicateOf::Newest => {
                // Every version that is stored by now.
                let head = self.commands.log().head().await;
                let head = head.map_err(|error| not_stored(error.into()))?;
                let newest = self.knowledge.newest_named(base, &name, head).await?;
                self.commands.upload_version(base, file, &facts, newest, &ask).await
            }
        };
        let uploaded = uploaded.map_err(not_stored)?;
        let duplicate = uploaded.done.is_none();
        Ok(json!({
            "file_id": uploaded.id,
            "file_name": name,
            "status": "processing",
            "duplicate": duplicate,
        }))
    }
}

/// What is put into a knowledge base.
struct Note {
    title: String,
    text: String,
    tags: Vec<String>,
    duplicate_of: DuplicateOf,
}

/// What a step is called in the log: one that repeats has a name for each item.
pub(super) fn place(step: &StepSpec, item: Option<&Item>) -> String {
    match item {
        Some(item) => format!("{}[{}]", step.id, item.index),
        None => step.id.clone(),
    }
}

/// What the expressions of a step see: of the steps, the outputs of those that it needs.
pub(super) fn seen_by(work: &Work, step: &StepSpec, item: Option<&Item>) -> Scope {
    let needed = work.manifest.needed_by(&step.id);
    let outputs = work.scope.steps.iter().filter(|(id, _)| needed.contains(id.as_str()));
    Scope {
        input: work.scope.input.clone(),
        config: work.scope.config.clone(),
        trigger: work.scope.trigger.clone(),
        execution: work.scope.execution.clone(),
        steps: outputs.map(|(id, output)| (id.clone(), output.clone())).collect(),
        item: item.cloned(),
        event: None,
    }
}

/// What a step is told.
pub(super) struct Told {
    /// Its `with`, evaluated; nothing where the step only computes.
    pub(super) with: Value,
    /// The same, understood.
    pub(super) call: StepCall,
}

/// What a step puts out that only computes.
pub(super) async fn computed(
    work: &Work,
    step: &StepSpec,
    item: Option<&Item>,
) -> Result<Value, ToolError> {
    match read(work, step, item).await?.call {
        StepCall::Transform { output } => Ok(Value::Object(output)),
        StepCall::Condition { value } => Ok(json!({ "value": value })),
        _ => Err(crashed()),
    }
}

/// Reads a step with every expression in it evaluated, on what the step may see.
pub(super) async fn read(
    work: &Work,
    step: &StepSpec,
    item: Option<&Item>,
) -> Result<Told, ToolError> {
    let scope = seen_by(work, step, item);
    let (kind, with) = (step.kind, Value::Object(step.with.clone()));
    let at = |pointer: &str, message: &str| format!("with{pointer}: {message}");
    evaluated(move || {
        let with = expression::evaluate(&with, &scope)
            .map_err(|error| ToolError::lasting(error.code, at(&error.pointer, &error.message)))?;
        let Value::Object(with) = with else { return Err(crashed()) };
        let told = if kind.computes() { Value::Null } else { Value::Object(with.clone()) };
        let call = StepCall::parse(kind, with).map_err(|faults| {
            let faults: Vec<_> =
                faults.iter().map(|fault| at(&fault.pointer, &fault.message)).collect();
            ToolError::lasting("with_invalid", faults.join("; "))
        })?;
        Ok(Told { with: told, call })
    })
    .await
}

/// Evaluates. What crashes fails the step.
pub(super) async fn evaluated<T: Send + 'static>(
    work: impl Fn() -> Result<T, ToolError> + Send + 'static,
) -> Result<T, ToolError> {
    evaluate::evaluated(work).await.unwrap_or_else(|_| Err(crashed()))
}

pub(super) fn crashed() -> ToolError {
    ToolError::lasting(
        "step_crashed",
        "the step crashed, which is a fault of this server: report it with the server's log",
    )
}

fn check_operation(integration: &OpenIntegration, operation: &Operation) -> Result<(), ToolError> {
    if operation.kinds.contains(&integration.kind) {
        return Ok(());
    }
    let message = format!(
        "an integration of type {} cannot do `{}`: bind another",
        integration.kind.as_str(),
        operation.name
    );
    Err(ToolError::lasting("operation_unknown", message))
}

fn not_known(error: Error) -> ToolError {
    let message = format!("the integration could not be read: {error}");
    match error {
        Error::Log(_) | Error::Conflict | Error::Vault(_) => {
            ToolError::passing("integration_not_read", message)
        }
        _ => ToolError::lasting("integration_not_read", message),
    }
}

const NOT_STORED: &str = "note_not_stored";

fn not_stored(error: Error) -> ToolError {
    use vault::Error as Vault;
    let message = error.to_string();
    match error {
        Error::Log(_) | Error::Conflict => ToolError::passing(NOT_STORED, message),
        Error::Vault(away) if away.is_store_away() => ToolError::passing(NOT_STORED, message),
        Error::Vault(Vault::DiskFull | Vault::Io { .. } | Vault::Stopping) => {
            ToolError::passing(NOT_STORED, message)
        }
        _ => ToolError::lasting(NOT_STORED, message),
    }
}

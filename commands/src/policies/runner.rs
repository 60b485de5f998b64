//! The agents' run time: takes an execution that was asked for, runs its steps in the order of their
//! needs, and reports each by an event.
//!
//! The rule of this file: a step whose success is in the log is not run again; a run that was cut off
//! goes on after its last finished step, on whichever node claims it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use domain::execution::{Execution, ExecutionCommand, ExecutionEvent, ExecutionRequest};
use domain::expression::{self, Scope};
use domain::lease::LeaseClaim;
use domain::manifest::{Manifest, StepSpec};
use domain::step::StepCall;
use domain::{FileName, Payload, Timestamp};
use eventlog::{RecordedEvent, StreamId};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::queue::{Outcome, Queue};
use super::{Knowledge, KnowledgeQuery, ToolError};
use crate::execute::decode_event;
use crate::execution::INPUT;
use crate::file::FileFacts;
use crate::{Ask, Commands, Error};

/// How many executions run at once.
const AT_ONCE: usize = 16;

/// For how long a worker claims an execution.
const LEASE: TimeDelta = TimeDelta::minutes(5);

const STEP_SUCCEEDED: &str = "execution.step_succeeded.v1";
const STEP_FAILED: &str = "execution.step_failed.v1";
const SUCCEEDED: &str = "execution.succeeded.v1";
const FAILED: &str = "execution.failed.v1";
const OUTPUT: &str = "output";
const ERROR: &str = "error";

/// The process manager of executions.
pub(super) struct Runner {
    commands: Commands,
    knowledge: Arc<dyn Knowledge>,
    worker: Uuid,
    queue: Arc<Queue>,
}

/// Why a run did not come to its end.
enum Interruption {
    /// A step failed, and with it the execution.
    Failed { step: Option<String>, error: ToolError },
    /// Machinery failed: the run goes on later.
    Passing(String),
    /// Somebody else runs it, or it has ended.
    NotOurs,
    /// The server stops: the next start goes on.
    Stopping,
}

impl From<Error> for Interruption {
    fn from(error: Error) -> Interruption {
        match error {
            Error::Refused { .. } => Interruption::NotOurs,
            other => Interruption::Passing(other.to_string()),
        }
    }
}

/// A run in progress.
struct Run {
    id: Uuid,
    stream: StreamId,
    organization: Uuid,
    product: Uuid,
    request: ExecutionRequest,
    bindings: BTreeMap<String, Uuid>,
    fence: u64,
    /// The event of the claim, which everything in this run follows from.
    claim: Arc<RecordedEvent>,
    scope: Scope,
}

impl Run {
    fn ask(&self, parts: &[&str]) -> Ask {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        Ask::because_of(&self.claim, "runner", &parts)
    }
}

impl Runner {
    pub(super) fn start(
        commands: Commands,
        knowledge: Arc<dyn Knowledge>,
        worker: Uuid,
    ) -> Arc<Runner> {
        Arc::new(Runner {
            commands,
            knowledge,
            worker,
            queue: Arc::new(Queue::new("runner", AT_ONCE)),
        })
    }

    pub(super) fn add(self: &Arc<Self>, execution: Uuid) {
        let runner = self.clone();
        self.queue.add(execution, move || {
            let runner = runner.clone();
            async move { runner.run(execution).await }
        });
    }

    pub(super) async fn stop(&self) {
        self.queue.stop().await;
    }

    async fn run(&self, execution: Uuid) -> Outcome {
        let mut run = match self.claim(execution).await {
            Ok(run) => run,
            Err(Interruption::Passing(why)) => return Outcome::TryAgain(why),
            Err(_) => return Outcome::Finished,
        };
        let ended = match self.steps(&mut run).await {
            Ok(output) => self.finish(&run, &output).await,
            Err(Interruption::Failed { step, error }) => self.fail(&run, step, &error).await,
            Err(other) => Err(other),
        };
        match ended {
            Err(Interruption::Passing(why)) => Outcome::TryAgain(why),
            _ => Outcome::Finished,
        }
    }

    /// Takes the execution for this worker.
    async fn claim(&self, id: Uuid) -> Result<Run, Interruption> {
        let stream = StreamId::new("execution", id);
        let (state, _) = self.commands.load::<Execution>(&stream).await?;
        let request = match state {
            Execution::Queued { request } | Execution::Running { request, .. } => request,
            Execution::Missing | Execution::Ended { .. } => return Err(Interruption::NotOurs),
        };
        let first = self.commands.log().read_stream(&stream, 0, 1).await.map_err(Error::from)?;
        let requested = first.first().ok_or(Interruption::NotOurs)?;
        let now = Utc::now();
        let lease = LeaseClaim {
            worker: self.worker,
            now: Timestamp::from(now),
            lease_until: Timestamp::from(now + LEASE),
            exclusive: self.commands.log().capabilities().exclusive,
        };
        let ask = Ask::because_of(
            requested,
            "runner",
            &[b"start", self.worker.as_bytes(), Uuid::now_v7().as_bytes()],
        );
        let done =
            self.commands.execute::<Execution>(id, ExecutionCommand::Start(lease), &ask).await?;
        let claim = done.events.first().ok_or(Interruption::NotOurs)?.clone();
        let ExecutionEvent::Started { fence, .. } = decode_event::<ExecutionEvent>(&claim)? else {
            return Err(Interruption::NotOurs);
        };
        let product = claim.product.ok_or(Interruption::NotOurs)?;
        let input = self
            .open(
                claim.organization,
                product,
                &stream,
                &requested.event_type,
                INPUT,
                &request.input,
            )
            .await?;
        let config = self.commands.config_of(request.agent).await?;
        let scope = Scope {
            input,
            config,
            trigger: json!({ "id": request.trigger }),
            execution: json!({ "id": id, "agent_id": request.agent, "version_id": request.version_id,
                               "created_at": Timestamp::from(requested.time) }),
            steps: BTreeMap::new(),
        };
        let bindings = self.commands.bindings_of(request.agent).await?;
        Ok(Run {
            id,
            stream,
            organization: claim.organization,
            product,
            request,
            bindings,
            fence,
            claim,
            scope,
        })
    }

    /// Runs every step that has not succeeded yet. Answers the execution's output.
    async fn steps(&self, run: &mut Run) -> Result<Value, Interruption> {
        let manifest = self.commands.manifest_of(run.request.agent).await.map_err(|error| {
            Interruption::Failed {
                step: None,
                error: ToolError { code: "manifest_invalid".into(), message: error.to_string() },
            }
        })?;
        let mut last = Value::Null;
        for step in manifest.order() {
            if self.queue.is_stopping() {
                return Err(Interruption::Stopping);
            }
            last = match self.output_before(run, &step.id).await? {
                Some(output) => output,
                None => self.step(run, &manifest, step).await?,
            };
            run.scope.steps.insert(step.id.clone(), last.clone());
        }
        match &manifest.output {
            Some(output) => {
                expression::evaluate(output, &run.scope).map_err(|error| Interruption::Failed {
                    step: None,
                    error: ToolError {
                        code: error.code.into(),
                        message: format!("the output: {}", error.message),
                    },
                })
            }
            None => Ok(last),
        }
    }

    /// The output of a step that succeeded before this run was cut off.
    async fn output_before(&self, run: &Run, step_id: &str) -> Result<Option<Value>, Interruption> {
        let (state, _) = self.commands.load::<Execution>(&run.stream).await?;
        let Execution::Running { steps, .. } = state else { return Err(Interruption::NotOurs) };
        let succeeded = steps.get(step_id).and_then(|step| match &step.progress {
            domain::execution::StepProgress::Succeeded { output } => Some(output.clone()),
            _ => None,
        });
        let Some(payload) = succeeded else { return Ok(None) };
        let output =
            self.open(run.organization, run.product, &run.stream, STEP_SUCCEEDED, OUTPUT, &payload);
        output.await.map(Some)
    }

    /// One attempt at a step.
    async fn step(
        &self,
        run: &Run,
        manifest: &Manifest,
        step: &StepSpec,
    ) -> Result<Value, Interruption> {
        let start = ExecutionCommand::StartStep { fence: run.fence, step_id: step.id.clone() };
        let done = self
            .commands
            .execute::<Execution>(run.id, start, &run.ask(&["start", &step.id]))
            .await?;
        let event = done.events.first().ok_or(Interruption::NotOurs)?;
        let ExecutionEvent::StepStarted { attempt, .. } = decode_event::<ExecutionEvent>(event)?
        else {
            return Err(Interruption::NotOurs);
        };
        match self.call(run, manifest, step).await {
            Ok(output) => {
                let payload = self.seal(run, STEP_SUCCEEDED, OUTPUT, output.to_string()).await?;
                let finish = ExecutionCommand::FinishStep {
                    fence: run.fence,
                    step_id: step.id.clone(),
                    attempt,
                    output: payload,
                };
                self.commands
                    .execute::<Execution>(run.id, finish, &run.ask(&["finish", &step.id]))
                    .await?;
                Ok(output)
            }
            Err(error) => {
                let payload = self.seal(run, STEP_FAILED, ERROR, error.message.clone()).await?;
                let fail = ExecutionCommand::FailStep {
                    fence: run.fence,
                    step_id: step.id.clone(),
                    attempt,
                    code: error.code.clone(),
                    error: payload,
                };
                self.commands
                    .execute::<Execution>(run.id, fail, &run.ask(&["fail", &step.id]))
                    .await?;
                Err(Interruption::Failed { step: Some(step.id.clone()), error })
            }
        }
    }

    /// What a step does.
    async fn call(
        &self,
        run: &Run,
        manifest: &Manifest,
        step: &StepSpec,
    ) -> Result<Value, ToolError> {
        let mut scope = run.scope.clone();
        let needed = manifest.needed_by(&step.id);
        scope.steps.retain(|id, _| needed.contains(id.as_str()));
        let with =
            expression::evaluate(&Value::Object(step.with.clone()), &scope).map_err(|error| {
                ToolError {
                    code: error.code.into(),
                    message: format!("with{}: {}", error.pointer, error.message),
                }
            })?;
        let with = with.as_object().cloned().unwrap_or_default();
        let call = StepCall::parse(step.kind, with).map_err(|faults| ToolError {
            code: "with_invalid".into(),
            message: faults
                .iter()
                .map(|fault| format!("with{}: {}", fault.pointer, fault.message))
                .collect::<Vec<_>>()
                .join("; "),
        })?;
        match call {
            StepCall::Transform { output } => Ok(Value::Object(output)),
            StepCall::KnowledgeSearch { query, knowledge, limit, min_score } => {
                let knowledge_base = self.base(run, knowledge.as_deref()).await?;
                let query = KnowledgeQuery {
                    product: run.product,
                    knowledge_base,
                    query,
                    limit,
                    min_score,
                    mode: "vector".into(),
                };
                Ok(json!({ "passages": self.knowledge.search(query).await? }))
            }
            StepCall::KnowledgeIngest { title, text, knowledge, tags } => {
                let knowledge_base = self.base(run, knowledge.as_deref()).await?;
                self.ingest(run, step, knowledge_base, &title, text, tags).await
            }
        }
    }

    /// The knowledge base that stands in a slot; the product's default one where nothing does.
    async fn base(&self, run: &Run, slot: Option<&str>) -> Result<Uuid, ToolError> {
        let Some(bound) = slot.and_then(|slot| run.bindings.get(slot)) else {
            return self.knowledge.default_base(run.product).await;
        };
        if self.knowledge.has_base(run.product, *bound).await? {
            return Ok(*bound);
        }
        Err(ToolError {
            code: "knowledge_base_not_found".into(),
            message: "the knowledge base that is bound to the agent is gone: install the agent with another".into(),
        })
    }

    /// Puts a note into a knowledge base. Done twice, it is one note.
    async fn ingest(
        &self,
        run: &Run,
        step: &StepSpec,
        base: Uuid,
        title: &str,
        text: String,
        tags: Vec<String>,
    ) -> Result<Value, ToolError> {
        let failed = |code: &str, message: String| ToolError { code: code.into(), message };
        let name = FileName::parse(&format!("{}.md", title.trim()))
            .map_err(|error| failed("title_invalid", error.to_string()))?;
        let limit = text.len() as u64;
        let body = futures::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(text))]);
        let blob = self.commands.vault().put_blob(run.product, body, limit).await;
        let blob = blob.map_err(|error| failed("note_not_stored", error.to_string()))?;
        let blob = domain::BlobRef { name: blob.name, size: blob.size };
        let facts = FileFacts {
            source: Some(format!("execution:{}", run.id)),
            tags,
            ..FileFacts::default()
        };
        let ask = run.ask(&["ingest", &step.id]);
        let uploaded = self
            .commands
            .upload_file(base, name.clone(), "text/markdown".into(), blob, facts, false, &ask)
            .await
            .map_err(|error| failed("note_not_stored", error.to_string()))?;
        let duplicate = uploaded.done.is_none();
        Ok(
            json!({ "file_id": uploaded.id, "file_name": name, "status": "processing", "duplicate": duplicate }),
        )
    }

    async fn finish(&self, run: &Run, output: &Value) -> Result<(), Interruption> {
        let output = self.seal(run, SUCCEEDED, OUTPUT, output.to_string()).await?;
        let finish = ExecutionCommand::Finish { fence: run.fence, output };
        self.commands.execute::<Execution>(run.id, finish, &run.ask(&["succeed"])).await?;
        metrics::counter!("prodgy_executions_total", "outcome" => "succeeded").increment(1);
        Ok(())
    }

    async fn fail(
        &self,
        run: &Run,
        step_id: Option<String>,
        error: &ToolError,
    ) -> Result<(), Interruption> {
        let payload = self.seal(run, FAILED, ERROR, error.message.clone()).await?;
        let fail = ExecutionCommand::Fail {
            fence: run.fence,
            step_id,
            code: error.code.clone(),
            error: payload,
        };
        self.commands.execute::<Execution>(run.id, fail, &run.ask(&["fail"])).await?;
        metrics::counter!("prodgy_executions_total", "outcome" => "failed").increment(1);
        Ok(())
    }

    async fn seal(
        &self,
        run: &Run,
        event_type: &str,
        field: &str,
        text: String,
    ) -> Result<Payload, Error> {
        self.commands
            .seal_payload(
                run.organization,
                run.product,
                &run.stream,
                event_type,
                field,
                text.as_bytes(),
            )
            .await
    }

    async fn open(
        &self,
        organization: Uuid,
        product: Uuid,
        stream: &StreamId,
        event_type: &str,
        field: &str,
        payload: &Payload,
    ) -> Result<Value, Interruption> {
        let opened = self
            .commands
            .open_payload(organization, product, stream, event_type, field, payload)
            .await?;
        let bytes = opened.ok_or(Interruption::NotOurs)?;
        Ok(serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::Object(Map::new())))
    }
}

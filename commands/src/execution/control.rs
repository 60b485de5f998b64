//! Executions that were asked for already: letting them stand still and go on, and asking for one once
//! more.
//!
//! The rule of this file: what has ended stays as it is. Once more is another execution, that says
//! which one it repeats.

use std::collections::BTreeMap;

use cqrs_es::Aggregate;
use domain::Payload;
use domain::agent::{Agent, AgentError};
use domain::execution::{
    Execution, ExecutionCommand, ExecutionError, ExecutionEvent, ExecutionRequest,
};
use domain::manifest::Manifest;
use eventlog::StreamId;
use serde_json::Value;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{INPUT, OUTPUT, REQUESTED, STEP_REUSED, STEP_SUCCEEDED};
use crate::execute::decode_event;
use crate::{Ask, Commands, Done, Error};

/// Where an execution that is repeated begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RetryFrom {
    /// With its first step.
    #[default]
    Start,
    /// With the step at which it failed; items of it that were done are not done again.
    Failed,
    /// With this step, and all that need it.
    Step(String),
}

/// What a step put out, and the type of the event that it was sealed for.
type Output = (&'static str, Payload);

impl Commands {
    /// Lets an execution stand still: the step that runs ends, no other begins.
    ///
    /// # Errors
    /// It has ended, or there is none.
    pub async fn pause_execution(&self, execution: Uuid, ask: &Ask) -> Result<Done, Error> {
        self.execute_while_it_runs(execution, ExecutionCommand::Pause, ask).await
    }

    /// Lets a paused execution go on.
    ///
    /// # Errors
    /// It is not paused, has ended, or there is none.
    pub async fn continue_execution(&self, execution: Uuid, ask: &Ask) -> Result<Done, Error> {
        self.execute_while_it_runs(execution, ExecutionCommand::Continue, ask).await
    }

    /// Asks once more for what an ended execution did, or a part of it, on the same input: in the version
    /// that it ran, or in another one. There, what a step put out is carried over if the step and all that
    /// it needs are defined as before; the others are done again.
    ///
    /// # Errors
    /// It has not ended, nothing failed in it or the version has no such step, its agent is disabled or
    /// gone or has no such version, or input or configuration do not fit that.
    pub async fn retry_execution(
        &self,
        of: Uuid,
        from: RetryFrom,
        version: Option<Uuid>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let execution = ask.new_id("execution");
        let stream = StreamId::new("execution", execution);
        if let Some(done) = self.done_before(&stream, ask).await? {
            return Ok(done);
        }
        let old_stream = StreamId::new("execution", of);
        let mut state = Execution::default();
        let mut outputs: BTreeMap<String, Output> = BTreeMap::new();
        let mut failed = None;
        for event in self.whole_stream(&old_stream).await? {
            let event: ExecutionEvent = decode_event(&event)?;
            match &event {
                ExecutionEvent::StepSucceeded { step_id, output, .. } => {
                    outputs.insert(step_id.clone(), (STEP_SUCCEEDED, output.clone()));
                }
                ExecutionEvent::StepReused { step_id, output } => {
                    outputs.insert(step_id.clone(), (STEP_REUSED, output.clone()));
                }
                ExecutionEvent::Failed { step_id, .. } => failed.clone_from(step_id),
                _ => {}
            }
            state.apply(event);
        }
        let request = match state {
            Execution::Ended { request, .. } => request,
            Execution::Missing => return Err(Error::refused(&ExecutionError::NotFound)),
            _ => return Err(Error::refused(&ExecutionError::NotEnded)),
        };
        let (agent, _) = self.load::<Agent>(&StreamId::new("agent", request.agent)).await?;
        let installation =
            agent.runnable().map_err(|refusal: AgentError| Error::refused(&refusal))?;
        let version = installation
            .version_or_active(Some(version.unwrap_or(request.version_id)))
            .map_err(|refusal| Error::refused(&refusal))?;
        let manifest = self.manifest_of(request.agent, version.id).await?;
        let product = ask.metadata.product.unwrap_or_default();
        let ran = match version.id == request.version_id {
            true => None,
            false => Some(self.manifest_of(request.agent, request.version_id).await?),
        };
        if version.id != installation.version_id {
            self.check_runs(request.agent, &manifest, ask).await?;
        }
        let keeps_items = from == RetryFrom::Failed;
        let from_step = match from {
            RetryFrom::Start => None,
            RetryFrom::Failed => {
                Some(failed.ok_or_else(|| Error::refused(&ExecutionError::NothingFailed))?)
            }
            RetryFrom::Step(step) => Some(step),
        };
        let reused = match &from_step {
            None => Vec::new(),
            Some(step) => {
                if !manifest.steps.iter().any(|known| known.id == *step) {
                    return Err(Error::refused(&ExecutionError::UnknownStep(step.clone())));
                }
                let stays = |id: &str| {
                    stays(&manifest, id, step, keeps_items)
                        && ran.as_ref().is_none_or(|ran| is_unchanged(ran, &manifest, id))
                };
                outputs.into_iter().filter(|(id, _)| stays(id)).collect()
            }
        };
        let input = (REQUESTED, INPUT, request.input.clone());
        let organization = ask.organization();
        let text = self.open_again(organization, product, &old_stream, &input).await?;
        // The same input, with what another version fills in.
        let text = match &ran {
            None => text,
            Some(_) => fitting(&manifest, &text)?,
        };
        let input =
            self.seal_payload(organization, product, &stream, REQUESTED, INPUT, &text).await?;
        let mut taken_over = Vec::with_capacity(reused.len());
        for (step_id, (sealed_for, output)) in reused {
            let output = (sealed_for, OUTPUT, output);
            let output =
                self.seal_again(ask, product, &old_stream, &stream, output, STEP_REUSED).await?;
            taken_over.push((step_id, output));
        }
        let request = ExecutionRequest {
            agent: request.agent,
            version_id: version.id,
            digest: version.digest.clone(),
            trigger: request.trigger,
            input,
        };
        let retry = ExecutionCommand::Retry { request, of, from_step, reused: taken_over };
        self.execute::<Execution>(execution, retry, ask).await
    }

    /// A text that was sealed for one stream, sealed for another.
    async fn seal_again(
        &self,
        ask: &Ask,
        product: Uuid,
        from: &StreamId,
        to: &StreamId,
        sealed: (&str, &str, Payload),
        event_type: &str,
    ) -> Result<Payload, Error> {
        let organization = ask.organization();
        let text = self.open_again(organization, product, from, &sealed).await?;
        self.seal_payload(organization, product, to, event_type, sealed.1, &text).await
    }

    async fn open_again(
        &self,
        organization: Uuid,
        product: Uuid,
        from: &StreamId,
        (sealed_for, field, payload): &(&str, &str, Payload),
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let opened =
            self.open_payload(organization, product, from, sealed_for, field, payload).await?;
        opened.ok_or_else(|| Error::refused(&ExecutionError::NotFound))
    }
}

/// An input that another version worked on, with the defaults of this one.
fn fitting(manifest: &Manifest, input: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let input: Value = serde_json::from_slice(input)
        .map_err(|error| Error::Crypto(format!("a sealed input is no JSON: {error}")))?;
    let input = manifest.check_input(Some(input)).map_err(|mut invalid| {
        invalid.message =
            "the input of the execution is not what this version works on: execute it \
                           with another input, or repeat the execution in the version that it ran"
                .to_owned();
        Error::refused(&invalid).within("/input").at("/version_id")
    })?;
    Ok(Zeroizing::new(input.to_string().into_bytes()))
}

/// Whether a step, or that of an item, and all that it needs are defined in one manifest as in the other.
fn is_unchanged(before: &Manifest, now: &Manifest, id: &str) -> bool {
    let step = id.split_once('[').map_or(id, |(step, _)| step);
    let find = |manifest: &'_ Manifest, id: &str| {
        manifest.steps.iter().find(|step| step.id == id).cloned()
    };
    now.needed_by(step)
        .into_iter()
        .chain([step])
        .all(|id| find(now, id).is_some_and(|now| find(before, id) == Some(now)))
}

/// Whether the output of a step, or of an item of one, is good when `from` is done again.
fn stays(manifest: &Manifest, id: &str, from: &str, keeps_items: bool) -> bool {
    let step = id.split_once('[').map_or(id, |(step, _)| step);
    let is_item = step != id;
    if step == from {
        return is_item && keeps_items;
    }
    !manifest.needed_by(step).contains(from)
}

//! Executions: asking for a run of an agent, and stopping one. Stopping many is [`crate::bulk_stop`].

mod control;

use std::sync::Arc;

use domain::agent::{Agent, AgentError};
use domain::execution::{CancelReason, Cause, Execution, ExecutionCommand, ExecutionRequest};
use domain::manifest::Manifest;
use domain::trigger::{Trigger, TriggerError};
use eventlog::StreamId;
use serde_json::Value;
use uuid::Uuid;

use crate::{Ask, Commands, Done, Error};

pub use control::RetryFrom;

pub(crate) const REQUESTED: &str = "execution.requested.v1";
pub(crate) const INPUT: &str = "input";
pub(crate) const STEP_SUCCEEDED: &str = "execution.step_succeeded.v1";
pub(crate) const STEP_REUSED: &str = "execution.step_reused.v1";
pub(crate) const OUTPUT: &str = "output";

/// How often an execution that goes on all the while is told to stop.
const MOST_RACES: usize = 20;

/// A run that is to be made, in the product of the one who asks.
pub struct NewExecution {
    /// The agent.
    pub agent: Uuid,
    /// The trigger that starts it.
    pub trigger: Option<Uuid>,
    /// What it works on.
    pub input: Option<Value>,
}

/// What follows from somebody's wish for a run.
pub(crate) enum Wish {
    /// It was asked for before.
    Granted(Done),
    /// It is to be asked for.
    New(Box<Wanted>),
}

/// A run that is to be asked for.
pub(crate) struct Wanted {
    /// Its id.
    pub(crate) execution: Uuid,
    /// Its stream.
    pub(crate) stream: StreamId,
    /// What asks for it.
    pub(crate) command: ExecutionCommand,
    /// What it runs.
    pub(crate) manifest: Arc<Manifest>,
    /// What it works on.
    pub(crate) input: Value,
}

impl Commands {
    /// Asks for a run of an agent. The run follows.
    ///
    /// # Errors
    /// The trigger is gone or no manual one, the agent is disabled or gone, or the input does not
    /// fit its manifest.
    pub async fn request_execution(&self, new: NewExecution, ask: &Ask) -> Result<Done, Error> {
        self.request_execution_of(new, None, ask).await
    }

    /// As [`Commands::request_execution`], of one version of the agent where one is named, active or not.
    ///
    /// # Errors
    /// As there; and the agent has no such version, or its configuration does not fit that.
    pub async fn request_execution_of(
        &self,
        new: NewExecution,
        version: Option<Uuid>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        match self.wish(new, version, ask).await? {
            Wish::Granted(done) => Ok(done),
            Wish::New(wanted) => self.ask_for(*wanted, ask).await,
        }
    }

    /// What is to be run where somebody asks for a run, or the outcome where this was asked before.
    ///
    /// # Errors
    /// As [`Commands::request_execution_of`].
    pub(crate) async fn wish(
        &self,
        new: NewExecution,
        mut version: Option<Uuid>,
        ask: &Ask,
    ) -> Result<Wish, Error> {
        let execution = ask.new_id("execution");
        let stream = StreamId::new("execution", execution);
        if let Some(done) = self.done_before(&stream, ask).await? {
            return Ok(Wish::Granted(done));
        }
        if let Some(id) = new.trigger {
            let (trigger, _) = self.load::<Trigger>(&StreamId::new("trigger", id)).await?;
            let fired = trigger.fire_manually().map_err(|refusal| Error::refused(&refusal))?;
            if fired.agent != new.agent {
                return Err(Error::refused(&TriggerError::NotFound));
            }
            // One that a manifest names starts that version, active or not.
            version = version.or(fired.version_of(id));
        }
        let wanted = self.wanted(new, version, None, execution, ask).await?;
        Ok(Wish::New(Box::new(wanted)))
    }

    /// Asks for a run that was not asked for before. The run follows.
    ///
    /// # Errors
    /// The vault or the log fails.
    pub(crate) async fn ask_for(&self, wanted: Wanted, ask: &Ask) -> Result<Done, Error> {
        self.execute_anew::<Execution>(wanted.stream, wanted.command, ask).await
    }

    /// Asks for a run of an agent because a trigger of it that is no manual one fired, in the version
    /// that the trigger belongs to, if it belongs to one; its id is the one that `ask` gives an
    /// execution. `cause` is the event that it fired because of, if it listens to events. The run follows.
    ///
    /// # Errors
    /// The agent is disabled or gone, or the input does not fit its manifest.
    pub(crate) async fn request_for_trigger(
        &self,
        new: NewExecution,
        version: Option<Uuid>,
        cause: Option<Cause>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let execution = ask.new_id("execution");
        let stream = StreamId::new("execution", execution);
        match self.done_before(&stream, ask).await? {
            Some(done) => Ok(done),
            None => {
                let wanted = self.wanted(new, version, cause, execution, ask).await?;
                self.ask_for(wanted, ask).await
            }
        }
    }

    async fn wanted(
        &self,
        new: NewExecution,
        version: Option<Uuid>,
        cause: Option<Cause>,
        execution: Uuid,
        ask: &Ask,
    ) -> Result<Wanted, Error> {
        let stream = StreamId::new("execution", execution);
        let (agent, _) = self.load::<Agent>(&StreamId::new("agent", new.agent)).await?;
        let installation =
            agent.runnable().map_err(|refusal: AgentError| Error::refused(&refusal))?;
        let version =
            installation.version_or_active(version).map_err(|refusal| Error::refused(&refusal))?;
        let manifest = self.manifest_of(new.agent, version.id).await?;
        if version.id != installation.version_id {
            self.check_runs(new.agent, &manifest, ask).await?;
        }
        let input = manifest
            .check_input(new.input)
            .map_err(|invalid| Error::refused(&invalid).within("/input"))?;
        let text = zeroize::Zeroizing::new(input.to_string());
        let product = ask.metadata.product.unwrap_or_default();
        let sealed = self
            .seal_payload(ask.organization(), product, &stream, REQUESTED, INPUT, text.as_bytes())
            .await?;
        let request = ExecutionRequest {
            agent: new.agent,
            version_id: version.id,
            digest: version.digest.clone(),
            trigger: new.trigger,
            input: sealed,
        };
        let command = match cause {
            Some(cause) => ExecutionCommand::React { request, cause },
            None => ExecutionCommand::Request(request),
        };
        Ok(Wanted { execution, stream, command, manifest, input })
    }

    /// Whether an agent's configuration fits a version that is not the active one.
    async fn check_runs(&self, agent: Uuid, manifest: &Manifest, ask: &Ask) -> Result<(), Error> {
        match self.config_for(ask.organization(), agent, manifest).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.at("/version_id")),
        }
    }

    /// Stops an execution. One that was cancelled already stays as it is.
    ///
    /// # Errors
    /// There is none of that id, or it has ended otherwise.
    pub async fn stop_execution(&self, execution: Uuid, ask: &Ask) -> Result<Done, Error> {
        let stop = ExecutionCommand::Cancel { reason: CancelReason::Stopped };
        self.execute_while_it_runs(execution, stop, ask).await
    }

    /// Carries out a command on an execution whose steps go on meanwhile: each may come first.
    pub(crate) async fn execute_while_it_runs(
        &self,
        execution: Uuid,
        command: ExecutionCommand,
        ask: &Ask,
    ) -> Result<Done, Error> {
        // Whatever it has come to.
        let ask = &Ask { if_match: None, ..ask.clone() };
        for _ in 1..MOST_RACES {
            match self.execute::<Execution>(execution, command.clone(), ask).await {
                Err(Error::Conflict) => {}
                outcome => return outcome,
            }
        }
        self.execute::<Execution>(execution, command, ask).await
    }
}

//! Executions: asking for a run of an agent.

mod control;

use domain::agent::{Agent, AgentError};
use domain::execution::{Execution, ExecutionCommand, ExecutionRequest};
use domain::trigger::{Trigger, TriggerError};
use eventlog::StreamId;
use serde_json::Value;
use uuid::Uuid;

use crate::{Ask, Commands, Done, Error};

pub use control::RetryFrom;

pub(crate) const REQUESTED: &str = "execution.requested.v1";
pub(crate) const INPUT: &str = "input";

/// A run that is to be made, in the product of the one who asks.
pub struct NewExecution {
    /// The agent.
    pub agent: Uuid,
    /// The manual trigger that starts it.
    pub trigger: Option<Uuid>,
    /// What it works on.
    pub input: Option<Value>,
}

impl Commands {
    /// Asks for a run of an agent. The run follows.
    ///
    /// # Errors
    /// The trigger is gone or no manual one, the agent is disabled or gone, or the input does not
    /// fit its manifest.
    pub async fn request_execution(&self, new: NewExecution, ask: &Ask) -> Result<Done, Error> {
        let execution = ask.new_id("execution");
        let stream = StreamId::new("execution", execution);
        if let Some(done) = self.done_before(&stream, ask).await? {
            return Ok(done);
        }
        if let Some(trigger) = new.trigger {
            let (trigger, _) = self.load::<Trigger>(&StreamId::new("trigger", trigger)).await?;
            let fired = trigger.fire_manually().map_err(|refusal| Error::refused(&refusal))?;
            if fired.agent != new.agent {
                return Err(Error::refused(&TriggerError::NotFound));
            }
        }
        let (agent, _) = self.load::<Agent>(&StreamId::new("agent", new.agent)).await?;
        let installation =
            agent.runnable().map_err(|refusal: AgentError| Error::refused(&refusal))?;
        let manifest = self.manifest_of(new.agent).await?;
        let input = manifest
            .check_input(new.input)
            .map_err(|invalid| Error::refused(&invalid).within("/input"))?;
        let text = zeroize::Zeroizing::new(input.to_string());
        let product = ask.metadata.product.unwrap_or_default();
        let input = self
            .seal_payload(ask.organization(), product, &stream, REQUESTED, INPUT, text.as_bytes())
            .await?;
        let request = ExecutionRequest {
            agent: new.agent,
            version_id: installation.version_id,
            digest: installation.digest.clone(),
            trigger: new.trigger,
            input,
        };
        self.execute::<Execution>(execution, ExecutionCommand::Request(request), ask).await
    }
}

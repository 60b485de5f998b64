//! What a schedule is to do, as its trigger, its agent and its product say now.

use std::sync::Arc;

use domain::agent::{Agent, Installation};
use domain::product::Product;
use domain::schedule::{Firing, Schedule};
use domain::trigger::{Setting, Trigger, TriggerDetails};
use domain::{Timestamp, derived_id};
use eventlog::{RecordedEvent, StreamId};
use serde_json::Value;
use uuid::Uuid;

use super::super::listening;
use super::NAME;
use crate::{Ask, Commands, Error};

/// What a schedule is to do.
#[derive(Clone)]
pub(super) struct Facts {
    pub(super) trigger: Uuid,
    pub(super) agent: Uuid,
    pub(super) organization: Uuid,
    pub(super) product: Uuid,
    /// The version that the trigger belongs to, or that was active when it was made: what its firings
    /// are named by.
    version_id: Uuid,
    is_of_version: bool,
    /// The version that it starts.
    pub(super) runs: Uuid,
    pub(super) key: String,
    pub(super) schedule: Arc<Schedule>,
    /// The input of an execution, with its expressions.
    pub(super) input: Option<Value>,
    /// Nothing from before is fired: since then trigger and agent are as they are, and the version that
    /// the trigger belongs to is the active one.
    pub(super) since: Timestamp,
    pub(super) is_listening: bool,
    /// The sequences of the trigger and of the agent that say so.
    sequences: (u64, u64),
}

impl Facts {
    /// What is so now; nothing of what listens to no clock, or is gone. `known` is what was so before. It
    /// is read from the log alone: an event is seen before the command that it is of has told the memory
    /// of aggregates.
    pub(super) async fn of(
        commands: &Commands,
        trigger: Uuid,
        known: Option<Facts>,
    ) -> Result<Option<Facts>, Error> {
        let stream = StreamId::new("trigger", trigger);
        let (state, sequence) = commands.replay::<Trigger>(&stream).await?;
        let Trigger::Active(details) = state else { return Ok(None) };
        let agent_stream = StreamId::new("agent", details.agent);
        let (agent, agent_sequence) = commands.replay::<Agent>(&agent_stream).await?;
        let Agent::Installed(installation) = agent else { return Ok(None) };
        let facts = match known {
            Some(known) if known.sequences == (sequence, agent_sequence) => known,
            _ => {
                let own = commands.whole_stream(&stream).await?;
                let agents = commands.whole_stream(&agent_stream).await?;
                let Some(facts) = read(trigger, details, &own, &agents, &installation)? else {
                    return Ok(None);
                };
                Facts { sequences: (sequence, agent_sequence), ..facts }
            }
        };
        let (product, _) =
            commands.replay::<Product>(&StreamId::new("product", facts.product)).await?;
        Ok(matches!(product, Product::Active { .. }).then_some(facts))
    }

    /// The version that the trigger belongs to, if it belongs to one and not to the agent.
    pub(super) fn version(&self) -> Option<Uuid> {
        self.is_of_version.then_some(self.version_id)
    }

    /// The firing at one of the schedule's instants.
    pub(super) fn firing(&self, instant: Timestamp) -> Firing {
        self.schedule.firing(self.trigger, self.version_id, instant)
    }

    /// For what follows from a firing once, however often and by whom it is asked.
    pub(super) fn ask(&self, what: &str, instant: Timestamp) -> Ask {
        let command_id = |what: &str| {
            derived_id(&[NAME.as_bytes(), what.as_bytes(), self.firing(instant).id.as_bytes()])
        };
        let mut ask = self.ask_once();
        ask.command_id = command_id(what);
        ask.repeatable = true;
        // The firing and its execution are found together.
        Arc::make_mut(&mut ask.metadata).correlation = command_id(EXECUTION);
        ask
    }

    /// For asking for the execution of a firing.
    pub(super) fn ask_execution(&self, instant: Timestamp) -> Ask {
        self.ask(EXECUTION, instant)
    }

    /// For what is no firing.
    pub(super) fn ask_once(&self) -> Ask {
        Ask::once(NAME, self.organization, Some(self.product))
    }
}

const EXECUTION: &str = "execution";

fn read(
    trigger: Uuid,
    details: TriggerDetails,
    own: &[Arc<RecordedEvent>],
    agents: &[Arc<RecordedEvent>],
    agent: &Installation,
) -> Result<Option<Facts>, Error> {
    let setting = match Setting::parse(details.kind, &details.configuration) {
        Ok(setting) => setting,
        Err(faults) => {
            tracing::error!(%trigger, ?faults, "a trigger is no longer understood; it does not fire");
            return Ok(None);
        }
    };
    let Setting::Schedule { schedule, input } = setting else { return Ok(None) };
    let version = details.version_of(trigger);
    let since = listening::since(own, agents, version)?;
    let Some(((first, product), since)) =
        own.first().and_then(|first| Some((first, first.product?))).zip(since)
    else {
        return Ok(None);
    };
    Ok(Some(Facts {
        trigger,
        agent: details.agent,
        organization: first.organization,
        product,
        version_id: details.version_id,
        is_of_version: version.is_some(),
        runs: version.unwrap_or(agent.version_id),
        is_listening: details.listens(trigger, agent),
        key: details.key,
        schedule: Arc::from(schedule),
        input,
        since: Timestamp::from(since.time),
        sequences: (0, 0),
    }))
}

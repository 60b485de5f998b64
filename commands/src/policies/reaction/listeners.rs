//! Who listens to what, as triggers, agents and products say now.
//!
//! The rule of this file: it is memory only, and read anew from the log whenever one of them changes.

use std::collections::HashMap;
use std::sync::Arc;

use domain::agent::Agent;
use domain::expression::Cel;
use domain::product::Product;
use domain::trigger::{Setting, Trigger, TriggerKind};
use eventlog::{Position, RecordedEvent, StreamId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::super::listening;
use crate::{Commands, Error};

/// A trigger that listens to events.
pub(super) struct Listener {
    pub(super) trigger: Uuid,
    pub(super) agent: Uuid,
    pub(super) organization: Uuid,
    pub(super) product: Uuid,
    pub(super) filter: Cel,
    pub(super) max_depth: u32,
    /// The input of an execution, with its expressions.
    pub(super) input: Option<Value>,
    /// Only events behind this one are looked at: since then both trigger and agent are as they are.
    pub(super) since: Position,
    /// The version that the trigger belongs to, if it belongs to one and not to the agent.
    pub(super) version: Option<Uuid>,
    /// The version that it starts.
    pub(super) runs: Uuid,
    key: String,
    is_listening: bool,
}

impl Listener {
    /// What expressions see of it.
    pub(super) fn seen(&self) -> Value {
        json!({
            "id": self.trigger, "key": self.key, "type": TriggerKind::Event, "agent_id": self.agent,
        })
    }

    /// What is so now; nothing of what listens to no events, or is gone. It is read from the log alone: an
    /// event is seen before the command that it is of has told the memory of aggregates.
    async fn of(commands: &Commands, trigger: Uuid) -> Result<Option<Listener>, Error> {
        let stream = StreamId::new("trigger", trigger);
        let Trigger::Active(details) = commands.replay::<Trigger>(&stream).await?.0 else {
            return Ok(None);
        };
        if details.kind != TriggerKind::Event {
            return Ok(None);
        }
        let agent_stream = StreamId::new("agent", details.agent);
        let Agent::Installed(agent) = commands.replay::<Agent>(&agent_stream).await?.0 else {
            return Ok(None);
        };
        let (is_listening, version) =
            (details.listens(trigger, &agent), details.version_of(trigger));
        let own = commands.whole_stream(&stream).await?;
        let agents = commands.whole_stream(&agent_stream).await?;
        let since = listening::since(&own, &agents, version)?;
        let (Some(first), Some(since)) = (own.first(), since) else { return Ok(None) };
        let Some(product) = first.product else { return Ok(None) };
        let (state, _) = commands.replay::<Product>(&StreamId::new("product", product)).await?;
        if !matches!(state, Product::Active { .. }) {
            return Ok(None);
        }
        let setting = match Setting::parse(details.kind, &details.configuration) {
            Ok(setting) => setting,
            Err(faults) => {
                tracing::error!(%trigger, ?faults, "a trigger is no longer understood; it does not react");
                return Ok(None);
            }
        };
        let Setting::Event { filter, max_depth, input } = setting else { return Ok(None) };
        Ok(Some(Listener {
            trigger,
            agent: details.agent,
            organization: first.organization,
            product,
            filter,
            max_depth,
            input,
            since: since.position,
            version,
            runs: version.unwrap_or(agent.version_id),
            key: details.key,
            is_listening,
        }))
    }
}

/// What may have begun to listen, or does no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    Trigger(Uuid),
    Agent(Uuid),
    Product(Uuid),
}

impl News {
    pub(super) fn of(event: &RecordedEvent) -> Option<News> {
        let id = event.stream.uuid()?;
        match event.stream.category() {
            "trigger" => Some(News::Trigger(id)),
            "agent" => Some(News::Agent(id)),
            "product" if event.event_type == "product.deleted.v1" => Some(News::Product(id)),
            _ => None,
        }
    }
}

/// Every trigger that listens to events, disabled ones included.
#[derive(Default)]
pub(super) struct Listeners {
    all: HashMap<Uuid, Arc<Listener>>,
    /// Those that listen, by their product.
    awake: HashMap<Uuid, Vec<Arc<Listener>>>,
}

impl Listeners {
    /// Those that are to look at an event.
    pub(super) fn of(&self, event: &RecordedEvent) -> Vec<Arc<Listener>> {
        let those = event.product.and_then(|product| self.awake.get(&product));
        let is_new = |it: &&Arc<Listener>| it.since < event.position;
        those.into_iter().flatten().filter(is_new).cloned().collect()
    }

    /// Since when somebody listens, if anybody does.
    pub(super) fn since(&self) -> Option<Position> {
        self.awake.values().flatten().map(|listener| listener.since).min()
    }

    /// The tenant of any that listens.
    pub(super) fn organization(&self) -> Option<Uuid> {
        self.all.values().next().map(|listener| listener.organization)
    }

    /// Reads anew what may have changed.
    pub(super) async fn look_at(&mut self, commands: &Commands, news: News) -> Result<(), Error> {
        let its = match news {
            News::Trigger(trigger) => vec![trigger],
            News::Agent(agent) => self.those(|listener| listener.agent == agent),
            News::Product(product) => self.those(|listener| listener.product == product),
        };
        for trigger in its {
            match Listener::of(commands, trigger).await? {
                Some(listener) => self.all.insert(trigger, Arc::new(listener)),
                None => self.all.remove(&trigger),
            };
            self.sort();
        }
        Ok(())
    }

    fn those(&self, wanted: impl Fn(&Listener) -> bool) -> Vec<Uuid> {
        let those = self.all.values().filter(|listener| wanted(listener));
        those.map(|listener| listener.trigger).collect()
    }

    fn sort(&mut self) {
        self.awake.clear();
        for listener in self.all.values().filter(|listener| listener.is_listening) {
            self.awake.entry(listener.product).or_default().push(listener.clone());
        }
    }
}

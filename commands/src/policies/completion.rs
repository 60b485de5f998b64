//! Completing what an event fixed but could not do alone, because one command is one stream: a
//! product's default knowledge base, an agent's triggers, executions that are stopped together.
//!
//! The rule of this file: the handler of the request does the same before it answers; this is for
//! when it was cut off in between. Both end in the same events, once.

use std::sync::Arc;
use std::time::Duration;

use cqrs_es::Aggregate;
use domain::agent::Agent;
use domain::bulk_stop::BulkStop;
use domain::product::{Product, ProductEvent};
use domain::trigger::Trigger;
use eventlog::StreamId;
use uuid::Uuid;

use super::erasure::Contents;
use super::queue::{Outcome, Queue};
use crate::execute::decode_event;
use crate::{Ask, Commands, Error};

/// How many are completed at once.
const AT_ONCE: usize = 4;

/// How long the handler of a request that stops many executions has for it, before somebody does it as well.
const HANDLERS_TIME: Duration = Duration::from_secs(10);

/// The process manager of what is half made.
pub(super) struct Completion {
    commands: Commands,
    contents: Arc<dyn Contents>,
    queue: Arc<Queue>,
}

impl Completion {
    pub(super) fn start(commands: Commands, contents: Arc<dyn Contents>) -> Arc<Completion> {
        let queue = Arc::new(Queue::new("completion", AT_ONCE));
        Arc::new(Completion { commands, contents, queue })
    }

    /// Completes a product.
    pub(super) fn add_product(&self, product: Uuid) {
        let commands = self.commands.clone();
        self.queue.add(product, move || {
            let commands = commands.clone();
            async move { outcome(complete_product(&commands, product).await) }
        });
    }

    /// Completes an agent, or takes away what is left of one.
    pub(super) fn add_agent(&self, agent: Uuid) {
        let (commands, contents) = (self.commands.clone(), self.contents.clone());
        self.queue.add(agent, move || {
            let (commands, contents) = (commands.clone(), contents.clone());
            async move { complete_agent(&commands, &*contents, agent).await }
        });
    }

    /// Takes away a trigger that was made while its agent was uninstalled.
    pub(super) fn add_trigger(&self, trigger: Uuid) {
        let commands = self.commands.clone();
        self.queue.add(trigger, move || {
            let commands = commands.clone();
            async move { outcome(complete_trigger(&commands, trigger).await) }
        });
    }

    /// Stops the executions that somebody wants stopped together, if whoever asked for it has not done so in time.
    pub(super) fn add_bulk_stop_later(self: &Arc<Self>, bulk_stop: Uuid) {
        let completion = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(HANDLERS_TIME) => completion.add_bulk_stop(bulk_stop),
                () = completion.queue.stopping() => {}
            }
        });
    }

    /// Stops the executions that somebody wanted stopped together.
    pub(super) fn add_bulk_stop(&self, bulk_stop: Uuid) {
        let commands = self.commands.clone();
        self.queue.add(bulk_stop, move || {
            let commands = commands.clone();
            async move {
                let stream = StreamId::new(BulkStop::TYPE, bulk_stop);
                outcome(commands.finish_bulk_stop(&stream).await.map(|_| ()))
            }
        });
    }

    pub(super) async fn stop(&self) {
        self.queue.stop().await;
    }
}

fn outcome(completed: Result<(), Error>) -> Outcome {
    match completed {
        Ok(()) => Outcome::Finished,
        Err(error) => Outcome::TryAgain(error.to_string()),
    }
}

async fn complete_agent(commands: &Commands, contents: &dyn Contents, agent: Uuid) -> Outcome {
    if let Err(error) = commands.complete_agent(agent).await {
        return Outcome::TryAgain(error.to_string());
    }
    let left = match left_of(commands, contents, agent).await {
        Ok(left) => left,
        Err(why) => return Outcome::TryAgain(why),
    };
    outcome(commands.remove_left_triggers(agent, left).await)
}

/// The triggers that are left of an agent that is gone.
async fn left_of(
    commands: &Commands,
    contents: &dyn Contents,
    agent: Uuid,
) -> Result<Vec<Uuid>, String> {
    let stream = StreamId::new("agent", agent);
    let (state, sequence) =
        commands.load::<Agent>(&stream).await.map_err(|error| error.to_string())?;
    if state != Agent::Uninstalled {
        return Ok(Vec::new());
    }
    let last = commands.log().read_stream(&stream, sequence - 1, 1).await;
    let last = last.map_err(|error| error.to_string())?;
    let Some(uninstalled) = last.first() else { return Ok(Vec::new()) };
    contents.triggers_of(agent, uninstalled.position).await.map_err(|error| error.to_string())
}

async fn complete_trigger(commands: &Commands, trigger: Uuid) -> Result<(), Error> {
    match commands.load::<Trigger>(&StreamId::new("trigger", trigger)).await?.0 {
        Trigger::Active(details) => {
            commands.remove_left_triggers(details.agent, vec![trigger]).await
        }
        Trigger::Missing | Trigger::Deleted => Ok(()),
    }
}

async fn complete_product(commands: &Commands, product: Uuid) -> Result<(), Error> {
    let stream = StreamId::new("product", product);
    let (state, _) = commands.load::<Product>(&stream).await?;
    if !matches!(state, Product::Active { .. }) {
        return Ok(());
    }
    let first = commands.log().read_stream(&stream, 0, 1).await?;
    let Some(event) = first.first() else { return Ok(()) };
    if let ProductEvent::Created { knowledge_base, .. } = decode_event(event)? {
        let ask = Ask::because_of(event, "completion", &[]);
        commands.make_default_base(knowledge_base, &ask).await?;
    }
    Ok(())
}

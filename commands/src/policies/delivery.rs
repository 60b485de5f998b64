//! Deliveries: what came in at a webhook is worked on.
//!
//! The rule of this file: the execution of a delivery has an id that is made from the delivery, and is
//! asked for before the delivery is settled. So it starts exactly once, whichever node works on it and
//! whenever that is cut off.

use std::sync::Arc;

use domain::RefusalKind;
use domain::agent::Agent;
use domain::delivery::{Delivery, DeliveryCommand, DeliveryError, DeliveryEvent, Receipt};
use domain::expression::Scope;
use domain::trigger::{Trigger, TriggerDetails};
use eventlog::{RecordedEvent, StreamId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::firing::{Refused, wanted_input};
use super::queue::{Outcome, Queue};
use crate::conversation::Room;
use crate::execute::decode_event;
use crate::webhook::{CONTENT, Content, Hook, RECEIVED, webhook_of};
use crate::{Ask, Commands, Done, Error, NewExecution, evaluate};

/// How many deliveries are worked on at once.
const AT_ONCE: usize = 16;

/// Whose the events are.
pub(crate) const NAME: &str = "webhook";

const FAILED: &str = "delivery.failed.v1";
const ERROR: &str = "error";

/// The process manager of deliveries.
pub(super) struct Deliveries {
    commands: Commands,
    queue: Arc<Queue>,
}

/// What becomes of a delivery.
enum Verdict {
    /// It starts an execution with this input.
    Start { version: Option<Uuid>, input: Option<Value> },
    /// The trigger does not care for it.
    Filter,
    /// Nothing can be started.
    Fail(Refused),
}

impl Deliveries {
    pub(super) fn start(commands: Commands) -> Arc<Deliveries> {
        Arc::new(Deliveries { commands, queue: Arc::new(Queue::new(NAME, AT_ONCE)) })
    }

    /// Works on a delivery of a product.
    pub(super) fn add(&self, product: Option<Uuid>, delivery: Uuid) {
        let commands = self.commands.clone();
        self.queue.add_for(product.unwrap_or_default(), delivery, move || {
            let commands = commands.clone();
            async move {
                match settle(&commands, delivery).await {
                    Ok(()) => Outcome::Finished,
                    Err(error) => Outcome::TryAgain(error.to_string()),
                }
            }
        });
    }

    pub(super) async fn stop(&self) {
        self.queue.stop().await;
    }
}

impl Commands {
    /// Whether the trigger does not want a delivery, as far as that is known here and now: its filter looks at
    /// nothing else, and takes next to nothing.
    pub(crate) fn is_plainly_filtered(&self, hook: &Hook, content: &Content, body: Value) -> bool {
        let Some(filter) = hook.webhook.filter.as_ref().filter(|filter| !filter.sees("config"))
        else {
            return false;
        };
        let trigger = seen(hook.trigger, &hook.details, content, body);
        let scope = Scope { trigger, ..Scope::default() };
        matches!(evaluate::at_once(|| filter.truth(&scope)), Ok(Some(Ok(false))))
    }

    /// Lets a delivery start an execution once more, because somebody says so: of the version that its
    /// trigger starts, or of another one. What became of it the first time stays what it was.
    ///
    /// # Errors
    /// There is none of that id at this trigger, the trigger does not want it, or the agent cannot work on
    /// it.
    pub async fn replay_delivery(
        &self,
        trigger: Uuid,
        delivery: Uuid,
        version: Option<Uuid>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let stream = StreamId::new("delivery", delivery);
        let first = self.log().read_stream(&stream, 0, 1).await?;
        let known = received(&first)?.filter(|(_, receipt)| receipt.trigger == trigger);
        let Some((received, receipt)) = known else {
            return Err(Error::refused(&DeliveryError::NotFound));
        };
        let conflict =
            |code, message| Err(Error::Refused { kind: RefusalKind::Conflict, code, message });
        match verdict(self, received, &receipt, version).await? {
            Verdict::Start { version, input } => {
                let new = NewExecution { agent: receipt.agent, trigger: Some(trigger), input };
                self.request_for_trigger(new, version, None, ask).await
            }
            Verdict::Filter => conflict(
                "delivery_filtered",
                "the trigger does not want this delivery: change its `match` first".to_owned(),
            ),
            Verdict::Fail(Refused { message, .. }) => conflict("delivery_unusable", message),
        }
    }
}

async fn settle(commands: &Commands, delivery: Uuid) -> Result<(), Error> {
    let stream = StreamId::new("delivery", delivery);
    let Delivery::Received(_) = commands.load::<Delivery>(&stream).await?.0 else {
        return Ok(());
    };
    let first = commands.log().read_stream(&stream, 0, 1).await?;
    let Some((received, receipt)) = received(&first)? else { return Ok(()) };
    let command = match verdict(commands, received, &receipt, None).await? {
        Verdict::Filter => DeliveryCommand::Filter,
        Verdict::Fail(refused) => fail(commands, received, refused).await?,
        Verdict::Start { version, input } => {
            let new = NewExecution { agent: receipt.agent, trigger: Some(receipt.trigger), input };
            let ask = Ask::because_of(received, NAME, &[b"execution"]);
            match commands.request_for_trigger(new, version, None, &ask).await {
                Ok(done) => {
                    DeliveryCommand::Start { execution: done.stream_id().unwrap_or_default() }
                }
                Err(error) => fail(commands, received, Refused::by_request(error)?).await?,
            }
        }
    };
    let ask = Ask::because_of(received, NAME, &[b"settle"]);
    match commands.execute::<Delivery>(delivery, command, &ask).await {
        // Another node was faster.
        Ok(_) | Err(Error::Refused { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The first event of a delivery, with what it says.
fn received(events: &[Arc<RecordedEvent>]) -> Result<Option<(&RecordedEvent, Receipt)>, Error> {
    let Some(first) = events.first() else { return Ok(None) };
    match decode_event(first)? {
        DeliveryEvent::Received(receipt) => Ok(Some((first, receipt))),
        _ => Ok(None),
    }
}

/// What is to become of a delivery, as its trigger says now; in another version than the trigger starts,
/// where one is named.
async fn verdict(
    commands: &Commands,
    received: &RecordedEvent,
    receipt: &Receipt,
    version: Option<Uuid>,
) -> Result<Verdict, Error> {
    let fail = |code: &str, message: &str| {
        Ok(Verdict::Fail(Refused { code: code.to_owned(), message: message.to_owned() }))
    };
    let stream = StreamId::new("trigger", receipt.trigger);
    let (state, _) = commands.load::<Trigger>(&stream).await?;
    let (agent, _) = commands.load::<Agent>(&StreamId::new("agent", receipt.agent)).await?;
    let (Trigger::Active(details), Agent::Installed(installed)) = (state, agent) else {
        return fail(
            "trigger_not_found",
            "the trigger was deleted before the delivery was worked on",
        );
    };
    let Some(webhook) = webhook_of(&details) else {
        return fail("trigger_invalid", "the trigger is no longer understood: replace it");
    };
    let product = received.product.unwrap_or_default();
    let room =
        Room { organization: received.organization, product, stream: received.stream.clone() };
    let opened = commands.open_json_in(&room, RECEIVED, CONTENT, &receipt.content).await?;
    let Some(content) = opened else {
        return fail("erased", "what was delivered was erased with its product");
    };
    let content: Content = content;
    let body: Value = serde_json::from_str(&content.body)
        .map_err(|source| Error::Decode { stream: received.stream.to_string(), source })?;
    let version = version.or(details.version_of(receipt.trigger));
    if webhook.filter.is_none() && webhook.input.is_none() {
        return Ok(Verdict::Start { version, input: Some(body) });
    }

    let runs = version.unwrap_or(installed.version_id);
    let manifest = commands.manifest_of(receipt.agent, runs).await?;
    let config = match commands.config_for(received.organization, receipt.agent, &manifest).await {
        Ok(config) => config,
        Err(error) => return Ok(Verdict::Fail(Refused::by_configuration(error)?)),
    };
    let trigger = seen(receipt.trigger, &details, &content, body.clone());
    let scope = Scope { config, trigger, ..Scope::default() };
    Ok(match wanted_input(webhook.filter, webhook.input, body, scope, &manifest).await {
        Ok(Some(input)) => Verdict::Start { version, input: Some(input) },
        Ok(None) => Verdict::Filter,
        Err(refused) => Verdict::Fail(refused),
    })
}

/// What the expressions of a trigger see of a delivery.
fn seen(trigger: Uuid, details: &TriggerDetails, content: &Content, body: Value) -> Value {
    let mut seen = json!({
        "id": trigger, "key": details.key, "type": "webhook",
        "delivery_id": content.id, "headers": content.headers,
    });
    seen["body"] = body;
    seen
}

async fn fail(
    commands: &Commands,
    received: &RecordedEvent,
    refused: Refused,
) -> Result<DeliveryCommand, Error> {
    let Refused { code, message } = refused;
    tracing::warn!(delivery = %received.stream, code, "a delivery starts nothing");
    let (organization, product) = (received.organization, received.product.unwrap_or_default());
    let error = commands
        .seal_payload(organization, product, &received.stream, FAILED, ERROR, message.as_bytes())
        .await?;
    Ok(DeliveryCommand::Fail { code, error })
}

#[cfg(test)]
mod tests;

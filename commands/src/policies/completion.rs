//! Completing what an event fixed but could not do alone, because one command is one stream: a
//! product's default knowledge base, an agent's triggers.
//!
//! The rule of this file: the handler of the request does the same before it answers; this is for
//! when it was cut off in between. Both end in the same events, once.

use std::sync::Arc;

use domain::product::{Product, ProductEvent};
use eventlog::StreamId;
use uuid::Uuid;

use super::queue::{Outcome, Queue};
use crate::execute::decode_event;
use crate::{Ask, Commands, Error};

/// How many are completed at once.
const AT_ONCE: usize = 4;

/// The process manager of what is half made.
pub(super) struct Completion {
    commands: Commands,
    queue: Arc<Queue>,
}

impl Completion {
    pub(super) fn start(commands: Commands) -> Arc<Completion> {
        Arc::new(Completion { commands, queue: Arc::new(Queue::new("completion", AT_ONCE)) })
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
        let commands = self.commands.clone();
        self.queue.add(agent, move || {
            let commands = commands.clone();
            async move { outcome(commands.complete_agent(agent).await) }
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

//! Completing what an event fixed but could not do alone, because one command is one stream: a
//! product's default knowledge base, an agent's triggers.
//!
//! The rule of this file: the handler of the request does the same before it answers; this is for
//! when it was cut off in between. Both end in the same events, once.

use domain::product::{Product, ProductEvent};
use eventlog::StreamId;
use uuid::Uuid;

use crate::execute::decode_event;
use crate::{Ask, Commands, Error};

/// Completes a product.
pub(super) async fn product(commands: &Commands, product: Uuid) {
    if let Err(error) = complete_product(commands, product).await {
        tracing::error!(%product, %error, "product was not completed; the next start tries again");
    }
}

/// Completes an agent, or what is left of it.
pub(super) async fn agent(commands: &Commands, agent: Uuid) {
    if let Err(error) = commands.complete_agent(agent).await {
        tracing::error!(%agent, %error, "agent was not completed; the next start tries again");
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

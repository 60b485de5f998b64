//! Uses of API tokens: counted in memory, written in batches.
//!
//! The rule of this file: the hot path takes one short lock and never writes; what is counted is
//! bounded, and written at the latest when the server stops in good order.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::Timestamp;
use domain::token_usage::{TokenUsage, TokenUsageCommand, TokenUse};
use eventlog::Position;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{Actor, Ask, Commands, Error};

/// How many different uses are kept before they are written.
const KEPT: usize = 10_000;

/// How many uses go into one event.
const PER_EVENT: usize = 500;

/// One use of a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Usage {
    /// The token.
    pub token: Uuid,
    /// Its tenant.
    pub organization: Uuid,
    /// Its product.
    pub product: Uuid,
    /// The request's method.
    pub method: String,
    /// The template of the request's path.
    pub route: String,
    /// What was answered.
    pub status: u16,
    /// Where it came from.
    pub address: Option<IpAddr>,
}

struct Counted {
    count: u64,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
}

/// Uses that were counted and not written yet. Cheap to clone.
#[derive(Clone, Default)]
pub struct PendingUses(Arc<Pending>);

#[derive(Default)]
struct Pending {
    counted: Mutex<HashMap<Usage, Counted>>,
    /// Held while uses are written, so that whoever finds none pending has waited for those that
    /// another is writing. The position is that of the last ones written.
    written: tokio::sync::Mutex<Position>,
}

impl PendingUses {
    /// Counts one use. Answers whether so many are pending that they want writing.
    pub fn count(&self, usage: Usage) -> bool {
        let now = Utc::now();
        let mut pending = self.0.counted.lock();
        let usage = if pending.len() < KEPT || pending.contains_key(&usage) {
            usage
        } else {
            // Writing has not kept up: the number of tokens and routes is bounded, that of addresses
            // is not.
            Usage { address: None, ..usage }
        };
        let known = pending.len();
        let counted =
            pending.entry(usage).or_insert(Counted { count: 0, first_at: now, last_at: now });
        counted.count += 1;
        counted.last_at = now;
        known < KEPT && pending.len() == KEPT
    }

    fn take(&self, of: Option<Uuid>) -> Vec<(Usage, Counted)> {
        let mut pending = self.0.counted.lock();
        match of {
            None => pending.drain().collect(),
            Some(token) => pending.extract_if(|usage, _| usage.token == token).collect(),
        }
    }

    fn put_back(&self, uses: Vec<(Usage, Counted)>) {
        let mut pending = self.0.counted.lock();
        for (usage, counted) in uses {
            let known = pending.entry(usage).or_insert(Counted { count: 0, ..counted });
            known.count += counted.count;
            known.first_at = known.first_at.min(counted.first_at);
            known.last_at = known.last_at.max(counted.last_at);
        }
    }
}

impl Commands {
    /// Writes what uses are pending: of one token, or of all. What cannot be written stays pending.
    /// Answers the position to wait for.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn record_uses(
        &self,
        pending: &PendingUses,
        of: Option<Uuid>,
    ) -> Result<Position, Error> {
        let (commands, pending) = (self.clone(), pending.clone());
        // In a task of its own: a client that goes away must not take what was counted with it.
        let writing = tokio::spawn(async move {
            let mut written = pending.0.written.lock().await;
            *written = commands.write_uses(&pending, of).await?.max(*written);
            Ok(*written)
        });
        writing.await.map_err(|_| eventlog::Error::Closed)?
    }

    async fn write_uses(&self, pending: &PendingUses, of: Option<Uuid>) -> Result<Position, Error> {
        let mut by_token: HashMap<(Uuid, Uuid, Uuid), Vec<(Usage, Counted)>> = HashMap::new();
        for (usage, counted) in pending.take(of) {
            let token = (usage.token, usage.organization, usage.product);
            by_token.entry(token).or_default().push((usage, counted));
        }
        let mut reached = Position::START;
        let mut failed = None;
        for ((token, organization, product), mut uses) in by_token {
            uses.sort_by_key(|(_, counted)| counted.first_at);
            while !uses.is_empty() {
                let rest = uses.split_off(uses.len().min(PER_EVENT));
                match self.record_uses_of(token, organization, product, &uses).await {
                    Ok(position) => reached = reached.max(position),
                    Err(error) => {
                        pending.put_back(uses);
                        pending.put_back(rest);
                        failed = Some(error);
                        break;
                    }
                }
                uses = rest;
            }
        }
        // One token's failure is no reason to forget the others' uses: all were tried.
        failed.map_or(Ok(reached), Err)
    }

    async fn record_uses_of(
        &self,
        token: Uuid,
        organization: Uuid,
        product: Uuid,
        uses: &[(Usage, Counted)],
    ) -> Result<Position, Error> {
        let mut written = Vec::with_capacity(uses.len());
        for (usage, counted) in uses {
            let actor = Actor::Token(token);
            let (address, _) = self
                .seal_past_client(organization, actor, Some(product), usage.address, None)
                .await?;
            written.push(TokenUse {
                method: usage.method.clone(),
                route: usage.route.clone(),
                status: usage.status,
                count: counted.count,
                first_at: Timestamp::from(counted.first_at),
                last_at: Timestamp::from(counted.last_at),
                address: address.map(domain::Sealed),
            });
        }
        let ask = Ask::once("usage", organization, Some(product));
        let command = TokenUsageCommand::Record { uses: written };
        Ok(self.note::<TokenUsage>(token, command, &ask).await?.position())
    }
}

#[cfg(test)]
mod tests;

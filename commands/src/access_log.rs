//! Attempts that were refused or failed: kept in memory for a moment, written in batches.
//!
//! The rule of this file: a flood of refused requests costs bounded memory and few events; the same
//! attempt over and over is one line with a count.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::Timestamp;
use domain::access_log::{AccessLog, AccessLogCommand, Attempt};
use eventlog::Position;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{Actor, Ask, Commands, Error};

/// How many different attempts are kept between two writes. Beyond that only the paths of the
/// others are forgotten: they are counted together.
const KEPT: usize = 2_000;

/// How many attempts go into one event.
const PER_EVENT: usize = 200;

/// How many requests are named of like attempts. Beyond that they are counted.
const NAMED: usize = 32;

/// A request that was refused, or failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rejection {
    /// The tenant.
    pub organization: Uuid,
    /// Who asked.
    pub actor: Actor,
    /// The product of who asked, or that was asked for.
    pub product: Option<Uuid>,
    /// The request's method.
    pub method: String,
    /// The request's path.
    pub path: String,
    /// The template of the request's path.
    pub route: Option<String>,
    /// What was answered.
    pub status: u16,
    /// The code of the problem.
    pub code: String,
    /// Where it came from.
    pub address: Option<IpAddr>,
    /// With what.
    pub user_agent: Option<String>,
    /// What it was aimed at.
    pub resource: Option<(String, String)>,
}

struct Seen {
    count: u64,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
    request_ids: Vec<String>,
}

impl Seen {
    /// One attempt, just now.
    fn once(request_id: Option<String>) -> Seen {
        let now = Utc::now();
        Seen {
            count: 1,
            first_at: now,
            last_at: now,
            request_ids: request_id.into_iter().collect(),
        }
    }

    /// Takes in what came later.
    fn add(&mut self, later: Seen) {
        self.count += later.count;
        self.last_at = later.last_at;
        let room = NAMED.saturating_sub(self.request_ids.len());
        self.request_ids.extend(later.request_ids.into_iter().take(room));
    }
}

/// Attempts that were noticed and not written yet. Cheap to clone.
#[derive(Clone, Default)]
pub struct PendingRejections(Arc<Pending>);

#[derive(Default)]
struct Pending {
    noticed: Mutex<HashMap<Rejection, Seen>>,
    /// Held while attempts are written: see `PendingUses`.
    written: tokio::sync::Mutex<Position>,
}

impl PendingRejections {
    /// Notices an attempt.
    pub fn notice(&self, rejection: Rejection, request_id: Option<String>) {
        let mut pending = self.0.noticed.lock();
        let rejection = if pending.len() < KEPT || pending.contains_key(&rejection) {
            rejection
        } else {
            Rejection {
                path: "(many)".into(),
                address: None,
                user_agent: None,
                resource: None,
                ..rejection
            }
        };
        let seen = Seen::once(request_id);
        match pending.entry(rejection) {
            Entry::Vacant(place) => {
                place.insert(seen);
            }
            Entry::Occupied(mut known) => known.get_mut().add(seen),
        }
    }

    fn put_back(&self, rejections: Vec<(Rejection, Seen)>) {
        let mut pending = self.0.noticed.lock();
        for (rejection, seen) in rejections {
            match pending.entry(rejection) {
                Entry::Vacant(place) => {
                    place.insert(seen);
                }
                Entry::Occupied(mut known) => {
                    let later = known.insert(seen);
                    known.get_mut().add(later);
                }
            }
        }
    }
}

impl Commands {
    /// Writes what attempts are pending. What cannot be written stays pending. Answers the position
    /// to wait for.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn record_rejections(&self, pending: &PendingRejections) -> Result<Position, Error> {
        let (commands, pending) = (self.clone(), pending.clone());
        // In a task of its own: a client that goes away must not take what was noticed with it.
        let writing = tokio::spawn(async move {
            let mut written = pending.0.written.lock().await;
            *written = commands.write_rejections(&pending).await?.max(*written);
            Ok(*written)
        });
        writing.await.map_err(|_| eventlog::Error::Closed)?
    }

    async fn write_rejections(&self, pending: &PendingRejections) -> Result<Position, Error> {
        let mut taken: Vec<(Rejection, Seen)> = pending.0.noticed.lock().drain().collect();
        taken.sort_by_key(|(_, seen)| seen.first_at);
        let mut reached = Position::START;
        while let Some((first, _)) = taken.first() {
            let organization = first.organization;
            let end = taken
                .iter()
                .take(PER_EVENT)
                .take_while(|(next, _)| next.organization == organization)
                .count();
            match self.record_attempts(organization, &taken[..end]).await {
                Ok(position) => reached = reached.max(position),
                Err(error) => {
                    pending.put_back(taken);
                    return Err(error);
                }
            }
            taken.drain(..end);
        }
        Ok(reached)
    }

    async fn record_attempts(
        &self,
        organization: Uuid,
        rejections: &[(Rejection, Seen)],
    ) -> Result<Position, Error> {
        let mut attempts = Vec::with_capacity(rejections.len());
        for (rejection, seen) in rejections {
            let Rejection { organization, actor, product, address, user_agent, .. } = rejection;
            let (address, user_agent) = self
                .seal_past_client(*organization, *actor, *product, *address, user_agent.as_deref())
                .await?;
            let (resource_type, resource_id) = rejection.resource.clone().unzip();
            attempts.push(Attempt {
                at: Timestamp::from(seen.first_at),
                actor: rejection.actor.to_string(),
                method: rejection.method.clone(),
                path: rejection.path.clone(),
                route: rejection.route.clone(),
                status: rejection.status,
                code: rejection.code.clone(),
                count: seen.count,
                last_at: Timestamp::from(seen.last_at),
                request_ids: seen.request_ids.clone(),
                address: address.map(domain::Sealed),
                user_agent: user_agent.map(domain::Sealed),
                product: rejection.product,
                resource_type,
                resource_id,
            });
        }
        let day = format!("{organization}-{}", Utc::now().format("%Y-%m-%d"));
        let ask = Ask::once("access log", organization, None);
        let command = AccessLogCommand::Record { attempts };
        Ok(self.note::<AccessLog>(day, command, &ask).await?.position())
    }
}

#[cfg(test)]
mod tests;

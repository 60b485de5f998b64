//! Attempts that were refused: kept in memory for a moment, written in batches.
//!
//! The rule of this file: a flood of refused requests costs bounded memory and few events; the same
//! attempt over and over is one line with a count.

use std::collections::HashMap;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use domain::Timestamp;
use domain::access_log::{AccessLog, AccessLogCommand, Attempt};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{Actor, Ask, Commands, Error};

/// How many different attempts are kept between two writes. Beyond that only the paths of the
/// others are forgotten: they are counted together.
const KEPT: usize = 2_000;

/// How many attempts go into one event.
const PER_EVENT: usize = 200;

/// A request that was refused.
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
    request_id: Option<String>,
}

/// Attempts that were noticed and not written yet.
#[derive(Default)]
pub struct PendingRejections(Mutex<HashMap<Rejection, Seen>>);

impl PendingRejections {
    /// Notices an attempt.
    pub fn notice(&self, rejection: Rejection, request_id: Option<String>) {
        let now = Utc::now();
        let mut pending = self.0.lock();
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
        let seen = pending.entry(rejection).or_insert(Seen {
            count: 0,
            first_at: now,
            last_at: now,
            request_id,
        });
        seen.count += 1;
        seen.last_at = now;
    }
}

impl Commands {
    /// Writes what attempts are pending. What cannot be written stays pending. Answers the position
    /// to wait for.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn record_rejections(
        &self,
        pending: &PendingRejections,
    ) -> Result<eventlog::Position, Error> {
        let mut taken: Vec<(Rejection, Seen)> = pending.0.lock().drain().collect();
        taken.sort_by_key(|(_, seen)| seen.first_at);
        let mut reached = eventlog::Position::START;
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
                    pending.0.lock().extend(taken);
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
    ) -> Result<eventlog::Position, Error> {
        let mut attempts = Vec::with_capacity(rejections.len());
        for (rejection, seen) in rejections {
            let agent = rejection.user_agent.as_deref();
            let (address, user_agent) = self
                .seal_client(
                    organization,
                    rejection.actor,
                    rejection.product,
                    rejection.address,
                    agent,
                )
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
                request_id: seen.request_id.clone(),
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
        Ok(self.execute::<AccessLog>(day, command, &ask).await?.position())
    }
}

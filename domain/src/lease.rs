//! A lease: who may work on something now, shared by files and executions.
//!
//! The rule of this file: every claim gets a higher fence than all before it, and only the newest
//! fence may report. So of two workers that both believe they hold the work, one is refused. Whether a
//! lease has run out is told by whoever saw so much time go by; two clocks are never compared.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::refusal::{Refusal, RefusalKind};
use crate::values::Timestamp;

/// The claims on one piece of work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The fence of the newest claim; 0 before the first.
    pub fence: u64,
    /// Who holds the newest claim. `None` before the first, and in a new life of the work.
    pub holder: Option<Holder>,
}

/// Who holds a lease, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// The worker.
    pub worker: Uuid,
    /// When the lease runs out, by the clock of the worker.
    pub until: Timestamp,
}

/// The wish to work on something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseClaim {
    /// Who asks.
    pub worker: Uuid,
    /// When it asks.
    pub now: Timestamp,
    /// Until when it wants to be left alone.
    pub lease_until: Timestamp,
    /// Only this process can have the log open, so that claims of any other worker are void.
    pub exclusive: bool,
    /// Workers that are known to be gone: their claims are void.
    pub gone: Arc<BTreeSet<Uuid>>,
    /// Leases that whoever asks has seen run out, by its own count of the time.
    pub outlasted: Arc<BTreeSet<Holder>>,
}

impl LeaseClaim {
    /// Whether somebody else may not be disturbed by whoever makes this claim.
    pub fn is_kept_out_by(&self, holder: &Holder) -> bool {
        holder.worker != self.worker
            && !self.exclusive
            && !self.gone.contains(&holder.worker)
            && !self.outlasted.contains(holder)
    }
}

/// Why a claim or a report was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// Another worker holds the lease.
    #[error("another worker is at it until {until}: leave it, or ask again after that")]
    Held {
        /// When the lease runs out.
        until: Timestamp,
    },
    /// Another claim came after the one that reports.
    #[error("the lease was lost to a newer claim: throw this result away")]
    Lost,
    /// A lease that would have run out before it began.
    #[error("the lease would end before it begins: ask for one that ends in the future")]
    EndsInPast,
}

impl Refusal for LeaseError {
    fn reason(&self) -> (RefusalKind, &'static str) {
        match self {
            LeaseError::Held { .. } => (RefusalKind::Conflict, "lease_held"),
            LeaseError::Lost => (RefusalKind::Conflict, "lease_lost"),
            LeaseError::EndsInPast => (RefusalKind::Invalid, "lease_until_in_past"),
        }
    }
}

impl Lease {
    /// The fence that a claim would get.
    ///
    /// # Errors
    /// When another worker holds the lease and it has not run out.
    pub fn claim(&self, claim: &LeaseClaim) -> Result<u64, LeaseError> {
        if claim.lease_until <= claim.now {
            return Err(LeaseError::EndsInPast);
        }
        match &self.holder {
            Some(holder) if claim.is_kept_out_by(holder) => {
                Err(LeaseError::Held { until: holder.until })
            }
            _ => Ok(self.fence + 1),
        }
    }

    /// Whether a report may be believed: it must come from the newest claim.
    ///
    /// A lease that has run out but was not claimed by anyone else is still good: the work is done,
    /// and nobody else has begun it.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when it comes from another.
    pub fn check(&self, fence: u64) -> Result<(), LeaseError> {
        if self.holder.is_some() && self.fence == fence { Ok(()) } else { Err(LeaseError::Lost) }
    }

    /// Whether nobody has claimed it since, though the claim may have been given back.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when somebody has.
    pub fn check_newest(&self, fence: u64) -> Result<(), LeaseError> {
        if self.fence == fence { Ok(()) } else { Err(LeaseError::Lost) }
    }

    /// Remembers a claim.
    pub fn taken(&mut self, worker: Uuid, fence: u64, until: Timestamp) {
        *self = Lease { fence, holder: Some(Holder { worker, until }) };
    }
}

#[cfg(test)]
mod tests;

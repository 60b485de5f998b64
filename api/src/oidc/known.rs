//! Tokens from outside that were verified lately.
//!
//! The rule of this file: what is kept is known by a hash alone, is good no longer than its token, and is
//! bounded.

use chrono::{DateTime, TimeDelta, Utc};
use commands::jwt::SKEW;

use super::Outside;

/// How many tokens are kept at once.
const KEPT: u64 = 10_000;

/// A token that was verified.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownSession {
    pub(super) outside: Outside,
    pub(super) expires_at: DateTime<Utc>,
}

impl KnownSession {
    fn is_good(&self, now: DateTime<Utc>) -> bool {
        now < self.expires_at + TimeDelta::seconds(SKEW as i64)
    }
}

/// The tokens that were verified, by their hashes.
#[derive(Debug)]
pub(super) struct KnownSessions(moka::sync::Cache<[u8; 32], KnownSession>);

impl Default for KnownSessions {
    fn default() -> KnownSessions {
        KnownSessions(moka::sync::Cache::new(KEPT))
    }
}

impl KnownSessions {
    pub(super) fn get(&self, digest: &[u8; 32], now: DateTime<Utc>) -> Option<Outside> {
        let session = self.0.get(digest)?;
        if !session.is_good(now) {
            self.0.invalidate(digest);
            return None;
        }
        Some(session.outside)
    }

    pub(super) fn keep(&self, digest: [u8; 32], session: KnownSession) {
        self.0.insert(digest, session);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn session(expires_at: DateTime<Utc>) -> KnownSession {
        KnownSession { outside: Outside { user: Uuid::nil(), session: Uuid::nil() }, expires_at }
    }

    fn digest(number: u64) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        digest
    }

    #[test]
    fn a_token_is_known_until_it_runs_out() {
        let (known, now) = (KnownSessions::default(), Utc::now());
        known.keep(digest(1), session(now));
        let skew = TimeDelta::seconds(SKEW as i64);
        assert!(known.get(&digest(1), now + skew - TimeDelta::seconds(1)).is_some());
        assert!(known.get(&digest(1), now + skew).is_none());
        assert!(known.get(&digest(1), now).is_none(), "one that ran out is forgotten");
        assert!(known.get(&digest(2), now).is_none());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (known, now) = (KnownSessions::default(), Utc::now());
        for number in 0..2 * KEPT {
            known.keep(digest(number), session(now + TimeDelta::hours(1)));
        }
        known.0.run_pending_tasks();
        assert!(known.0.entry_count() <= KEPT);
        let found = (0..2 * KEPT).filter(|number| known.get(&digest(*number), now).is_some());
        assert!(found.count() as u64 <= KEPT);
    }
}

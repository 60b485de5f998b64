//! Tokens from outside that were verified lately.
//!
//! The rule of this file: what is kept is known by a hash alone, is good no longer than its token, and is
//! bounded.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use commands::jwt::SKEW;
use parking_lot::Mutex;

use super::Outside;

/// How many tokens are kept at once.
const KEPT: usize = 10_000;

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
#[derive(Debug, Default)]
pub(super) struct KnownSessions(Mutex<HashMap<[u8; 32], KnownSession>>);

impl KnownSessions {
    pub(super) fn get(&self, digest: &[u8; 32], now: DateTime<Utc>) -> Option<Outside> {
        let known = self.0.lock();
        known.get(digest).filter(|session| session.is_good(now)).map(|session| session.outside)
    }

    pub(super) fn keep(&self, digest: [u8; 32], session: KnownSession, now: DateTime<Utc>) {
        let mut known = self.0.lock();
        if known.len() >= KEPT {
            known.retain(|_, session| session.is_good(now));
        }
        // All of them are in use, then: whoever comes back is verified again.
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(digest, session);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn session(expires_at: DateTime<Utc>) -> KnownSession {
        KnownSession { outside: Outside { user: Uuid::nil(), session: Uuid::nil() }, expires_at }
    }

    fn digest(number: usize) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&(number as u64).to_be_bytes());
        digest
    }

    #[test]
    fn a_token_is_known_until_it_runs_out() {
        let (known, now) = (KnownSessions::default(), Utc::now());
        known.keep(digest(1), session(now), now);
        let skew = TimeDelta::seconds(SKEW as i64);
        assert!(known.get(&digest(1), now + skew - TimeDelta::seconds(1)).is_some());
        assert!(known.get(&digest(1), now + skew).is_none());
        assert!(known.get(&digest(2), now).is_none());
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_ran_out_goes_first() {
        let (known, now) = (KnownSessions::default(), Utc::now());
        let hour = TimeDelta::hours(1);
        known.keep(digest(0), session(now + hour), now);
        for number in 1..KEPT {
            known.keep(digest(number), session(now - hour), now);
        }
        known.keep(digest(KEPT), session(now + hour), now);
        assert_eq!(known.0.lock().len(), 2);
        for number in 1..=2 * KEPT {
            known.keep(digest(number), session(now + hour), now);
        }
        assert!(known.0.lock().len() <= KEPT);
    }
}

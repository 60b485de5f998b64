//! Rate limits: so many requests in so long for each credential, or for each address.
//!
//! The one rule: a request is counted before it costs anything, and the memory of the counting is
//! bounded however many clients there are.
//!
//! The algorithm is GCRA: a bucket that holds the whole limit and refills evenly. Of a key it
//! remembers one number, the time at which its bucket will be full again. (`governor` has the same
//! arithmetic, but cannot look without taking, and its keyed stores cannot say whether a key is
//! known, so they cannot be bounded.)
//!
//! Whoever presents a credential is counted by it, whoever presents none by address. A credential
//! that turns out to be bad is charged to its address as well, and an address that has used up its
//! limit so is stopped before the next guess is looked at: making credentials up gains nothing.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::header::{RATELIMIT_LIMIT, RATELIMIT_REMAINING, RATELIMIT_RESET, X_API_TOKEN};
use super::{ClientAddress, Problem, problem};

/// Keys that are remembered at once; those beyond share one bucket.
const MAX_KEYS: usize = 100_000;

/// A limit, shared by all routes that it is laid around.
#[derive(Clone, Debug)]
pub struct RateLimit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    by: By,
    limit: u32,
    /// What one request takes from a bucket, in nanoseconds.
    interval: u64,
    started: Instant,
    buckets: Mutex<Buckets>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Credential,
    Address,
    /// Laid around nothing: who uses it names the door.
    Door,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Half of the SHA-256 of what was presented.
    Credential([u8; 16]),
    Address(IpAddr),
    /// An address at one of the things that take deliveries.
    Door(Uuid, IpAddr),
    /// All those for whom there was no room.
    Others,
}

/// When each bucket will be full again, in nanoseconds since the limit was made.
#[derive(Debug, Default)]
struct Buckets {
    full_at: HashMap<Key, u64>,
    sweep_at_len: usize,
    swept_at: u64,
}

/// What a bucket said to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decision {
    remaining: u32,
    /// Until the bucket is full.
    reset: Duration,
    /// How long to wait, when the answer is no.
    wait: Option<Duration>,
}

/// Where a client stands that was let in.
pub struct Standing {
    limit: RateLimit,
    decision: Decision,
}

impl Standing {
    /// Says so in the answer.
    pub fn write(&self, headers: &mut HeaderMap) {
        self.limit.write(self.decision, headers);
    }
}

impl RateLimit {
    /// So many requests in so long for each credential, and for each address without one.
    ///
    /// `None` when `limit` is 0, which is how a limit is switched off.
    pub fn per_credential(limit: u32, period: Duration) -> Option<Self> {
        Self::new(By::Credential, limit, period)
    }

    /// So many requests in so long for each address, credential or not.
    ///
    /// `None` when `limit` is 0, which is how a limit is switched off.
    pub fn per_address(limit: u32, period: Duration) -> Option<Self> {
        Self::new(By::Address, limit, period)
    }

    /// So many requests in so long for each address at each door: [`RateLimit::admit`].
    ///
    /// `None` when `limit` is 0, which is how a limit is switched off.
    pub fn per_door(limit: u32, period: Duration) -> Option<Self> {
        Self::new(By::Door, limit, period)
    }

    /// Counts a request of an address at a door.
    ///
    /// # Errors
    /// 429 when that was one too many.
    pub fn admit(&self, door: Uuid, address: IpAddr) -> Result<Standing, Problem> {
        let decision = self.take(Key::Door(door, network_of(address)), self.now());
        match decision.wait {
            None => Ok(Standing { limit: self.clone(), decision }),
            Some(wait) => Err(self.refusal(decision, wait)),
        }
    }

    /// The refusal that [`admit`](Self::admit) would answer with now, without counting.
    pub fn refused(&self, door: Uuid, address: IpAddr) -> Option<Problem> {
        let decision = self.look(Key::Door(door, network_of(address)), self.now());
        decision.wait.map(|wait| self.refusal(decision, wait))
    }

    fn new(by: By, limit: u32, period: Duration) -> Option<Self> {
        let period: u64 = period.as_nanos().try_into().unwrap_or(u64::MAX);
        let interval = period.checked_div(limit.into())?.max(1);
        let buckets = Mutex::new(Buckets { sweep_at_len: 1024, ..Buckets::default() });
        Some(RateLimit(Arc::new(Inner { by, limit, interval, started: Instant::now(), buckets })))
    }

    fn now(&self) -> u64 {
        self.0.started.elapsed().as_nanos().try_into().unwrap_or(u64::MAX)
    }

    /// Takes one request out of a bucket, if it is there.
    fn take(&self, key: Key, now: u64) -> Decision {
        let mut buckets = self.0.buckets.lock();
        let full_at = buckets.entry(key, now);
        let decision = self.decide(*full_at, now);
        if decision.wait.is_none() {
            *full_at = now + decision.reset.as_nanos() as u64;
        }
        decision
    }

    /// What [`take`](Self::take) would say, without taking.
    fn look(&self, key: Key, now: u64) -> Decision {
        let full_at = self.0.buckets.lock().full_at.get(&key).copied();
        self.decide(full_at.unwrap_or(now), now)
    }

    fn decide(&self, full_at: u64, now: u64) -> Decision {
        let capacity = self.0.interval * u64::from(self.0.limit);
        let used = full_at.saturating_sub(now);
        let (used, wait) = match used + self.0.interval {
            over if over > capacity => (used, Some(Duration::from_nanos(over - capacity))),
            within => (within, None),
        };
        let remaining = capacity.saturating_sub(used) / self.0.interval;
        Decision {
            remaining: remaining.try_into().unwrap_or(u32::MAX),
            reset: Duration::from_nanos(used),
            wait,
        }
    }

    /// Says in the answer where its client stands, unless a narrower limit has said so already.
    fn write(&self, decision: Decision, headers: &mut HeaderMap) {
        if headers.contains_key(RATELIMIT_LIMIT) {
            return;
        }
        headers.extend(self.headers(decision));
    }

    fn headers(&self, decision: Decision) -> [(HeaderName, HeaderValue); 3] {
        let reset = decision.reset.as_nanos().div_ceil(1_000_000_000) as u64;
        [
            (RATELIMIT_LIMIT, HeaderValue::from(self.0.limit)),
            (RATELIMIT_REMAINING, HeaderValue::from(decision.remaining)),
            (RATELIMIT_RESET, HeaderValue::from(reset)),
        ]
    }

    fn refusal(&self, decision: Decision, wait: Duration) -> Problem {
        let refusal = Problem::too_many_requests(wait);
        let headers = self.headers(decision).into_iter();
        headers.fold(refusal, |refusal, (name, value)| refusal.with_header(name, value))
    }
}

impl Buckets {
    /// The bucket of a key, made full if it is not there.
    fn entry(&mut self, key: Key, now: u64) -> &mut u64 {
        if self.full_at.len() >= self.sweep_at_len && !self.full_at.contains_key(&key) {
            self.sweep(now);
        }
        let has_room = self.full_at.len() < MAX_KEYS || self.full_at.contains_key(&key);
        self.full_at.entry(if has_room { key } else { Key::Others }).or_insert(now)
    }

    /// Forgets the keys whose bucket is full again: they are as good as never seen.
    fn sweep(&mut self, now: u64) {
        // Sweeping a full table for every newcomer would cost more than the flood.
        let is_rested = now - self.swept_at >= Duration::from_secs(1).as_nanos() as u64;
        if self.full_at.len() < MAX_KEYS || is_rested {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.sweep_at_len = (self.full_at.len() * 2).clamp(1024, MAX_KEYS);
            self.swept_at = now;
        }
    }
}

/// The layer; inside the one that finds the address.
pub async fn enforce(
    limit: &RateLimit,
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let address = match ClientAddress::of(request.extensions()) {
        Ok(ClientAddress(address)) => address,
        Err(problem) => return problem.into_response(),
    };
    let address = Key::Address(network_of(address));
    let credential = match limit.0.by {
        By::Credential => presented_credential(request.headers()),
        By::Address | By::Door => None,
    };
    let now = limit.now();
    if credential.is_some() {
        let decision = limit.look(address, now);
        if let Some(wait) = decision.wait {
            return limit.refusal(decision, wait).into_response();
        }
    }
    let decision = limit.take(credential.unwrap_or(address), now);
    if let Some(wait) = decision.wait {
        return limit.refusal(decision, wait).into_response();
    }
    let mut response = next(request).await;
    if credential.is_some() && problem::is_bad_credential(&response) {
        limit.take(address, limit.now());
    }
    limit.write(decision, response.headers_mut());
    response
}

/// The key of what a client presents, the same in whichever header it stands.
fn presented_credential(headers: &HeaderMap) -> Option<Key> {
    let presented = match headers.get(X_API_TOKEN) {
        Some(token) => token.as_bytes(),
        None => {
            let value = headers.get(AUTHORIZATION)?.as_bytes();
            value
                .split_at_checked(7)
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "))
                .map_or(value, |(_, token)| token)
        }
    };
    let digest = Sha256::digest(presented.trim_ascii());
    let half = digest.first_chunk().expect("32 bytes have a first half");
    Some(Key::Credential(*half))
}

/// What one client can be expected to hold: an IPv4 address, or an IPv6 network of 64 bits.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests;

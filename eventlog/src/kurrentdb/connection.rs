//! The client, and what is done when it fails.
//!
//! The rule of this file: a question is asked again as long as that can help and patience lasts;
//! what cannot be asked again without looking first (an append) asks once.
//!
//! A new client is made when the old one is of no use any more. The client's own machine ends for
//! good at the first node that cannot be reached, and in a cluster it holds on to a node that is
//! gone until another one tells it who leads.

use std::future::Future;
use std::time::{Duration, Instant};

use eventstore::{Client, Error as ClientError};
use parking_lot::Mutex;

use super::address::Address;
use super::error::{KurrentdbError, Remedy, failure, remedy};
use super::nodelay;

/// How long one answer may take before it counts as lost. Longer than the client needs to notice a
/// dead connection by itself.
const LONGEST_ANSWER: Duration = Duration::from_secs(30);

/// Before asking again: longer each time.
const PAUSES_MS: [u64; 6] = [0, 20, 50, 100, 200, 400];

/// A client that may have failed is left alone for this long after it was made.
const YOUNG: Duration = Duration::from_secs(1);

/// Which client answered, so that it is replaced once, not once by each of its users.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// Hands out the client, and a new one when it has failed.
pub(super) struct Connection {
    address: Address,
    patience: Duration,
    current: Mutex<Current>,
    /// The ports of nodes that were named as leaders.
    leaders: Mutex<Vec<u32>>,
}

struct Current {
    generation: u64,
    client: Client,
    made: Instant,
    /// Whether it has answered: then it has a connection.
    has_answered: bool,
}

impl Current {
    fn new(generation: u64, address: &Address) -> Result<Current, KurrentdbError> {
        let client = Client::new(address.settings.clone()).map_err(|error| {
            // A certificate that cannot be read, for instance; the message holds no address.
            KurrentdbError::Address(error.to_string())
        })?;
        Ok(Current { generation, client, made: Instant::now(), has_answered: false })
    }
}

impl Connection {
    /// Makes a client; nobody is asked yet. Must be called inside a tokio run time.
    pub fn new(address: Address, patience: Duration) -> Result<Connection, KurrentdbError> {
        let current = Mutex::new(Current::new(0, &address)?);
        Ok(Connection { address, patience, current, leaders: Mutex::default() })
    }

    /// Hosts and ports, to be shown.
    pub fn nodes(&self) -> &str {
        &self.address.nodes
    }

    /// What the names of this log's streams begin with.
    pub fn prefix(&self) -> &str {
        &self.address.prefix
    }

    /// How long a failure is waited out.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The client, and which one it is.
    pub fn client(&self) -> (Generation, Client) {
        let current = self.current.lock();
        (Generation(current.generation), current.client.clone())
    }

    /// Does what helps after a failure of a client. Must be called inside a tokio run time.
    pub fn mend(&self, failed: Generation, error: &ClientError) {
        if let ClientError::NotLeaderException(leader) = error {
            let mut leaders = self.leaders.lock();
            if !leaders.contains(&leader.port) {
                leaders.push(leader.port);
            }
        }
        if remedy(error) != Remedy::Renew {
            return;
        }
        let is_dead =
            matches!(error, ClientError::ConnectionClosed | ClientError::GrpcConnectionError(_));
        let mut current = self.current.lock();
        if current.generation != failed.0 || (!is_dead && current.made.elapsed() < YOUNG) {
            return;
        }
        match Current::new(current.generation + 1, &self.address) {
            Ok(next) => *current = next,
            Err(error) => tracing::error!(%error, "no new client for the event log could be made"),
        }
    }

    fn answered(&self, generation: Generation) {
        let mut current = self.current.lock();
        if current.generation == generation.0 && !current.has_answered {
            current.has_answered = true;
            drop(current);
            self.hurry();
        }
    }

    /// Sends small messages at once from now on: called when a connection was made.
    pub fn hurry(&self) {
        let hosts = self.address.settings.hosts().iter().map(|host| host.port);
        let ports: Vec<_> = hosts.chain(self.leaders.lock().iter().copied()).collect();
        nodelay::hurry(|port| ports.contains(&u32::from(port)));
    }

    /// Asks until there is an answer, or a failure that asking again does not mend, or patience
    /// ends. For what changes nothing.
    pub async fn ask<T, F>(&self, question: impl Fn(Client) -> F) -> Result<T, KurrentdbError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let started = Instant::now();
        let mut tries = 0;
        loop {
            let error = match self.ask_once(&question).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if remedy(&error) == Remedy::GiveUp || started.elapsed() > self.patience {
                return Err(failure(error, self.nodes()));
            }
            pause(tries).await;
            tries += 1;
        }
    }

    /// Asks once. After a failure the next question finds a client that may work.
    pub async fn ask_once<T, F>(&self, question: impl FnOnce(Client) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let (generation, client) = self.client();
        let answer = question(client).await;
        match &answer {
            Ok(_) => self.answered(generation),
            Err(error) => self.mend(generation, error),
        }
        answer
    }
}

/// Waits for one answer, but not for ever.
pub(super) async fn within<T>(
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let answer = tokio::time::timeout(LONGEST_ANSWER, answer).await;
    answer.unwrap_or(Err(ClientError::DeadlineExceeded))
}

/// Waits before the next try.
pub(super) async fn pause(tries: usize) {
    let longest = PAUSES_MS.len() - 1;
    tokio::time::sleep(Duration::from_millis(PAUSES_MS[tries.min(longest)])).await;
}

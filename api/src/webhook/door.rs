//! How many deliveries are let in: so many in a second for each address at each door, so many that are being read,
//! and so many at work at once.
//!
//! The rule of this file: a flood at one door takes nothing from the others, and nobody pays for what others
//! send from the same address to another door. Who sends slowly keeps nobody out: a place among those at work is
//! taken when the whole body is there, and a body has so long and no longer.
//!
//! What is held is bounded by its bytes, from their arrival to the answer. A buffer that grows is twice as long as
//! what is in it at worst: half a gibibyte in all.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::http::Problem;
use crate::http::layers::BodyLimit;
use crate::http::problem::Aim;
use crate::http::rate_limit::{RateLimit, Standing, network_of};

/// How many deliveries are at work at once at one door, and at all of them.
const AT_ONE_DOOR: usize = 64;
const AT_ALL_DOORS: usize = 256;

/// How many of one address are read at once at one door, and at all of them.
const READ_AT_ONE_DOOR: usize = 64;
const READ_OF_ONE_ADDRESS: usize = 512;

/// How many bytes are held at one door, of one address, and in all.
const HELD_AT_ONE_DOOR: usize = 64 * MIB;
const HELD_OF_ONE_ADDRESS: usize = 96 * MIB;
const HELD: usize = 256 * MIB;
const MIB: usize = 1024 * 1024;

/// How long a body may take to arrive. Who delivers waits for the answer no longer than that, as GitHub.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many paths are remembered at which somebody came too often: a flood has few.
const FLOODED: u64 = 1024;

/// When to come again to a door that is full.
const SOON: Duration = Duration::from_secs(1);

/// The doors through which deliveries come in. Cheap to clone.
#[derive(Clone)]
pub struct Doors(Arc<Inner>);

struct Inner {
    limit: Option<RateLimit>,
    crowd: Mutex<Crowd>,
    /// The doors that were flooded lately, by their paths.
    by_path: moka::sync::Cache<String, Uuid>,
}

/// What is read, held and at work.
#[derive(Default)]
struct Crowd {
    at_work: usize,
    at_work_by_door: HashMap<Uuid, usize>,
    read_by_address: HashMap<IpAddr, usize>,
    read_by_door: HashMap<(Uuid, IpAddr), usize>,
    held: usize,
    held_by_address: HashMap<IpAddr, usize>,
    held_by_door: HashMap<Uuid, usize>,
}

/// A body that is being read, until it is dropped.
struct Reading {
    doors: Doors,
    door: Uuid,
    network: IpAddr,
}

/// The bytes of a body that are held, until it is dropped.
struct Held {
    doors: Doors,
    door: Uuid,
    network: IpAddr,
    bytes: usize,
}

/// A delivery that is at work, until it is dropped.
struct Inside {
    doors: Doors,
    door: Uuid,
}

impl Doors {
    /// Doors with a limit for each address at each of them.
    pub fn new(limit: Option<RateLimit>) -> Doors {
        let by_path = moka::sync::Cache::new(FLOODED);
        Doors(Arc::new(Inner { limit, crowd: Mutex::default(), by_path }))
    }

    /// The refusal of an address that came too often to this door; nothing is counted.
    pub fn shut(&self, door: Uuid, address: IpAddr) -> Option<Problem> {
        self.0.limit.as_ref()?.refused(door, address)
    }

    /// As [`shut`](Self::shut), at a door that is known by its path, and was [flooded](Self::flooded) lately.
    pub fn shut_at(&self, path: &str, address: IpAddr) -> Option<Problem> {
        self.shut(self.0.by_path.get(path)?, address)
    }

    /// Remembers the door of a path to which somebody came too often: turning the next ones away needs no look into the
    /// log's streams.
    pub fn flooded(&self, path: String, door: Uuid) {
        self.0.by_path.insert(path, door);
    }

    /// Takes a delivery in at the door of what it is for, and answers it; a refusal says for whom it was, save of one that
    /// nobody looked at.
    pub async fn let_in<R: IntoResponse, F: Future<Output = Result<R, Problem>>>(
        &self,
        aim: Aim,
        address: IpAddr,
        request: Request,
        limit: usize,
        answer: impl FnOnce(Vec<u8>) -> F,
    ) -> Response {
        let door = aim.resource.1;
        let standing = match self.admit(door, address) {
            Ok(standing) => standing,
            Err(problem) => return problem.into_response(),
        };
        let answered = async {
            let (body, _held) = self.read(door, address, request, limit, PATIENCE).await?;
            let _inside = self.enter(door)?;
            answer(body).await
        };
        let mut response = match answered.await {
            Ok(answer) => answer.into_response(),
            Err(problem) if problem.status() == StatusCode::TOO_MANY_REQUESTS => {
                problem.into_response()
            }
            Err(problem) => problem.aimed_at(aim).into_response(),
        };
        write(standing, response.headers_mut());
        response
    }

    /// Answers somebody who knocks where there is no door: they are counted, too.
    pub fn turn_away(&self, address: IpAddr, problem: Problem) -> Response {
        match self.admit(Uuid::nil(), address) {
            Ok(standing) => {
                let mut response = problem.into_response();
                write(standing, response.headers_mut());
                response
            }
            Err(too_many) => too_many.into_response(),
        }
    }

    /// Counts somebody at a door.
    ///
    /// # Errors
    /// 429 when that address came too often.
    fn admit(&self, door: Uuid, address: IpAddr) -> Result<Option<Standing>, Problem> {
        self.0.limit.as_ref().map(|limit| limit.admit(door, address)).transpose()
    }

    /// Reads a whole body.
    ///
    /// # Errors
    /// It is too long, too slow or broken off, or too many are read or held.
    async fn read(
        &self,
        door: Uuid,
        address: IpAddr,
        request: Request,
        longest: usize,
        patience: Duration,
    ) -> Result<(Vec<u8>, Held), Problem> {
        let limit = BodyLimit::new(longest, patience);
        limit.check_announced(request.headers())?;
        let network = network_of(address);
        let _reading = self.begin_to_read(door, network)?;
        let mut held = Held { doors: self.clone(), door, network, bytes: 0 };
        let whole = async {
            let mut body = Vec::new();
            let mut chunks = request.into_body().into_data_stream();
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(|_| Problem::incomplete_body())?;
                if body.len() + chunk.len() > longest {
                    return Err(limit.exceeded());
                }
                held.grow(chunk.len())?;
                body.extend_from_slice(&chunk);
            }
            Ok(body)
        };
        let body = limit.wait(whole).await??;
        Ok((body, held))
    }

    fn begin_to_read(&self, door: Uuid, network: IpAddr) -> Result<Reading, Problem> {
        let mut crowd = self.0.crowd.lock();
        let at_door = of(&crowd.read_by_door, &(door, network));
        let of_address = of(&crowd.read_by_address, &network);
        if at_door >= READ_AT_ONE_DOOR || of_address >= READ_OF_ONE_ADDRESS {
            return Err(Problem::too_many_requests(SOON));
        }
        crowd.read_by_door.insert((door, network), at_door + 1);
        crowd.read_by_address.insert(network, of_address + 1);
        Ok(Reading { doors: self.clone(), door, network })
    }

    /// Takes a place among those at work at a door.
    ///
    /// # Errors
    /// 429 when there is none.
    fn enter(&self, door: Uuid) -> Result<Inside, Problem> {
        let mut crowd = self.0.crowd.lock();
        let here = of(&crowd.at_work_by_door, &door);
        if here >= AT_ONE_DOOR || crowd.at_work >= AT_ALL_DOORS {
            return Err(Problem::too_many_requests(SOON));
        }
        crowd.at_work += 1;
        crowd.at_work_by_door.insert(door, here + 1);
        Ok(Inside { doors: self.clone(), door })
    }
}

impl Held {
    /// Holds so many bytes more.
    ///
    /// # Errors
    /// 429 when there is no room for them.
    fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let mut crowd = self.doors.0.crowd.lock();
        let at_door = of(&crowd.held_by_door, &self.door) + bytes;
        let of_address = of(&crowd.held_by_address, &self.network) + bytes;
        let all = crowd.held + bytes;
        if at_door > HELD_AT_ONE_DOOR || of_address > HELD_OF_ONE_ADDRESS || all > HELD {
            return Err(Problem::too_many_requests(SOON));
        }
        crowd.held = all;
        crowd.held_by_door.insert(self.door, at_door);
        crowd.held_by_address.insert(self.network, of_address);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut crowd = self.doors.0.crowd.lock();
        give_back(&mut crowd.read_by_door, (self.door, self.network), 1);
        give_back(&mut crowd.read_by_address, self.network, 1);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut crowd = self.doors.0.crowd.lock();
        crowd.held -= self.bytes;
        give_back(&mut crowd.held_by_door, self.door, self.bytes);
        give_back(&mut crowd.held_by_address, self.network, self.bytes);
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut crowd = self.doors.0.crowd.lock();
        crowd.at_work -= 1;
        give_back(&mut crowd.at_work_by_door, self.door, 1);
    }
}

fn of<K: Hash + Eq>(counts: &HashMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or_default()
}

/// Forgets a key of which nothing is left.
fn give_back<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K, count: usize) {
    if let Some(left) = counts.get_mut(&key) {
        *left -= count;
        if *left == 0 {
            counts.remove(&key);
        }
    }
}

/// Says in an answer where its client stands.
fn write(standing: Option<Standing>, headers: &mut HeaderMap) {
    if let Some(standing) = standing {
        standing.write(headers);
    }
}

#[cfg(test)]
mod tests;

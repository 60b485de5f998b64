//! How many deliveries are let in: so many in a second for each address at each door, and so many at once.
//!
//! The rule of this file: a flood at one door takes nothing from the others, and nobody pays for what others
//! send from the same address to another door.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::http::Problem;
use crate::http::rate_limit::{RateLimit, Standing};
use crate::record::Aim;

/// How many deliveries are read at once at one door, and at all of them. Each takes a mebibyte at most.
const AT_ONE_DOOR: usize = 64;
const AT_ALL_DOORS: usize = 256;

/// When to come again to a door that is full.
const SOON: Duration = Duration::from_secs(1);

/// The doors through which deliveries come in. Cheap to clone.
#[derive(Clone, Default)]
pub struct Doors(Arc<Inner>);

#[derive(Default)]
struct Inner {
    limit: Option<RateLimit>,
    inside: Mutex<Crowd>,
}

/// Who is inside.
#[derive(Default)]
struct Crowd {
    all: usize,
    by_door: HashMap<Uuid, usize>,
}

/// A delivery that was let in, until it is dropped.
struct Inside {
    doors: Doors,
    door: Uuid,
    standing: Option<Standing>,
}

impl Doors {
    /// Doors with a limit for each address at each of them.
    pub fn new(limit: Option<RateLimit>) -> Doors {
        Doors(Arc::new(Inner { limit, ..Inner::default() }))
    }

    /// Lets a delivery in at the door of what it is for, and answers it; a refusal says for whom it was.
    pub async fn let_in<R: IntoResponse>(
        &self,
        aim: Aim,
        address: IpAddr,
        answer: impl Future<Output = Result<R, Problem>>,
    ) -> Response {
        let inside = match self.enter(aim.resource.1, address) {
            Ok(inside) => inside,
            Err(problem) => return problem.into_response(),
        };
        let mut response = match answer.await {
            Ok(answer) => answer.into_response(),
            Err(problem) => {
                let mut response = problem.into_response();
                response.extensions_mut().insert(aim);
                response
            }
        };
        inside.write(response.headers_mut());
        response
    }

    /// Lets a delivery in at the door of a trigger or an integration.
    ///
    /// # Errors
    /// 429 when too many came from that address, or are inside.
    fn enter(&self, door: Uuid, address: IpAddr) -> Result<Inside, Problem> {
        let standing = match &self.0.limit {
            Some(limit) => Some(limit.admit(door, address)?),
            None => None,
        };
        let mut inside = self.0.inside.lock();
        let here = inside.by_door.get(&door).copied().unwrap_or_default();
        if here >= AT_ONE_DOOR || inside.all >= AT_ALL_DOORS {
            return Err(Problem::too_many_requests(SOON));
        }
        inside.all += 1;
        inside.by_door.insert(door, here + 1);
        drop(inside);
        Ok(Inside { doors: self.clone(), door, standing })
    }

    /// Notices somebody who knocks where there is no door.
    ///
    /// # Errors
    /// 429 when that address did so too often.
    pub fn knock(&self, address: IpAddr) -> Result<(), Problem> {
        match &self.0.limit {
            Some(limit) => limit.admit(Uuid::nil(), address).map(|_| ()),
            None => Ok(()),
        }
    }
}

impl Inside {
    /// Says in the answer where its client stands.
    fn write(&self, headers: &mut HeaderMap) {
        if let Some(standing) = &self.standing {
            standing.write(headers);
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut inside = self.doors.0.inside.lock();
        inside.all -= 1;
        if let Some(here) = inside.by_door.get_mut(&self.door) {
            *here -= 1;
            if *here == 0 {
                inside.by_door.remove(&self.door);
            }
        }
    }
}

#[cfg(test)]
mod tests;

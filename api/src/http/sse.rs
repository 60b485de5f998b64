//! Event streams (`text/event-stream`).
//!
//! The one rule: every event of a stream has an id, so that a client that was cut off can go on
//! from it; only the last event, when the stream fails, has none and so keeps the client's place.

use std::convert::Infallible;
use std::fmt::Display;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::header::LAST_EVENT_ID;
use super::min_position::parse_position;
use super::{Problem, request_id};

/// A comment this often keeps proxies from closing a quiet stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One event of a stream.
#[derive(Clone, Debug)]
pub struct Event(sse::Event);

/// `Last-Event-ID`: the position after which a client wants to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastEventId(pub Option<u64>);

impl Event {
    /// An event of this name with JSON data. An id is a number or a UUID: it has no line breaks.
    pub fn new(id: impl Display, name: &str, data: &impl Serialize) -> Result<Self, Problem> {
        let event = sse::Event::default().id(id.to_string()).event(name).json_data(data);
        event.map(Event).map_err(|error| Problem::internal(&error))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(LAST_EVENT_ID) else { return Ok(LastEventId(None)) };
        match value.to_str().ok().and_then(parse_position) {
            Some(position) => Ok(LastEventId(Some(position))),
            None => Err(not_of_this_stream()),
        }
    }
}

/// The answer to a `Last-Event-ID` that no event of the stream has.
pub fn not_of_this_stream() -> Problem {
    Problem::malformed(
        "malformed_last_event_id",
        "Last-Event-ID must be the id of an event of this stream",
    )
}

/// Answers with a stream of events. It ends with its source, at the first failure (as an `error`
/// event that holds the problem), as soon as the client is `refused` (likewise), or when the server
/// stops.
pub fn stream(
    events: impl Stream<Item = Result<Event, Problem>> + Send + 'static,
    refused: impl Future<Output = Problem> + Send + 'static,
    shutdown: CancellationToken,
) -> Response {
    commented_stream(while_allowed(events, refused), shutdown, KEEP_ALIVE)
}

/// The events until the client is refused, and then why.
pub fn while_allowed<T: Send + 'static>(
    events: impl Stream<Item = Result<T, Problem>> + Send + 'static,
    refused: impl Future<Output = Problem> + Send + 'static,
) -> impl Stream<Item = Result<T, Problem>> + Send + 'static {
    async_stream::stream! {
        let mut events = std::pin::pin!(events);
        let mut refused = std::pin::pin!(refused);
        loop {
            let next = tokio::select! {
                biased;
                problem = &mut refused => Some(Err(problem)),
                next = events.next() => next,
            };
            let Some(next) = next else { return };
            let is_last = next.is_err();
            yield next;
            if is_last {
                return;
            }
        }
    }
}

fn commented_stream(
    events: impl Stream<Item = Result<Event, Problem>> + Send + 'static,
    shutdown: CancellationToken,
    comment_every: Duration,
) -> Response {
    let request_id = request_id::current().unwrap_or_default();
    let mut has_failed = false;
    let written = events
        .take_while(move |event| {
            std::future::ready(!std::mem::replace(&mut has_failed, event.is_err()))
        })
        .map(move |event| {
            Ok::<_, Infallible>(match event {
                Ok(Event(event)) => event,
                Err(problem) => {
                    let body = request_id::scope_sync(request_id.clone(), || problem.body());
                    let event = sse::Event::default().event("error").json_data(body);
                    event.expect("a problem is text and numbers")
                }
            })
        })
        .take_until(shutdown.cancelled_owned());
    Sse::new(written).keep_alive(KeepAlive::new().interval(comment_every)).into_response()
}

#[cfg(test)]
mod tests;

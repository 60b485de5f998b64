//! The log itself: `/api/events`, as CloudEvents.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use eventlog::{EventStore, Position, RecordedEvent, StreamId};
use futures::Stream;
use projections::TOTAL_CAP;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::{Access, Right};
use crate::app::App;
use crate::caller::Caller;
use crate::http::openapi::{LastEventIdParam, MinPositionParam, PageParams, ReadFailures};
use crate::http::reply::ListEnvelope;
use crate::http::sse::{self, LastEventId};
use crate::http::{ListQuery, ListReply, Problem, Query, Total};

/// How many events one read of the log brings.
const BATCH: usize = 1_000;

/// How many events one request looks at, where few of them fit its filters.
const LOOKED_AT: usize = 100_000;

/// The routes of the log that answer soon.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_events))
}

/// The routes of the log that may take long.
pub fn long_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(stream_events))
}

/// An event as a CloudEvent (specification 1.0.2, JSON format), with the envelope's other members as
/// extensions. What is sealed in `data` stays sealed.
#[derive(Debug, Serialize, ToSchema)]
struct CloudEvent {
    /// Always `1.0`.
    #[schema(value_type = String, example = "1.0")]
    specversion: &'static str,
    /// The event's id.
    id: Uuid,
    /// The organization, as a path.
    #[schema(example = "/organizations/01936f6e-7d3c-7a10-8000-000000000000")]
    source: String,
    /// The name on disk with its version.
    #[serde(rename = "type")]
    #[schema(example = "agent.installed.v1")]
    event_type: String,
    /// The stream.
    subject: String,
    /// When it was committed.
    #[schema(format = DateTime)]
    time: String,
    /// Always `application/json`.
    #[schema(value_type = String)]
    datacontenttype: &'static str,
    /// The place in the one global order.
    position: u64,
    /// The place in the stream, from 1.
    sequence: u64,
    /// Who acted.
    actor: String,
    /// The product.
    #[serde(skip_serializing_if = "Option::is_none")]
    product: Option<Uuid>,
    /// What groups everything that one request led to.
    correlationid: Uuid,
    /// The event that led to this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<Uuid>,
    /// The command that this event is a result of.
    commandid: Uuid,
    /// The request that this event is a result of.
    #[serde(skip_serializing_if = "Option::is_none")]
    requestid: Option<String>,
    /// The trace that this event belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    /// What happened.
    #[schema(value_type = Object)]
    data: Box<RawValue>,
}

impl From<&RecordedEvent> for CloudEvent {
    fn from(event: &RecordedEvent) -> CloudEvent {
        CloudEvent {
            specversion: "1.0",
            id: event.id,
            source: format!("/organizations/{}", event.organization),
            event_type: event.event_type.clone(),
            subject: event.stream.to_string(),
            time: projections::stored_time(event.time),
            datacontenttype: "application/json",
            position: event.position.0,
            sequence: event.sequence,
            actor: event.actor.clone(),
            product: event.product,
            correlationid: event.correlation,
            causationid: event.causation,
            commandid: event.command_id,
            requestid: event.request_id.clone(),
            traceparent: event.traceparent.clone(),
            data: event.data.clone(),
        }
    }
}

/// Which events are wanted. Every condition narrows.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EventFilters {
    /// After this position.
    after: Option<u64>,
    /// Of this type, as `agent.installed.v1`.
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// Of this stream, as `agent-<id>`.
    stream: Option<String>,
    /// Of this product.
    product_id: Option<Uuid>,
}

/// What the filters come to for one caller.
#[derive(Clone, Debug)]
struct Wanted {
    organization: Uuid,
    /// Nothing outside this product.
    product: Option<Uuid>,
    event_type: Option<String>,
    stream: Option<String>,
}

impl Wanted {
    /// # Errors
    /// 404 for the product of somebody else.
    fn new(caller: &Caller, filters: &EventFilters) -> Result<Wanted, Problem> {
        Ok(Wanted {
            organization: caller.organization,
            product: caller.narrowed(filters.product_id)?,
            event_type: filters.event_type.clone(),
            stream: filters.stream.clone(),
        })
    }

    fn fits(&self, event: &RecordedEvent) -> bool {
        event.organization == self.organization
            && self.product.is_none_or(|product| event.product == Some(product))
            && self.event_type.as_ref().is_none_or(|wanted| *wanted == event.event_type)
            && self.stream.as_ref().is_none_or(|wanted| wanted == event.stream.as_str())
    }

    /// A place in what is to be read, behind a position.
    async fn place(&self, log: &dyn EventStore, after: Position) -> Result<Place, Problem> {
        let stream = self.stream.as_deref().map(StreamId::from);
        let sequence = match &stream {
            Some(stream) => sequence_at(log, stream, after).await?,
            None => 0,
        };
        Ok(Place { position: after, stream, sequence })
    }

    /// The events behind a position that are wanted, without the first `offset` of them, `size` at most.
    ///
    /// # Errors
    /// 400 where they lie too deep to be reached by passing others over; the log fails.
    async fn part(
        &self,
        log: &dyn EventStore,
        after: Position,
        offset: u64,
        size: usize,
    ) -> Result<Part, Problem> {
        let mut place = self.place(log, after).await?;
        let (mut items, mut fitting, mut looked_at) = (Vec::new(), 0_u64, 0_usize);
        let is_whole = loop {
            let events = place.next(log).await?;
            if events.is_empty() {
                break true;
            }
            looked_at += events.len();
            for event in events.into_iter().filter(|event| self.fits(event)) {
                fitting += 1;
                if fitting > offset && items.len() < size {
                    items.push(event);
                }
            }
            if (fitting > TOTAL_CAP && items.len() == size) || looked_at >= LOOKED_AT {
                break false;
            }
        };
        if !is_whole && fitting <= offset && offset > 0 {
            return Err(Problem::malformed(
                "page_too_deep",
                "this page lies too deep to be counted to: go on with the cursor of an earlier page, or with after",
            ));
        }
        // From where the next answer goes on: behind the last event of this one.
        let goes_on = match items.last() {
            Some(last) if items.len() == size => last.position,
            _ => place.position,
        };
        Ok(Part { items, fitting, is_whole, goes_on })
    }
}

/// A part of what is wanted of the log.
#[derive(Debug)]
struct Part {
    items: Vec<Arc<RecordedEvent>>,
    /// How many events fit, up to where it was looked.
    fitting: u64,
    /// It was looked up to the end.
    is_whole: bool,
    /// Behind which position the next part begins.
    goes_on: Position,
}

/// Up to where the log was read, or one stream of it.
struct Place {
    position: Position,
    stream: Option<StreamId>,
    /// The place in the stream, where it is one.
    sequence: u64,
}

impl Place {
    /// The next events, whether they are wanted or not; none at the end.
    async fn next(&mut self, log: &dyn EventStore) -> Result<Vec<Arc<RecordedEvent>>, Problem> {
        let events = match &self.stream {
            Some(stream) => log.read_stream(stream, self.sequence, BATCH).await,
            None => log.read_after(self.position, BATCH).await,
        };
        let events = events.map_err(commands::Error::from)?;
        if let Some(last) = events.last() {
            self.position = last.position;
            self.sequence = last.sequence;
        }
        Ok(events)
    }
}

/// The sequence of a stream's last event up to a position, or 0. It is found in few looks, however long the
/// stream is.
async fn sequence_at(
    log: &dyn EventStore,
    stream: &StreamId,
    position: Position,
) -> Result<u64, Problem> {
    let is_up_to = async |sequence: u64| -> Result<bool, Problem> {
        let event =
            log.read_stream(stream, sequence - 1, 1).await.map_err(commands::Error::from)?;
        Ok(event.first().is_some_and(|event| event.position <= position))
    };
    if position == Position::START {
        return Ok(0);
    }
    let mut step = 1;
    while is_up_to(step).await? {
        step *= 2;
    }
    let (mut before, mut behind) = (step / 2, step);
    while behind - before > 1 {
        let middle = before + (behind - before) / 2;
        match is_up_to(middle).await? {
            true => before = middle,
            false => behind = middle,
        }
    }
    Ok(before)
}

/// Read the log
///
/// Oldest first, as CloudEvents. An API token sees its own product. `pagination.cursor` goes on where
/// the answer ends; so does `after` with the position of its last event. One answer looks at some 100,000 events at
/// most: where few of them fit, it may hold fewer than were asked for, or none, and the cursor goes on behind them.
#[utoipa::path(get, path = "/api/events", tag = "Log and audit",
    extensions(("x-access" = json!(Right::ReadEvents))),
    params(PageParams, EventFilters, MinPositionParam),
    responses((status = 200, description = "The events", body = ListEnvelope<CloudEvent>), ReadFailures))]
async fn list_events(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery<EventFilters>,
) -> Result<ListReply<CloudEvent>, Problem> {
    let wanted = Wanted::new(&caller, &query.filters)?;
    let size = query.size() as usize;
    let first = query.cursor::<u64>()?.or(query.filters.after).unwrap_or(0);
    let log = app.log.as_ref();
    let Part { items, fitting, is_whole, goes_on } =
        wanted.part(log, Position(first), query.offset(), size).await?;
    let is_end = is_whole && fitting <= query.offset() + items.len() as u64;
    let total = if is_whole && fitting <= TOTAL_CAP {
        Total::exact(fitting)
    } else {
        Total::capped(fitting.min(TOTAL_CAP))
    };
    let cursor = (!is_end).then(|| query.cursor_after(&goes_on.0));
    let items = items.iter().map(|event| CloudEvent::from(event.as_ref())).collect();
    Ok(query.reply("Events", items, total.with_cursor(cursor)))
}

/// Follow the log
///
/// Server-sent events: the id of each is its position, its data a CloudEvent. Without `after` and
/// `Last-Event-ID` it begins with the next event. When the credential is no longer good for it, the
/// stream ends with an event `error` that says why.
#[utoipa::path(get, path = "/api/events/stream", tag = "Log and audit",
    extensions(("x-access" = json!(Right::ReadEvents))),
    params(EventFilters, LastEventIdParam, MinPositionParam),
    responses((status = 200, description = "The events", content((String = "text/event-stream"))), ReadFailures))]
async fn stream_events(
    State(app): State<App>,
    caller: Caller,
    LastEventId(last): LastEventId,
    Query(filters): Query<EventFilters>,
) -> Result<Response, Problem> {
    let wanted = Wanted::new(&caller, &filters)?;
    let start = match last.or(filters.after) {
        Some(position) => Position(position),
        None => app.log.head().await.map_err(commands::Error::from)?,
    };
    let shutdown = app.shutdown.clone();
    let refused = caller.refused(app.clone(), Access::Has(Right::ReadEvents), None);
    Ok(sse::stream(follow(app, wanted, start), refused, shutdown))
}

fn follow(
    app: App,
    wanted: Wanted,
    start: Position,
) -> impl Stream<Item = Result<sse::Event, Problem>> + Send {
    async_stream::try_stream! {
        let mut head = app.log.watch();
        let mut place = wanted.place(app.log.as_ref(), start).await?;
        loop {
            let _ = head.borrow_and_update();
            loop {
                let events = place.next(app.log.as_ref()).await?;
                if events.is_empty() {
                    break;
                }
                for event in events.iter().filter(|event| wanted.fits(event)) {
                    yield sse::Event::new(event.position, "message", &CloudEvent::from(event.as_ref()))?;
                }
            }
            if head.changed().await.is_err() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! Requests that are brought to their end although nobody waits for their answer any more.
//!
//! The one rule: what a request has begun, it finishes. A client that goes away, and a time limit, end
//! the waiting and nothing else.
//!
//! hyper drops the future of a request when its client is gone, wherever that future stands: between
//! an event and what must follow from it, say. So a dropped future is not thrown away but goes on in a
//! task of its own, which costs nothing where nobody goes away.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{Problem, request_id};

/// The requests that go on although nobody waits for them. Cheap to clone: all clones are one.
#[derive(Clone, Debug, Default)]
pub struct LeftAlone(TaskTracker);

impl LeftAlone {
    /// Waits until each of them has ended. Ask when no new ones come.
    pub async fn ended(&self) {
        self.0.close();
        self.0.wait().await;
    }

    fn watch(&self, work: BoxFuture<'static, Response>) -> Watched {
        Watched { work: Some(work), left_alone: self.clone() }
    }
}

/// A request that somebody waits for. Dropped before its end, it goes on alone.
struct Watched {
    work: Option<BoxFuture<'static, Response>>,
    left_alone: LeftAlone,
}

impl Future for Watched {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        let work = self.work.as_mut().expect("a future that has ended is not asked again");
        let polled = work.poll_unpin(context);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // One that panicked is not begun again.
        let goes_on = self.work.take().filter(|_| !std::thread::panicking());
        if let (Some(work), Ok(runtime)) = (goes_on, Handle::try_current()) {
            self.left_alone.0.spawn_on(work, &runtime);
        }
    }
}

/// The layer around everything: a request goes on when its client goes away.
pub async fn to_the_end<F>(
    left_alone: &LeftAlone,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response
where
    F: Future<Output = Response> + Send + 'static,
{
    left_alone.watch(next(request).boxed()).await
}

/// How long a request is waited for.
#[derive(Clone, Debug)]
pub struct TimeLimit {
    /// So long.
    pub limit: Duration,
    /// Where it goes on after that.
    pub left_alone: LeftAlone,
}

/// The layer that answers for a request that takes too long, which goes on all the same.
///
/// Not for streams, uploads and downloads: those take as long as the client's line.
pub async fn within<F>(
    time_limit: &TimeLimit,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response
where
    F: Future<Output = Response> + Send + 'static,
{
    let TimeLimit { limit, left_alone } = time_limit;
    // It may go on outside of the layer that names it.
    let work = match request_id::current() {
        Some(id) => request_id::scope(id, next(request)).in_current_span().boxed(),
        None => next(request).in_current_span().boxed(),
    };
    match tokio::time::timeout(*limit, left_alone.watch(work)).await {
        Ok(response) => response,
        Err(_) => Problem::timed_out(*limit).into_response(),
    }
}

#[cfg(test)]
mod tests;

//! Bodies that nobody wants any more.
//!
//! The one rule: an answer given before the body was read still reaches the client.
//!
//! A server that answers early (401, 413, 415 …) and closes with unread bytes in the socket makes
//! the kernel send a reset, and many clients then never see the answer. So what is left of a body
//! is read and thrown away beside the answer, for a while.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::EXPECT;
use axum::response::Response;
use futures::{Stream, StreamExt};

/// How long a client may go on sending what nobody reads.
const AT_MOST: Duration = Duration::from_secs(30);
/// How long it may be silent meanwhile.
const SILENCE: Duration = Duration::from_secs(5);

/// The layer: reads bodies to their end, whatever the routes do with them.
pub async fn read_to_the_end(
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    // A client that waits for `100 Continue` has sent nothing yet, and need not.
    let is_waiting = request.headers().contains_key(EXPECT);
    if is_waiting || request.body().is_end_stream() {
        return next(request).await;
    }
    let lingering = |body: Body| Body::from_stream(Lingering(Some(body.into_data_stream())));
    next(request.map(lingering)).await
}

struct Lingering(Option<BodyDataStream>);

impl Stream for Lingering {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let polled = body.poll_next_unpin(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.0 = None;
        }
        polled
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(mut body) = self.0.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(tokio::time::timeout(AT_MOST, async move {
            while let Ok(Some(Ok(_))) = tokio::time::timeout(SILENCE, body.next()).await {}
        }));
    }
}

#[cfg(test)]
mod tests;

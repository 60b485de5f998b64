//! Layers made of functions, around what is cheap to clone.
//!
//! The one rule: a layer costs the same wherever it stands.
//!
//! A layer of `axum::middleware::from_fn` clones the whole service inside it for every request, and
//! a route boxes what it holds, so that each clone of it clones all of its inside again: that grows
//! with the square of their number. Behind one shared pointer a clone ends at the next layer. And what
//! need not be a layer of its own is a function that calls the next one: see [`super::layers::dress`].

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::middleware::{FromFnLayer, from_fn_with_state};
use tower::util::Oneshot;
use tower::{Layer, Service, ServiceExt};

/// The layer of a function that takes the state, what it extracts, the request and `Next`.
pub fn around<F, S, T>(state: S, function: F) -> (FromFnLayer<F, S, T>, SharedLayer) {
    (from_fn_with_state(state, function), SharedLayer)
}

/// Makes the service inside cheap to clone.
#[derive(Clone, Copy, Debug)]
pub struct SharedLayer;

/// A service that is cloned when it is called, and not when it is passed on.
#[derive(Debug)]
pub struct Shared<S>(Arc<S>);

impl<S> Layer<S> for SharedLayer {
    type Service = Shared<S>;

    fn layer(&self, inner: S) -> Shared<S> {
        Shared(Arc::new(inner))
    }
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<S> Service<Request> for Shared<S>
where
    S: Service<Request, Error = Infallible> + Clone,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Oneshot<S, Request>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Each call waits for its own clone.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        S::clone(&self.0).oneshot(request)
    }
}

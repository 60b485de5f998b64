//! Path parameters.
//!
//! The one rule: an id that cannot exist is an id that was not found (404), because that is what it
//! is to the client, and so a route's answer never depends on how an id is spelled.

use axum::extract::FromRequestParts;
use axum::extract::rejection::PathRejection;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::Problem;

/// The parameters in the path of a route.
#[derive(Clone, Debug)]
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Path(value)),
            Err(PathRejection::FailedToDeserializePathParams(error))
                if error.status().is_client_error() =>
            {
                Err(Problem::not_found(
                    "not_found",
                    "an id in the path is not one that anything could have; check its spelling",
                ))
            }
            // The route and its handler disagree about the number or the kind of parameters.
            Err(error) => Err(Problem::internal(&error)),
        }
    }
}

#[cfg(test)]
mod tests;

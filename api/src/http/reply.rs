//! Good answers: `{"success": true, "message", "data"}`.
//!
//! The one rule: the body that is written and the body that the OpenAPI document shows are one type.

use std::borrow::Cow;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LINK, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::header::X_EVENT_POSITION;
use super::page::Pagination;
use super::{ETag, IfNoneMatch, Problem};

/// The body of an answer that is one thing.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Envelope<T> {
    /// Always `true`.
    success: bool,
    /// What happened, for people.
    #[schema(value_type = String)]
    message: Cow<'static, str>,
    /// What was asked for.
    data: T,
    /// There when this is the first answer again, to a request sent twice.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    replayed: bool,
}

/// The body of an answer that is a part of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ListEnvelope<T> {
    /// Always `true`.
    success: bool,
    /// What happened, for people.
    #[schema(value_type = String)]
    message: Cow<'static, str>,
    /// The items of this page.
    data: Vec<T>,
    pagination: Pagination,
}

/// An answer that is one thing.
#[derive(Clone, Debug)]
#[must_use]
pub struct Reply<T> {
    status: StatusCode,
    headers: HeaderMap,
    body: Envelope<T>,
    known_to_client: bool,
}

/// An answer that is a part of a list; made by [`ListQuery::reply`](super::ListQuery::reply).
#[derive(Clone, Debug)]
#[must_use]
pub struct ListReply<T> {
    headers: HeaderMap,
    body: ListEnvelope<T>,
}

impl<T> Reply<T> {
    fn new(status: StatusCode, message: impl Into<Cow<'static, str>>, data: T) -> Self {
        let body = Envelope { success: true, message: message.into(), data, replayed: false };
        Reply { status, headers: HeaderMap::new(), body, known_to_client: false }
    }

    /// It was done, or here it is (200).
    pub fn ok(message: impl Into<Cow<'static, str>>, data: T) -> Self {
        Self::new(StatusCode::OK, message, data)
    }

    /// It was made, and is found at `location` (201).
    pub fn created(location: String, message: impl Into<Cow<'static, str>>, data: T) -> Self {
        let location = HeaderValue::try_from(location)
            .expect("a location is made of the words of a route and ids");
        Self::new(StatusCode::CREATED, message, data).header(LOCATION, location)
    }

    /// It was only accepted: the work follows (202).
    pub fn accepted(message: impl Into<Cow<'static, str>>, data: T) -> Self {
        Self::new(StatusCode::ACCEPTED, message, data)
    }

    /// The state that this answer shows.
    pub fn etag(self, etag: &ETag) -> Self {
        self.header(ETAG, etag.to_header())
    }

    /// The state that this answer shows, and 304 without a body when the client has it already.
    pub fn etag_unless_known(self, etag: &ETag, known: &IfNoneMatch) -> Self {
        let known_to_client = known.has(etag);
        Reply { known_to_client, ..self.etag(etag) }
    }

    /// The position in the log that this write has reached.
    pub fn position(self, position: u64) -> Self {
        self.header(X_EVENT_POSITION, HeaderValue::from(position))
    }

    /// Says whether this is the first answer again, to a request sent twice.
    pub fn replayed(mut self, replayed: bool) -> Self {
        self.body.replayed = replayed;
        self
    }

    /// Holds a secret that is shown once: nobody on the way may keep it.
    pub fn secret(self) -> Self {
        self.header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }

    /// One more header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl<T> ListReply<T> {
    pub(super) fn new(
        message: impl Into<Cow<'static, str>>,
        data: Vec<T>,
        pagination: Pagination,
        links: HeaderValue,
    ) -> Self {
        let body = ListEnvelope { success: true, message: message.into(), data, pagination };
        ListReply { headers: HeaderMap::from_iter([(LINK, links)]), body }
    }

    /// One more header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        if self.known_to_client {
            return (StatusCode::NOT_MODIFIED, self.headers).into_response();
        }
        respond(self.status, self.headers, &self.body)
    }
}

impl<T: Serialize> IntoResponse for ListReply<T> {
    fn into_response(self) -> Response {
        respond(StatusCode::OK, self.headers, &self.body)
    }
}

fn respond(status: StatusCode, mut headers: HeaderMap, body: &impl Serialize) -> Response {
    let mut bytes = Vec::with_capacity(8 * 1024);
    match serde_json::to_writer(&mut bytes, body) {
        Ok(()) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            (status, headers, bytes).into_response()
        }
        Err(error) => Problem::internal(&error).into_response(),
    }
}

#[cfg(test)]
mod tests;

//! Multipart bodies, one part at a time.
//!
//! The one rule: no part is ever whole in memory unless its route says how long it may be.

use axum::body::Bytes;
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum_extra::headers::{ContentType, HeaderMapExt};
use futures::{Stream, TryStreamExt};
use mime_guess::mime::{self, Mime};

use super::layers::BodyLimit;
use super::{FieldError, Problem, problem, query};

/// Parts that one upload may have.
pub const MAX_PARTS: usize = 1_000;

/// The parameter that holds the name of a file.
const FILE_NAME: &[u8] = b"filename";

/// A `multipart/form-data` body.
#[derive(Debug)]
pub struct Upload {
    multipart: Multipart,
    limit: BodyLimit,
    parts: usize,
}

/// One part of an upload. The next one can be had when this one is done with.
#[derive(Debug)]
pub struct Part<'u> {
    field: Field<'u>,
    limit: BodyLimit,
    name: String,
}

impl<S: Send + Sync> FromRequest<S> for Upload {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let media_type = request.headers().typed_get::<ContentType>().map(Mime::from);
        if media_type.is_none_or(|found| found.essence_str() != mime::MULTIPART_FORM_DATA.as_ref())
        {
            let found = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            return Err(Problem::unsupported_media_type(format!(
                "the body must be multipart/form-data, not {}",
                found.unwrap_or("without a Content-Type")
            )));
        }
        let limit = BodyLimit::of(&request);
        limit.check_announced(request.headers())?;
        let multipart = Multipart::from_request(request, state).await.map_err(|_| {
            Problem::malformed(
                "malformed_multipart",
                "the Content-Type names no boundary; let the HTTP library write that header",
            )
        })?;
        Ok(Upload { multipart, limit, parts: 0 })
    }
}

impl Upload {
    /// The next part, or `None` after the last.
    pub async fn next_part(&mut self) -> Result<Option<Part<'_>>, Problem> {
        let limit = self.limit;
        let Some(field) =
            self.multipart.next_field().await.map_err(|error| broken(limit, &error))?
        else {
            return Ok(None);
        };
        self.parts += 1;
        if self.parts > MAX_PARTS {
            let detail =
                format!("an upload has at most {MAX_PARTS} parts; send the rest in another");
            return Err(Problem::invalid("too_many_parts", detail));
        }
        let Some(name) = field.name().filter(|name| !name.is_empty()).map(str::to_owned) else {
            return Err(Problem::malformed(
                "malformed_multipart",
                "a part of the body has no name",
            ));
        };
        Ok(Some(Part { field, limit, name }))
    }
}

impl<'u> Part<'u> {
    /// The name of the field.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the file, without folders; `None` for a plain field.
    pub fn file_name(&self) -> Option<&str> {
        let name = self.field.file_name()?;
        Some(name.rsplit(['/', '\\']).next().unwrap_or(name))
    }

    /// Whether it has a name of a file that is no UTF-8, and so is none for [`Part::file_name`].
    pub fn has_unreadable_file_name(&self) -> bool {
        let said = self.field.headers().get(CONTENT_DISPOSITION);
        let names_a_file = |said: &HeaderValue| {
            said.as_bytes().windows(FILE_NAME.len()).any(|at| at.eq_ignore_ascii_case(FILE_NAME))
        };
        self.field.file_name().is_none() && said.is_some_and(names_a_file)
    }

    /// The media type that the client says the part has.
    pub fn media_type(&self) -> Option<&str> {
        self.field.content_type()
    }

    /// The bytes of the part, as they come.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Problem>> + Send + use<'u> {
        let limit = self.limit;
        self.field.map_err(move |error| broken(limit, &error))
    }

    /// The part as text of at most so many bytes.
    pub async fn text(mut self, max_bytes: usize) -> Result<String, Problem> {
        let fault = |code: &'static str, message: String| {
            let detail = format!("the field {} is not valid: it {message}", self.name);
            let error = FieldError::new(query::pointer(&self.name), code, message);
            Problem::invalid("invalid_field", detail).with_error(error)
        };
        let mut bytes = Vec::new();
        while let Some(chunk) =
            self.field.chunk().await.map_err(|error| broken(self.limit, &error))?
        {
            if bytes.len() + chunk.len() > max_bytes {
                return Err(fault("too_long", format!("may have at most {max_bytes} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).map_err(|_| fault("not_utf8", "must be UTF-8 text".to_owned()))
    }
}

fn broken(limit: BodyLimit, error: &MultipartError) -> Problem {
    if problem::means_too_large(error.status()) {
        return limit.exceeded();
    }
    // Whatever else happens to a body happens on the client's side of it.
    Problem::malformed(
        "malformed_multipart",
        "the multipart body is broken or ended early; send it again, whole",
    )
}

#[cfg(test)]
mod tests;

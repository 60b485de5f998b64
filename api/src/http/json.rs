//! JSON bodies: taken whole, checked to be JSON, then read as what the route asked for.
//!
//! The one rule: what is not JSON is 400, what is JSON but not what was asked for is 422; and neither
//! is said before the route asks, which it does after it has found what the request is about.
//!
//! The first pass also finds what serde would let through or blame on the wrong place: a key that
//! is there twice (the readers of one body must not differ about it) and nesting too deep. So the
//! second pass only ever meets faults that have a place, and that place is a JSON pointer.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::marker::PhantomData;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum_extra::headers::{ContentType, HeaderMapExt};
use mime_guess::mime::{self, Mime};
use serde::de::{self, DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::Segment;

use super::layers::BodyLimit;
use super::{FieldError, Problem, problem, query};

/// A JSON body that must be there.
#[derive(Clone, Debug)]
pub struct Json<T> {
    /// The very bytes of it, for [`Idempotency::digest`](super::Idempotency::digest).
    pub bytes: Bytes,
    media_type: Result<(), Problem>,
    says: PhantomData<fn() -> T>,
}

/// A JSON body that may be left out: no body at all means `T::default()`.
#[derive(Clone, Debug)]
pub struct OptionalJson<T>(Json<T>);

impl<T: DeserializeOwned> Json<T> {
    /// What the body says.
    ///
    /// # Errors
    /// 415 for another media type, 400 for what is not JSON, 422 for what was not asked for.
    pub fn read(&self) -> Result<T, Problem> {
        self.media_type.clone()?;
        parse(&self.bytes)
    }
}

impl<T: DeserializeOwned + Default> OptionalJson<T> {
    /// What the body says.
    ///
    /// # Errors
    /// As [`Json::read`].
    pub fn read(&self) -> Result<T, Problem> {
        if self.0.bytes.is_empty() { Ok(T::default()) } else { self.0.read() }
    }

    /// The very bytes of it; none when there was no body.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl<S: Send + Sync, T> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let media_type = check_media_type(request.headers());
        let bytes = take(request, state).await?;
        Ok(Json { bytes, media_type, says: PhantomData })
    }
}

impl<S: Send + Sync, T> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        Json::from_request(request, state).await.map(OptionalJson)
    }
}

/// Reads a value out of a body, with a problem that names the place at fault.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    check_syntax(body)?;
    let invalid = |fault| {
        Problem::invalid("invalid_body", "the body is not valid; errors names the places to mend")
            .with_error(fault)
    };
    // serde would take a list for a struct, field by field.
    let is_struct = query::field_names::<T>().is_some();
    if is_struct && !body.trim_ascii_start().starts_with(b"{") {
        return Err(invalid(FieldError::new("", "wrong_type", "the body must be a JSON object")));
    }
    // To know the place of everything read costs as much as reading it: only a fault is worth that.
    if let Ok(read) = serde_json::from_slice(body) {
        return Ok(read);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| invalid(fault(error.path(), error.inner())))
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let wrong = |found: &dyn fmt::Display| {
        Problem::unsupported_media_type(format!(
            "the body must be application/json in UTF-8, not {found}"
        ))
    };
    if !headers.contains_key(CONTENT_TYPE) {
        return Err(wrong(&"without a Content-Type"));
    }
    let Some(content_type) = headers.typed_get::<ContentType>() else {
        return Err(wrong(&"of a Content-Type that cannot be read"));
    };
    let media_type = Mime::from(content_type);
    let is_utf8 = media_type.get_param(mime::CHARSET).is_none_or(|charset| charset == mime::UTF_8);
    if media_type.essence_str() == "application/json" && is_utf8 {
        Ok(())
    } else {
        Err(wrong(&media_type))
    }
}

pub(crate) async fn take<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    let limit = BodyLimit::of(&request);
    limit.check_announced(request.headers())?;
    let taken = limit.wait(Bytes::from_request(request, state)).await?;
    taken.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(reason) if problem::means_too_large(reason.status()) => {
            limit.exceeded()
        }
        _ => Problem::incomplete_body(),
    })
}

fn check_syntax(body: &[u8]) -> Result<(), Problem> {
    if body.is_empty() {
        return Err(Problem::malformed("malformed_json", "the body is empty; send a JSON object"));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        let detail = format!("the body is not UTF-8 from byte {} on", error.valid_up_to());
        Problem::malformed("malformed_json", detail)
    })?;
    let mut place = String::new();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let outcome = Strict { place: &mut place, key: None }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end());
    outcome.map_err(|error| {
        if error.is_data() {
            // The only data error that `Strict` makes; `place` was left pointing at it.
            let fault = FieldError::new(place, "duplicate_key", "this key is there twice");
            return Problem::malformed("duplicate_key", "a key of the body is there twice")
                .with_error(fault);
        }
        let detail = format!("the body is not JSON: {error}");
        if detail.contains("recursion limit") {
            return Problem::malformed("json_too_deep", "the body is nested more than 127 deep");
        }
        Problem::malformed("malformed_json", detail)
    })
}

/// Visits a whole JSON value, keeps nothing, and refuses keys that are there twice.
///
/// `place` is the JSON pointer of the value being visited; on an error it stays where it was.
struct Strict<'p> {
    place: &'p mut String,
    key: Option<Key<'p>>,
}

/// Where a value lies in what holds it.
enum Key<'p> {
    Name(&'p str),
    Index(usize),
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let outer = self.place.len();
        match self.key {
            Some(Key::Name(name)) => push_segment(self.place, name),
            Some(Key::Index(index)) => {
                let _ = write!(self.place, "/{index}");
            }
            None => {}
        }
        deserializer.deserialize_any(Contents(self.place))?;
        self.place.truncate(outer);
        Ok(())
    }
}

struct Contents<'p>(&'p mut String);

impl<'de> Visitor<'de> for Contents<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        loop {
            let key = Some(Key::Index(index));
            if items.next_element_seed(Strict { place: self.0, key })?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if seen.contains(&key) {
                push_segment(self.0, &key);
                return Err(de::Error::custom("duplicate key"));
            }
            entries.next_value_seed(Strict { place: self.0, key: Some(Key::Name(&key)) })?;
            seen.insert(key);
        }
        Ok(())
    }
}

/// Appends one segment to a JSON pointer (RFC 6901).
pub fn push_segment(pointer: &mut String, segment: &str) {
    pointer.push('/');
    for character in segment.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

/// What serde says of a place, as a fault.
///
/// serde has no error codes: what it says is told apart by the words that its derive writes.
pub(super) fn fault(path: &serde_path_to_error::Path, error: &dyn fmt::Display) -> FieldError {
    let mut pointer = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => push_segment(&mut pointer, &index.to_string()),
            Segment::Map { key } => push_segment(&mut pointer, key),
            Segment::Enum { variant } => push_segment(&mut pointer, variant),
            Segment::Unknown => {}
        }
    }
    let message = without_types(without_line_and_column(error.to_string()));
    let named = |words: &str| {
        message.strip_prefix(words).and_then(|rest| rest.split('`').next()).map(str::to_owned)
    };
    if let Some(name) = named("missing field `") {
        push_segment(&mut pointer, &name);
        return FieldError::new(pointer, "missing", "this field is required");
    }
    if let Some(name) = named("unknown field `") {
        let mut segment = String::new();
        push_segment(&mut segment, &name);
        if !pointer.ends_with(&segment) {
            pointer.push_str(&segment);
        }
        return FieldError::new(pointer, "unknown", message);
    }
    let code = if message.starts_with("invalid type") { "wrong_type" } else { "invalid" };
    FieldError::new(pointer, code, message)
}

/// serde_json ends its messages with a place in the text; a pointer says it better.
fn without_line_and_column(mut message: String) -> String {
    if let Some(at) = message.rfind(" at line ") {
        message.truncate(at);
    }
    message
}

/// What was expected is said as JSON calls it, and not by the name of a type of this program.
fn without_types(mut message: String) -> String {
    if message.starts_with("data did not match any variant of untagged enum ") {
        return "it has none of the forms that are taken here: see the API's document".to_owned();
    }
    let types = ["struct ", "internally tagged enum ", "adjacently tagged enum "];
    let is_type = |at: usize| types.iter().any(|name| message[at..].starts_with(name));
    const EXPECTED: &str = ", expected ";
    if let Some(at) = message.rfind(EXPECTED).map(|at| at + EXPECTED.len())
        && is_type(at)
    {
        message.truncate(at);
        message.push_str("an object");
    }
    message
}

#[cfg(test)]
mod tests;

//! Query strings, read strictly.
//!
//! The one rule: a parameter that is unknown, repeated, empty or bad is 400, never ignored.
//!
//! The names a route knows are asked of its type (serde tells a deserializer the fields of a
//! struct), so every faulty parameter is named at once and no `deny_unknown_fields` is forgotten.
//! The type must be a plain struct: `flatten` hides the names.

use std::borrow::Cow;

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::Uri;
use axum::http::request::Parts;
use percent_encoding::percent_decode;
use serde::de::value::Error as ValueError;
use serde::de::{self, DeserializeOwned, Visitor};
use serde::forward_to_deserialize_any;

use super::{FieldError, Problem, json};

/// The query parameters of a route.
#[derive(Clone, Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let pairs = Pairs::parse(parts.uri.query().unwrap_or_default())?;
        pairs.check_names(&[field_names::<T>().unwrap_or_default()])?;
        Ok(Query(pairs.read(&[])?))
    }
}

/// The query parameters of a route that has two sets of them, one of which others have too.
#[derive(Clone, Debug)]
pub struct Queries<A, B>(pub A, pub B);

impl<S: Send + Sync, A: DeserializeOwned, B: DeserializeOwned> FromRequestParts<S>
    for Queries<A, B>
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let pairs = Pairs::parse(parts.uri.query().unwrap_or_default())?;
        let first = field_names::<A>().unwrap_or_default();
        let second = field_names::<B>().unwrap_or_default();
        pairs.check_names(&[first, second])?;
        Ok(Queries(pairs.read(second)?, pairs.read(first)?))
    }
}

/// The parameters of one query string, in order.
pub struct Pairs<'q>(Vec<Pair<'q>>);

struct Pair<'q> {
    name: Cow<'q, str>,
    value: Cow<'q, str>,
    /// As it was written, `name=value`.
    raw: &'q str,
}

impl<'q> Pairs<'q> {
    /// Splits a query string and decodes it.
    ///
    /// # Errors
    /// 400 for what is not percent-encoded UTF-8.
    pub fn parse(query: &'q str) -> Result<Self, Problem> {
        let parts = query.split('&').filter(|raw| !raw.is_empty());
        let pairs = parts.map(|raw| {
            let (name, value) = raw.split_once('=').unwrap_or((raw, ""));
            match (decode(name), decode(value)) {
                (Some(name), Some(value)) => Ok(Pair { name, value, raw }),
                _ => Err(Problem::malformed(
                    "malformed_query",
                    "the query string is not percent-encoded UTF-8",
                )),
            }
        });
        pairs.collect::<Result<_, _>>().map(Pairs)
    }

    /// Refuses every parameter that is in none of the lists, is there twice, or has no value.
    ///
    /// # Errors
    /// 400, with each of them.
    pub fn check_names<N: AsRef<str>>(&self, known: &[&[N]]) -> Result<(), Problem> {
        let known: Vec<&str> = known.iter().copied().flatten().map(AsRef::as_ref).collect();
        let mut faults = Vec::new();
        for (index, pair) in self.0.iter().enumerate() {
            let (code, message) = if !known.contains(&&*pair.name) {
                let mut names = known.clone();
                names.sort_unstable();
                let message = match names.as_slice() {
                    [] => "this route takes no parameters".to_owned(),
                    names => format!("unknown here; known are {}", names.join(", ")),
                };
                ("unknown", message)
            } else if self.0[..index].iter().any(|earlier| earlier.name == pair.name) {
                ("repeated", "may be given only once".to_owned())
            } else if pair.value.is_empty() {
                ("empty", "has no value; leave it out instead".to_owned())
            } else {
                continue;
            };
            faults.push(FieldError::new(pointer(&pair.name), code, message));
        }
        if faults.is_empty() { Ok(()) } else { Err(bad_parameters(faults)) }
    }

    /// The value of one parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|pair| pair.name == name).map(|pair| &*pair.value)
    }

    /// Reads the parameters into a struct, without those that are `not` its own.
    pub fn read<T: DeserializeOwned>(&self, not: &[&str]) -> Result<T, Problem> {
        let query = self.raw_without(not).join("&");
        let deserializer = serde_html_form::Deserializer::from_bytes(query.as_bytes());
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            // serde_html_form tells the place only for values, not for what is missing.
            bad_parameters(vec![helpful(json::fault(error.path(), error.inner()))])
        })
    }

    /// The parameters as they were written, without those named.
    pub fn raw_without(&self, not: &[&str]) -> Vec<&'q str> {
        let kept = self.0.iter().filter(|pair| !not.contains(&&*pair.name));
        kept.map(|pair| pair.raw).collect()
    }
}

/// The answer to parameters that cannot be used.
pub(super) fn bad_parameters(faults: Vec<FieldError>) -> Problem {
    let names: Vec<&str> = faults.iter().map(|fault| fault.field.trim_start_matches('/')).collect();
    let detail = match (names.as_slice(), faults.first()) {
        ([name], Some(only)) => format!("bad query parameter {name}: {}", only.message),
        ([first, ..], Some(fault)) => {
            format!("bad query parameters: {}; {first}: {}", names.join(", "), fault.message)
        }
        _ => "bad query parameters".to_owned(),
    };
    Problem::malformed("invalid_parameters", detail).with_errors(faults)
}

/// What those say who read times, ids and numbers for serde, and what is meant by it.
const SAID: [(&str, &str); 12] = [
    ("UUID parsing failed", ID),
    ("invalid digit", NUMBER),
    ("number too large", NUMBER),
    ("number too small", NUMBER),
    ("cannot parse integer", NUMBER),
    ("premature end of input", TIME),
    ("input contains invalid characters", TIME),
    ("input is out of range", TIME),
    ("trailing input", TIME),
    ("no possible date and time", TIME),
    ("input is not enough", TIME),
    (r#"expected "true""#, "must be true or false"),
];

const ID: &str = "must be an id, a UUID as 01936f6e-7d3c-7a10-8000-000000000000";
const NUMBER: &str = "must be a whole number, as 42, and not too large";
const TIME: &str = "must be a time as 2026-01-01T00:00:00Z";

/// A fault that says what to send in the place of what was sent.
fn helpful(mut fault: FieldError) -> FieldError {
    if let Some((_, meant)) = SAID.iter().find(|(said, _)| fault.message.contains(said)) {
        fault.message = (*meant).to_owned();
    }
    fault
}

/// The JSON pointer of a parameter.
pub(super) fn pointer(name: &str) -> String {
    let mut pointer = String::new();
    json::push_segment(&mut pointer, name);
    pointer
}

/// The URI that the client asked for, whatever router the route was nested in.
pub(super) fn original_uri(parts: &Parts) -> &Uri {
    parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0)
}

/// The names of the fields of a plain struct, as serde reads them; `None` for other types.
pub(super) fn field_names<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let mut names = None;
    // The probe always fails: it has nothing to give but its ear.
    let _ = T::deserialize(Probe(&mut names));
    names
}

struct Probe<'a>(&'a mut Option<&'static [&'static str]>);

impl<'de> de::Deserializer<'de> for Probe<'_> {
    type Error = ValueError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ValueError> {
        *self.0 = Some(fields);
        Err(de::Error::custom("only the names were wanted"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ValueError> {
        Err(de::Error::custom("not a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// `+` is a space in a query string, the rest is percent-encoded; strict about UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        return percent_decode(spaced.as_bytes()).decode_utf8().ok().map(|t| t.into_owned().into());
    }
    percent_decode(text.as_bytes()).decode_utf8().ok()
}

#[cfg(test)]
mod tests;

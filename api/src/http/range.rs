//! Downloads: the very bytes, whole or in part.
//!
//! The one rule: what a client cannot use is never an error but the whole (RFC 9110, 14.2): several
//! ranges, another unit, a range of a state that is gone. Only a range beyond the end is 416.

use std::ops::Range;

use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, IF_RANGE, RANGE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{ETag, Problem, etag};

/// The part that a client asks for, before it is known how much there is.
#[derive(Clone, Debug, Default)]
pub struct AskedRange {
    range: Option<HeaderValue>,
    if_range: Option<HeaderValue>,
}

/// A file as it is sent.
#[derive(Clone, Debug)]
pub struct Download<'a> {
    /// The name to save it under.
    pub file_name: &'a str,
    /// Its media type, as whoever uploaded it said.
    pub media_type: &'a str,
    /// Its length in bytes.
    pub size: u64,
    /// The tag of these very bytes.
    pub etag: &'a ETag,
}

impl<S: Send + Sync> FromRequestParts<S> for AskedRange {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let only = |name| {
            let mut lines = parts.headers.get_all(name).iter();
            lines.next().filter(|_| lines.next().is_none()).cloned()
        };
        Ok(AskedRange { range: only(RANGE), if_range: only(IF_RANGE) })
    }
}

impl AskedRange {
    /// The bytes to send of so many in this state; `None` is all of them.
    pub fn of(&self, size: u64, etag: &ETag) -> Result<Option<Range<u64>>, Problem> {
        let is_about_this_state =
            self.if_range.as_ref().is_none_or(|tag| etag::if_range_means(tag, etag));
        let asked = self.range.as_ref().and_then(|range| range.to_str().ok());
        match asked.filter(|_| is_about_this_state).and_then(parse) {
            None => Ok(None),
            Some((Some(first), last)) if first < size => {
                Ok(Some(first..last.map_or(size, |last| size.min(last.saturating_add(1)))))
            }
            // The last so many bytes; more than there are is all of them.
            Some((None, Some(count))) if count > 0 && size > 0 => {
                Ok(Some(size.saturating_sub(count)..size))
            }
            Some(_) => Err(Problem::range_not_satisfiable(size)),
        }
    }
}

impl Download<'_> {
    /// The answer: `body` holds `part` of the file, or all of it.
    pub fn response<E>(
        &self,
        part: Option<Range<u64>>,
        body: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    ) -> Response
    where
        E: Into<axum::BoxError> + 'static,
    {
        let media_type = HeaderValue::try_from(self.media_type)
            .unwrap_or(HeaderValue::from_static("application/octet-stream"));
        let mut headers = HeaderMap::from_iter([
            (CONTENT_TYPE, media_type),
            (CONTENT_DISPOSITION, attachment(self.file_name)),
            (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
            (ETAG, self.etag.to_header()),
            // Bytes of strangers: even where a browser shows them, they run nothing.
            (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox")),
        ]);
        let (status, length) = match part {
            None => (StatusCode::OK, self.size),
            Some(part) => {
                let text = format!("bytes {}-{}/{}", part.start, part.end - 1, self.size);
                let content_range = HeaderValue::try_from(text).expect("words and numbers");
                headers.insert(CONTENT_RANGE, content_range);
                (StatusCode::PARTIAL_CONTENT, part.end - part.start)
            }
        };
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        (status, headers, Body::from_stream(body)).into_response()
    }
}

/// `bytes=first-last`, `bytes=first-` or `bytes=-count`; anything else is no range that we know.
fn parse(header: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, range) = header.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    let number = |text: &str| match text {
        "" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            // Numbers beyond u64 are only "very far".
            Some(Some(digits.parse().unwrap_or(u64::MAX)))
        }
        _ => None,
    };
    let range = (number(first)?, number(last)?);
    let is_valid = match range {
        (None, None) => false,
        (Some(first), Some(last)) => first <= last,
        _ => true,
    };
    (unit.eq_ignore_ascii_case("bytes") && is_valid).then_some(range)
}

/// `Content-Disposition` (RFC 6266): a plain name for old clients, the real one (RFC 8187) for all
/// others. Folders are no part of a name.
fn attachment(file_name: &str) -> HeaderValue {
    /// `attr-char` of RFC 8187.
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'!')
        .remove(b'#')
        .remove(b'$')
        .remove(b'&')
        .remove(b'+')
        .remove(b'-')
        .remove(b'.')
        .remove(b'^')
        .remove(b'_')
        .remove(b'`')
        .remove(b'|')
        .remove(b'~');

    let name: String = file_name
        .chars()
        .map(|character| match character {
            '/' | '\\' => '_',
            other if other.is_control() => '_',
            other => other,
        })
        .collect();
    let plain: String = name
        .chars()
        .map(|character| match character {
            // Some clients decode percent signs in the plain form too.
            '"' | '%' => '_',
            other if other.is_ascii() => other,
            _ => '_',
        })
        .collect();
    let mut text = format!("attachment; filename=\"{plain}\"");
    if plain != name {
        text.push_str("; filename*=UTF-8''");
        text.extend(utf8_percent_encode(&name, KEPT));
    }
    HeaderValue::try_from(text).expect("made of visible ASCII and spaces")
}

#[cfg(test)]
mod tests;

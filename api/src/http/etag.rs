//! Entity tags: which state of a resource a client has, and which one it means to change.
//!
//! The one rule: comparison is strong where something is changed and weak where nothing is
//! (RFC 9110, 13.1); a header that is no list of tags is 400, never "no condition".

use axum::extract::FromRequestParts;
use axum::http::header::{IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::Problem;

/// A strong entity tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// The tag of a resource: the sequence of what a client can change in it.
    pub fn of_sequence(sequence: u64) -> Self {
        ETag(sequence.to_string())
    }

    /// The tag of bytes that never change: a name made from them, of visible ASCII.
    ///
    /// # Panics
    /// When the name has a quote, a space or a character that is not ASCII.
    pub fn of_content(name: &str) -> Self {
        assert!(name.bytes().all(is_tag_byte) && name.is_ascii(), "{name:?} cannot be in an ETag");
        ETag(name.to_owned())
    }

    /// As it stands in a header: in quotes.
    pub fn to_header(&self) -> HeaderValue {
        HeaderValue::try_from(format!("\"{}\"", self.0)).expect("checked when it was made")
    }
}

/// `If-Match`: which states may be changed. Without the header: any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IfMatch(Option<Tags>);

/// `If-None-Match`: which states the client has already. Without the header: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IfNoneMatch(Option<Tags>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    /// `*`: whatever there is.
    Any,
    List(Vec<Tag>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    is_weak: bool,
    text: String,
}

impl IfMatch {
    /// Whether a resource at this sequence may be changed.
    pub fn admits(&self, sequence: u64) -> bool {
        match &self.0 {
            None | Some(Tags::Any) => true,
            Some(Tags::List(tags)) => {
                let current = ETag::of_sequence(sequence);
                tags.iter().any(|tag| !tag.is_weak && tag.text == current.0)
            }
        }
    }

    /// 412 unless a resource at this sequence may be changed.
    pub fn check(&self, sequence: u64) -> Result<(), Problem> {
        if self.admits(sequence) { Ok(()) } else { Err(Problem::stale()) }
    }

    /// The sequences that may be changed, for those who compare later; `None` is any.
    ///
    /// An empty list is a condition that nothing meets: the header holds only weak tags, or tags
    /// that are not ours.
    pub fn sequences(&self) -> Option<Vec<u64>> {
        match &self.0 {
            None | Some(Tags::Any) => None,
            Some(Tags::List(tags)) => {
                // Only our own spelling: `"07"` is another tag than `"7"`.
                let sequence = |tag: &Tag| {
                    let number = tag.text.parse::<u64>().ok()?;
                    (!tag.is_weak && ETag::of_sequence(number).0 == tag.text).then_some(number)
                };
                Some(tags.iter().filter_map(sequence).collect())
            }
        }
    }
}

impl IfNoneMatch {
    /// Whether the client has this state already.
    pub fn has(&self, current: &ETag) -> bool {
        match &self.0 {
            None => false,
            Some(Tags::Any) => true,
            Some(Tags::List(tags)) => tags.iter().any(|tag| tag.text == current.0),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(&parts.headers, IF_MATCH).map(IfMatch)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(&parts.headers, IF_NONE_MATCH).map(IfNoneMatch)
    }
}

/// Whether an `If-Range` means the state that is there (strong comparison; a date never does).
pub(super) fn if_range_means(header: &HeaderValue, current: &ETag) -> bool {
    *header == current.to_header()
}

/// All lines of the header are one list.
fn read(headers: &HeaderMap, name: HeaderName) -> Result<Option<Tags>, Problem> {
    let mut lines = headers.get_all(&name).iter().peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    let malformed = || {
        let detail = format!("{name} must be * or a list of tags in quotes, as \"7\"");
        Problem::malformed("malformed_etag", detail)
    };
    let mut tags = Vec::new();
    for line in lines {
        let line = line.to_str().map_err(|_| malformed())?;
        if line.trim() == "*" && headers.get_all(&name).iter().count() == 1 {
            return Ok(Some(Tags::Any));
        }
        tags.extend(parse_list(line).ok_or_else(malformed)?);
    }
    if tags.is_empty() { Err(malformed()) } else { Ok(Some(Tags::List(tags))) }
}

/// `"7", W/"8"`. Commas inside the quotes belong to a tag, and empty places in the list are allowed.
fn parse_list(line: &str) -> Option<Vec<Tag>> {
    let mut tags = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(tags);
        }
        let is_weak = rest.starts_with("W/");
        let quoted = if is_weak { &rest[2..] } else { rest }.strip_prefix('"')?;
        let (text, after) = quoted.split_once('"')?;
        if !text.bytes().all(is_tag_byte) {
            return None;
        }
        tags.push(Tag { is_weak, text: text.to_owned() });
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
}

fn is_tag_byte(byte: u8) -> bool {
    byte == 0x21 || (0x23..=0x7e).contains(&byte) || byte >= 0x80
}

#[cfg(test)]
mod tests;

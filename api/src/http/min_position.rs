//! `X-Min-Position`: how far the read models must be before a read is answered.
//!
//! The one rule: this only reads the header; the waiting belongs to those who know the read models.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::Problem;
use super::header::X_MIN_POSITION;

/// Positions stay below 2^53, so that every JSON reader keeps them whole.
const MAX_POSITION: u64 = 1 << 53;

/// The position that a read wants to see, if it says one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MinPosition(pub Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for MinPosition {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut values = parts.headers.get_all(X_MIN_POSITION).iter();
        let position = match (values.next(), values.next()) {
            (None, _) => return Ok(MinPosition(None)),
            (Some(value), None) => value.to_str().ok().and_then(parse_position),
            _ => None,
        };
        match position {
            Some(position) => Ok(MinPosition(Some(position))),
            None => Err(Problem::malformed(
                "malformed_position",
                "X-Min-Position must be a position, as X-Event-Position of an earlier answer",
            )),
        }
    }
}

/// A position as it stands in headers: decimal digits only.
pub(super) fn parse_position(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|position| is_plain && *position < MAX_POSITION)
}

#[cfg(test)]
mod tests;

//! The path of a request as it may be written down: into the log for ever, and onto stderr.
//!
//! The rule of this file: what a client put into a path stays out, since it may be anything: a token, an
//! e-mail address. The words of our routes are shown, and ids and numbers; all else is [`MASK`].

use std::collections::HashSet;
use std::fmt::{Display, Formatter, Result};
use std::sync::LazyLock;

use axum::extract::{MatchedPath, Request};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

/// What stands in the place of a segment that is not shown.
const MASK: &str = "…";

/// The longest number that is shown: a position has no more digits.
const DIGITS: usize = 16;

/// How many segments are shown of a path that no route has.
const SEGMENTS: usize = 16;

/// Every word of a route that is no parameter.
static WORDS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let document = crate::router::document();
    let segments = document.paths.paths.keys().flat_map(|path| path.split('/'));
    segments.filter(|segment| !segment.starts_with('{')).map(str::to_owned).collect()
});

/// A path, shown without what a client may have put into it.
#[derive(Clone, Copy, Debug)]
pub struct ShownPath<'a> {
    route: Option<&'a str>,
    path: &'a str,
}

impl<'a> ShownPath<'a> {
    /// A path, and the route that it was found to be of.
    pub fn new(route: Option<&'a str>, path: &'a str) -> ShownPath<'a> {
        ShownPath { route, path }
    }

    /// The path of a request.
    pub fn of(request: &'a Request) -> ShownPath<'a> {
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        ShownPath::new(route, request.uri().path())
    }
}

impl Display for ShownPath<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        let mut segments = self.path.split('/');
        match self.route {
            Some(route) => show(formatter, route.split('/'), |word| {
                let segment = segments.next().unwrap_or_default();
                if word.starts_with('{') { id_or_mask(segment) } else { word }
            }),
            None => show(formatter, segments.take(SEGMENTS), |segment| {
                if WORDS.contains(segment) { segment } else { id_or_mask(segment) }
            }),
        }
    }
}

fn show<'a>(
    formatter: &mut Formatter<'_>,
    segments: impl Iterator<Item = &'a str>,
    mut shown: impl FnMut(&'a str) -> &'a str,
) -> Result {
    for (number, segment) in segments.enumerate() {
        if number > 0 {
            formatter.write_str("/")?;
        }
        formatter.write_str(shown(segment))?;
    }
    Ok(())
}

/// A segment that says no more than which one: an id, or a number.
fn id_or_mask(segment: &str) -> &str {
    let is_number = segment.len() <= DIGITS && segment.bytes().all(|byte| byte.is_ascii_digit());
    // Not in its other spellings: 32 digits may be somebody's secret.
    let is_id = segment.len() == Hyphenated::LENGTH && Uuid::try_parse(segment).is_ok();
    if is_number || is_id { segment } else { MASK }
}

#[cfg(test)]
mod tests;

//! Lists: which part of one is asked for, and how that part is answered.
//!
//! The one rule: paging is the same in every list, down to the words of its faults.
//!
//! A client names a part by `page` and `pageSize`, by `limit` alone (the first N), or by the
//! `cursor` of an earlier answer (with `pageSize` if it likes). A cursor is opaque: it holds the
//! number of the page it leads to and whatever key the route wants back.

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::query::{self, Pairs};
use super::{FieldError, ListReply, Problem};

/// Items of a page when the client does not say.
pub const DEFAULT_SIZE: u32 = 50;
/// Items of a page at most.
pub const MAX_SIZE: u32 = 200;
/// Items at most when the client asks for the first N.
pub const MAX_LIMIT: u32 = 1_000;

const PAGE: &str = "page";
const PAGE_SIZE: &str = "pageSize";
const LIMIT: &str = "limit";
const CURSOR: &str = "cursor";
const PAGING: [&str; 4] = [PAGE, PAGE_SIZE, LIMIT, CURSOR];

/// The parameters of a list: paging, and the route's own filters `F` (a plain struct).
#[derive(Clone, Debug)]
pub struct ListQuery<F> {
    /// The route's own parameters.
    pub filters: F,
    page: u32,
    size: u32,
    by: By,
    /// Path and parameters of this request without `page` and `cursor`, for links.
    base: String,
}

#[derive(Clone, Debug)]
enum By {
    Page,
    Limit,
    /// The route's own key, as JSON.
    Cursor(Box<RawValue>),
}

/// For lists that have no filters.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct NoFilters {}

/// How many items a list has over all its pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    count: u64,
    is_capped: bool,
    cursor: Option<String>,
}

/// Where the answered part lies in the whole list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Pagination {
    /// The number of this page, from 1.
    pub page: u32,
    /// Items of a page.
    pub page_size: u32,
    /// Items of the whole list; at least so many when `total_is_capped`.
    pub total: u64,
    /// Pages that `total` fills.
    pub total_pages: u64,
    /// There when counting stopped before the end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub total_is_capped: bool,
    /// Sent back as `cursor`, goes on after this page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct CursorContents {
    page: u32,
    key: Box<RawValue>,
}

impl Total {
    /// A list that was counted to its end.
    pub fn exact(count: u64) -> Self {
        Total { count, is_capped: false, cursor: None }
    }

    /// A list of which at least `count` were counted.
    pub fn capped(count: u64) -> Self {
        Total { count, is_capped: true, cursor: None }
    }

    /// The cursor that goes on after this page, from [`ListQuery::cursor_after`].
    #[must_use]
    pub fn with_cursor(mut self, cursor: Option<String>) -> Self {
        self.cursor = cursor;
        self
    }
}

impl<F> ListQuery<F> {
    /// Items to leave out before the first; 0 when a cursor says where to begin.
    pub fn offset(&self) -> u64 {
        match self.by {
            By::Page => u64::from(self.page - 1) * u64::from(self.size),
            By::Limit | By::Cursor(_) => 0,
        }
    }

    /// Items to answer at most.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The number of the page, from 1.
    pub fn page(&self) -> u32 {
        self.page
    }

    /// The key that the client brings back in its cursor, if it sent one.
    pub fn cursor<K: DeserializeOwned>(&self) -> Result<Option<K>, Problem> {
        match &self.by {
            By::Cursor(key) => serde_json::from_str(key.get()).map(Some).map_err(|_| bad_cursor()),
            By::Page | By::Limit => Ok(None),
        }
    }

    /// The cursor of the page after this one, which begins after `key`.
    pub fn cursor_after<K: Serialize>(&self, key: &K) -> String {
        let key = serde_json::value::to_raw_value(key).expect("a key is text and numbers");
        let contents = CursorContents { page: self.page.saturating_add(1), key };
        let json = serde_json::to_vec(&contents).expect("a number and JSON");
        URL_SAFE_NO_PAD.encode(json)
    }

    /// Answers the asked part of the list.
    pub fn reply<T>(
        &self,
        message: impl Into<std::borrow::Cow<'static, str>>,
        items: Vec<T>,
        total: Total,
    ) -> ListReply<T> {
        let pagination = Pagination {
            page: self.page,
            page_size: self.size,
            total: total.count,
            total_pages: total.count.div_ceil(u64::from(self.size)),
            total_is_capped: total.is_capped,
            cursor: total.cursor,
        };
        let links = self.links(&pagination);
        ListReply::new(message, items, pagination, links)
    }

    /// The `Link` header (RFC 8288): relative to this request, with its other parameters kept.
    fn links(&self, pagination: &Pagination) -> HeaderValue {
        let separator = if self.base.contains('?') { '&' } else { '?' };
        let to_page = |page: u64| format!("{}{separator}{PAGE}={page}", self.base);
        let mut links = Vec::with_capacity(4);
        match &self.by {
            // The first N have no other pages: `limit` and `page` exclude each other.
            By::Limit => links.push((self.base.clone(), "first")),
            by => {
                links.push((to_page(1), "first"));
                if matches!(by, By::Page) && self.page > 1 {
                    links.push((to_page(u64::from(self.page) - 1), "prev"));
                }
                if let Some(cursor) = &pagination.cursor {
                    links.push((format!("{}{separator}{CURSOR}={cursor}", self.base), "next"));
                } else if u64::from(self.page) < pagination.total_pages {
                    links.push((to_page(u64::from(self.page) + 1), "next"));
                }
                if !pagination.total_is_capped {
                    links.push((to_page(pagination.total_pages.max(1)), "last"));
                }
            }
        }
        let text: Vec<String> =
            links.iter().map(|(target, rel)| format!("<{target}>; rel=\"{rel}\"")).collect();
        HeaderValue::try_from(text.join(", ")).expect("a URI that was parsed is visible ASCII")
    }
}

impl<S: Send + Sync, F: DeserializeOwned> FromRequestParts<S> for ListQuery<F> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let pairs = Pairs::parse(parts.uri.query().unwrap_or_default())?;
        pairs.check_names(&[query::field_names::<F>().unwrap_or_default(), &PAGING])?;
        let (page, size, by) = read_paging(&pairs)?;
        let filters = pairs.read(&PAGING)?;

        let mut base = query::original_uri(parts).path().to_owned();
        let kept = pairs.raw_without(&[PAGE, CURSOR]);
        if !kept.is_empty() {
            base = format!("{base}?{}", kept.join("&"));
        }
        // hyper lets a few characters through that would end or break a link.
        let base = base.replace('<', "%3C").replace('>', "%3E").replace('"', "%22");
        Ok(ListQuery { filters, page, size, by, base })
    }
}

fn read_paging(pairs: &Pairs<'_>) -> Result<(u32, u32, By), Problem> {
    let mut faults = Vec::new();
    let mut number = |name: &str, max: u32| {
        let text = pairs.get(name)?;
        let number = text.parse::<u32>().ok().filter(|number| (1..=max).contains(number));
        if number.is_none() {
            let message = format!("must be a whole number from 1 to {max}");
            faults.push(FieldError::new(query::pointer(name), "out_of_range", message));
        }
        number
    };
    let (page, size, limit) =
        (number(PAGE, u32::MAX), number(PAGE_SIZE, MAX_SIZE), number(LIMIT, MAX_LIMIT));

    let has = |name: &str| pairs.get(name).is_some();
    let mut exclude = |name: &str, other: &str| {
        if has(name) && has(other) {
            let message = format!("cannot be given together with {other}");
            faults.push(FieldError::new(query::pointer(name), "exclusive", message));
        }
    };
    exclude(LIMIT, PAGE);
    exclude(LIMIT, PAGE_SIZE);
    exclude(LIMIT, CURSOR);
    exclude(CURSOR, PAGE);
    if !faults.is_empty() {
        return Err(query::bad_parameters(faults));
    }
    if let Some(limit) = limit {
        return Ok((1, limit, By::Limit));
    }
    let size = size.unwrap_or(DEFAULT_SIZE);
    if let Some(cursor) = pairs.get(CURSOR) {
        let contents = decode_cursor(cursor).ok_or_else(bad_cursor)?;
        return Ok((contents.page.max(1), size, By::Cursor(contents.key)));
    }
    Ok((page.unwrap_or(1), size, By::Page))
}

fn decode_cursor(text: &str) -> Option<CursorContents> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

fn bad_cursor() -> Problem {
    let message = "is not a cursor of this list; begin again without it";
    query::bad_parameters(vec![FieldError::new(query::pointer(CURSOR), "invalid", message)])
}

#[cfg(test)]
mod tests;

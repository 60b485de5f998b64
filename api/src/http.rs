//! What every route stands on: how requests are read, how answers and failures are written.
//!
//! The one rule: nothing in here knows a route, an aggregate or the state of the application.

pub mod around;
pub mod client;
pub mod etag;
pub mod finish;
pub mod header;
pub mod idempotency;
pub mod json;
pub mod layers;
pub mod linger;
pub mod min_position;
pub mod openapi;
pub mod page;
pub mod path;
pub mod problem;
pub mod query;
pub mod range;
pub mod rate_limit;
pub mod reply;
pub mod request_id;
pub mod small_reads;
pub mod sse;
pub mod upload;

#[cfg(test)]
pub(crate) mod testing;

pub use client::ClientAddress;
pub use etag::{ETag, IfMatch, IfNoneMatch};
pub use idempotency::Idempotency;
pub use json::{Json, OptionalJson};
pub use min_position::MinPosition;
pub use page::{ListQuery, Total};
pub use path::Path;
pub use problem::{FieldError, Problem};
pub use query::{Queries, Query};
pub use reply::{ListReply, Reply};
pub use request_id::RequestContext;

//! Bodies of answers that several routes share.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::Reply;

/// Something that is gone.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deleted {
    /// What its id was.
    pub id: Uuid,
}

/// The body of a verb that takes nothing.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Something that is gone; what was inside is, too, where `is_erased`, or is being removed.
pub fn deleted(message: &'static str, id: Uuid, is_erased: bool) -> Reply<Deleted> {
    if is_erased {
        Reply::ok(message, Deleted { id })
    } else {
        Reply::accepted(message, Deleted { id })
    }
}

//! Bodies of answers that several routes share.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Something that is gone.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deleted {
    /// What its id was.
    pub id: Uuid,
}

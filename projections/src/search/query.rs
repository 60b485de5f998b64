//! What is asked of the search.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// How passages are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// By meaning alone; the score is the cosine.
    #[default]
    Vector,
    /// By words (BM25 of their stems).
    FullText,
    /// Both, their scores put together.
    Hybrid,
}

impl Mode {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Vector => "vector",
            Mode::FullText => "full_text",
            Mode::Hybrid => "hybrid",
        }
    }
}

/// A text, or several of which any will do.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum AnyOf {
    /// Just this.
    One(String),
    /// Any of these.
    Any(Vec<String>),
}

impl AnyOf {
    /// What will do.
    pub fn all(&self) -> &[String] {
        match self {
            AnyOf::One(one) => std::slice::from_ref(one),
            AnyOf::Any(any) => any,
        }
    }

    pub(super) fn admits(&self, is: Option<&str>) -> bool {
        is.is_some_and(|is| self.all().iter().any(|wanted| wanted == is))
    }
}

/// A file, or several.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum AnyFile {
    /// Just this.
    One(Uuid),
    /// Any of these.
    Any(Vec<Uuid>),
}

impl AnyFile {
    /// What will do.
    pub fn all(&self) -> &[Uuid] {
        match self {
            AnyFile::One(one) => std::slice::from_ref(one),
            AnyFile::Any(any) => any,
        }
    }
}

/// Which files a search looks at. Every condition narrows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Filters {
    /// With this source, or any of these.
    pub source: Option<AnyOf>,
    /// With this subject, or any of these.
    pub subject: Option<AnyOf>,
    /// In this language, or any of these, as it was said at the upload.
    pub language: Option<AnyOf>,
    /// With every one of these tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Just this file, or these.
    pub file_id: Option<AnyFile>,
    /// Uploaded then or later (RFC 3339).
    pub from: Option<DateTime<Utc>>,
    /// Uploaded before then.
    pub to: Option<DateTime<Utc>>,
}

impl Filters {
    pub(super) fn is_empty(&self) -> bool {
        *self == Filters::default()
    }
}

/// The most neighbours of a passage on either side.
pub const MAX_NEIGHBOURS: u8 = 5;

/// What is answered beside the passages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Include {
    /// So many chunks of the file before each passage, and after it.
    #[serde(default)]
    #[schema(maximum = 5)]
    pub neighbours: u8,
    /// The section that each passage stands in, or what fits of it around the passage.
    #[serde(default)]
    pub section: bool,
    /// Which words of each passage are those of the question. Without it, in the modes `full_text` and
    /// `hybrid`.
    pub highlights: Option<bool>,
}

/// A search.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Where.
    pub knowledge_bases: Vec<Uuid>,
    /// What, as words.
    pub text: String,
    /// What, as a vector of unit length; needed unless the mode is full text.
    pub vector: Option<Vec<f32>>,
    /// How.
    pub mode: Mode,
    /// How many passages at most.
    pub limit: usize,
    /// The least score.
    pub min_score: Option<f32>,
    /// In which files.
    pub filters: Filters,
    /// What else is answered.
    pub include: Include,
}

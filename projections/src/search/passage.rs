//! What the search answers.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A passage that was found.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Passage {
    /// The file that it stands in.
    pub file_id: Uuid,
    /// The file's name.
    pub file_name: String,
    /// The knowledge base that the file belongs to.
    pub knowledge_base_id: Uuid,
    /// Which chunk of the file, from 0.
    pub chunk_index: u32,
    /// The text.
    pub text: String,
    /// How near it is: the cosine, or the score of the mode.
    pub score: f32,
    /// What is said of the file and the place in it.
    pub metadata: Metadata,
    /// Where the text begins, in characters of the file's text.
    pub char_start: u64,
    /// Where it ends.
    pub char_end: u64,
    /// The words of the question in `text`, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub highlights: Option<Vec<Highlight>>,
    /// The chunks before it, in the order of the file, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Vec<FileChunk>>,
    /// The chunks after it, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<FileChunk>>,
    /// The section that it stands in, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section: Option<Section>,
}

/// A word of the question, in whatever form, in the text of a passage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Highlight {
    /// Where it begins, in characters of the passage's text.
    pub start: u32,
    /// Where it ends.
    pub end: u32,
}

/// What stands under the heading of a passage, in its page or sheet; of a long one, what is around the
/// passage.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Section {
    /// The heading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heading: Option<String>,
    /// The text.
    pub text: String,
    /// Where it begins, in characters of the file's text.
    pub char_start: u64,
    /// Where it ends.
    pub char_end: u64,
}

/// What is said of a file, and of the place in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Metadata {
    /// Where the file comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Its language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Free words to find it by.
    pub tags: Vec<String>,
    /// Where in the file the passage stands.
    #[serde(flatten)]
    pub place: Place,
    /// When the file was uploaded.
    pub created_at: String,
}

/// Where in a file a passage stands, as a reader of the file would say it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Place {
    /// The nearest heading that it stands under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heading: Option<String>,
    /// All headings that it stands under, from the highest to the nearest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub headings: Vec<String>,
    /// The page of a PDF or the slide of a presentation, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// The sheet of a workbook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sheet: Option<String>,
    /// The first row of the sheet, table or JSON lines, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_start: Option<u32>,
    /// The last row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_end: Option<u32>,
    /// The header of the Markdown table whose rows it begins with: it stands further up in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_header: Option<String>,
}

impl Place {
    pub(super) fn of(place: &embeddings::Place) -> Place {
        Place {
            heading: place.headings.last().cloned(),
            headings: place.headings.clone(),
            page: place.page,
            sheet: place.sheet.clone(),
            row_start: place.rows.map(|(first, _)| first),
            row_end: place.rows.map(|(_, last)| last),
            table_header: place.table_header.clone(),
        }
    }
}

/// A piece of a file's text, as searches find it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct FileChunk {
    /// Which chunk of the file, from 0.
    pub chunk_index: u32,
    /// The text.
    pub text: String,
    /// Where the text begins, in characters of the file's text.
    pub char_start: u64,
    /// Where it ends.
    pub char_end: u64,
    /// Where in the file that is.
    #[serde(flatten)]
    pub place: Place,
}

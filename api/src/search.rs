//! Semantic search: `/api/knowledge-base/embeddings`.
//!
//! The rule of this file: a search looks only into knowledge bases that the caller may see; which
//! those are is settled before the question is embedded.

use axum::extract::State;
use projections::knowledge_base;
use projections::search::{Filters, Include, MAX_NEIGHBOURS, Mode, Passage};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Right;
use crate::app::App;
use crate::caller::Caller;
use crate::http::openapi::SearchFailures;
use crate::http::reply::Envelope;
use crate::http::{FieldError, Json, Problem, Reply};
use crate::knowledge_base::{meant_product, visible};

/// Passages when the client does not say how many.
const DEFAULT_LIMIT: u32 = 10;

/// Passages at most.
const MAX_LIMIT: u32 = 100;

/// The longest question, in characters. The model reads the first 256 tokens of it.
const MAX_QUERY: usize = 10_000;

/// The most values of one filter.
const MAX_VALUES: usize = 1_000;

/// The route of the search.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(search_knowledge))
}

/// A question to knowledge bases.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Question {
    /// What is looked for, in words. May be left out where a `vector` is given in the mode `vector`.
    #[schema(min_length = 1, max_length = 10000, pattern = r"\S")]
    query: Option<String>,
    /// The question as a vector of the model that embedded the files, so that it is not embedded here: as
    /// many numbers as that model's vectors have (384 by default), of any length but zero. Not in the mode
    /// `full_text`.
    vector: Option<Vec<f32>>,
    /// Looks into all knowledge bases of this product. An API token that names neither this nor a
    /// knowledge base looks into its own product.
    product_id: Option<Uuid>,
    /// Looks into this knowledge base alone; not together with `product_id`.
    knowledge_base_id: Option<Uuid>,
    /// How many passages are wanted at most.
    #[schema(minimum = 1, maximum = 100, default = 10)]
    limit: Option<u32>,
    /// Leaves out passages with a lower score. Scores are cosines in the mode `vector`, BM25 in
    /// `full_text`, and from 0 to 1 in `hybrid`: 0.8 parts the cosine and 0.2 the BM25, each compared with
    /// the best of this question.
    min_score: Option<f32>,
    /// Which files to look at.
    filters: Option<Filters>,
    /// How to look: `vector` by meaning alone, `full_text` by words, `hybrid` by both.
    mode: Option<Mode>,
    /// What is answered beside the passages.
    include: Option<Include>,
}

/// Search by meaning
///
/// The best passages, best first. By default by vectors alone: the score is the cosine. No language
/// model takes part. `filters` narrow before anything is scored. `include` asks for what stands around each
/// passage, and which of its words are those of the question.
#[utoipa::path(post, path = "/api/knowledge-base/embeddings", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::ReadKnowledge))),
    responses((status = 200, description = "The passages, best first", body = Envelope<Vec<Passage>>),
              SearchFailures))]
async fn search_knowledge(
    State(app): State<App>,
    caller: Caller,
    body: Json<Question>,
) -> Result<Reply<Vec<Passage>>, Problem> {
    let question = body.read()?;
    let knowledge_bases = match (question.knowledge_base_id, question.product_id) {
        (Some(_), Some(_)) => {
            let message = "cannot be given together with product_id";
            return Err(bad_question("knowledge_base_id", "exclusive", message));
        }
        (Some(base), None) => vec![visible(&app, &caller, base)?.id],
        (None, named) => {
            let product = meant_product(&caller, named)?;
            caller.product(&app, product)?;
            app.read(|db| knowledge_base::ids(db, product))?
        }
    };
    let mode = question.mode.unwrap_or_default();
    let text = question.query.as_deref().map(str::trim);
    match text {
        None if mode == Mode::Vector && question.vector.is_some() => {}
        None => {
            return Err(bad_question("query", "missing", "is required: say what is looked for"));
        }
        Some("") => return Err(bad_question("query", "empty", "must say what is looked for")),
        Some(text) if text.chars().count() > MAX_QUERY => {
            let message = format!("may have at most {MAX_QUERY} characters");
            return Err(bad_question("query", "too_long", &message));
        }
        Some(_) => {}
    }
    let vector = question.vector.map(|vector| {
        let dimensions = app.search.dimensions(&knowledge_bases);
        unit_vector(vector, mode, dimensions)
    });
    let include = question.include.unwrap_or_default();
    if include.neighbours > MAX_NEIGHBOURS {
        let message = format!("must be a whole number from 0 to {MAX_NEIGHBOURS}");
        return Err(bad_question("include/neighbours", "out_of_range", &message));
    }
    let filters = question.filters.unwrap_or_default();
    check_filters(&filters)?;
    let limit = question.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let message = format!("must be a whole number from 1 to {MAX_LIMIT}");
        return Err(bad_question("limit", "out_of_range", &message));
    }
    let found = app.find(projections::search::Query {
        knowledge_bases,
        text: text.unwrap_or_default().to_owned(),
        vector: vector.transpose()?,
        mode,
        limit: limit as usize,
        min_score: question.min_score,
        filters,
        include,
    });
    let passages = found.await?;
    Ok(Reply::ok("Passages", passages))
}

/// A ready-made vector as one of unit length.
fn unit_vector(
    mut vector: Vec<f32>,
    mode: Mode,
    dimensions: Option<usize>,
) -> Result<Vec<f32>, Problem> {
    if mode == Mode::FullText {
        let message = "is of no use in the mode full_text: leave it out";
        return Err(bad_question("vector", "exclusive", message));
    }
    if let Some(dimensions) = dimensions
        && vector.len() != dimensions
    {
        let message = format!("has {} numbers, and the files' vectors {dimensions}", vector.len());
        return Err(bad_question("vector", "dimensions_differ", &message));
    }
    let squares = vector.iter().map(|number| f64::from(*number).powi(2));
    let length = squares.sum::<f64>().sqrt();
    if length == 0.0 || !length.is_finite() {
        let message = "must hold finite numbers that are not all zero";
        return Err(bad_question("vector", "out_of_range", message));
    }
    vector.iter_mut().for_each(|number| *number = (f64::from(*number) / length) as f32);
    Ok(vector)
}

/// Refuses filters that would take long to look through.
fn check_filters(filters: &Filters) -> Result<(), Problem> {
    let any =
        |any: &Option<projections::search::AnyOf>| any.as_ref().map_or(0, |any| any.all().len());
    let counts = [
        ("source", any(&filters.source)),
        ("subject", any(&filters.subject)),
        ("language", any(&filters.language)),
        ("tags", filters.tags.len()),
        ("file_id", filters.file_id.as_ref().map_or(0, |any| any.all().len())),
    ];
    match counts.into_iter().find(|(_, count)| *count > MAX_VALUES) {
        None => Ok(()),
        Some((name, _)) => {
            let message = format!("may have at most {MAX_VALUES} values");
            Err(bad_question(&format!("filters/{name}"), "too_many", &message))
        }
    }
}

fn bad_question(field: &str, code: &'static str, message: &str) -> Problem {
    Problem::invalid("invalid_body", format!("the field {field} is not valid: it {message}"))
        .with_error(FieldError::new(format!("/{field}"), code, message))
}

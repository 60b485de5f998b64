//! Semantic search: `/api/knowledge-base/embeddings`.
//!
//! The rule of this file: a search looks only into knowledge bases that the caller may see; which
//! those are is settled before the question is embedded.

use axum::extract::State;
use projections::knowledge_base;
use projections::search::{Filters, Mode, Passage};
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

/// The route of the search.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(search_knowledge))
}

/// A question to knowledge bases.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Question {
    /// What is looked for, in words.
    #[schema(min_length = 1, max_length = 10000, pattern = r"\S")]
    query: String,
    /// Looks into all knowledge bases of this product. An API token that names neither this nor a
    /// knowledge base looks into its own product.
    product_id: Option<Uuid>,
    /// Looks into this knowledge base alone; not together with `product_id`.
    knowledge_base_id: Option<Uuid>,
    /// How many passages are wanted at most.
    #[schema(minimum = 1, maximum = 100, default = 10)]
    limit: Option<u32>,
    /// Leaves out passages with a lower score. Scores are cosines in the mode `vector`, BM25 in
    /// `full_text`, and sums of reciprocal ranks (below 0.04) in `hybrid`.
    min_score: Option<f32>,
    /// Which files to look at.
    filters: Option<Filters>,
    /// How to look: `vector` by meaning alone, `full_text` by words, `hybrid` by both.
    mode: Option<Mode>,
}

/// Search by meaning
///
/// The best passages, best first. By default by vectors alone: the score is the cosine. No language
/// model takes part.
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
    let text = question.query.trim();
    if text.is_empty() {
        return Err(bad_question("query", "empty", "must say what is looked for"));
    }
    if text.chars().count() > MAX_QUERY {
        let message = format!("may have at most {MAX_QUERY} characters");
        return Err(bad_question("query", "too_long", &message));
    }
    let limit = question.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let message = format!("must be a whole number from 1 to {MAX_LIMIT}");
        return Err(bad_question("limit", "out_of_range", &message));
    }
    let found = app.find(projections::search::Query {
        knowledge_bases,
        text: text.to_owned(),
        vector: None,
        mode: question.mode.unwrap_or_default(),
        limit: limit as usize,
        min_score: question.min_score,
        filters: question.filters.unwrap_or_default(),
    });
    let passages = found.await?;
    Ok(Reply::ok("Passages", passages))
}

fn bad_question(field: &str, code: &'static str, message: &str) -> Problem {
    Problem::invalid("invalid_body", format!("the field {field} is not valid: it {message}"))
        .with_error(FieldError::new(format!("/{field}"), code, message))
}

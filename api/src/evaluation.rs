//! Evaluations: how well a knowledge base answers questions of which somebody knows the answers.
//!
//! The rule of this file: a question is asked exactly as a search would ask it, one after the other, so that
//! what is measured is what people get.

use std::collections::{BTreeSet, HashSet};
use std::time::Instant;

use axum::extract::State;
use domain::evaluation::{Latency, Scores, Summary};
use embeddings::Embedder;
use projections::evaluation::{self, Evaluation};
use projections::search::{Filters, Include, Mode, Passage, Query};
use projections::{file, generation};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Right;
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::http::openapi::{
    IdempotencyKeyParam, IfNoneMatchParam, MinPositionParam, PageParams, ReadFailures,
    SearchFailures,
};
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::{
    ETag, FieldError, IfNoneMatch, Json, ListQuery, ListReply, Path, Problem, Reply,
};
use crate::knowledge_base::visible;
use crate::lists::{total, window};

/// What the `ETag` of an evaluation stands for: nothing of it ever changes.
const SEQUENCE: u64 = 1;

/// Questions at most: so many are answered in seconds.
const MAX_QUESTIONS: usize = 500;

/// The longest question, in characters.
const MAX_QUERY: usize = 10_000;

/// Files that one question may expect at most.
const MAX_EXPECTED: usize = 1_000;

/// How many files of an answer are looked at when the client does not say.
const DEFAULT_K: u32 = 10;

/// Files of an answer at most.
const MAX_K: u32 = 100;

/// Passages that are looked at for one question at most, however few files they stand in.
const MAX_PASSAGES: usize = 10_000;

/// The routes of evaluations.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_evaluations)).routes(routes!(get_evaluation))
}

/// The route that asks every question first.
pub fn long_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(evaluate))
}

/// Questions, and what is known of their answers.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewEvaluation {
    /// The questions.
    #[schema(min_items = 1, max_items = 500)]
    questions: Vec<Question>,
    /// How many files of an answer are looked at.
    #[schema(minimum = 1, maximum = 100, default = 10)]
    k: Option<u32>,
    /// How to search: `vector` by meaning alone, `full_text` by words, `hybrid` by both.
    mode: Option<Mode>,
    /// Which generation to search, by the revision of its model, as `/api/generations` lists them: the one that
    /// answers, unless this says another.
    #[schema(min_length = 1, max_length = 200)]
    generation: Option<String>,
}

/// A question of which somebody knows the answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Question {
    /// What is looked for.
    #[schema(min_length = 1, max_length = 10000, pattern = r"\S")]
    query: String,
    /// The files that should be found, all worth the same: ids of files of the knowledge base.
    #[schema(min_items = 1, max_items = 1000)]
    expected: Vec<Uuid>,
}

/// How well a knowledge base answered.
#[derive(Debug, Serialize, ToSchema)]
struct EvaluationDetails {
    /// Its id.
    id: Uuid,
    /// The knowledge base.
    knowledge_base_id: Uuid,
    /// How it was searched.
    #[schema(value_type = Mode)]
    mode: String,
    /// How many files of an answer were looked at.
    k: u32,
    /// How many questions were asked.
    question_count: u32,
    /// How many files could be found.
    file_count: u64,
    /// The means over all questions.
    metrics: Metrics,
    /// How long the searches took.
    latency: Took,
    /// What made the vectors: evaluations of two of them can be compared.
    generation: Generation,
    /// The questions one by one; not in lists, and gone with the product's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    questions: Option<Vec<Asked>>,
    /// Who asked for it.
    requested_by: String,
    /// When it was over.
    created_at: String,
}

/// How good a ranking is, each from 0 to 1.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Metrics {
    /// Normalised discounted cumulated gain of the first `k` files.
    ndcg: f64,
    /// The share of the expected files that is among the first `k`.
    recall: f64,
    /// One divided by the rank of the first expected file; 0 when it is not among the first `k`.
    mrr: f64,
}

impl From<Scores> for Metrics {
    fn from(scores: Scores) -> Metrics {
        Metrics { ndcg: scores.ndcg, recall: scores.recall, mrr: scores.reciprocal_rank }
    }
}

/// How long searches took, the embedding of the questions included, in milliseconds.
#[derive(Debug, Serialize, ToSchema)]
struct Took {
    /// Half of them took no longer.
    p50_ms: f64,
    /// 99 of 100 took no longer.
    p99_ms: f64,
    /// None took longer.
    max_ms: f64,
}

impl From<Latency> for Took {
    fn from(latency: Latency) -> Took {
        let milliseconds = |micros: u64| micros as f64 / 1e3;
        Took {
            p50_ms: milliseconds(latency.p50),
            p99_ms: milliseconds(latency.p99),
            max_ms: milliseconds(latency.max),
        }
    }
}

/// What made the vectors that were searched.
#[derive(Debug, Serialize, ToSchema)]
struct Generation {
    /// The embedding model.
    model: String,
    /// The SHA-256 of its weights and tokenizer.
    model_revision: String,
    /// The version of the rules by which files are cut into chunks.
    chunker: String,
}

/// A question, and what was found.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Asked {
    /// What was looked for.
    query: String,
    /// The files that should be found.
    expected: Vec<Uuid>,
    /// The first `k` files that were, best first.
    found: Vec<Uuid>,
    /// How good that is.
    metrics: Metrics,
}

/// Measure how well a knowledge base answers
///
/// Asks every question as a search would, and holds the files that are found against those that were expected.
/// A file stands where its best passage does. What came of it is kept, with the model's revision: ask the same
/// questions again after a change, and compare. `recall` is bounded by `k`: with more expected files than that
/// not all can be found.
#[utoipa::path(post, path = "/api/knowledge-base/{knowledgeBaseId}/evaluate", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::WriteKnowledge))),
    params(("knowledgeBaseId" = Uuid, Path, description = "The knowledge base"), IdempotencyKeyParam),
    responses((status = 201, description = "What came of it", body = Envelope<EvaluationDetails>), SearchFailures))]
async fn evaluate(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(base): Path<Uuid>,
    body: Json<NewEvaluation>,
) -> Result<Reply<EvaluationDetails>, Problem> {
    let known = visible(&app, &caller, base)?;
    let new = body.read()?;
    let ask = circumstances.ask(&app, &caller, Some(known.product_id), &[&body.bytes]).await?;
    let done = match app.commands.evaluation_kept(&ask).await? {
        Some(done) => done,
        None => {
            let (summary, asked) = ask_all(&app, base, new).await?;
            app.commands.keep_evaluation(summary, &asked, &ask).await?
        }
    };
    let position = app.applied(&done).await?;
    let id = done.stream_id().unwrap_or_default();
    let kept = app.read_after(&done, |db| evaluation::get(db, id)).await?.ok_or_else(not_found)?;
    let location = format!("/api/knowledge-base/evaluation/{id}");
    let reply = Reply::created(location, "Evaluation finished", whole(&app, kept).await?);
    Ok(reply.position(position).replayed(done.replayed))
}

/// Asks every question of a knowledge base.
async fn ask_all(
    app: &App,
    base: Uuid,
    new: NewEvaluation,
) -> Result<(Summary, Vec<Asked>), Problem> {
    let k = new.k.unwrap_or(DEFAULT_K);
    let beside = new.generation.as_deref().filter(|revision| !app.search.is_active(revision));
    let embedder = match beside {
        Some(revision) => generation_of(app, base, revision)?,
        None => app.embedder()?,
    };
    let model = embedder.model();
    let files: HashSet<Uuid> = match beside {
        Some(revision) => app.read(|db| generation::files_in(db, base, revision))?,
        None => {
            let indexed = app.search.position().0;
            app.read(|db| file::ready_in(db, base, indexed))?
        }
    }
    .into_iter()
    .collect();
    check(&new, k, &files)?;
    let beside = beside.map(|_| &embedder);

    let mode = new.mode.unwrap_or_default();
    let (mut asked, mut scores, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for Question { query, expected } in new.questions {
        let query = query.trim().to_owned();
        let started = Instant::now();
        let found = files_found(app, beside, base, &query, mode, k as usize).await?;
        took.push(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
        let wanted: BTreeSet<Uuid> = expected.into_iter().collect();
        let score = Scores::of(&found, &wanted, k as usize);
        scores.push(score);
        let expected = wanted.into_iter().collect();
        asked.push(Asked { query, expected, found, metrics: score.into() });
    }
    let summary = Summary {
        knowledge_base: base,
        mode: mode.as_str().to_owned(),
        k,
        questions: u32::try_from(asked.len()).unwrap_or(u32::MAX),
        files: files.len() as u64,
        model: model.name().to_owned(),
        model_revision: model.revision().to_owned(),
        chunker: embeddings::CHUNKER_VERSION.to_owned(),
        scores: Scores::mean(&scores),
        latency: Latency::of(took),
    };
    Ok((summary, asked))
}

/// The model of a generation that does not answer, and has every file of the knowledge base.
fn generation_of(app: &App, base: Uuid, revision: &str) -> Result<Embedder, Problem> {
    let loaded = app.models.borrow();
    let embedder = loaded.iter().find(|it| it.model().revision() == revision);
    let is_known = app.read(generation::revisions)?.iter().any(|known| known == revision);
    let Some(embedder) = embedder.filter(|_| is_known) else {
        let message = "must be the revision of a generation whose model is loaded: GET /api/generations lists them";
        let problem = Problem::invalid("generation_unknown", "this generation cannot be searched");
        return Err(problem.with_error(FieldError::new("/generation", "unknown", message)));
    };
    let missing = app.read(|db| generation::missing_in(db, base, revision))?;
    if missing > 0 {
        let why = format!(
            "{missing} files of this knowledge base are not in that generation yet: GET /api/generations/{revision} says \
             how long it will take"
        );
        return Err(Problem::conflict("generation_incomplete", why));
    }
    Ok(embedder.clone())
}

/// The passages of an answer, from a generation that does not answer where one is named.
async fn passages(
    app: &App,
    beside: Option<&Embedder>,
    query: Query,
) -> Result<Vec<Passage>, Problem> {
    let Some(embedder) = beside else { return app.find(query).await };
    let vector = match query.mode {
        Mode::FullText => None,
        Mode::Vector | Mode::Hybrid => {
            let embedded = embedder.embed_query(&query.text).await;
            Some(embedded.map_err(|error| Problem::internal(&error))?)
        }
    };
    let found =
        app.search.search_in(embedder.model().revision(), Query { vector, ..query }).await?;
    found.ok_or_else(|| {
        let why = "the generation was removed while it was asked";
        Problem::conflict("generation_removed", why)
    })
}

/// The first files of an answer. Many passages may stand in one file, so it is asked for more until there are
/// enough files, or no more.
async fn files_found(
    app: &App,
    beside: Option<&Embedder>,
    base: Uuid,
    query: &str,
    mode: Mode,
    k: usize,
) -> Result<Vec<Uuid>, Problem> {
    let mut limit = 2 * k;
    loop {
        let query = Query {
            knowledge_bases: vec![base],
            text: query.to_owned(),
            vector: None,
            mode,
            limit,
            min_score: None,
            filters: Filters::default(),
            include: Include::default(),
        };
        let passages = passages(app, beside, query).await?;
        let is_all = passages.len() < limit || limit >= MAX_PASSAGES;
        let mut seen = HashSet::new();
        let files = passages.into_iter().map(|passage| passage.file_id);
        let files: Vec<Uuid> = files.filter(|file| seen.insert(*file)).take(k).collect();
        if files.len() == k || is_all {
            return Ok(files);
        }
        limit = (limit * 4).min(MAX_PASSAGES);
    }
}

/// Every fault of what was asked for.
fn check(new: &NewEvaluation, k: u32, files: &HashSet<Uuid>) -> Result<(), Problem> {
    let mut faults = Vec::new();
    if !(1..=MAX_K).contains(&k) {
        let message = format!("must be a whole number from 1 to {MAX_K}");
        faults.push(FieldError::new("/k", "out_of_range", message));
    }
    if new.questions.is_empty() || new.questions.len() > MAX_QUESTIONS {
        let message = format!("must be 1 to {MAX_QUESTIONS} questions: ask more in parts");
        faults.push(FieldError::new("/questions", "out_of_range", message));
    }
    for (number, question) in new.questions.iter().enumerate() {
        let at = format!("/questions/{number}");
        let length = question.query.trim().chars().count();
        if length == 0 || length > MAX_QUERY {
            let message = format!("must say what is looked for in 1 to {MAX_QUERY} characters");
            faults.push(FieldError::new(format!("{at}/query"), "length", message));
        }
        if question.expected.is_empty() || question.expected.len() > MAX_EXPECTED {
            let message = format!("must be 1 to {MAX_EXPECTED} ids of files");
            faults.push(FieldError::new(format!("{at}/expected"), "out_of_range", message));
        }
        for (place, file) in question.expected.iter().enumerate() {
            if !files.contains(file) {
                let message = "is no file of this knowledge base that can be found: list those that are ready";
                faults.push(FieldError::new(format!("{at}/expected/{place}"), "unknown", message));
            }
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    let summary = "these questions cannot be asked: `errors` says what to mend";
    Err(Problem::invalid("invalid_body", summary).with_errors(faults.into_iter().take(100)))
}

/// What the evaluations of a list must be.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EvaluationFilters {
    /// Only those that searched in this way.
    mode: Option<Mode>,
}

/// List the evaluations of a knowledge base
///
/// Newest first, without their questions.
#[utoipa::path(get, path = "/api/knowledge-base/{knowledgeBaseId}/evaluations", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::ReadKnowledge))),
    params(("knowledgeBaseId" = Uuid, Path, description = "The knowledge base"), EvaluationFilters, PageParams,
           MinPositionParam),
    responses((status = 200, description = "The evaluations", body = ListEnvelope<EvaluationDetails>), ReadFailures))]
async fn list_evaluations(
    State(app): State<App>,
    caller: Caller,
    Path(base): Path<Uuid>,
    query: ListQuery<EvaluationFilters>,
) -> Result<ListReply<EvaluationDetails>, Problem> {
    visible(&app, &caller, base)?;
    let window = window(&query)?;
    let mode = query.filters.mode.map(|mode| mode.as_str().to_owned());
    let listing = app.read(|db| evaluation::list(db, base, mode, window))?;
    let total = total(&query, &listing);
    let shown = listing.items.into_iter().map(|kept| details(kept, None)).collect();
    Ok(query.reply("Evaluations", shown, total))
}

/// Look at an evaluation
///
/// With every question, the files that were expected and those that were found. Nothing of it ever changes.
#[utoipa::path(get, path = "/api/knowledge-base/evaluation/{evaluationId}", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::ReadKnowledge))),
    params(("evaluationId" = Uuid, Path, description = "The evaluation"), MinPositionParam,
           IfNoneMatchParam),
    responses((status = 200, description = "The evaluation", body = Envelope<EvaluationDetails>),
              (status = 304, description = "The client has it already"), ReadFailures))]
async fn get_evaluation(
    State(app): State<App>,
    caller: Caller,
    known: IfNoneMatch,
    Path(id): Path<Uuid>,
) -> Result<Reply<EvaluationDetails>, Problem> {
    let kept = app.read(|db| evaluation::get(db, id))?.ok_or_else(not_found)?;
    visible(&app, &caller, kept.summary.knowledge_base).map_err(|_| not_found())?;
    let etag = ETag::of_sequence(SEQUENCE);
    Ok(Reply::ok("Evaluation", whole(&app, kept).await?).etag_unless_known(&etag, &known))
}

/// An evaluation with its questions.
async fn whole(app: &App, kept: Evaluation) -> Result<EvaluationDetails, Problem> {
    let stream = eventlog::StreamId::new("evaluation", kept.id);
    let owner = (kept.organization, kept.product);
    let opened = app.open(owner, &stream, "content", &kept.content).await?;
    let questions = opened
        .map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|error| Problem::internal(&error))?;
    Ok(details(kept, questions))
}

fn details(kept: Evaluation, questions: Option<Vec<Asked>>) -> EvaluationDetails {
    let Summary {
        knowledge_base,
        mode,
        k,
        questions: question_count,
        files,
        model,
        model_revision,
        chunker,
        scores,
        latency,
    } = kept.summary;
    EvaluationDetails {
        id: kept.id,
        knowledge_base_id: knowledge_base,
        mode,
        k,
        question_count,
        file_count: files,
        metrics: scores.into(),
        latency: latency.into(),
        generation: Generation { model, model_revision, chunker },
        questions,
        requested_by: kept.requested_by,
        created_at: kept.created_at,
    }
}

fn not_found() -> Problem {
    Problem::not_found(
        "evaluation_not_found",
        "there is no such evaluation: list those of the knowledge base to see which there are",
    )
}

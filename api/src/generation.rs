//! Generations: which embedding models have embedded the files, how far each is, and which one answers.
//!
//! The rule of this file: a model is begun, watched, compared and activated one step at a time, and until it is
//! activated nothing that people find changes.

use axum::extract::State;
use commands::{Ask, Done};
use domain::generation::EmbeddingModel;
use embeddings::Embedder;
use eventlog::Position;
use projections::generation::{self, Extent, Generation};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::Right;
use crate::answers::Nothing;
use crate::app::{App, PATIENCE};
use crate::caller::{Caller, Circumstances};
use crate::http::openapi::{
    IdempotencyKeyParam, MinPositionParam, PageParams, ReadFailures, WriteFailures,
};
use crate::http::page::NoFilters;
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::{FieldError, Json, ListQuery, ListReply, OptionalJson, Path, Problem, Reply};
use crate::lists::part;

/// How often a generation is looked at that something happens to while it is to be removed.
const TRIES: usize = 5;

/// The routes of generations.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_generations, begin_generation))
        .routes(routes!(get_generation, remove_generation))
        .routes(routes!(activate_generation))
}

/// What an embedding model has made of the files.
#[derive(Debug, Serialize, ToSchema)]
struct GenerationDetails {
    /// Which weights, tokenizer and manner of use: what it is known by.
    model_revision: String,
    /// What the model is called.
    model: Option<String>,
    /// How long its vectors are, where it is loaded.
    dimensions: Option<usize>,
    /// `available`: loaded, and not begun. `building`: it embeds the files. `complete`: every file was there once,
    /// and newer ones follow.
    state: GenerationState,
    /// Whether it answers the searches.
    active: bool,
    /// Whether its model is loaded: without it nothing more is embedded, and no question.
    loaded: bool,
    /// Files.
    files: GenerationFiles,
    /// Chunks.
    chunks: GenerationChunks,
    /// How much is there, 0 to 100.
    progress: u8,
    /// How many seconds the rest will take, at the rate of lately.
    eta_seconds: Option<u64>,
    /// When it was begun.
    begun_at: Option<String>,
    /// When every file was there.
    completed_at: Option<String>,
    /// When it was activated last.
    activated_at: Option<String>,
}

/// How far a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum GenerationState {
    Available,
    Building,
    Complete,
}

/// How many files a generation has.
#[derive(Debug, Serialize, ToSchema)]
struct GenerationFiles {
    /// That are there.
    done: u64,
    /// Of which its model could make nothing.
    failed: u64,
    /// That there are.
    total: u64,
}

/// How many chunks a generation has.
#[derive(Debug, Serialize, ToSchema)]
struct GenerationChunks {
    /// That are there.
    done: u64,
    /// That there will be, about: another model may cut the files otherwise.
    total: u64,
    /// How many a second came lately.
    per_second: Option<f64>,
}

/// The model that is to embed the files.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewGeneration {
    /// Its name or its revision, as the list shows them; it must be loaded.
    #[schema(min_length = 1, max_length = 500)]
    model: String,
}

/// List the generations
///
/// Every model that has embedded the files or does so, and those that are loaded and could. Newest last.
#[utoipa::path(get, path = "/api/generations", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::ReadProjections))),
    params(PageParams, MinPositionParam),
    responses((status = 200, description = "The generations", body = ListEnvelope<GenerationDetails>), ReadFailures))]
async fn list_generations(
    State(app): State<App>,
    query: ListQuery<NoFilters>,
) -> Result<ListReply<GenerationDetails>, Problem> {
    let all = known(&app)?.into_iter().map(|known| measured(&app, known));
    Ok(part(&query, "Generations", all.collect::<Result<_, _>>()?))
}

/// Look at a generation
///
/// How far it is and how long the rest will take.
#[utoipa::path(get, path = "/api/generations/{modelRevision}", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::ReadProjections))),
    params(("modelRevision" = String, Path, description = "As in the list"), MinPositionParam),
    responses((status = 200, description = "The generation", body = Envelope<GenerationDetails>), ReadFailures))]
async fn get_generation(
    State(app): State<App>,
    Path(revision): Path<String>,
) -> Result<Reply<GenerationDetails>, Problem> {
    Ok(Reply::ok("Generation", one(&app, &revision)?))
}

/// Let a further model embed the files
///
/// Beside the one that answers, and behind everything that somebody waits for. Nothing that is found changes until
/// it is activated. New files are embedded by every generation that there is.
#[utoipa::path(post, path = "/api/generations", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::RebuildProjections))),
    params(IdempotencyKeyParam),
    responses((status = 201, description = "It has begun", body = Envelope<GenerationDetails>), WriteFailures))]
async fn begin_generation(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    body: Json<NewGeneration>,
) -> Result<Reply<GenerationDetails>, Problem> {
    let NewGeneration { model } = body.read()?;
    let loaded = app.models.borrow().clone();
    let named = |it: &&Embedder| it.model().name() == model || it.model().revision() == model;
    let Some(embedder) = loaded.iter().find(named) else {
        let message = "must be a model that is loaded: name its folder with --model-dir too, and GET /api/generations \
                       lists it";
        let problem = Problem::invalid("model_unknown", "this model is not loaded");
        return Err(problem.with_error(FieldError::new("/model", "unknown", message)));
    };
    let model = described(embedder);
    let revision = model.model_revision.clone();
    let active = app.read(generation::all)?.into_iter().find(|it| it.is_active);
    let active = active.filter(|active| active.model_revision != revision).map(|active| {
        let known = loaded.iter().find(|it| it.model().revision() == active.model_revision);
        let extent = app.read(|db| generation::extent(db, &active.model_revision))?;
        let model = EmbeddingModel {
            model: known.map_or_else(|| "unknown".to_owned(), |it| it.model().name().to_owned()),
            model_revision: active.model_revision,
        };
        Ok::<_, Problem>((model, extent.files, extent.chunks))
    });
    let active = active.transpose()?;
    let ask = circumstances.ask(&app, &caller, None, &[&body.bytes]).await?;
    let done = app.commands.begin_generation(model, active, &ask).await?;
    let position = app.applied(&done).await?;
    let location = format!("/api/generations/{revision}");
    let reply = Reply::created(location, "The files are being embedded", one(&app, &revision)?);
    Ok(reply.position(position).replayed(done.replayed))
}

/// Let a generation answer the searches
///
/// By one event, from one moment to the next. The other stays and is kept up: activate that to go back.
#[utoipa::path(post, path = "/api/generations/{modelRevision}/activate", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::RebuildProjections))),
    params(("modelRevision" = String, Path, description = "As in the list"), IdempotencyKeyParam),
    request_body = Option<Nothing>,
    responses((status = 200, description = "It answers", body = Envelope<GenerationDetails>), WriteFailures))]
async fn activate_generation(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(revision): Path<String>,
    body: OptionalJson<Nothing>,
) -> Result<Reply<GenerationDetails>, Problem> {
    let found = one(&app, &revision)?;
    let Nothing {} = body.read()?;
    if found.active {
        return Ok(Reply::ok("It answers already", found));
    }
    if !found.loaded {
        let why = "the model of this generation is not loaded, and no question could be embedded: name its folder with \
                   --model-dir too, and start the server again";
        return Err(Problem::conflict("model_missing", why));
    }
    let ask = circumstances.ask(&app, &caller, None, &[body.bytes()]).await?;
    let done = app.commands.activate_generation(&revision, &ask).await?;
    let position = app.applied(&done).await?;
    answers(&app, &revision, Position(position)).await;
    Ok(Reply::ok("It answers from now on", one(&app, &revision)?)
        .position(position)
        .replayed(done.replayed))
}

/// Waits until this node searches in a generation by its model.
async fn answers(app: &App, revision: &str, position: Position) {
    let mut embedder = app.embedder.clone();
    let answers = async {
        app.search.reached(position).await;
        let is_its = |it: &Embedder| it.model().revision() == revision;
        let _ = embedder.wait_for(|it| it.as_ref().is_some_and(is_its)).await;
    };
    let _ = tokio::time::timeout(PATIENCE, answers).await;
}

/// Remove a generation
///
/// One that does not answer. What its model has made of the files is no longer searched, and removed from where it is
/// stored; when that is done, a moment later, it can be begun again (`409`, `generation_being_removed`, until then).
#[utoipa::path(delete, path = "/api/generations/{modelRevision}", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::RebuildProjections))),
    params(("modelRevision" = String, Path, description = "As in the list")),
    responses((status = 200, description = "It is gone", body = Envelope<RemovedGeneration>), WriteFailures))]
async fn remove_generation(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(revision): Path<String>,
) -> Result<Reply<RemovedGeneration>, Problem> {
    app.stands_on(&["file"])?;
    let ask = circumstances.ask(&app, &caller, None, &[]).await?;
    let done = remove_idle(&app, &revision, &ask).await?;
    let position = app.applied(&done).await?;
    let removed = RemovedGeneration { model_revision: revision };
    Ok(Reply::ok("Generation removed", removed).position(position).replayed(done.replayed))
}

/// Removes a generation unless it answers, though another node may activate it in the same moment: then it is looked
/// at again.
async fn remove_idle(app: &App, revision: &str, ask: &Ask) -> Result<Done, Problem> {
    let mut tries = 1;
    loop {
        // Before the look: what it shows is not older.
        let seen = app.views.position();
        if one(app, revision)?.active {
            let why = "this generation answers the searches: activate another one first";
            return Err(Problem::conflict("generation_active", why));
        }
        match app.commands.remove_generation(revision, seen, ask).await {
            Err(commands::Error::Conflict) if tries < TRIES => {
                let head = app.log.head().await.map_err(commands::Error::from)?;
                app.caught_up(head).await?;
                tries += 1;
            }
            done => return Ok(done?),
        }
    }
}

/// A generation that is gone.
#[derive(Debug, Serialize, ToSchema)]
struct RemovedGeneration {
    /// What it was known by.
    model_revision: String,
}

fn described(embedder: &Embedder) -> EmbeddingModel {
    let model = embedder.model();
    EmbeddingModel { model: model.name().to_owned(), model_revision: model.revision().to_owned() }
}

fn one(app: &App, revision: &str) -> Result<GenerationDetails, Problem> {
    let found = known(app)?.into_iter().find(|it| it.model_revision() == revision);
    let found = found.ok_or_else(|| {
        Problem::not_found(
            "generation_not_found",
            "there is no such generation: GET /api/generations lists them",
        )
    });
    measured(app, found?)
}

/// A generation that was begun, or a model that could be: or both.
struct Known {
    begun: Option<Generation>,
    loaded: Option<Embedder>,
}

impl Known {
    fn model_revision(&self) -> &str {
        let begun = self.begun.as_ref().map(|begun| begun.model_revision.as_str());
        let loaded = || self.loaded.as_ref().map(|loaded| loaded.model().revision());
        begun.or_else(loaded).unwrap_or_default()
    }
}

/// Those that were begun, and then the models that could be.
fn known(app: &App) -> Result<Vec<Known>, Problem> {
    let mut others = app.models.borrow().clone();
    let begun = app.read(generation::all)?.into_iter().map(|begun| {
        let is_its = |it: &Embedder| it.model().revision() == begun.model_revision;
        let loaded = others.iter().position(is_its).map(|place| others.remove(place));
        Known { begun: Some(begun), loaded }
    });
    let mut known: Vec<Known> = begun.collect();
    known.extend(others.into_iter().map(|it| Known { begun: None, loaded: Some(it) }));
    Ok(known)
}

/// A generation with how far it is, which is counted.
fn measured(app: &App, known: Known) -> Result<GenerationDetails, Problem> {
    let model_revision = known.model_revision().to_owned();
    let extent = app.read(|db| generation::extent(db, &model_revision))?;
    let Extent { files, chunks, failed, missing, missing_chunks, rate } = extent;
    let all = chunks + missing_chunks;
    // Whole only when nothing is missing.
    let percent = if missing == 0 { 100 } else { (chunks * 100 / all.max(1)).min(99) };
    let Known { begun, loaded } = known;
    let model = loaded.as_ref().map(Embedder::model);
    let named = begun.as_ref().and_then(|begun| begun.model.clone());
    let eta = begun.as_ref().and_then(|_| extent.eta());
    Ok(GenerationDetails {
        model_revision,
        model: named.or_else(|| model.map(|model| model.name().to_owned())),
        dimensions: model.map(|model| model.dimensions()),
        state: match &begun {
            None => GenerationState::Available,
            Some(begun) if begun.is_complete => GenerationState::Complete,
            Some(_) => GenerationState::Building,
        },
        active: begun.as_ref().is_some_and(|begun| begun.is_active),
        loaded: model.is_some(),
        files: GenerationFiles { done: files, failed, total: files + failed + missing },
        chunks: GenerationChunks { done: chunks, total: all, per_second: rate },
        progress: percent as u8,
        eta_seconds: eta.map(|seconds| seconds.ceil() as u64),
        begun_at: begun.as_ref().map(|begun| begun.begun_at.clone()),
        completed_at: begun.as_ref().and_then(|begun| begun.completed_at.clone()),
        activated_at: begun.and_then(|begun| begun.activated_at),
    })
}

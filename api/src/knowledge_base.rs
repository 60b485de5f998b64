//! Knowledge bases: `/api/knowledge-base` and `/api/knowledge-base/base`.
//!
//! The rule of this file: a knowledge base is reached through its product, so one that the caller
//! may not see does not exist for it. What people say about it is opened only to be answered.

use axum::extract::State;
use domain::{Description, Name};
use projections::{Said, file, knowledge_base};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Right;
use crate::agent::reach;
use crate::answers::{Deleted, deleted};
use crate::app::App;
use crate::caller::{Caller, Circumstances};
use crate::failures::bad_value;
use crate::http::openapi::{
    IdempotencyKeyParam, IfMatchParam, IfNoneMatchParam, MinPositionParam, PageParams,
    ReadFailures, WriteFailures,
};
use crate::http::page::NoFilters;
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::{
    ETag, FieldError, IfNoneMatch, Json, ListQuery, ListReply, Path, Problem, Reply,
};
use crate::lists::{total, window};

/// The routes of knowledge bases.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_knowledge_base))
        .routes(routes!(list_knowledge_bases))
        .routes(routes!(get_knowledge_base, change_knowledge_base, delete_knowledge_base))
}

/// A set of files of a product, chunked and embedded for semantic search.
#[derive(Debug, Serialize, ToSchema)]
struct KnowledgeBase {
    /// Its id.
    id: Uuid,
    /// The product that it belongs to.
    product_id: Uuid,
    /// Its name.
    name: String,
    /// What it is for.
    description: Option<String>,
    /// Its product was born with it.
    is_default: bool,
    /// How many files it holds.
    files: u64,
    /// When it was made.
    created_at: String,
    /// When it was last changed.
    updated_at: String,
}

async fn shown(app: &App, base: knowledge_base::KnowledgeBase) -> Result<KnowledgeBase, Problem> {
    let stream = format!("knowledge_base-{}", base.id);
    let said = base.description;
    let description = Said::open(said, app.commands.vault(), base.organization, &stream).await?;
    Ok(KnowledgeBase {
        id: base.id,
        product_id: base.product_id,
        name: base.name,
        description,
        is_default: base.is_default,
        files: base.files,
        created_at: base.created_at,
        updated_at: base.updated_at,
    })
}

/// A knowledge base that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewKnowledgeBase {
    /// The product that it belongs to. An API token may leave it out: it has one product.
    product_id: Option<Uuid>,
    /// What people call it.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// What it is for.
    #[schema(max_length = 4000)]
    description: Option<String>,
}

/// What is to be changed of a knowledge base; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KnowledgeBaseChange {
    /// What people call it.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// What it is for; an empty text takes it away.
    #[schema(max_length = 4000)]
    description: Option<String>,
}

fn name(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|error| bad_value("name", &error))
}

fn description(text: &str) -> Result<Description, Problem> {
    Description::parse(text).map_err(|error| bad_value("description", &error))
}

/// A knowledge base that the caller may see.
///
/// # Errors
/// 404 when there is none of that id, or it is not the caller's.
pub fn visible(
    app: &App,
    caller: &Caller,
    id: Uuid,
) -> Result<knowledge_base::KnowledgeBase, Problem> {
    let base = app.read(|db| knowledge_base::get(db, id))?.ok_or_else(not_found)?;
    reach(app, caller, base.product_id, not_found)?;
    Ok(base)
}

/// The product that a request means: the one it names, or an API token's own.
///
/// # Errors
/// 422 when a session names none.
pub fn meant_product(caller: &Caller, named: Option<Uuid>) -> Result<Uuid, Problem> {
    named.or(caller.bound_product()).ok_or_else(|| {
        Problem::invalid("product_missing", "say which product you mean: send its product_id")
            .with_error(FieldError::new(
                "/product_id",
                "missing",
                "must be given in a user session",
            ))
    })
}

fn not_found() -> Problem {
    Problem::not_found(
        "knowledge_base_not_found",
        "there is no such knowledge base: list those of the product to see which there are",
    )
}

/// Make a knowledge base
///
/// In a product that has its default one already.
#[utoipa::path(post, path = "/api/knowledge-base", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::WriteKnowledge))), params(IdempotencyKeyParam),
    responses((status = 201, description = "The new knowledge base", body = Envelope<KnowledgeBase>), WriteFailures))]
async fn create_knowledge_base(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    body: Json<NewKnowledgeBase>,
) -> Result<Reply<KnowledgeBase>, Problem> {
    let new = body.read()?;
    let product = meant_product(&caller, new.product_id)?;
    caller.product(&app, product)?;
    let name = name(&new.name)?;
    let description = new.description.as_deref().map(description).transpose()?;
    let ask = circumstances.ask(&app, &caller, Some(product), &[&body.bytes]).await?;
    let done = app.commands.create_knowledge_base(name, description, &ask).await?;
    let position = app.applied(&done).await?;
    let id = done.stream_id().unwrap_or_default();
    let base =
        app.read_after(&done, |db| knowledge_base::get(db, id)).await?.ok_or_else(not_found)?;
    let etag = ETag::of_sequence(base.sequence);
    let location = format!("/api/knowledge-base/base/{id}");
    let reply = Reply::created(location, "Knowledge base created", shown(&app, base).await?);
    Ok(reply.etag(&etag).position(position).replayed(done.replayed))
}

/// List the knowledge bases of a product
///
/// Newest first; the default one is the oldest.
#[utoipa::path(get, path = "/api/knowledge-base/{productId}", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::ReadKnowledge))),
    params(("productId" = Uuid, Path, description = "The product"), PageParams, MinPositionParam),
    responses((status = 200, description = "The knowledge bases", body = ListEnvelope<KnowledgeBase>), ReadFailures))]
async fn list_knowledge_bases(
    State(app): State<App>,
    caller: Caller,
    Path(product): Path<Uuid>,
    query: ListQuery<NoFilters>,
) -> Result<ListReply<KnowledgeBase>, Problem> {
    caller.product(&app, product)?;
    let window = window(&query)?;
    let listing = app.read(|db| knowledge_base::list(db, product, window))?;
    let total = total(&query, &listing);
    let mut bases = Vec::with_capacity(listing.items.len());
    for base in listing.items {
        bases.push(shown(&app, base).await?);
    }
    Ok(query.reply("Knowledge bases", bases, total))
}

/// Look at a knowledge base
#[utoipa::path(get, path = "/api/knowledge-base/base/{knowledgeBaseId}", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::ReadKnowledge))),
    params(("knowledgeBaseId" = Uuid, Path, description = "The knowledge base"), MinPositionParam, IfNoneMatchParam),
    responses((status = 200, description = "The knowledge base", body = Envelope<KnowledgeBase>),
              (status = 304, description = "The client has it already"), ReadFailures))]
async fn get_knowledge_base(
    State(app): State<App>,
    caller: Caller,
    known: IfNoneMatch,
    Path(id): Path<Uuid>,
) -> Result<Reply<KnowledgeBase>, Problem> {
    let base = visible(&app, &caller, id)?;
    let etag = ETag::of_sequence(base.sequence);
    let base = shown(&app, base).await?;
    Ok(Reply::ok("Knowledge base", base).etag_unless_known(&etag, &known))
}

/// Change a knowledge base
#[utoipa::path(put, path = "/api/knowledge-base/base/{knowledgeBaseId}", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::WriteKnowledge))),
    params(("knowledgeBaseId" = Uuid, Path, description = "The knowledge base"), IfMatchParam),
    responses((status = 200, description = "The knowledge base as it is now", body = Envelope<KnowledgeBase>),
              WriteFailures))]
async fn change_knowledge_base(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: Json<KnowledgeBaseChange>,
) -> Result<Reply<KnowledgeBase>, Problem> {
    let product = visible(&app, &caller, id)?.product_id;
    let change = body.read()?;
    let name = change.name.as_deref().map(name).transpose()?;
    let description = change.description.as_deref().map(description).transpose()?;
    let ask = circumstances.ask(&app, &caller, Some(product), &[&body.bytes]).await?;
    let done = app.commands.change_knowledge_base(id, name, description, &ask).await?;
    let position = app.applied(&done).await?;
    let base =
        app.read_after(&done, |db| knowledge_base::get(db, id)).await?.ok_or_else(not_found)?;
    let etag = ETag::of_sequence(base.sequence);
    let base = shown(&app, base).await?;
    Ok(Reply::ok("Knowledge base changed", base)
        .etag(&etag)
        .position(position)
        .replayed(done.replayed))
}

/// Delete a knowledge base
///
/// With all its files. A product's default one stays as long as the product. `202` where the files take
/// a while: they follow in any case.
#[utoipa::path(delete, path = "/api/knowledge-base/base/{knowledgeBaseId}", tag = "Knowledge base",
    extensions(("x-access" = json!(Right::WriteKnowledge))),
    params(("knowledgeBaseId" = Uuid, Path, description = "The knowledge base"), IfMatchParam),
    responses((status = 200, description = "It is gone", body = Envelope<Deleted>),
              (status = 202, description = "It is gone, and its files are being deleted", body = Envelope<Deleted>),
              WriteFailures))]
async fn delete_knowledge_base(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
) -> Result<Reply<Deleted>, Problem> {
    let product = visible(&app, &caller, id)?.product_id;
    let ask = circumstances.ask(&app, &caller, Some(product), &[]).await?;
    let done = app.commands.delete_knowledge_base(id, &ask).await?;
    app.applied(&done).await?;
    let (is_empty, position) = app.erased(|db| file::is_any_in(db, id)).await?;
    Ok(deleted("Knowledge base deleted", id, is_empty).position(position))
}

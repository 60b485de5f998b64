//! Products: `/api/products`.
//!
//! The rule of this file: what people say about a product is opened only to be answered.

use axum::extract::State;
use domain::{Description, Name};
use projections::{Said, product};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Right;
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
use crate::http::{ETag, IfNoneMatch, Json, ListQuery, ListReply, Path, Problem, Reply};
use crate::lists::{total, window};

/// The routes of products.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, change, delete))
}

/// How long what is deleted in a product is kept.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Retention {
    /// A file is erased when so many days have passed since it was deleted, as if somebody had asked for it: 0 erases
    /// every file with its deletion. It counts for files, too, that were deleted before it was set. `null`, as in a new
    /// product: a deleted file is erased only when somebody asks for it.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(maximum = 36500)]
    deleted_files_days: Option<u32>,
}

/// A product: a workspace inside an organization.
#[derive(Debug, Serialize, ToSchema)]
struct Product {
    /// Its id.
    id: Uuid,
    /// Its name.
    name: String,
    /// What it is for.
    description: Option<String>,
    /// The knowledge base that it was born with.
    default_knowledge_base_id: Uuid,
    /// How long what is deleted in it is kept.
    retention: Retention,
    /// When it was made.
    created_at: String,
    /// When it was last changed.
    updated_at: String,
}

async fn shown(app: &App, product: product::Product) -> Result<Product, Problem> {
    let stream = format!("product-{}", product.id);
    let said = product.description;
    let description = Said::open(said, app.commands.vault(), product.organization, &stream).await?;
    Ok(Product {
        id: product.id,
        name: product.name,
        description,
        default_knowledge_base_id: product.default_knowledge_base_id,
        retention: Retention { deleted_files_days: product.deleted_files_days },
        created_at: product.created_at,
        updated_at: product.updated_at,
    })
}

/// A product that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewProduct {
    /// What people call it.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// What it is for.
    #[schema(max_length = 4000)]
    description: Option<String>,
}

/// What is to be changed of a product; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ProductChange {
    /// What people call it.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// What it is for.
    #[schema(max_length = 4000)]
    description: Option<String>,
    /// How long what is deleted in it is kept.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    retention: Option<Retention>,
}

/// What is given must say something: a rule is taken away by its number, and not by `null` in its place.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Retention>, D::Error> {
    Retention::deserialize(deserializer).map(Some)
}

fn name(text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|error| bad_value("name", &error))
}

fn description(text: &str) -> Result<Description, Problem> {
    Description::parse(text).map_err(|error| bad_value("description", &error))
}

fn retention(rule: Retention) -> Result<domain::Retention, Problem> {
    domain::Retention::parse(rule.deleted_files_days)
        .map_err(|error| bad_value("retention/deleted_files_days", &error))
}

/// List products
///
/// Newest first. An API token sees its own product.
#[utoipa::path(get, path = "/api/products", tag = "Products",
    extensions(("x-access" = json!(Right::ReadProducts))),
    params(PageParams, MinPositionParam),
    responses((status = 200, description = "The products", body = ListEnvelope<Product>), ReadFailures))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery<NoFilters>,
) -> Result<ListReply<Product>, Problem> {
    let window = window(&query)?;
    let listing =
        app.read(|db| product::list(db, caller.organization, caller.bound_product(), window))?;
    let total = total(&query, &listing);
    let mut products = Vec::with_capacity(listing.items.len());
    for product in listing.items {
        products.push(shown(&app, product).await?);
    }
    Ok(query.reply("Products", products, total))
}

/// Make a product
///
/// A new product has a default knowledge base.
#[utoipa::path(post, path = "/api/products", tag = "Products",
    extensions(("x-access" = json!(Right::WriteProducts))), params(IdempotencyKeyParam),
    responses((status = 201, description = "The new product", body = Envelope<Product>), WriteFailures))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    body: Json<NewProduct>,
) -> Result<Reply<Product>, Problem> {
    let new = body.read()?;
    let name = name(&new.name)?;
    let description = new.description.as_deref().map(description).transpose()?;
    let ask = circumstances.ask(&app, &caller, None, &[&body.bytes]).await?;
    let done = app.commands.create_product(name, description, &ask).await?;
    let position = app.applied_with_the_rest(&done).await?;
    let id = done.stream_id().unwrap_or_default();
    let product = app.read_after(&done, |db| product::get(db, id)).await?.ok_or_else(gone)?;
    let etag = ETag::of_sequence(product.sequence);
    let location = format!("/api/products/{id}");
    let product = shown(&app, product).await?;
    Ok(Reply::created(location, "Product created", product)
        .etag(&etag)
        .position(position)
        .replayed(done.replayed))
}

/// Look at a product
#[utoipa::path(get, path = "/api/products/{productId}", tag = "Products",
    extensions(("x-access" = json!(Right::ReadProducts))),
    params(("productId" = Uuid, Path), MinPositionParam, IfNoneMatchParam),
    responses((status = 200, description = "The product", body = Envelope<Product>),
              (status = 304, description = "The client has it already"), ReadFailures))]
async fn get(
    State(app): State<App>,
    caller: Caller,
    known: IfNoneMatch,
    Path(id): Path<Uuid>,
) -> Result<Reply<Product>, Problem> {
    let product = caller.product(&app, id)?;
    let etag = ETag::of_sequence(product.sequence);
    let product = shown(&app, product).await?;
    Ok(Reply::ok("Product", product).etag_unless_known(&etag, &known))
}

/// Change a product
///
/// What is left out stays. `retention` says after how many days the files that are deleted in it are erased: what was
/// uploaded, its text and its vectors are removed, and a citation of it tells only where it stood. **What is erased
/// does not come back**, and a rule reaches what was deleted before it was set.
#[utoipa::path(put, path = "/api/products/{productId}", tag = "Products",
    extensions(("x-access" = json!(Right::WriteProducts))),
    params(("productId" = Uuid, Path), IfMatchParam),
    responses((status = 200, description = "The product as it is now", body = Envelope<Product>), WriteFailures))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
    body: Json<ProductChange>,
) -> Result<Reply<Product>, Problem> {
    caller.product(&app, id)?;
    let change = body.read()?;
    let name = change.name.as_deref().map(name).transpose()?;
    let description = change.description.as_deref().map(description).transpose()?;
    let retention = change.retention.map(retention).transpose()?;
    let ask = circumstances.ask(&app, &caller, Some(id), &[&body.bytes]).await?;
    let done = app.commands.change_product(id, name, description, retention, &ask).await?;
    let position = app.applied(&done).await?;
    let product = app.read_after(&done, |db| product::get(db, id)).await?.ok_or_else(gone)?;
    let etag = ETag::of_sequence(product.sequence);
    let product = shown(&app, product).await?;
    Ok(Reply::ok("Product changed", product).etag(&etag).position(position).replayed(done.replayed))
}

/// Delete a product
///
/// What is inside is gone with it: its API tokens, agents, knowledge bases and files. The bytes of its
/// files are removed, and the key that its texts are sealed with is shredded. Its history stays in the
/// audit log. `202` where that takes a while: it follows in any case.
#[utoipa::path(delete, path = "/api/products/{productId}", tag = "Products",
    extensions(("x-access" = json!(Right::WriteProducts))),
    params(("productId" = Uuid, Path), IfMatchParam),
    responses((status = 200, description = "It is gone", body = Envelope<Deleted>),
              (status = 202, description = "It is gone, and what was inside is being erased", body = Envelope<Deleted>),
              WriteFailures))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    circumstances: Circumstances,
    Path(id): Path<Uuid>,
) -> Result<Reply<Deleted>, Problem> {
    caller.product(&app, id)?;
    let ask = circumstances.ask(&app, &caller, Some(id), &[]).await?;
    let done = app.commands.delete_product(id, &ask).await?;
    app.applied(&done).await?;
    let (is_erased, position) = app.erased(|db| product::is_left(db, id)).await?;
    Ok(deleted("Product deleted", id, is_erased).position(position))
}

fn gone() -> Problem {
    Problem::not_found("product_not_found", "the product was deleted in the meantime")
}

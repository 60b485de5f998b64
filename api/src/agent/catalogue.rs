//! The catalogue: `/api/agent-base/catalog`.

use domain::catalogue;
use domain::manifest::Manifest;
use projections::Listing;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::access::Right;
use crate::http::openapi::{PageParams, ReadFailures};
use crate::http::page::NoFilters;
use crate::http::reply::ListEnvelope;
use crate::http::{FieldError, ListQuery, ListReply, Problem};
use crate::lists::total;

/// An agent that can be installed by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CatalogueEntry {
    /// What it is installed by.
    name: String,
    /// The manifest's version.
    version: String,
    /// What people call it.
    title: String,
    /// What it does, in a sentence.
    summary: String,
    /// The JSON Schema of its configuration, where it takes one.
    #[schema(value_type = Option<Object>)]
    config: Option<Value>,
    /// The JSON Schema of what an execution works on, where it says so.
    #[schema(value_type = Option<Object>)]
    inputs: Option<Value>,
    /// What it may be executed with, to see what it does.
    #[schema(value_type = Option<Object>)]
    example_input: Option<Value>,
    /// The slots that something can be bound to.
    #[schema(value_type = Object)]
    requires: Value,
    /// The whole manifest.
    #[schema(value_type = Object)]
    manifest: Value,
}

impl From<&Manifest> for CatalogueEntry {
    fn from(manifest: &Manifest) -> CatalogueEntry {
        let document = Value::Object(manifest.canonical().clone());
        CatalogueEntry {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            title: manifest.title.to_string(),
            summary: manifest.summary.clone(),
            config: manifest.config.as_ref().map(|schema| schema.document().clone()),
            inputs: manifest.inputs.as_ref().map(|schema| schema.document().clone()),
            example_input: catalogue::example(&manifest.name).cloned(),
            requires: document.get("requires").cloned().unwrap_or_else(|| serde_json::json!({})),
            manifest: document,
        }
    }
}

/// List the agents that can be installed by name
///
/// In the order of the catalogue.
#[utoipa::path(get, path = "/api/agent-base/catalog", tag = "Agents",
    extensions(("x-access" = json!(Right::ReadAgents))), params(PageParams),
    responses((status = 200, description = "The catalogue", body = ListEnvelope<CatalogueEntry>), ReadFailures))]
pub(super) async fn list_catalogue(
    query: ListQuery<NoFilters>,
) -> Result<ListReply<CatalogueEntry>, Problem> {
    let window = crate::lists::window(&query)?;
    let all = catalogue::catalogue();
    // Its own numbers stand for positions: it is never too long for page numbers.
    let first = usize::try_from(window.cursor.unwrap_or(window.offset)).unwrap_or(usize::MAX);
    let size = usize::try_from(window.size).unwrap_or(usize::MAX);
    let items = all.iter().skip(first).take(size).map(CatalogueEntry::from).collect();
    let listing = Listing { items, total: all.len() as u64, total_is_capped: false, cursor: None };
    let total = total(&query, &listing);
    Ok(query.reply("Catalogue", listing.items, total))
}

/// The manifest of a catalogue entry.
pub(super) fn find(name: &str, version: Option<&str>) -> Result<Manifest, Problem> {
    if let Some(found) = catalogue::find(name, version) {
        return Ok(found.clone());
    }
    let (field, message) = match catalogue::find(name, None) {
        Some(known) => (
            "/version",
            format!("the catalogue has {name} in version {}: ask for that", known.version),
        ),
        None => (
            "/agent",
            "the catalogue has no such agent: GET /api/agent-base/catalog lists it".to_owned(),
        ),
    };
    const CODE: &str = "catalogue_entry_not_found";
    Err(Problem::invalid(CODE, message.clone()).with_error(FieldError::new(field, CODE, message)))
}

//! The audit log: `/api/audit-logs`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use projections::audit_log::{self, Entry, Filter};
use projections::{SealedField, Window, stored_time};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Right;
use crate::app::App;
use crate::caller::Caller;
use crate::http::openapi::{MinPositionParam, PageParams, ReadFailures};
use crate::http::reply::ListEnvelope;
use crate::http::{ListQuery, ListReply, Problem, Queries};
use crate::lists::{growing_total, window};

/// How many rows an export reads at once.
const EXPORT: u64 = 1_000;

/// The routes of the audit log that answer soon.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_audit_logs))
}

/// The routes of the audit log that may take long.
pub fn long_router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(export_audit_logs))
}

/// One fact: who did what to which resource, when, from where, with what outcome.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// The id of its event.
    pub id: Uuid,
    /// The position of its event in the log.
    pub position: u64,
    /// When.
    pub at: String,
    /// Who: `user:<id>`, `token:<id>`, `system:<name>` or `anonymous`.
    #[schema(example = "user:01936f6e-7d3c-7a10-8000-000000000000")]
    pub actor: String,
    /// What was done, as `created`.
    #[schema(example = "created")]
    pub action: String,
    /// To what kind of resource.
    pub resource_type: Option<String>,
    /// To which resource.
    pub resource_id: Option<String>,
    /// In which product.
    pub product_id: Option<Uuid>,
    /// `success`, `denied` or `failed`.
    #[schema(example = "success")]
    pub outcome: String,
    /// From which address; null when nobody knows, or when it was shredded.
    pub address: Option<String>,
    /// With which user agent; null when nobody knows, or when it was shredded.
    pub user_agent: Option<String>,
    /// In which request.
    pub request_id: Option<String>,
    /// The type of its event, as `agent.installed.v1`.
    pub event_type: String,
    /// What else the event says, without what is sealed.
    pub details: Value,
}

/// Which facts are wanted. Every condition narrows.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditFilters {
    /// Who: `user:<id>`, `token:<id>`, or the id alone.
    actor: Option<String>,
    /// What was done, as `created`.
    action: Option<String>,
    /// To what kind of resource, as `api_token`.
    resource_type: Option<String>,
    /// To which resource.
    resource_id: Option<String>,
    /// In which product.
    product_id: Option<Uuid>,
    /// With what outcome.
    #[param(inline)]
    outcome: Option<Outcome>,
    /// Not before this time (RFC 3339).
    from: Option<DateTime<Utc>>,
    /// Before this time (RFC 3339).
    to: Option<DateTime<Utc>>,
    /// In which request.
    request_id: Option<String>,
    /// Every one of these words stands somewhere in it.
    q: Option<String>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It was done.
    Success,
    /// Whoever asked may not.
    Denied,
    /// It could not be done.
    Failed,
}

impl AuditFilters {
    /// The filter of the read model; an API token sees its own product alone.
    ///
    /// # Errors
    /// 404 for the product of somebody else.
    fn into_filter(self, caller: &Caller) -> Result<Filter, Problem> {
        let outcome = self.outcome.map(|outcome| match outcome {
            Outcome::Success => "success".to_owned(),
            Outcome::Denied => "denied".to_owned(),
            Outcome::Failed => "failed".to_owned(),
        });
        Ok(Filter {
            actor: self.actor,
            action: self.action,
            resource_type: self.resource_type,
            resource_id: self.resource_id,
            product: caller.narrowed(self.product_id)?,
            outcome,
            from: self.from.map(stored_time),
            to: self.to.map(stored_time),
            request_id: self.request_id,
            q: self.q,
        })
    }
}

/// Opens what is sealed in a row, for its answer. What can never be opened again is left out, and logged:
/// one damaged key must not hide the rest of the history.
///
/// # Errors
/// The vault cannot be reached.
pub async fn shown(app: &App, entry: Entry) -> Result<AuditEntry, Problem> {
    let address = opened(app, &entry, entry.address.as_ref(), "address").await?;
    let user_agent = opened(app, &entry, entry.user_agent.as_ref(), "user_agent").await?;
    Ok(AuditEntry {
        id: entry.event_id,
        position: entry.position,
        at: entry.at,
        actor: entry.actor,
        action: entry.action,
        resource_type: entry.resource_type,
        resource_id: entry.resource_id,
        product_id: entry.product,
        outcome: entry.outcome,
        address,
        user_agent,
        request_id: entry.request_id,
        event_type: entry.event_type,
        details: entry.details,
    })
}

async fn opened(
    app: &App,
    entry: &Entry,
    sealed: Option<&SealedField>,
    field: &str,
) -> Result<Option<String>, Problem> {
    let Some(sealed) = sealed else { return Ok(None) };
    let opened = sealed.open_client(app.commands.vault(), entry.organization, field).await;
    match opened {
        Err(projections::Error::Vault(error)) if error.is_damage() => {
            tracing::error!(%error, position = entry.position, field, "an audit row is shown without this");
            Ok(None)
        }
        opened => Ok(opened?),
    }
}

/// Ask the audit log
///
/// Who did what to which resource, when, from where, with what outcome; refused and failed attempts
/// included. Newest first. What happens meanwhile moves the pages, but not what `pagination.cursor` leads to.
#[utoipa::path(get, path = "/api/audit-logs", tag = "Log and audit",
    extensions(("x-access" = json!(Right::ReadAudit))),
    params(PageParams, AuditFilters, MinPositionParam),
    responses((status = 200, description = "The facts", body = ListEnvelope<AuditEntry>), ReadFailures))]
async fn list_audit_logs(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery<AuditFilters>,
) -> Result<ListReply<AuditEntry>, Problem> {
    let filter = query.filters.clone().into_filter(&caller)?;
    let window = window(&query)?;
    app.write_uses(None).await?;
    app.write_rejections().await?;
    let listing =
        app.read_audit(|db| audit_log::list(db, caller.organization, &filter, window)).await?;
    let total = growing_total(&query, &listing);
    let mut entries = Vec::with_capacity(listing.items.len());
    for entry in listing.items {
        entries.push(shown(&app, entry).await?);
    }
    Ok(query.reply("Audit log", entries, total))
}

/// How an export is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ExportFormat {
    /// One JSON object a line.
    #[default]
    Ndjson,
    /// Comma-separated values with a header (RFC 4180).
    Csv,
}

/// How facts are exported.
#[derive(Clone, Copy, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ExportOptions {
    /// How they are written.
    #[serde(default)]
    #[param(inline, required = false)]
    format: ExportFormat,
}

/// Export the audit log
///
/// As a stream, newest first: JSON lines, or comma-separated values. In the latter a value that begins with
/// `=`, `+`, `-`, `@`, a tab or a carriage return has `'` before it, so that no spreadsheet takes it for a
/// formula.
#[utoipa::path(get, path = "/api/audit-logs/export", tag = "Log and audit",
    extensions(("x-access" = json!(Right::ReadAudit))),
    params(ExportOptions, AuditFilters, MinPositionParam),
    responses((status = 200, description = "The facts",
               content((String = "application/x-ndjson"), (String = "text/csv"))), ReadFailures))]
async fn export_audit_logs(
    State(app): State<App>,
    caller: Caller,
    Queries(options, filters): Queries<ExportOptions, AuditFilters>,
) -> Result<Response, Problem> {
    let filter = Arc::new(filters.into_filter(&caller)?);
    app.write_uses(None).await?;
    app.write_rejections().await?;
    let ExportOptions { format } = options;
    let organization = caller.organization;
    let lines = async_stream::try_stream! {
        if format == ExportFormat::Csv {
            yield Bytes::from(csv_line(&AuditEntry::columns().map(str::to_owned))?);
        }
        let mut cursor = None;
        loop {
            let window = Window { offset: 0, size: EXPORT, cursor };
            let listing = app.read_audit(|db| audit_log::list(db, organization, &filter, window)).await?;
            let mut text = Vec::new();
            for entry in listing.items {
                let entry = shown(&app, entry).await?;
                text.extend(match format {
                    ExportFormat::Ndjson => json_line(&entry)?,
                    ExportFormat::Csv => csv_line(&entry.cells())?,
                });
            }
            yield Bytes::from(text);
            cursor = listing.cursor;
            if cursor.is_none() {
                break;
            }
        }
    };
    let lines: std::pin::Pin<Box<dyn futures::Stream<Item = Result<Bytes, Problem>> + Send>> =
        Box::pin(lines);
    let (media_type, name) = match format {
        ExportFormat::Ndjson => {
            ("application/x-ndjson", "attachment; filename=\"audit-log.ndjson\"")
        }
        ExportFormat::Csv => ("text/csv; charset=utf-8", "attachment; filename=\"audit-log.csv\""),
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (CONTENT_DISPOSITION, HeaderValue::from_static(name)),
    ];
    Ok((headers, Body::from_stream(lines)).into_response())
}

fn json_line(entry: &AuditEntry) -> Result<Vec<u8>, Problem> {
    let mut line = serde_json::to_vec(entry).map_err(|error| Problem::internal(&error))?;
    line.push(b'\n');
    Ok(line)
}

fn csv_line(cells: &[String]) -> Result<Vec<u8>, Problem> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    writer
        .write_record(cells.iter().map(|cell| inert(cell)))
        .map_err(|error| Problem::internal(&error))?;
    writer.into_inner().map_err(|error| Problem::bug(&error.to_string()))
}

/// A cell that no spreadsheet takes for a formula: much of it was said by people from outside.
fn inert(cell: &str) -> String {
    match cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{cell}"),
        false => cell.to_owned(),
    }
}

impl AuditEntry {
    fn columns() -> [&'static str; 14] {
        [
            "position",
            "at",
            "actor",
            "action",
            "resource_type",
            "resource_id",
            "product_id",
            "outcome",
            "address",
            "user_agent",
            "request_id",
            "event_type",
            "event_id",
            "details",
        ]
    }

    fn cells(&self) -> [String; 14] {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        [
            self.position.to_string(),
            self.at.clone(),
            self.actor.clone(),
            self.action.clone(),
            text(&self.resource_type),
            text(&self.resource_id),
            self.product_id.map(|product| product.to_string()).unwrap_or_default(),
            self.outcome.clone(),
            text(&self.address),
            text(&self.user_agent),
            text(&self.request_id),
            self.event_type.clone(),
            self.id.to_string(),
            self.details.to_string(),
        ]
    }
}

#[cfg(test)]
mod tests;

//! The audit log: who did what to which resource, when, from where, with what outcome.
//!
//! The rule of this file: every event of the log is one row, except those that report several facts
//! (uses of a token, refused attempts), which are one row for each, and the pieces of an answer of the
//! assistant, which are none: that it was asked, and what came of it, are.

use std::borrow::Cow;
use std::hash::Hasher;

use domain::Timestamp;
use domain::access_log::AccessLogEvent;
use domain::conversation::ConversationEvent;
use domain::integration_use::IntegrationUseEvent;
use domain::token_usage::TokenUsageEvent;
use eventlog::RecordedEvent;
use fnv::FnvHasher;
use rusqlite::{Connection, Row, params};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::columns::{id, json as json_column, optional_id};
use crate::engine::{ReadModel, Writer, stored_time};
use crate::listing::Query;
use crate::{Error, Listing, SealedField, Window, decode};

/// How many rows one event can make. Beyond position 2^51 (two PiB of a KurrentDB's file) a place in
/// the list is no number of SQLite's any more, and the read model stops there.
const PLACES: u64 = 4_096;

/// A piece of an answer: several come in a second.
const PIECE: &str = "chat_run.progressed.v1";

/// How a sealed text begins in JSON.
const SEALED_TEXT: &str = "\"s1.";

/// How an object begins that is sealed text, here or in a blob: seen before it is read.
const SEALED_PAYLOADS: [&str; 2] = ["{\"sealed\":", "{\"blob\":"];

/// How much of a payload is shown with its row, in bytes.
const DETAILS: usize = 4_096;

/// One row of the audit log.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place in the list.
    pub cursor: u64,
    /// The position of its event.
    pub position: u64,
    /// The id of its event.
    pub event_id: Uuid,
    /// The type of its event.
    pub event_type: String,
    /// The stream of its event.
    pub stream: String,
    /// When.
    pub at: String,
    /// The tenant.
    pub organization: Uuid,
    /// The product, where there is one.
    pub product: Option<Uuid>,
    /// Who, as `user:<id>`.
    pub actor: String,
    /// What, as `created`.
    pub action: String,
    /// To what kind of resource.
    pub resource_type: Option<String>,
    /// To which resource.
    pub resource_id: Option<String>,
    /// `success`, `denied` or `failed`.
    pub outcome: String,
    /// The request.
    pub request_id: Option<String>,
    /// From where: see [`SealedField::open_client`].
    pub address: Option<SealedField>,
    /// With what.
    pub user_agent: Option<SealedField>,
    /// What else the event says, without what is sealed.
    pub details: Value,
}

/// What an audit question asks for. Every condition narrows.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Who, as `user:<id>`, or the id alone.
    pub actor: Option<String>,
    /// What.
    pub action: Option<String>,
    /// To what kind of resource.
    pub resource_type: Option<String>,
    /// To which resource.
    pub resource_id: Option<String>,
    /// In which product.
    pub product: Option<Uuid>,
    /// With what outcome.
    pub outcome: Option<String>,
    /// Not before this time.
    pub from: Option<String>,
    /// Before this time.
    pub to: Option<String>,
    /// In which request: that of a row, or one of its requests where it is of several.
    pub request_id: Option<String>,
    /// Every one of these words stands somewhere in the row.
    pub q: Option<String>,
}

/// The read model of the audit log.
pub struct AuditLog;

impl ReadModel for AuditLog {
    fn name(&self) -> &'static str {
        "audit_log"
    }

    fn version(&self) -> u32 {
        9
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/audit_log.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &[]
    }

    fn file(&self) -> &'static str {
        "audit"
    }

    fn reader_indexes(&self) -> &'static [&'static str] {
        &["audit_by_resource", "audit_by_actor", "audit_by_product", "audit_by_request"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        match event.stream.category() {
            "token_usage" => uses(db, event),
            "access_log" => rejections(db, event),
            "integration_use" => integration_use(db, event),
            "conversation" => conversation(db, event),
            "chat_run" if event.event_type == PIECE => Ok(()),
            _ => change(db, event),
        }
    }
}

/// The columns that differ between rows of one event.
struct Line<'a> {
    place: u64,
    at: String,
    product: Option<Uuid>,
    actor: &'a str,
    action: &'a str,
    resource_type: Option<&'a str>,
    resource_id: Option<&'a str>,
    outcome: &'a str,
    request_id: Option<&'a str>,
    address: Option<&'a str>,
    user_agent: Option<&'a str>,
    details: &'a str,
}

impl<'a> Line<'a> {
    /// What an event did to a resource, as it says itself.
    fn of(event: &'a RecordedEvent, resource: (&'a str, &'a str), details: &'a str) -> Line<'a> {
        Line {
            place: 0,
            at: stored_time(event.time),
            product: event.product,
            actor: &event.actor,
            action: action(event),
            resource_type: Some(resource.0),
            resource_id: Some(resource.1),
            outcome: "success",
            request_id: event.request_id.as_deref(),
            address: event.address.as_deref(),
            user_agent: event.user_agent.as_deref(),
            details,
        }
    }
}

fn insert(db: &Writer<'_>, event: &RecordedEvent, line: &Line<'_>) -> Result<(), Error> {
    let mut statement = db.prepare_cached(
        "INSERT INTO audit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
    )?;
    let stream = event.stream.as_str();
    let is_the_resource = line.resource_type == Some(event.stream.category())
        && line.resource_id == Some(event.stream.id());
    statement.execute(params![
        key_of_place(event, line.place),
        line.resource_id.map_or(0, key_of),
        key_of(line.actor),
        line.product.map_or(0, key_of_id),
        line.request_id.map(key_of),
        event.id,
        event.event_type,
        (!is_the_resource).then_some(stream),
        line.at,
        event.organization,
        line.product,
        line.actor,
        line.action,
        line.resource_type,
        line.resource_id,
        line.outcome,
        line.request_id,
        line.address,
        line.user_agent,
        line.details,
    ])?;
    Ok(())
}

/// The place in the list of a row of an event.
fn key_of_place(event: &RecordedEvent, place: u64) -> u64 {
    event.position.0.saturating_mul(PLACES).saturating_add(place.min(PLACES - 1))
}

/// The number by which rows are found that name this id, or this text (FNV-1a). Two may share one: the text itself
/// is compared as well. An actor's is that of its id, so that either finds it.
fn key_of(text: &str) -> i64 {
    let id = Uuid::try_parse(text)
        .or_else(|error| text.rsplit_once(':').map_or(Err(error), |(_, id)| Uuid::try_parse(id)));
    match id {
        Ok(id) => key_of_id(id),
        Err(_) => {
            let mut hasher = FnvHasher::default();
            hasher.write(text.as_bytes());
            hasher.finish().cast_signed()
        }
    }
}

/// [`key_of`] an id: its first half, which in most ids of this log says when it was made. What happens together
/// is about what was made together, and numbers that are nearly in order are sorted in two thirds of the time.
fn key_of_id(id: Uuid) -> i64 {
    id.as_u64_pair().0.cast_signed()
}

/// An event that is one fact: `agent.installed.v1` is "installed" of an "agent".
fn change(db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
    let category = match event.stream.category() {
        // What becomes of its instants, or of events, is the trigger's, under whose id they stand.
        "schedule" | "reaction" => "trigger",
        // Which of its executions may run is the agent's.
        "lane" => "agent",
        category => category,
    };
    let details = details(event)?;
    let line = Line::of(event, (category, event.stream.id()), &details);
    let has_failed = ["failed", "given_up"].iter().any(|end| line.action.ends_with(end));
    insert(db, event, &Line { outcome: if has_failed { "failed" } else { "success" }, ..line })
}

/// What an event did, as the audit log calls it: mostly the verb of its type.
fn action(event: &RecordedEvent) -> &str {
    let verb = event
        .event_type
        .strip_prefix(event.stream.category())
        .and_then(|rest| rest.strip_prefix('.'))
        .and_then(|rest| rest.rsplit_once('.'))
        .map_or(event.event_type.as_str(), |(verb, _)| verb);
    match (event.stream.category(), verb) {
        // The contract has one word for these.
        ("api_token", "changed" | "activated" | "deactivated") => "updated",
        _ => verb,
    }
}

/// What may be shown of a payload: without what is sealed, without hashes of secrets, and not whole
/// documents or long lists.
fn details(event: &RecordedEvent) -> Result<Cow<'_, str>, Error> {
    let data = event.data.get();
    let is_long = data.len() > DETAILS;
    if !is_long && event.keys.is_empty() && !data.contains("_hash\"") {
        return Ok(Cow::Borrowed(data));
    }
    let Members(members) = serde_json::from_str(data)?;
    let mut shown = String::from("{");
    for (name, value) in members {
        let value = value.get();
        let is_too_long = is_long
            && (value.starts_with('{') || (value.starts_with('[') && value.len() > DETAILS));
        if is_too_long || !is_shown(&name, value)? {
            continue;
        }
        if shown.len() > 1 {
            shown.push(',');
        }
        shown.push_str(&serde_json::to_string(&name)?);
        shown.push(':');
        shown.push_str(value);
    }
    shown.push('}');
    Ok(Cow::Owned(shown))
}

fn is_shown(name: &str, value: &str) -> Result<bool, Error> {
    if name.ends_with("_hash") || name == "private_key" {
        return Ok(false);
    }
    Ok(match value.as_bytes().first() {
        // What is sealed has no character that JSON writes in another way.
        Some(b'"') if !value.starts_with(SEALED_TEXT) => true,
        Some(b'"') => {
            let text: Cow<'_, str> = serde_json::from_str(value)?;
            vault::Sealed::parse(text.as_ref()).is_err()
        }
        Some(b'{') if SEALED_PAYLOADS.iter().any(|start| value.starts_with(start)) => false,
        Some(b'{') => {
            let Members(members) = serde_json::from_str(value)?;
            let is_sealed = |text: &str| text.starts_with(SEALED_TEXT);
            !members
                .iter()
                .any(|(name, value)| name == "sealed" || name == "blob" || is_sealed(value.get()))
        }
        _ => true,
    })
}

/// The members of a JSON object, their values as they stand.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

/// What a row says of uses of a token. The fields stand in order, as in every other payload.
#[derive(Serialize)]
struct UsageDetails<'a> {
    count: u64,
    first_at: &'a Timestamp,
    last_at: &'a Timestamp,
    method: &'a str,
    route: &'a str,
    status: u16,
}

/// Uses of an API token: each is a row of the token.
fn uses(db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
    let TokenUsageEvent::Recorded { uses } = decode(event)?;
    let actor = format!("token:{}", event.stream.id());
    for (place, usage) in (0..).zip(&uses) {
        let details = UsageDetails {
            count: usage.count,
            first_at: &usage.first_at,
            last_at: &usage.last_at,
            method: &usage.method,
            route: &usage.route,
            status: usage.status,
        };
        insert(
            db,
            event,
            &Line {
                place,
                at: usage.last_at.to_string(),
                product: event.product,
                actor: &actor,
                action: "used",
                resource_type: Some("api_token"),
                resource_id: Some(event.stream.id()),
                outcome: if usage.status < 400 { "success" } else { "failed" },
                request_id: None,
                address: usage.address.as_ref().map(|text| text.0.as_str()),
                user_agent: None,
                details: &serde_json::to_string(&details)?,
            },
        )?;
    }
    Ok(())
}

/// A use of a credential is a row of the integration that it is of.
fn integration_use(db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
    let (integration, succeeded) = match decode(event)? {
        IntegrationUseEvent::Called { integration, .. } => (integration, true),
        IntegrationUseEvent::Tested { integration, succeeded, .. } => (integration, succeeded),
    };
    let (details, integration) = (details(event)?, integration.to_string());
    let line = Line::of(event, ("integration", &integration), &details);
    insert(db, event, &Line { outcome: if succeeded { "success" } else { "failed" }, ..line })
}

/// What happened in a conversation is its own; an attempt to say something uses a credential besides, and is
/// a row of the integration that it is of.
fn conversation(db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
    change(db, event)?;
    let integration = match decode(event)? {
        ConversationEvent::ReplyAttempted { integration, .. }
        | ConversationEvent::FileAttempted { integration, .. } => integration,
        _ => return Ok(()),
    };
    let (details, integration) = (details(event)?, integration.to_string());
    let line = Line::of(event, ("integration", &integration), &details);
    insert(db, event, &Line { place: 1, action: "called", ..line })
}

/// Attempts that were refused: each is a row of what it was aimed at.
fn rejections(db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
    let AccessLogEvent::Rejected { attempts } = decode(event)?;
    for (place, attempt) in (0..).zip(&attempts) {
        let (request_id, others) = match attempt.request_ids.split_first() {
            Some((first, others)) => (Some(first.as_str()), others),
            None => (None, &[][..]),
        };
        let mut details = json!({
            "method": attempt.method, "path": attempt.path, "route": attempt.route, "status": attempt.status,
            "code": attempt.code, "count": attempt.count, "last_at": attempt.last_at,
        });
        if !others.is_empty() {
            details["request_ids"] = json!(attempt.request_ids);
        }
        insert(
            db,
            event,
            &Line {
                place,
                at: attempt.at.to_string(),
                product: attempt.product,
                actor: &attempt.actor,
                action: if is_failure(attempt.status) { "failed" } else { "rejected" },
                resource_type: attempt.resource_type.as_deref(),
                resource_id: attempt.resource_id.as_deref(),
                outcome: if matches!(attempt.status, 401 | 403 | 404) {
                    "denied"
                } else {
                    "failed"
                },
                request_id,
                address: attempt.address.as_ref().map(|text| text.0.as_str()),
                user_agent: attempt.user_agent.as_ref().map(|text| text.0.as_str()),
                details: &details.to_string(),
            },
        )?;
        for other in others {
            db.prepare_cached("INSERT OR IGNORE INTO audit_request VALUES (?1, ?2)")?
                .execute(params![other, key_of_place(event, place)])?;
        }
    }
    Ok(())
}

/// Whether an answer says that the machinery failed, and not the client.
fn is_failure(status: u16) -> bool {
    status >= 500 && status != 501
}

const COLUMNS: &str = "position, event_id, event_type, stream, at, organization, product, actor, action, \
                       resource_type, resource_id, outcome, request_id, address, user_agent, details";

fn read(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let cursor: u64 = row.get(0)?;
    let resource_type: Option<String> = row.get(9)?;
    let resource_id: Option<String> = row.get(10)?;
    let stream = match (row.get(3)?, &resource_type, &resource_id) {
        (None, Some(category), Some(id)) => format!("{category}-{id}"),
        (named, ..) => named.unwrap_or_default(),
    };
    let of_client = |column| -> rusqlite::Result<Option<SealedField>> {
        Ok(row.get::<_, Option<String>>(column)?.map(SealedField::of_client))
    };
    Ok(Entry {
        cursor,
        position: cursor / PLACES,
        event_id: id(row, 1)?,
        event_type: row.get(2)?,
        stream,
        at: row.get(4)?,
        organization: id(row, 5)?,
        product: optional_id(row, 6)?,
        actor: row.get(7)?,
        action: row.get(8)?,
        resource_type,
        resource_id,
        outcome: row.get(11)?,
        request_id: row.get(12)?,
        address: of_client(13)?,
        user_agent: of_client(14)?,
        details: json_column(row, 15)?,
    })
}

/// The answer to an audit question, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn list(
    db: &Connection,
    organization: Uuid,
    filter: &Filter,
    window: Window,
) -> Result<Listing<Entry>, Error> {
    question(organization, filter).list(db, window, read)
}

fn question(organization: Uuid, filter: &Filter) -> Query<'static> {
    let words: Vec<String> = filter
        .q
        .iter()
        .flat_map(|q| q.split_whitespace())
        .map(|word| {
            format!("%{}%", word.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"))
        })
        .collect();
    let actor = filter.actor.as_ref().map(|actor| match actor.parse::<Uuid>() {
        Ok(_) => format!("%:{actor}"),
        Err(_) => actor.clone(),
    });
    let actor_condition = match &actor {
        Some(actor) if actor.starts_with('%') => "actor LIKE ?",
        _ => "actor = ?",
    };
    let mut query = Query::new(COLUMNS, "audit", "position")
        .and("organization = ?", organization)
        .and_if("actor_key = ?", filter.actor.as_deref().map(key_of))
        .and_if(actor_condition, actor)
        .and_if("action = ?", filter.action.clone())
        .and_if("resource_type = ?", filter.resource_type.clone())
        .and_if("resource_key = ?", filter.resource_id.as_deref().map(key_of))
        .and_if("resource_id = ?", filter.resource_id.clone())
        .and_if("product_key = ?", filter.product.map(key_of_id))
        .and_if("product = ?", filter.product)
        .and_if("outcome = ?", filter.outcome.clone())
        .and_if("at >= ?", filter.from.clone())
        .and_if("at < ?", filter.to.clone());
    if let Some(request) = &filter.request_id {
        let condition = "position IN (SELECT position FROM audit WHERE request_key = ? AND request_id = ? \
                         UNION ALL SELECT position FROM audit_request WHERE request_id = ?)";
        let (key, request) = (key_of(request), request.clone());
        query =
            query.and_all(condition, [Box::new(key), Box::new(request.clone()), Box::new(request)]);
    }
    for word in words {
        query = query.and(
            "actor || ' ' || action || ' ' || event_type || ' ' || coalesce(stream, resource_type || '-' || resource_id) \
             || ' ' || coalesce(request_id, '') || ' ' || outcome || ' ' || coalesce(resource_id, '') || ' ' || details LIKE ? ESCAPE '\\'",
            word,
        );
    }
    query
}

#[cfg(test)]
mod tests;

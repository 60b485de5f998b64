//! Evaluations of knowledge bases as they are read.

use domain::evaluation::{EvaluationEvent, Summary};
use domain::knowledge_base::KnowledgeBaseEvent;
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::columns::{id, json};
use crate::engine::{ReadModel, Writer, stored_time};
use crate::execution::SealedPayload;
use crate::listing::Query;
use crate::{Error, Listing, Window, decode};

/// How well a knowledge base answered questions.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub organization: Uuid,
    /// The product.
    pub product: Uuid,
    /// What came of it.
    pub summary: Summary,
    /// Field `content` of its stream.
    pub content: SealedPayload,
    /// Who asked for it.
    pub requested_by: String,
    /// When it was over.
    pub created_at: String,
}

/// The read model of evaluations. Those of a knowledge base go with it.
pub struct Evaluations;

impl ReadModel for Evaluations {
    fn name(&self) -> &'static str {
        "evaluation"
    }

    fn version(&self) -> u32 {
        2
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/evaluation.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["evaluation", "knowledge_base"]
    }

    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        if event.stream.category() == "knowledge_base" {
            return match decode(event)? {
                KnowledgeBaseEvent::Deleted {} => {
                    db.prepare_cached("DELETE FROM evaluation WHERE knowledge_base = ?1")?
                        .execute([event.stream.id()])?;
                    Ok(())
                }
                KnowledgeBaseEvent::Created { .. }
                | KnowledgeBaseEvent::Changed { .. }
                | KnowledgeBaseEvent::Described { .. } => Ok(()),
            };
        }
        let EvaluationEvent::Finished { summary, content } = decode(event)?;
        let product = event
            .product
            .ok_or_else(|| Error::Unfit("an evaluation belongs to a product".into()))?;
        let content = SealedPayload::of(event, content);
        db.prepare_cached(
            "INSERT INTO evaluation VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            event.stream.id(),
            event.position.0,
            event.organization.to_string(),
            product.to_string(),
            summary.knowledge_base.to_string(),
            summary.mode,
            serde_json::to_string(&summary)?,
            content,
            event.actor,
            stored_time(event.time),
        ])?;
        Ok(())
    }
}

const COLUMNS: &str = "id, organization, product, summary, content, requested_by, created_at";

fn read(row: &Row<'_>) -> rusqlite::Result<Evaluation> {
    Ok(Evaluation {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        product: id(row, 2)?,
        summary: json(row, 3)?,
        content: row.get(4)?,
        requested_by: row.get(5)?,
        created_at: row.get(6)?,
    })
}

/// An evaluation by its id.
///
/// # Errors
/// The file cannot be read.
pub fn get(db: &Connection, evaluation: Uuid) -> Result<Option<Evaluation>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM evaluation WHERE id = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([evaluation.to_string()], read).optional()?)
}

/// The evaluations of a knowledge base, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn list(
    db: &Connection,
    knowledge_base: Uuid,
    mode: Option<String>,
    window: Window,
) -> Result<Listing<Evaluation>, Error> {
    Query::new(COLUMNS, "evaluation", "position")
        .and("knowledge_base = ?", knowledge_base.to_string())
        .and_if("mode = ?", mode)
        .list(db, window, read)
}

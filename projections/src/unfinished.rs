//! What the log has begun and not finished: from where the process managers go on at a start.

use eventlog::Position;
use rusqlite::Connection;
use uuid::Uuid;

use crate::columns::id;
use crate::trigger::{self, KnownSchedule};
use crate::{Error, chat, conversation, delivery, file};

/// What is unfinished at a position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unfinished {
    /// Up to where the log was read.
    pub position: Position,
    /// Files that wait to be read, with their products.
    pub files: Vec<(Uuid, Uuid)>,
    /// Executions that have not ended.
    pub executions: Vec<Uuid>,
    /// Requests to stop several of them that were not finished.
    pub bulk_stops: Vec<Uuid>,
    /// Products whose default knowledge base is missing.
    pub products: Vec<Uuid>,
    /// Agents whose triggers do not fit: missing, or left over.
    pub agents: Vec<Uuid>,
    /// Users with sessions from before their password was changed.
    pub outdated_users: Vec<Uuid>,
    /// Deleted users of whom something is left to be erased.
    pub deleted_users: Vec<Uuid>,
    /// Deleted products of which something is left to be erased.
    pub deleted_products: Vec<Uuid>,
    /// Deleted knowledge bases with files that are left; not those of deleted products.
    pub deleted_knowledge_bases: Vec<Uuid>,
    /// Deleted files whose bytes are to be removed.
    pub erasing_files: Vec<Uuid>,
    /// Integrations whose data keys were rotated, or that are deleted and not erased yet.
    pub integrations: Vec<Uuid>,
    /// Deliveries that were not worked on, with their products.
    pub deliveries: Vec<(Uuid, Uuid)>,
    /// Conversations in which something is left to do or to say, with their products.
    pub conversations: Vec<(Uuid, Uuid)>,
    /// Runs of the assistant that have not ended, with their sessions and their products.
    pub chat_runs: Vec<(Uuid, Option<Uuid>, Uuid)>,
    /// Triggers that listen to the clock, and where each stands.
    pub schedules: Vec<KnownSchedule>,
    /// Triggers that listen to events.
    pub listeners: Vec<Uuid>,
}

/// What is unfinished, oldest first.
///
/// # Errors
/// The file cannot be read.
pub fn unfinished(db: &Connection) -> Result<Unfinished, Error> {
    let snapshot = db.unchecked_transaction()?;
    let ids = |sql: &str| -> Result<Vec<Uuid>, Error> {
        let mut statement = snapshot.prepare(sql)?;
        let rows = statement.query_map([], |row| id(row, 0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    };
    let position: u64 =
        snapshot.query_row("SELECT min(position) FROM checkpoint", [], |row| row.get(0))?;
    Ok(Unfinished {
        position: Position(position),
        files: file::unread(&snapshot)?,
        executions: ids("SELECT id FROM execution WHERE status IN ('queued', 'running', 'paused', 'waiting') ORDER BY position")?,
        bulk_stops: ids("SELECT id FROM bulk_stop ORDER BY position")?,
        products: ids(
            "SELECT id FROM product WHERE NOT EXISTS
             (SELECT 1 FROM knowledge_base WHERE knowledge_base.id = product.knowledge_base) ORDER BY position",
        )?,
        agents: ids(
            "SELECT id FROM agent WHERE (uninstalled_at IS NULL AND EXISTS
               (SELECT 1 FROM agent_version, json_each(agent_version.triggers) AS named
                WHERE agent_version.agent = agent.id AND NOT EXISTS
                 (SELECT 1 FROM agent_trigger WHERE agent_trigger.id = named.value ->> 'id')))
             OR (uninstalled_at IS NOT NULL AND EXISTS
               (SELECT 1 FROM agent_trigger
                WHERE agent_trigger.agent = agent.id AND deleted_at IS NULL)) ORDER BY position",
        )?,
        outdated_users: ids(
            "SELECT DISTINCT user.id FROM session JOIN user ON user.id = session.user
             WHERE session.ended IS NULL
             AND session.position < max(user.password_position, iif(session.issuer IS NULL, 0, user.unlinked_position))",
        )?,
        deleted_users: ids("SELECT id FROM deleted_user")?,
        deleted_products: ids("SELECT id FROM deleted_product")?,
        deleted_knowledge_bases: ids(
            "SELECT DISTINCT knowledge_base FROM file WHERE NOT EXISTS
               (SELECT 1 FROM knowledge_base WHERE knowledge_base.id = file.knowledge_base)
             AND NOT EXISTS (SELECT 1 FROM deleted_product WHERE deleted_product.id = file.product)",
        )?,
        erasing_files: ids("SELECT id FROM deleted_file WHERE state = 'erasing'")?,
        integrations: ids(
            "SELECT id FROM deleted_integration UNION ALL
             SELECT id FROM integration WHERE key_rotated_at IS NOT NULL",
        )?,
        deliveries: delivery::unsettled(&snapshot)?,
        conversations: conversation::unfinished(&snapshot)?,
        chat_runs: chat::unfinished(&snapshot)?,
        schedules: trigger::schedules(&snapshot)?,
        listeners: ids(
            "SELECT id FROM agent_trigger WHERE type = 'event' AND deleted_at IS NULL ORDER BY position",
        )?,
    })
}

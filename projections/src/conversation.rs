//! Conversations as they are read: what was said in them, still sealed, what became of the replies, and in
//! which of them something is left to do.

use domain::conversation::{Conversation as State, ConversationEvent, Fate, Talk};
use eventlog::RecordedEvent;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::columns::{id, json, optional_id};
use crate::engine::{ReadModel, Writer, stored_time};
use crate::execution::SealedPayload;
use crate::listing::Query;
use crate::{Error, Listing, Window, decode};

/// A conversation, without what is said in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub organization: Uuid,
    /// The product.
    pub product: Uuid,
    /// The communicator.
    pub integration: Uuid,
    /// How many messages came in.
    pub messages: u64,
    /// How many executions are awaited.
    pub running: u64,
    /// How many replies wait to be delivered.
    pub waiting: u64,
    /// How many were.
    pub delivered: u64,
    /// How many never will be.
    pub given_up: u64,
    /// The last time that a reply did not arrive.
    pub failure: Option<Failure>,
    /// When it began.
    pub started_at: String,
    /// When something happened in it.
    pub updated_at: String,
}

/// A reply that did not arrive.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// A stable code.
    pub code: String,
    /// Field `error` of the conversation's stream.
    pub error: Option<SealedPayload>,
    /// When.
    pub at: String,
}

/// Something that was said in a conversation, by either side.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// The id of the message or reply.
    pub id: Uuid,
    /// `message` or `reply`.
    pub kind: String,
    /// Field `content` of the conversation's stream.
    pub content: SealedPayload,
    /// The message that a reply answers.
    pub message: Option<Uuid>,
    /// The execution that says it.
    pub execution: Option<Uuid>,
    /// The step that says it.
    pub step_id: Option<String>,
    /// Of a message `received` or `handled`; of a reply `waiting`, `sending`, `delivered` or `given_up`.
    pub status: String,
    /// How often it was sent.
    pub attempts: u32,
    /// When it is sent again.
    pub retry_at: Option<String>,
    /// Why it was not delivered, or started nothing.
    pub code: Option<String>,
    /// Field `error` of the conversation's stream.
    pub error: Option<SealedPayload>,
    /// When it was said.
    pub at: String,
    /// When it was handled, delivered or given up.
    pub settled_at: Option<String>,
    /// What was said in place of a message last, and when: field `content`.
    pub changed: Option<(SealedPayload, String)>,
    /// When a message was taken back.
    pub withdrawn_at: Option<String>,
}

/// What became of a file of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct TakenFile {
    /// The message.
    pub message: Uuid,
    /// Which of its files, from 0.
    pub number: u32,
    /// The file of the knowledge base.
    pub file: Option<Uuid>,
    /// Why there is none.
    pub code: Option<String>,
    /// Field `error` of the conversation's stream.
    pub error: Option<SealedPayload>,
}

/// Which conversations are wanted, by their outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbox {
    /// Something waits to be delivered.
    Waiting,
    /// Something was given up.
    GivenUp,
}

/// The read model of conversations.
pub struct Conversations;

impl ReadModel for Conversations {
    fn name(&self) -> &'static str {
        "conversation"
    }

    fn version(&self) -> u32 {
        4
    }

    fn schema(&self) -> &'static str {
        include_str!("../../migrations/views/conversation.sql")
    }

    fn categories(&self) -> &'static [&'static str] {
        &["conversation"]
    }

    /// Folds the stream with the domain's own code.
    fn apply(&self, db: &Writer<'_>, event: &RecordedEvent) -> Result<(), Error> {
        let stream = event.stream.id();
        let known: Option<State> = db
            .prepare_cached("SELECT state FROM conversation WHERE id = ?1")?
            .query_row([stream], |row| json(row, 0))
            .optional()?;
        let mut state = known.unwrap_or_default();
        let said: ConversationEvent = decode(event)?;
        state.remember(said.clone());
        let Some(talk) = state.talk() else {
            return Err(Error::Unfit("a conversation begins with what is said".into()));
        };
        store(db, event, &state, talk)?;
        apply(db, event, said)
    }
}

/// The conversation itself.
fn store(db: &Writer<'_>, event: &RecordedEvent, state: &State, talk: &Talk) -> Result<(), Error> {
    let product =
        event.product.ok_or_else(|| Error::Unfit("a conversation belongs to a product".into()))?;
    let count = |wanted| talk.fates.values().filter(|fate| **fate == wanted).count();
    db.prepare_cached(
        "INSERT INTO conversation (id, position, organization, product, integration, state, is_unfinished, messages,
         running, waiting, delivered, given_up, started_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9, ?10, ?11, ?12, ?12)
         ON CONFLICT (id) DO UPDATE SET state = ?6, is_unfinished = ?7, running = ?8, waiting = ?9, delivered = ?10,
         given_up = ?11, updated_at = ?12",
    )?
    .execute(params![
        event.stream.id(),
        event.position.0,
        event.organization.to_string(),
        product.to_string(),
        talk.integration.to_string(),
        serde_json::to_string(state)?,
        talk.is_unfinished(),
        talk.running.len(),
        talk.outbox.len(),
        count(Fate::Delivered),
        count(Fate::GivenUp),
        stored_time(event.time),
    ])?;
    Ok(())
}

/// What is said in it, and what becomes of that.
fn apply(db: &Writer<'_>, event: &RecordedEvent, said: ConversationEvent) -> Result<(), Error> {
    use ConversationEvent as Did;
    let (conversation, at) = (event.stream.id(), stored_time(event.time));
    let sealed = |payload| SealedPayload::of(event, payload);
    let settle = |turn: Uuid, status: &str| {
        db.prepare_cached(
            "UPDATE conversation_turn SET status = ?3, retry_at = NULL, settled_at = ?4
             WHERE conversation = ?1 AND id = ?2",
        )?
        .execute(params![conversation, turn.to_string(), status, at])
    };
    let fail = |turn: Uuid, code: &str, error: &SealedPayload| {
        db.prepare_cached(
            "UPDATE conversation_turn SET code = ?3, error = ?4 WHERE conversation = ?1 AND id = ?2",
        )?
        .execute(params![conversation, turn.to_string(), code, error])
    };
    let note_failure = |code: &str, error: &SealedPayload| {
        db.prepare_cached(
            "UPDATE conversation SET code = ?2, error = ?3, failed_at = ?4 WHERE id = ?1",
        )?
        .execute(params![conversation, code, error, at])
    };
    let file = |message: Uuid,
                number: u32,
                file: Option<Uuid>,
                why: Option<(String, SealedPayload)>| {
        let (code, error) = why.unzip();
        db.prepare_cached(
            "INSERT OR REPLACE INTO conversation_file (conversation, message, number, file, code, error)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            conversation,
            message.to_string(),
            number,
            file.map(|id| id.to_string()),
            code,
            error
        ])
    };
    match said {
        Did::MessageReceived(message) => {
            db.prepare_cached(
                "INSERT INTO conversation_turn (position, conversation, id, kind, content, status, at)
                 VALUES (?1, ?2, ?3, 'message', ?4, 'received', ?5)",
            )?
            .execute(params![
                event.position.0,
                conversation,
                message.message.to_string(),
                sealed(message.content),
                at
            ])?;
            db.prepare_cached("UPDATE conversation SET messages = messages + 1 WHERE id = ?1")?
                .execute([conversation])?;
        }
        Did::MessageChanged { message, content } => {
            db.prepare_cached(
                "UPDATE conversation_turn SET changed = ?3, changed_at = ?4
                 WHERE conversation = ?1 AND id = ?2",
            )?
            .execute(params![
                conversation,
                message.to_string(),
                sealed(content),
                at
            ])?;
        }
        Did::MessageWithdrawn { message } => {
            db.prepare_cached(
                "UPDATE conversation_turn SET withdrawn_at = ?3 WHERE conversation = ?1 AND id = ?2",
            )?
            .execute(params![conversation, message.to_string(), at])?;
        }
        Did::ReplyQueued(reply) => {
            db.prepare_cached(
                "INSERT INTO conversation_turn (position, conversation, id, kind, content, message, execution, step_id,
                 status, at)
                 VALUES (?1, ?2, ?3, 'reply', ?4, ?5, ?6, ?7, 'waiting', ?8)",
            )?
            .execute(params![
                event.position.0,
                conversation,
                reply.reply.to_string(),
                sealed(reply.content),
                reply.message.map(|id| id.to_string()),
                reply.execution.map(|id| id.to_string()),
                reply.step_id,
                at
            ])?;
        }
        Did::TriggerFailed { message, code, error, .. } => {
            fail(message, &code, &sealed(error))?;
        }
        Did::FileAttempted { .. } | Did::ExecutionUnanswered { .. } => {}
        Did::FileTaken { message, number, file: taken, .. } => {
            file(message, number, Some(taken), None)?;
        }
        Did::FileRefused { message, number, code, error } => {
            file(message, number, None, Some((code, sealed(error))))?;
        }
        Did::MessageHandled { message, .. } => {
            settle(message, "handled")?;
        }
        Did::ReplyAttempted { reply, attempt, .. } => {
            db.prepare_cached(
                "UPDATE conversation_turn SET status = 'sending', attempts = ?3, retry_at = NULL
                 WHERE conversation = ?1 AND id = ?2",
            )?
            .execute(params![conversation, reply.to_string(), attempt])?;
        }
        Did::ReplyDelivered { reply, .. } => {
            settle(reply, "delivered")?;
        }
        Did::ReplyFailed { reply, code, error, retry_at, .. } => {
            let error = sealed(error);
            fail(reply, &code, &error)?;
            note_failure(&code, &error)?;
            db.prepare_cached(
                "UPDATE conversation_turn SET status = 'waiting', retry_at = ?3
                 WHERE conversation = ?1 AND id = ?2",
            )?
            .execute(params![
                conversation,
                reply.to_string(),
                retry_at.to_string()
            ])?;
        }
        Did::ReplyGivenUp { reply, code, error, .. } => {
            let error = sealed(error);
            fail(reply, &code, &error)?;
            note_failure(&code, &error)?;
            settle(reply, "given_up")?;
        }
    }
    Ok(())
}

const COLUMNS: &str = "id, organization, product, integration, messages, running, waiting, delivered, given_up, code, \
                       error, failed_at, started_at, updated_at";

fn read(row: &Row<'_>) -> rusqlite::Result<Conversation> {
    let (code, error): (Option<String>, _) = (row.get(9)?, row.get(10)?);
    let failure = match code {
        Some(code) => Some(Failure { code, error, at: row.get(11)? }),
        None => None,
    };
    Ok(Conversation {
        id: id(row, 0)?,
        organization: id(row, 1)?,
        product: id(row, 2)?,
        integration: id(row, 3)?,
        messages: row.get(4)?,
        running: row.get(5)?,
        waiting: row.get(6)?,
        delivered: row.get(7)?,
        given_up: row.get(8)?,
        failure,
        started_at: row.get(12)?,
        updated_at: row.get(13)?,
    })
}

/// A conversation by its id; none of a product that is gone.
///
/// # Errors
/// The file cannot be read.
pub fn get(db: &Connection, conversation: Uuid) -> Result<Option<Conversation>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM conversation WHERE id = ?1
         AND EXISTS (SELECT 1 FROM product WHERE product.id = conversation.product)"
    );
    Ok(db.prepare_cached(&sql)?.query_row([conversation.to_string()], read).optional()?)
}

/// The conversations of an organization, or of one of its products or communicators; those that began last
/// first. Those of products that are gone are left out.
///
/// # Errors
/// The file cannot be read.
pub fn list(
    db: &Connection,
    organization: Uuid,
    product: Option<Uuid>,
    integration: Option<Uuid>,
    outbox: Option<Outbox>,
    window: Window,
) -> Result<Listing<Conversation>, Error> {
    let of_products = "(SELECT * FROM conversation
                        WHERE EXISTS (SELECT 1 FROM product WHERE product.id = conversation.product))";
    let (waiting, given_up) = match outbox {
        None => (None, None),
        Some(Outbox::Waiting) => (Some(0), None),
        Some(Outbox::GivenUp) => (None, Some(0)),
    };
    Query::new(COLUMNS, of_products, "position")
        .and("organization = ?", organization.to_string())
        .and_if("product = ?", product.map(|id| id.to_string()))
        .and_if("integration = ?", integration.map(|id| id.to_string()))
        .and_if("waiting > ?", waiting)
        .and_if("given_up > ?", given_up)
        .list(db, window, read)
}

/// What is said in a conversation, newest first.
///
/// # Errors
/// The file cannot be read.
pub fn turns(db: &Connection, conversation: Uuid, window: Window) -> Result<Listing<Turn>, Error> {
    let columns = "id, kind, content, message, execution, step_id, status, attempts, retry_at, code, error, at, settled_at, \
                   changed, changed_at, withdrawn_at";
    Query::new(columns, "conversation_turn", "position")
        .and("conversation = ?", conversation.to_string())
        .list(db, window, |row| {
            Ok(Turn {
                id: id(row, 0)?,
                kind: row.get(1)?,
                content: row.get(2)?,
                message: optional_id(row, 3)?,
                execution: optional_id(row, 4)?,
                step_id: row.get(5)?,
                status: row.get(6)?,
                attempts: row.get(7)?,
                retry_at: row.get(8)?,
                code: row.get(9)?,
                error: row.get(10)?,
                at: row.get(11)?,
                settled_at: row.get(12)?,
                changed: Option::zip(row.get(13)?, row.get(14)?),
                withdrawn_at: row.get(15)?,
            })
        })
}

/// What became of the files of a message, in their order.
///
/// # Errors
/// The file cannot be read.
pub fn files(db: &Connection, conversation: Uuid, message: Uuid) -> Result<Vec<TakenFile>, Error> {
    let mut statement = db.prepare_cached(
        "SELECT message, number, file, code, error FROM conversation_file
         WHERE conversation = ?1 AND message = ?2 ORDER BY number",
    )?;
    let rows = statement.query_map([conversation.to_string(), message.to_string()], |row| {
        Ok(TakenFile {
            message: id(row, 0)?,
            number: row.get(1)?,
            file: optional_id(row, 2)?,
            code: row.get(3)?,
            error: row.get(4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The conversations in which something is left to do or to say, with their products, oldest first. Of
/// products that are gone nobody says anything.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn unfinished(db: &Connection) -> Result<Vec<(Uuid, Uuid)>, Error> {
    let mut statement = db.prepare(
        "SELECT id, product FROM conversation WHERE is_unfinished
         AND EXISTS (SELECT 1 FROM product WHERE product.id = conversation.product) ORDER BY position",
    )?;
    let rows = statement.query_map([], |row| Ok((id(row, 0)?, id(row, 1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

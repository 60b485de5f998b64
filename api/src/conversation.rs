//! Conversations in communicators, for whoever looks after them: `/api/communicator/conversations`.
//!
//! The rule of this file: that people talk, and whether they are answered, may be seen by whoever sees the
//! integration; what they say, by whoever reads the audit log.

use axum::extract::State;
use commands::{Said, Saying, SentFile};
use eventlog::StreamId;
use projections::conversation::{self, Outbox, TakenFile, Turn};
use projections::execution::SealedPayload;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access::Right;
use crate::app::App;
use crate::caller::Caller;
use crate::http::openapi::{MinPositionParam, PageParams, ReadFailures};
use crate::http::page::NoFilters;
use crate::http::reply::{Envelope, ListEnvelope};
use crate::http::{ETag, ListQuery, ListReply, Path, Problem, Reply};
use crate::lists::{total, window};

/// What the `ETag` of a conversation stands for: a client changes nothing of it.
const SEQUENCE: u64 = 1;

/// The routes of conversations.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_conversations))
        .routes(routes!(get_conversation))
        .routes(routes!(list_turns))
}

/// Which conversations are wanted. Every condition narrows.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ConversationFilters {
    /// Only those of this product.
    product_id: Option<Uuid>,
    /// Only those through this integration.
    integration_id: Option<Uuid>,
    /// Only those in which a reply waits to be delivered, or in which one was given up.
    outbox: Option<OutboxFilter>,
}

/// In what state an outbox is.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum OutboxFilter {
    /// Something waits to be delivered.
    Waiting,
    /// Something was given up.
    GivenUp,
}

/// A conversation: a thread in which people speak, or what one step said.
#[derive(Debug, Serialize, ToSchema)]
struct Conversation {
    /// Its id.
    id: Uuid,
    /// The product.
    product_id: Uuid,
    /// The communicator.
    integration_id: Uuid,
    /// How many messages came in.
    messages: u64,
    /// How many executions were started for them and have not ended.
    running: u64,
    /// What became of the replies.
    outbox: OutboxState,
    /// When it began.
    started_at: String,
    /// When something happened in it.
    updated_at: String,
}

/// What became of the replies of a conversation.
#[derive(Debug, Serialize, ToSchema)]
struct OutboxState {
    /// How many wait to be delivered: in their order, each behind the one before.
    waiting: u64,
    /// How many were delivered.
    delivered: u64,
    /// How many are not tried any more.
    given_up: u64,
    /// The last time that one was not delivered.
    last_failure: Option<DeliveryFailure>,
}

/// Why a reply was not delivered.
#[derive(Debug, Serialize, ToSchema)]
struct DeliveryFailure {
    /// A stable code.
    code: String,
    /// What to do about it.
    message: Option<String>,
    /// When.
    at: String,
}

/// What a turn of a conversation is.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum TurnType {
    /// A person said it.
    Message,
    /// We did.
    Reply,
}

/// Something that was said, by either side.
#[derive(Debug, Serialize, ToSchema)]
struct ConversationTurn {
    /// The id of the message or reply.
    id: Uuid,
    /// Who said it.
    r#type: TurnType,
    /// The words.
    text: Option<String>,
    /// Of a message: who said it.
    sender: Option<TurnSender>,
    /// Of a message: `mention`, `direct` or `command`.
    kind: Option<String>,
    /// Where, as the communicator calls it.
    channel: Option<String>,
    /// The thread there.
    thread: Option<String>,
    /// Of a message: what came with it.
    files: Vec<TurnFile>,
    /// Of a reply: the message that it answers.
    message_id: Option<Uuid>,
    /// Of a reply: the execution that says it.
    execution_id: Option<Uuid>,
    /// Of a reply: the step that says it.
    step_id: Option<String>,
    /// Of a message `received` or `handled`; of a reply `waiting`, `sending`, `delivered` or `given_up`.
    status: String,
    /// How often a reply was sent.
    attempts: u32,
    /// When a reply is sent again.
    retry_at: Option<String>,
    /// Why a reply was not delivered at first or at all, or an agent did not begin: a stable code.
    code: Option<String>,
    /// The same in words.
    message: Option<String>,
    /// When it was said.
    at: String,
    /// When it was handled, delivered or given up.
    settled_at: Option<String>,
    /// Of a message that was changed afterwards: what it says now. What was started for it read `text`.
    changed_text: Option<String>,
    /// When it was changed.
    changed_at: Option<String>,
    /// When a message was taken back.
    withdrawn_at: Option<String>,
}

/// Who said something.
#[derive(Debug, Serialize, ToSchema)]
struct TurnSender {
    /// What the communicator calls it.
    id: String,
    /// Its name, where it was told.
    name: Option<String>,
}

/// What came with a message.
#[derive(Debug, Serialize, ToSchema)]
struct TurnFile {
    /// What it is called.
    name: String,
    /// What it is said to be.
    media_type: Option<String>,
    /// The file that it is in a knowledge base.
    file_id: Option<Uuid>,
    /// Why it is none: a stable code.
    code: Option<String>,
    /// The same in words.
    message: Option<String>,
}

fn not_found() -> Problem {
    Problem::not_found(
        "conversation_not_found",
        "there is no such conversation: list those of the product to see which there are",
    )
}

fn visible(app: &App, caller: &Caller, id: Uuid) -> Result<conversation::Conversation, Problem> {
    let found = app.read(|db| conversation::get(db, id))?.ok_or_else(not_found)?;
    match caller.product(app, found.product) {
        Ok(_) => Ok(found),
        Err(_) => Err(not_found()),
    }
}

/// List conversations
///
/// Those that began last first, of the product, or without `product_id` of all that the caller may see; each with
/// how many replies wait, were delivered, or were given up, and why the last one that failed did. A step of type
/// `notify` has a conversation of its own.
#[utoipa::path(get, path = "/api/communicator/conversations", tag = "Communicators",
    extensions(("x-access" = json!(Right::ReadIntegrations))),
    params(ConversationFilters, PageParams, MinPositionParam),
    responses((status = 200, description = "The conversations", body = ListEnvelope<Conversation>), ReadFailures))]
async fn list_conversations(
    State(app): State<App>,
    caller: Caller,
    query: ListQuery<ConversationFilters>,
) -> Result<ListReply<Conversation>, Problem> {
    let ConversationFilters { product_id, integration_id, outbox } = query.filters.clone();
    if let Some(product) = product_id {
        caller.product(&app, product)?;
    }
    let product = product_id.or(caller.bound_product());
    let outbox = outbox.map(|wanted| match wanted {
        OutboxFilter::Waiting => Outbox::Waiting,
        OutboxFilter::GivenUp => Outbox::GivenUp,
    });
    let (window, organization) = (window(&query)?, caller.organization);
    let listing = app
        .read(|db| conversation::list(db, organization, product, integration_id, outbox, window))?;
    let total = total(&query, &listing);
    let mut shown = Vec::with_capacity(listing.items.len());
    for found in listing.items {
        shown.push(details(&app, found).await?);
    }
    Ok(query.reply("Conversations", shown, total))
}

/// Look at a conversation
///
/// How many messages came in, and what became of the replies. What was said is listed apart. The `ETag` stands for what
/// a client can change, which is nothing: messages do not move it, so it does not spare anybody this answer.
#[utoipa::path(get, path = "/api/communicator/conversations/{conversationId}", tag = "Communicators",
    extensions(("x-access" = json!(Right::ReadIntegrations))),
    params(("conversationId" = Uuid, Path, description = "The conversation"), MinPositionParam),
    responses((status = 200, description = "The conversation", body = Envelope<Conversation>), ReadFailures))]
async fn get_conversation(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
) -> Result<Reply<Conversation>, Problem> {
    let found = visible(&app, &caller, id)?;
    Ok(Reply::ok("Conversation", details(&app, found).await?).etag(&ETag::of_sequence(SEQUENCE)))
}

/// List what was said in a conversation
///
/// Newest first: what people said, and the replies with what became of each. Texts whose product's key is gone are
/// `null`.
#[utoipa::path(get, path = "/api/communicator/conversations/{conversationId}/messages", tag = "Communicators",
    extensions(("x-access" = json!(Right::ReadAudit))),
    params(("conversationId" = Uuid, Path, description = "The conversation"), PageParams, MinPositionParam),
    responses((status = 200, description = "What was said", body = ListEnvelope<ConversationTurn>), ReadFailures))]
async fn list_turns(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<Uuid>,
    query: ListQuery<NoFilters>,
) -> Result<ListReply<ConversationTurn>, Problem> {
    let found = visible(&app, &caller, id)?;
    let window = window(&query)?;
    let listing = app.read(|db| conversation::turns(db, id, window))?;
    let total = total(&query, &listing);
    let opener = Opener::new(&app, &found);
    let mut shown = Vec::with_capacity(listing.items.len());
    for turn in listing.items {
        shown.push(opener.turn(turn).await?);
    }
    Ok(query.reply("Messages", shown, total))
}

async fn details(app: &App, found: conversation::Conversation) -> Result<Conversation, Problem> {
    let opener = Opener::new(app, &found);
    let last_failure = match found.failure {
        Some(conversation::Failure { code, error, at }) => {
            Some(DeliveryFailure { code, message: opener.error(error.as_ref()).await?, at })
        }
        None => None,
    };
    Ok(Conversation {
        id: found.id,
        product_id: found.product,
        integration_id: found.integration,
        messages: found.messages,
        running: found.running,
        outbox: OutboxState {
            waiting: found.waiting,
            delivered: found.delivered,
            given_up: found.given_up,
            last_failure,
        },
        started_at: found.started_at,
        updated_at: found.updated_at,
    })
}

/// Opens what is sealed for a conversation.
struct Opener<'a> {
    app: &'a App,
    of: (Uuid, Uuid),
    conversation: Uuid,
    stream: StreamId,
}

impl<'a> Opener<'a> {
    fn new(app: &'a App, found: &conversation::Conversation) -> Opener<'a> {
        let stream = StreamId::new("conversation", found.id);
        Opener { app, of: (found.organization, found.product), conversation: found.id, stream }
    }

    async fn error(&self, sealed: Option<&SealedPayload>) -> Result<Option<String>, Problem> {
        let Some(sealed) = sealed else { return Ok(None) };
        self.app.open(self.of, &self.stream, "error", sealed).await
    }

    async fn content<T: DeserializeOwned>(
        &self,
        sealed: &SealedPayload,
    ) -> Result<Option<T>, Problem> {
        let text = self.app.open(self.of, &self.stream, "content", sealed).await?;
        let Some(text) = text else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| Problem::internal(&error))
    }

    async fn turn(&self, turn: Turn) -> Result<ConversationTurn, Problem> {
        let message = self.error(turn.error.as_ref()).await?;
        let mut shown = ConversationTurn {
            id: turn.id,
            r#type: TurnType::Reply,
            text: None,
            sender: None,
            kind: None,
            channel: None,
            thread: None,
            files: Vec::new(),
            message_id: turn.message,
            execution_id: turn.execution,
            step_id: turn.step_id,
            status: turn.status,
            attempts: turn.attempts,
            retry_at: turn.retry_at,
            code: turn.code,
            message,
            at: turn.at,
            settled_at: turn.settled_at,
            changed_text: None,
            changed_at: None,
            withdrawn_at: turn.withdrawn_at,
        };
        if let Some((changed, at)) = turn.changed {
            shown.changed_text = self.content::<Said>(&changed).await?.map(|said| said.text);
            shown.changed_at = Some(at);
        }
        if turn.kind == "reply" {
            if let Some(saying) = self.content::<Saying>(&turn.content).await? {
                shown.text = Some(saying.text);
                (shown.channel, shown.thread) = (saying.address.channel, saying.address.thread);
            }
            return Ok(shown);
        }
        shown.r#type = TurnType::Message;
        if let Some(said) = self.content::<Said>(&turn.content).await? {
            shown.text = Some(said.text);
            shown.sender = Some(TurnSender { id: said.sender.id, name: said.sender.name });
            shown.kind = Some(said.kind);
            (shown.channel, shown.thread) = (said.address.channel, said.address.thread);
            shown.files = self.files(turn.id, said.files).await?;
        }
        Ok(shown)
    }

    async fn files(&self, message: Uuid, sent: Vec<SentFile>) -> Result<Vec<TurnFile>, Problem> {
        if sent.is_empty() {
            return Ok(Vec::new());
        }
        let taken = self.app.read(|db| conversation::files(db, self.conversation, message))?;
        let mut files = Vec::with_capacity(sent.len());
        for (number, sent) in (0..).zip(sent) {
            let known = taken.iter().find(|known| known.number == number);
            let (file_id, code, error) = match known {
                Some(TakenFile { file, code, error, .. }) => (*file, code.clone(), error.as_ref()),
                None => (None, None, None),
            };
            let message = self.error(error).await?;
            let SentFile { name, media_type, .. } = sent;
            files.push(TurnFile { name, media_type, file_id, code, message });
        }
        Ok(files)
    }
}

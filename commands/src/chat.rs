//! The assistant's chat: messages are taken, sessions renamed and deleted, runs cancelled.
//!
//! The rule of this file: a session is its owner's, by its very id, and so is what a run without one was
//! asked; what was said is sealed with the key of the product, and the user's with it, where a user asked.
//! Answers follow, by the process managers.

use domain::chat::run::{ChatRun, ChatRunCommand, ChatRunEvent};
use domain::chat::{ChatSession, ChatSessionCommand, ChatSessionEvent};
use domain::{Payload, derived_id};
use eventlog::{RecordedEvent, StreamId};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::conversation::Room;
use crate::execute::decode_event;
use crate::seal::chat_key;
use crate::tools::answer::Turn;
use crate::{Actor, Ask, Commands, Done, Error};

pub(crate) const STARTED: &str = "chat_session.started.v1";
pub(crate) const ASKED: &str = "chat_session.message_asked.v1";
const RENAMED: &str = "chat_session.renamed.v1";
pub(crate) const REQUESTED: &str = "chat_run.requested.v1";

/// How much of the first message a session is called by, in characters.
const TITLE: usize = 80;

/// How often a run that goes on all the while is told to stop.
const MOST_RACES: usize = 20;

/// A message to the assistant.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// What its sender calls the session; a new one without it.
    pub session_id: Option<String>,
    /// What is asked.
    pub text: String,
}

/// A message that was taken.
#[derive(Clone, Debug)]
pub struct AskedMessage {
    /// The session.
    pub session: Uuid,
    /// What its owner calls it.
    pub session_id: String,
    /// The run that answers.
    pub run: Uuid,
    /// What was stored.
    pub done: Done,
}

/// The id of a session: of whoever it belongs to, in a product, under the name that they gave it.
pub fn chat_session_id(product: Uuid, owner: Actor, session_id: &str) -> Uuid {
    let owner = owner.to_string();
    derived_id(&[b"chat session", product.as_bytes(), owner.as_bytes(), session_id.as_bytes()])
}

impl Commands {
    /// Takes a message to the assistant. The answer follows.
    ///
    /// # Errors
    /// The message before is still being answered.
    pub async fn ask_assistant(
        &self,
        message: NewMessage,
        owner: Actor,
        ask: &Ask,
    ) -> Result<AskedMessage, Error> {
        let organization = ask.organization();
        let product = ask.metadata.product.unwrap_or_default();
        let session_id =
            message.session_id.unwrap_or_else(|| ask.new_id("chat session").to_string());
        let session = chat_session_id(product, owner, &session_id);
        let stream = StreamId::new("chat_session", session);
        let done = match self.done_before(&stream, ask).await? {
            Some(done) => done,
            None => {
                let (state, _) = self.load::<ChatSession>(&stream).await?;
                let ended = match state.newest_run() {
                    Some(run) if self.chat_run_has_ended(run).await? => Some(run),
                    _ => None,
                };
                let room = Room { organization, product, stream: stream.clone() };
                let key = chat_key(product, &owner.to_string());
                let title = title_of(&message.text);
                let command = ChatSessionCommand::Ask {
                    session_id: self
                        .seal_label(&key, &room, STARTED, "session_id", &session_id)
                        .await?,
                    title: self.seal_label(&key, &room, STARTED, "title", &title).await?,
                    run: ask.new_id("chat run"),
                    message: self
                        .seal_said(key, &room, ASKED, "message", message.text.as_bytes())
                        .await?,
                    ended,
                };
                self.execute_anew::<ChatSession>(stream.clone(), command, ask).await?
            }
        };
        let asked = done.events.iter().find(|event| event.event_type == ASKED);
        let Some(event) = asked else {
            return Err(Error::CommandReused);
        };
        let ChatSessionEvent::MessageAsked { run, .. } = decode_event(event)? else {
            return Err(Error::CommandReused);
        };
        Ok(AskedMessage { session, session_id, run, done })
    }

    /// Asks for an answer to what was said, in no session. Answers the run's id, too.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn ask_assistant_once(
        &self,
        said: &[Turn],
        ask: &Ask,
    ) -> Result<(Uuid, Done), Error> {
        let run = ask.new_id("chat run");
        let stream = StreamId::new("chat_run", run);
        if let Some(done) = self.done_before(&stream, ask).await? {
            return Ok((done.stream_id().unwrap_or(run), done));
        }
        let text = serde_json::to_vec(said)
            .map_err(|source| Error::Decode { stream: stream.to_string(), source })?;
        let room = Room {
            organization: ask.organization(),
            product: ask.metadata.product.unwrap_or_default(),
            stream: stream.clone(),
        };
        let key = chat_key(room.product, &ask.metadata.actor);
        let text = Zeroizing::new(text);
        let messages = self.seal_said(key, &room, REQUESTED, "messages", &text).await?;
        let request = ChatRunCommand::Request { session: None, messages: Some(messages) };
        let done = self.execute_anew::<ChatRun>(stream, request, ask).await?;
        Ok((run, done))
    }

    /// Shows a session as something else.
    ///
    /// # Errors
    /// There is no such session.
    pub async fn rename_chat_session(
        &self,
        session: Uuid,
        title: &str,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let room = Room {
            organization: ask.organization(),
            product: ask.metadata.product.unwrap_or_default(),
            stream: StreamId::new("chat_session", session),
        };
        let key = chat_key(room.product, &ask.metadata.actor);
        let title = self.seal_label(&key, &room, RENAMED, "title", title).await?;
        self.execute::<ChatSession>(session, ChatSessionCommand::Rename { title }, ask).await
    }

    /// Hides a session. What is still being answered in it is cancelled.
    ///
    /// # Errors
    /// There is no such session.
    pub async fn delete_chat_session(&self, session: Uuid, ask: &Ask) -> Result<Done, Error> {
        self.execute::<ChatSession>(session, ChatSessionCommand::Delete, ask).await
    }

    /// Ends a run without an answer. One that was cancelled already stays as it is.
    ///
    /// # Errors
    /// It has ended otherwise.
    pub async fn cancel_chat_run(
        &self,
        run: Uuid,
        session: Option<Uuid>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        // Nobody may have begun it yet.
        if session.is_some() {
            let request = ChatRunCommand::Request { session, messages: None };
            let ask = ask.follow_up("request");
            self.tell_chat_run(run, request, &Ask { repeatable: true, ..ask }).await?;
        }
        self.tell_chat_run(run, ChatRunCommand::Cancel, ask).await
    }

    /// Carries out a command on a run that goes on meanwhile: each may come first.
    pub(crate) async fn tell_chat_run(
        &self,
        run: Uuid,
        command: ChatRunCommand,
        ask: &Ask,
    ) -> Result<Done, Error> {
        for _ in 1..MOST_RACES {
            match self.execute::<ChatRun>(run, command.clone(), ask).await {
                Err(Error::Conflict) => {}
                outcome => return outcome,
            }
        }
        self.execute::<ChatRun>(run, command, ask).await
    }

    async fn chat_run_has_ended(&self, run: Uuid) -> Result<bool, Error> {
        let stream = StreamId::new("chat_run", run);
        Ok(self.load::<ChatRun>(&stream).await?.0.has_ended())
    }

    async fn seal_label(
        &self,
        key: &str,
        room: &Room,
        event_type: &str,
        field: &str,
        text: &str,
    ) -> Result<domain::Sealed, Error> {
        let Room { organization, stream, .. } = room;
        self.seal(key, *organization, stream, event_type, field, text.as_bytes()).await
    }

    /// Seals what was said to the assistant, or by it, under the key of that.
    pub(crate) async fn seal_said(
        &self,
        key: String,
        room: &Room,
        event_type: &str,
        field: &str,
        text: &[u8],
    ) -> Result<Payload, Error> {
        let Room { organization, product, stream } = room;
        let stream = stream.as_str();
        let place = vault::Place { organization: *organization, stream, event_type, field };
        self.seal_payload_under(key, *product, &place, text).await
    }

    /// What a run has told of its answer so far, read from its events; `None` when the key was
    /// shredded.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn chat_run_text(&self, product: Uuid, run: Uuid) -> Result<Option<String>, Error> {
        let events = self.whole_stream(&StreamId::new("chat_run", run)).await?;
        let mut text = String::new();
        for event in &events {
            match decode_event(event)? {
                // It began anew: what was told before is void.
                ChatRunEvent::Started { .. } => text.clear(),
                ChatRunEvent::Progressed { text: Some(piece), .. } => {
                    match self.open_piece(product, event, "text", &piece).await? {
                        Some(piece) => text.push_str(&piece),
                        None => return Ok(None),
                    }
                }
                _ => {}
            }
        }
        Ok(Some(text))
    }

    /// Opens a text that an event of a product carries; `None` when its key was shredded.
    ///
    /// # Errors
    /// The vault fails.
    pub async fn open_piece(
        &self,
        product: Uuid,
        event: &RecordedEvent,
        field: &str,
        payload: &Payload,
    ) -> Result<Option<String>, Error> {
        let RecordedEvent { organization, stream, event_type, .. } = event;
        let opened =
            self.open_payload(*organization, product, stream, event_type, field, payload).await?;
        Ok(opened.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// What a session that begins with a message is shown as.
fn title_of(message: &str) -> String {
    let line = message.trim().lines().next().unwrap_or_default().trim();
    let title: String = line.chars().filter(|sign| !sign.is_control()).take(TITLE).collect();
    if line.chars().count() > TITLE { format!("{title}…") } else { title }
}

//! Runs of the assistant: each is answered once, whether anybody listens or not.
//!
//! The rule of this file: what is told of an answer is in the log first, piece by piece, so that whoever comes
//! back, to any node and at any time, hears the same. A run that was cut off is begun anew by whoever
//! claims it next, a few times; then it fails and says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use domain::Timestamp;
use domain::chat::run::{ChatRun, ChatRunCommand, ChatRunEvent};
use domain::chat::{ChatSession, ChatSessionEvent};
use eventlog::{RecordedEvent, StreamId};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::ToolError;
use super::assistant::{Answer, Assistant, Found, Question};
use super::queue::{Outcome, Queue};
use crate::chat::{ASKED, REQUESTED, STARTED};
use crate::conversation::Room;
use crate::execute::decode_event;
use crate::seal::chat_key;
use crate::tools::answer::{Role, Turn};
use crate::{Ask, Commands, Error};

/// How many runs are answered at once, and how many of one product: most wait for a model.
const AT_ONCE: usize = 64;
const OF_ONE_PRODUCT: usize = 32;

/// Whose the events are.
const NAME: &str = "assistant";

/// For how long a worker claims a run, and how often at least it says that it is at it.
pub(crate) const LEASE: TimeDelta = TimeDelta::seconds(60);
const RENEWED: Duration = Duration::from_secs(20);

/// How often what came to an answer is written down, and how much of it at once at most.
const NOTED: Duration = Duration::from_millis(150);
const MOST_AT_ONCE: usize = 8 * 1024;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(600);

/// How long is waited for what will pass, as a model that is being loaded, and between two tries.
const PATIENCE: Duration = Duration::from_secs(45);
const PAUSE: Duration = Duration::from_secs(1);

/// How often a run is begun at most: what ends its server each time must not do so for ever.
const MOST_STARTS: u64 = 3;

/// How many messages before this one are told to a model, and how long they may be together, in bytes.
const REMEMBERED: usize = 8;
const MOST_REMEMBERED: usize = 24 * 1024;

const PROGRESSED: &str = "chat_run.progressed.v1";
const SUCCEEDED: &str = "chat_run.succeeded.v1";
const FAILED: &str = "chat_run.failed.v2";

/// The process manager of the assistant's runs.
pub(super) struct Chats {
    commands: Commands,
    assistant: Arc<Assistant>,
    worker: Uuid,
    queue: Arc<Queue>,
    /// Ends the runs that are answered here.
    stops: Mutex<HashMap<Uuid, CancellationToken>>,
}

/// A run that was claimed.
struct Run {
    id: Uuid,
    room: Room,
    /// What it is sealed with.
    key: String,
    fence: u64,
    /// The event that asked for it.
    requested: Arc<RecordedEvent>,
}

/// Why a run was left.
enum Stop {
    /// It is tried again.
    Passing(String),
    /// It has ended, is another worker's, or its texts are gone with its product.
    NotOurs,
    /// There is no answer.
    Failed(ToolError),
    /// There is no answer, and it is not tried again: what was told of it cannot be told again in other words.
    CutOff(ToolError),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        use vault::Error as Vault;
        match error {
            Error::Vault(Vault::KeyShredded { .. } | Vault::KeyMissing { .. }) => Stop::NotOurs,
            Error::Refused { code: "lease_held", message, .. } => Stop::Passing(message),
            Error::Refused { .. } => Stop::NotOurs,
            error => Stop::Passing(error.to_string()),
        }
    }
}

impl From<ToolError> for Stop {
    fn from(error: ToolError) -> Stop {
        Stop::Failed(error)
    }
}

impl Chats {
    pub(super) fn start(commands: Commands, assistant: Arc<Assistant>, worker: Uuid) -> Arc<Chats> {
        let queue = Arc::new(Queue::shared(NAME, AT_ONCE, OF_ONE_PRODUCT));
        Arc::new(Chats { commands, assistant, worker, queue, stops: Mutex::default() })
    }

    /// Answers a run of a product; its session is where the question is, where it has one.
    pub(super) fn add(self: &Arc<Self>, product: Uuid, run: Uuid, session: Option<Uuid>) {
        let chats = self.clone();
        self.queue.add_for(product, run, move || {
            let chats = chats.clone();
            async move { chats.work(product, run, session).await }
        });
    }

    /// A message was asked in a session.
    pub(super) fn asked(self: &Arc<Self>, event: &RecordedEvent) {
        let decoded = decode_event(event);
        if let (Some(product), Some(session), Ok(ChatSessionEvent::MessageAsked { run, .. })) =
            (event.product, event.stream.uuid(), decoded)
        {
            self.add(product, run, Some(session));
        }
    }

    /// A run was asked for. One of a session was heard of before.
    pub(super) fn requested(self: &Arc<Self>, event: &RecordedEvent) {
        let decoded = decode_event(event);
        if let (Some(product), Some(run), Ok(ChatRunEvent::Requested { session: None, .. })) =
            (event.product, event.stream.uuid(), decoded)
        {
            self.add(product, run, None);
        }
    }

    /// A session was deleted: nobody waits for what is still being answered in it.
    pub(super) fn session_deleted(self: &Arc<Self>, event: &RecordedEvent) {
        let (Some(product), Some(session)) = (event.product, event.stream.uuid()) else { return };
        let (chats, event) = (self.clone(), Arc::new(event.clone()));
        self.queue.add_for(product, session, move || {
            let (chats, event) = (chats.clone(), event.clone());
            async move {
                match chats.cancel_newest(session, &event).await {
                    Ok(()) => Outcome::Finished,
                    Err(error) => match Stop::from(error) {
                        Stop::Passing(why) => Outcome::TryAgain(why),
                        Stop::NotOurs | Stop::Failed(_) | Stop::CutOff(_) => Outcome::Finished,
                    },
                }
            }
        });
    }

    async fn cancel_newest(&self, session: Uuid, event: &RecordedEvent) -> Result<(), Error> {
        let stream = StreamId::new("chat_session", session);
        let (state, _) = self.commands.replay::<ChatSession>(&stream).await?;
        let ChatSession::Deleted { newest: Some(run) } = state else { return Ok(()) };
        let ask = Ask::because_of(event, NAME, &[b"cancel"]);
        self.commands.cancel_chat_run(run, Some(session), &ask).await?;
        Ok(())
    }

    /// A run was cancelled: whoever is at it here stops.
    pub(super) fn interrupt(&self, run: Uuid) {
        if let Some(stop) = self.stops.lock().get(&run) {
            stop.cancel();
        }
    }

    /// Another node is gone: what waits for its lease need not.
    pub(super) fn hurry(&self) {
        self.queue.hurry();
    }

    pub(super) async fn stop(&self) {
        self.queue.stop().await;
    }

    async fn work(&self, product: Uuid, id: Uuid, session: Option<Uuid>) -> Outcome {
        let stop = CancellationToken::new();
        self.stops.lock().insert(id, stop.clone());
        let outcome = tokio::select! {
            () = stop.cancelled() => Err(Stop::NotOurs),
            outcome = self.answer(product, id, session) => outcome,
        };
        self.stops.lock().remove(&id);
        match outcome {
            Err(Stop::Passing(why)) => Outcome::TryAgain(why),
            _ => Outcome::Finished,
        }
    }

    /// Claims a run, and sees it through.
    async fn answer(&self, product: Uuid, id: Uuid, session: Option<Uuid>) -> Result<(), Stop> {
        let Some(run) = self.claim(product, id, session).await? else { return Ok(()) };
        let answered = if run.fence > MOST_STARTS {
            let message = "the server ended each time that this was being answered: ask again";
            Err(Stop::Failed(ToolError::passing("run_interrupted", message)))
        } else {
            let answering = self.answer_claimed(&run, session);
            tokio::time::timeout(LIMIT, answering).await.unwrap_or_else(|_| {
                let message =
                    format!("there was no answer within {} s: ask again", LIMIT.as_secs());
                Err(Stop::Failed(ToolError::passing("run_timed_out", message)))
            })
        };
        let (outcome, command) = match answered {
            Ok(answer) => ("succeeded", self.finish(&run, &answer).await?),
            Err(Stop::Failed(error) | Stop::CutOff(error)) => {
                ("failed", self.fail(&run, error).await?)
            }
            Err(other) => return Err(other),
        };
        self.tell(&run, command).await?;
        metrics::counter!("prodgy_chat_runs_total", "outcome" => outcome).increment(1);
        Ok(())
    }

    /// Takes a run for this worker; none where there is nothing to do.
    async fn claim(
        &self,
        product: Uuid,
        id: Uuid,
        session: Option<Uuid>,
    ) -> Result<Option<Run>, Stop> {
        if !self.commands.has_product(product).await? {
            return Ok(None);
        }
        let stream = StreamId::new("chat_run", id);
        let mut first =
            self.commands.log().read_stream(&stream, 0, 1).await.map_err(Error::from)?;
        if first.is_empty() {
            let Some(session) = session else { return Ok(None) };
            let Some(asked) = self.asked_in(session, id).await? else { return Ok(None) };
            let request = ChatRunCommand::Request { session: Some(session), messages: None };
            let ask = Ask::because_of(&asked, NAME, &[b"request"]);
            self.commands.execute::<ChatRun>(id, request, &ask).await?;
            first = self.commands.log().read_stream(&stream, 0, 1).await.map_err(Error::from)?;
        }
        let Some(requested) = first.into_iter().next() else { return Ok(None) };
        let key = chat_key(product, &self.asker(&requested, session).await?);
        // Whoever asked is gone, and the words with them.
        if !self.commands.vault().key_exists(&key).await.map_err(Error::from)? {
            let ask = Ask::because_of(&requested, NAME, &[b"nobody asks any more"]);
            self.commands.cancel_chat_run(id, session, &ask).await?;
            return Ok(None);
        }
        let claim = self.commands.lease(self.worker, LEASE);
        let ask = once(&requested);
        let done = self.commands.tell_chat_run(id, ChatRunCommand::Start(claim), &ask).await?;
        let Some(event) = done.events.first() else { return Ok(None) };
        let ChatRunEvent::Started { fence, .. } = decode_event(event)? else { return Ok(None) };
        let room = Room { organization: requested.organization, product, stream };
        Ok(Some(Run { id, room, key, fence, requested }))
    }

    /// Who asked: whoever began the session, or sent all that was said.
    async fn asker(
        &self,
        requested: &RecordedEvent,
        session: Option<Uuid>,
    ) -> Result<String, Error> {
        let Some(session) = session else { return Ok(requested.actor.clone()) };
        let stream = StreamId::new("chat_session", session);
        let first = self.commands.log().read_stream(&stream, 0, 1).await?;
        Ok(first.first().map_or_else(String::new, |event| event.actor.clone()))
    }

    /// The event by which a run was asked for in a session.
    async fn asked_in(&self, session: Uuid, id: Uuid) -> Result<Option<Arc<RecordedEvent>>, Error> {
        let events = self.commands.whole_stream(&StreamId::new("chat_session", session)).await?;
        for event in events.into_iter().filter(|event| event.event_type == ASKED) {
            if let ChatSessionEvent::MessageAsked { run, .. } = decode_event(&event)?
                && run == id
            {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    async fn answer_claimed(&self, run: &Run, session: Option<Uuid>) -> Result<Answer, Stop> {
        let question = match session {
            Some(session) => self.question_in(run, session).await?,
            None => self.question_of(run).await?,
        };
        let (begun, mut retrieved) = (Instant::now(), None);
        loop {
            match self.try_to_answer(run, &question, &mut retrieved).await {
                Err(Stop::Failed(error)) if error.is_passing && begun.elapsed() < PATIENCE => {
                    tracing::debug!(run = %run.id, code = error.code, "an answer is tried again");
                    let pause = error.retry_after.unwrap_or(PAUSE);
                    tokio::time::sleep(pause.clamp(PAUSE, PATIENCE / 3)).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_to_answer(
        &self,
        run: &Run,
        question: &Question,
        retrieved: &mut Option<u32>,
    ) -> Result<Answer, Stop> {
        let found = self.assistant.find(question).await?;
        let passages = u32::try_from(found.passages.len()).unwrap_or(u32::MAX);
        if retrieved.replace(passages) != Some(passages) {
            self.tell(run, ChatRunCommand::Retrieve { fence: run.fence, passages }).await?;
        }
        self.write(run, question, found).await
    }

    /// Has the answer written, and writes down what comes of it.
    async fn write(&self, run: &Run, question: &Question, found: Found) -> Result<Answer, Stop> {
        let (told, pieces) = mpsc::channel(64);
        let mut has_told = false;
        let answering =
            async { self.assistant.answer(question, found, told).await.map_err(Stop::from) };
        let noting = self.note(run, pieces, &mut has_told);
        let outcome = futures::future::try_join(answering, noting).await;
        match outcome {
            Ok((answer, ())) => Ok(answer),
            Err(Stop::Failed(error)) if has_told => Err(Stop::CutOff(error)),
            Err(stop) => Err(stop),
        }
    }

    /// Writes down what comes, now and then; the rest of it comes with the whole.
    async fn note(
        &self,
        run: &Run,
        mut pieces: mpsc::Receiver<String>,
        has_told: &mut bool,
    ) -> Result<(), Stop> {
        let mut clock = tokio::time::interval(NOTED);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut pending, mut noted_at) = (String::new(), Instant::now());
        loop {
            let is_due = tokio::select! {
                piece = pieces.recv() => match piece {
                    Some(piece) => {
                        pending.push_str(&piece);
                        pending.len() >= MOST_AT_ONCE
                    }
                    None => return Ok(()),
                },
                _ = clock.tick() => !pending.is_empty() || noted_at.elapsed() >= RENEWED,
            };
            if is_due {
                let piece = std::mem::take(&mut pending);
                *has_told |= !piece.is_empty();
                self.progress(run, &piece).await?;
                noted_at = Instant::now();
            }
        }
    }

    async fn progress(&self, run: &Run, piece: &str) -> Result<(), Stop> {
        let text = match piece {
            "" => None,
            piece => Some(self.seal(run, PROGRESSED, "text", piece.as_bytes()).await?),
        };
        let lease_until = Timestamp::from(Utc::now() + LEASE);
        let bytes = piece.len() as u64;
        self.tell(run, ChatRunCommand::Progress { fence: run.fence, lease_until, bytes, text })
            .await
    }

    async fn finish(&self, run: &Run, answer: &Answer) -> Result<ChatRunCommand, Stop> {
        let Answer { text, sources, model, usage, about, retrieved } = answer;
        let latency = (Utc::now() - run.requested.time).num_milliseconds().max(0);
        let mut metadata = about.clone();
        metadata.insert("model".to_owned(), json!(model));
        metadata.insert("retrieved".to_owned(), json!(retrieved));
        metadata.insert("usage".to_owned(), usage.clone());
        metadata.insert("latency_ms".to_owned(), json!(latency));
        let whole = json!({ "content": text, "sources": sources, "metadata": metadata });
        let whole = Zeroizing::new(whole.to_string());
        let answer = self.seal(run, SUCCEEDED, "answer", whole.as_bytes()).await?;
        Ok(ChatRunCommand::Finish { fence: run.fence, answer })
    }

    async fn fail(&self, run: &Run, failure: ToolError) -> Result<ChatRunCommand, Stop> {
        let ToolError { code, message, is_passing, .. } = failure;
        let error = self.seal(run, FAILED, "error", message.as_bytes()).await?;
        Ok(ChatRunCommand::Fail { fence: run.fence, code, error, transient: is_passing })
    }

    async fn tell(&self, run: &Run, command: ChatRunCommand) -> Result<(), Stop> {
        self.commands.tell_chat_run(run.id, command, &once(&run.requested)).await?;
        Ok(())
    }

    async fn seal(
        &self,
        run: &Run,
        event_type: &str,
        field: &str,
        text: &[u8],
    ) -> Result<domain::Payload, Error> {
        self.commands.seal_said(run.key.clone(), &run.room, event_type, field, text).await
    }

    /// The question of a run in its session, with what was said there before it.
    async fn question_in(&self, run: &Run, session: Uuid) -> Result<Question, Stop> {
        let stream = StreamId::new("chat_session", session);
        let events = self.commands.whole_stream(&stream).await?;
        let room = Room { stream, ..run.room.clone() };
        let mut messages = Vec::new();
        for event in &events {
            if event.event_type == STARTED {
                // What was said in an earlier life is gone.
                messages.clear();
            } else if let ChatSessionEvent::MessageAsked { run: asked, message } =
                decode_event(event)?
            {
                messages.push((asked, message));
                if asked == run.id {
                    break;
                }
            }
        }
        let Some((_, message)) = messages.pop().filter(|(asked, _)| *asked == run.id) else {
            return Err(Stop::NotOurs);
        };
        let text = self.open(&room, ASKED, "message", &message).await?;
        let mut before = Vec::new();
        let mut left = MOST_REMEMBERED;
        for (earlier, message) in messages.iter().rev().take(REMEMBERED) {
            let asked = self.open(&room, ASKED, "message", message).await?;
            let answered = self.answer_of(run, *earlier).await?;
            let length = asked.len() + answered.as_ref().map_or(0, String::len);
            if length > left {
                break;
            }
            left -= length;
            before.extend(answered.map(|text| Turn { role: Role::Assistant, text }));
            before.push(Turn { role: Role::User, text: asked });
        }
        before.reverse();
        Ok(Question { product: run.room.product, text, before, has_instructions: false })
    }

    /// What an earlier run came to, if it came to an answer.
    async fn answer_of(&self, run: &Run, earlier: Uuid) -> Result<Option<String>, Stop> {
        let stream = StreamId::new("chat_run", earlier);
        let events = self.commands.whole_stream(&stream).await?;
        let Some(last) = events.last() else { return Ok(None) };
        let ChatRunEvent::Succeeded { answer, .. } = decode_event(last)? else { return Ok(None) };
        let room = Room { stream, ..run.room.clone() };
        let whole = self.open(&room, SUCCEEDED, "answer", &answer).await?;
        let whole: serde_json::Value = serde_json::from_str(&whole).unwrap_or_default();
        Ok(whole["content"].as_str().map(str::to_owned))
    }

    /// The question of a run that came with all that was said.
    async fn question_of(&self, run: &Run) -> Result<Question, Stop> {
        let ChatRunEvent::Requested { messages: Some(messages), .. } =
            decode_event(&run.requested)?
        else {
            return Err(Stop::NotOurs);
        };
        let said = self.open(&run.room, REQUESTED, "messages", &messages).await?;
        let mut before: Vec<Turn> = serde_json::from_str(&said).unwrap_or_default();
        let Some(place) = before.iter().rposition(|turn| turn.role == Role::User) else {
            return Err(Stop::NotOurs);
        };
        let text = before.remove(place).text;
        let has_instructions = before.iter().any(|turn| turn.role == Role::System);
        Ok(Question { product: run.room.product, text, before, has_instructions })
    }

    async fn open(
        &self,
        room: &Room,
        event_type: &str,
        field: &str,
        payload: &domain::Payload,
    ) -> Result<String, Stop> {
        let Room { organization, product, stream } = room;
        let opened = self
            .commands
            .open_payload(*organization, *product, stream, event_type, field, payload)
            .await?;
        let bytes = opened.ok_or(Stop::NotOurs)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// What follows from a request, each time anew.
fn once(requested: &RecordedEvent) -> Ask {
    let ask = Ask::because_of(requested, NAME, &[Uuid::now_v7().as_bytes()]);
    Ask { repeatable: false, ..ask }
}

#[cfg(test)]
mod tests;

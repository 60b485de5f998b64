//! Conversations: what people say starts the agents that listen, and what those come to is said back.
//!
//! The rule of this file: an execution's id is made from the message and the trigger, and the reply's
//! from what it answers; each is asked for before it is noted. So a message starts each agent once, and
//! each is answered once, whichever node works on it and whenever that is cut off. A stream that was just
//! appended to is read from the log: what is kept in memory may be older.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use domain::agent::Agent;
use domain::conversation::{
    Conversation, ConversationCommand, ConversationEvent, Message, Reply, Talk, TriggerFailure,
};
use domain::derived_id;
use domain::execution::{CancelReason, ExecutionEvent};
use domain::expression::Scope;
use domain::trigger::message::Source;
use domain::trigger::{MessageFilter, Setting, Trigger, TriggerDetails};
use eventlog::{RecordedEvent, StreamId};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::assistant::{Assistant, Question};
use super::firing::{Refused, wanted_input};
use super::queue::{Outcome, Queue};
use super::{Knowledge, ToolError};
use crate::communicator::{Address, Said, Saying};
use crate::conversation::Room;
use crate::execute::decode_event;
use crate::execution::OUTPUT;
use crate::tools::Tools;
use crate::{Ask, Commands, Error, NewExecution};
use files::TakenFile;

mod files;

/// How many conversations are worked on at once.
const AT_ONCE: usize = 16;

/// Whose the events are.
const NAME: &str = "conversation";

const TRIGGER_FAILED: &str = "conversation.trigger_failed.v1";
const SUCCEEDED: &str = "execution.succeeded.v1";

/// How long the assistant waits for what will pass: a model that is being loaded.
const PATIENCE: TimeDelta = TimeDelta::minutes(2);

/// The process manager of conversations.
pub(super) struct Conversations {
    commands: Commands,
    knowledge: Arc<dyn Knowledge>,
    assistant: Arc<Assistant>,
    tools: Arc<Tools>,
    queue: Arc<Queue>,
    /// The conversations, with their products, that wait for the end of an execution.
    awaited: Mutex<HashMap<Uuid, (Option<Uuid>, Uuid)>>,
}

/// A message that is worked on.
struct Heard {
    room: Room,
    event: Arc<RecordedEvent>,
    message: Message,
    said: Said,
}

/// What became of a piece of work that was not done.
enum Stop {
    /// It is tried again.
    Passing(String),
    /// Nobody can do it any more: the texts are gone with their product.
    Erased,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        use vault::Error as Vault;
        match error {
            Error::Vault(Vault::KeyShredded { .. } | Vault::KeyMissing { .. }) => Stop::Erased,
            error => Stop::Passing(error.to_string()),
        }
    }
}

impl From<eventlog::Error> for Stop {
    fn from(error: eventlog::Error) -> Stop {
        Stop::Passing(error.to_string())
    }
}

impl Conversations {
    pub(super) fn start(
        commands: Commands,
        knowledge: Arc<dyn Knowledge>,
        assistant: Arc<Assistant>,
        tools: Arc<Tools>,
    ) -> Arc<Conversations> {
        let queue = Arc::new(Queue::new(NAME, AT_ONCE));
        let awaited = Mutex::default();
        Arc::new(Conversations { commands, knowledge, assistant, tools, queue, awaited })
    }

    /// Works on a conversation of a product.
    pub(super) fn add(self: &Arc<Self>, product: Option<Uuid>, conversation: Uuid) {
        let conversations = self.clone();
        self.queue.add_for(product.unwrap_or_default(), conversation, move || {
            let conversations = conversations.clone();
            async move {
                match conversations.work(product, conversation).await {
                    Ok(()) | Err(Stop::Erased) => Outcome::Finished,
                    Err(Stop::Passing(why)) => Outcome::TryAgain(why),
                }
            }
        });
    }

    /// Answers what waited for the end of an execution.
    pub(super) fn execution_ended(self: &Arc<Self>, execution: Uuid) {
        let awaited = self.awaited.lock().remove(&execution);
        if let Some((product, conversation)) = awaited {
            self.add(product, conversation);
        }
    }

    pub(super) async fn stop(&self) {
        self.queue.stop().await;
    }

    async fn work(&self, product: Option<Uuid>, conversation: Uuid) -> Result<(), Stop> {
        let stream = StreamId::new(NAME, conversation);
        let events = self.commands.whole_stream(&stream).await?;
        let Some(first) = events.first() else { return Ok(()) };
        let room = Room {
            organization: first.organization,
            product: first.product.or(product).unwrap_or_default(),
            stream: stream.clone(),
        };
        if !self.commands.has_product(room.product).await? {
            return Ok(());
        }
        let Some(talk) = self.talk(&stream).await? else { return Ok(()) };
        for message in &talk.waiting {
            self.handle(&room, &events, conversation, *message).await?;
        }
        let Some(talk) = self.talk(&stream).await? else { return Ok(()) };
        // Before they are looked at: one that ends in between is then heard of.
        let running = talk.running.keys().map(|execution| (*execution, (product, conversation)));
        self.awaited.lock().extend(running);
        for (execution, message) in &talk.running {
            if self.answer(&room, &events, conversation, *execution, *message).await? {
                self.awaited.lock().remove(execution);
            }
        }
        Ok(())
    }

    async fn talk(&self, stream: &StreamId) -> Result<Option<Talk>, Error> {
        let (state, _) = self.commands.replay::<Conversation>(stream).await?;
        Ok(state.talk().cloned())
    }

    /// Starts what a message starts.
    async fn handle(
        &self,
        room: &Room,
        events: &[Arc<RecordedEvent>],
        conversation: Uuid,
        message: Uuid,
    ) -> Result<(), Stop> {
        let Some(heard) = self.heard(room, events, message).await? else {
            return Err(Stop::Erased);
        };
        let files = self.take_files(&heard, events, conversation).await?;
        let (mut is_bound, mut executions, mut failures) = (false, Vec::new(), Vec::new());
        let position = heard.event.position;
        let triggers = self.knowledge.message_triggers(room.product, position).await;
        for trigger in triggers.map_err(|error| Stop::Passing(error.message))? {
            let Some((details, filter)) = self.listens(&heard, trigger).await? else { continue };
            is_bound = true;
            match self.request(&heard, &files, conversation, trigger, &details, filter).await? {
                Ok(execution) => executions.extend(execution),
                Err(Refused { code, message }) => {
                    tracing::warn!(%trigger, code, "a message does not start what listens to it");
                    let text = message.as_bytes();
                    let error = self.commands.seal_in(room, TRIGGER_FAILED, "error", text).await?;
                    failures.push(TriggerFailure { trigger, code, error });
                }
            }
        }
        let report = files::report(&files);
        let is_only_files = report.is_some() && heard.said.text.is_empty();
        let text = match (is_bound, failures.first()) {
            (false, _) if is_only_files => None,
            (false, _) => Some(self.assistant(&heard).await?),
            (true, Some(TriggerFailure { code, .. })) => Some(format!(
                "I could not begin ({code}). Whoever looks after me finds why in the audit log."
            )),
            (true, None) => None,
        };
        let text = match (report, text) {
            (Some(report), Some(text)) => Some(format!("{report}\n\n{text}")),
            (report, text) => report.or(text),
        };
        let reply = match text {
            Some(text) => Some(self.reply(&heard, &[b"at once"], text).await?),
            None => None,
        };
        let handle = ConversationCommand::Handle { message, executions, failures, reply };
        let ask = Ask::because_of(&heard.event, NAME, &[b"handle"]);
        self.tell(conversation, handle, &ask).await
    }

    /// A message that is in the log, in the clear; none where it was erased with its product.
    async fn heard(
        &self,
        room: &Room,
        events: &[Arc<RecordedEvent>],
        id: Uuid,
    ) -> Result<Option<Heard>, Error> {
        for event in events {
            let ConversationEvent::MessageReceived(message) = decode_event(event)? else {
                continue;
            };
            if message.message != id {
                continue;
            }
            let Some(said) = self.commands.open_said(room, &message.content).await? else {
                return Ok(None);
            };
            let (room, event) = (room.clone(), event.clone());
            return Ok(Some(Heard { room, event, message, said }));
        }
        Ok(None)
    }

    /// What a trigger listens to, if a message is said to where it listens.
    async fn listens(
        &self,
        heard: &Heard,
        trigger: Uuid,
    ) -> Result<Option<(TriggerDetails, MessageFilter)>, Error> {
        let stream = StreamId::new("trigger", trigger);
        let Trigger::Active(details) = self.commands.load::<Trigger>(&stream).await?.0 else {
            return Ok(None);
        };
        let stream = StreamId::new("agent", details.agent);
        let Agent::Installed(agent) = self.commands.load::<Agent>(&stream).await?.0 else {
            return Ok(None);
        };
        if !details.listens(trigger, &agent) {
            return Ok(None);
        }
        let Ok(Setting::Message(filter)) = Setting::parse(details.kind, &details.configuration)
        else {
            return Ok(None);
        };
        let channel = heard.said.address.channel.as_ref();
        if filter.channel.as_ref().is_some_and(|wanted| Some(wanted) != channel) {
            return Ok(None);
        }
        let is_from = match &filter.from {
            Source::Any => true,
            Source::Integration(id) => *id == heard.message.integration,
            Source::Slot(slot) => match agent.bindings.get(slot) {
                Some(bound) => *bound == heard.message.integration,
                None => {
                    let version = details.version_of(trigger).unwrap_or(agent.version_id);
                    let manifest = self.commands.manifest_of(details.agent, version).await?;
                    let slots = &manifest.requires.integrations;
                    let known = slots.iter().find(|known| known.slot == *slot);
                    known.is_some_and(|it| it.kinds.contains(&heard.said.communicator))
                }
            },
        };
        Ok(is_from.then_some((details, *filter)))
    }

    /// Asks for the execution of a trigger that listens; none where it does not want the message.
    async fn request(
        &self,
        heard: &Heard,
        files: &[TakenFile],
        conversation: Uuid,
        trigger: Uuid,
        details: &TriggerDetails,
        filter: MessageFilter,
    ) -> Result<Result<Option<Uuid>, Refused>, Error> {
        let version = details.version_of(trigger);
        let stream = StreamId::new("agent", details.agent);
        let Agent::Installed(agent) = self.commands.load::<Agent>(&stream).await?.0 else {
            return Ok(Ok(None));
        };
        let runs = version.unwrap_or(agent.version_id);
        let manifest = self.commands.manifest_of(details.agent, runs).await?;
        let config =
            self.commands.config_for(heard.room.organization, details.agent, &manifest).await;
        let config = match config {
            Ok(config) => config,
            Err(error) => return Refused::by_configuration(error).map(Err),
        };
        let message = as_input(heard, files, conversation);
        let mut seen = message.clone();
        seen.insert("id".to_owned(), json!(trigger));
        seen.insert("key".to_owned(), json!(details.key));
        seen.insert("type".to_owned(), json!("message"));
        let scope = Scope { config, trigger: Value::Object(seen), ..Scope::default() };
        let MessageFilter { filter, input, .. } = filter;
        let message = Value::Object(message);
        let input = match wanted_input(filter, input, message, scope, &manifest).await {
            Ok(Some(input)) => input,
            Ok(None) => return Ok(Ok(None)),
            Err(refused) => return Ok(Err(refused)),
        };
        let new = NewExecution { agent: details.agent, trigger: Some(trigger), input: Some(input) };
        let ask = Ask::because_of(&heard.event, NAME, &[b"execution", trigger.as_bytes()]);
        match self.commands.request_for_trigger(new, version, None, &ask).await {
            Ok(done) => Ok(Ok(done.stream_id())),
            Err(error) => Refused::by_request(error).map(Err),
        }
    }

    /// What the knowledge base of the product says, where no agent listens.
    async fn assistant(&self, heard: &Heard) -> Result<String, Stop> {
        if heard.said.text.trim().is_empty() {
            return Ok("Ask me something, and I look it up.".to_owned());
        }
        match self.look_up(heard).await {
            Ok(answer) => Ok(answer),
            Err(error) if error.is_passing && Utc::now() - heard.event.time < PATIENCE => {
                Err(Stop::Passing(error.message))
            }
            Err(error) => Ok(format!("I could not look that up ({}).", error.code)),
        }
    }

    async fn look_up(&self, heard: &Heard) -> Result<String, ToolError> {
        let question = Question {
            product: heard.room.product,
            text: heard.said.text.clone(),
            before: Vec::new(),
            has_instructions: false,
        };
        let found = self.assistant.find(&question).await?;
        // It is said when it is whole: nobody listens while it is written.
        let (told, _) = mpsc::channel(1);
        let answer = self.assistant.answer(&question, found, told).await?;
        let mut text = answer.text;
        for cited in &answer.sources {
            if let (Some(number), Some(file)) =
                (cited["number"].as_u64(), cited["file_name"].as_str())
            {
                text.push_str(&format!("\n[{number}] {file}"));
            }
        }
        Ok(text)
    }

    /// Says what an execution came to, if it has ended. Answers whether it has.
    async fn answer(
        &self,
        room: &Room,
        events: &[Arc<RecordedEvent>],
        conversation: Uuid,
        execution: Uuid,
        message: Uuid,
    ) -> Result<bool, Stop> {
        let stream = StreamId::new("execution", execution);
        let run = self.commands.whole_stream(&stream).await?;
        let Some((end, text)) = self.came_to(room, &run).await? else { return Ok(false) };
        let heard = match text {
            Some(text) => self.heard(room, events, message).await?.map(|heard| (heard, text)),
            None => None,
        };
        let reply = match heard {
            Some((heard, text)) => Some(self.reply(&heard, &[execution.as_bytes()], text).await?),
            None => None,
        };
        let ask = Ask::because_of(&end, NAME, &[b"answer"]);
        self.tell(conversation, ConversationCommand::Answer { execution, reply }, &ask).await?;
        Ok(true)
    }

    /// The end of an execution, and what is to be said of it.
    async fn came_to(
        &self,
        room: &Room,
        run: &[Arc<RecordedEvent>],
    ) -> Result<Option<(Arc<RecordedEvent>, Option<String>)>, Error> {
        let Some(last) = run.last() else { return Ok(None) };
        let text = match decode_event(last)? {
            ExecutionEvent::Succeeded { output, .. } => {
                let room = Room { stream: last.stream.clone(), ..room.clone() };
                let output = self.commands.open_json_in(&room, SUCCEEDED, OUTPUT, &output).await?;
                output.and_then(|output: Value| as_text(&output))
            }
            ExecutionEvent::Failed { code, .. } => Some(format!(
                "I could not finish this ({code}). The execution is {}.",
                last.stream.id()
            )),
            ExecutionEvent::TimedOut { .. } => {
                Some(format!("This took too long. The execution is {}.", last.stream.id()))
            }
            ExecutionEvent::Cancelled { reason: CancelReason::ProductDeleted } => None,
            ExecutionEvent::Cancelled { .. } => {
                Some("This was stopped before there was an answer.".to_owned())
            }
            _ => return Ok(None),
        };
        Ok(Some((last.clone(), text)))
    }

    /// What is to be said in answer to a message. The same is made again under the same id.
    async fn reply(&self, heard: &Heard, of: &[&[u8]], text: String) -> Result<Reply, Error> {
        let Heard { room, message, said, .. } = heard;
        let address = said.address.clone();
        let content = self.commands.seal_saying(room, &Saying { address, text }).await?;
        let of = [&[b"reply", message.message.as_bytes().as_slice()], of].concat();
        Ok(Reply {
            integration: message.integration,
            reply: derived_id(&of),
            message: Some(message.message),
            execution: None,
            step_id: None,
            content,
        })
    }

    async fn tell(
        &self,
        conversation: Uuid,
        command: ConversationCommand,
        ask: &Ask,
    ) -> Result<(), Stop> {
        match self.commands.converse(conversation, command, ask).await {
            // Another node was faster.
            Ok(_) | Err(Error::Refused { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A message, as an agent gets it that does not say what it wants.
fn as_input(heard: &Heard, files: &[TakenFile], conversation: Uuid) -> Map<String, Value> {
    let Said { communicator, text, sender, kind, command, message_id, address, files: sent } =
        &heard.said;
    let files: Vec<Value> = sent
        .iter()
        .enumerate()
        .map(|(place, sent)| {
            let id = files.get(place).and_then(|taken| taken.file);
            json!({ "name": sent.name, "media_type": sent.media_type, "size": sent.size, "file_id": id })
        })
        .collect();
    let Address { channel, thread, service: _ } = address;
    let message = json!({
        "text": text,
        "sender": { "id": sender.id, "name": sender.name },
        "kind": kind,
        "command": command,
        "message_id": message_id,
        "channel": channel,
        "thread": thread,
        "communicator": communicator,
        "integration_id": heard.message.integration,
        "conversation_id": conversation,
        "files": files,
    });
    message.as_object().cloned().unwrap_or_default()
}

/// The words of an output; none where there are none.
fn as_text(output: &Value) -> Option<String> {
    let text = match output {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        Value::Object(object) => {
            let named = ["answer", "text"].into_iter().find_map(|name| object.get(name)?.as_str());
            named.map_or_else(|| output.to_string(), str::to_owned)
        }
        other => other.to_string(),
    };
    (!text.trim().is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;

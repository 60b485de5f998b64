//! What follows from a deletion: what was inside ends too, and the key that it was sealed with is
//! shredded. And from another password: sessions from before end.
//!
//! The rule of this file: it is done here alone, in an order that a cut does no harm to: what must be
//! read to be ended is ended before its key is shredded, and that all is done is said last, by an
//! event. Whoever deletes waits for that event.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use domain::execution::{CancelReason, Execution, ExecutionCommand};
use domain::file::{File, FileCommand, FileEvent};
use domain::knowledge_base::{KnowledgeBase, KnowledgeBaseCommand};
use domain::product::{Product, ProductCommand};
use domain::session::{EndReason, Session, SessionCommand};
use domain::user::{User, UserCommand};
use eventlog::{Position, RecordedEvent, StreamId};
use futures::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::queue::{Outcome, Queue};
use super::retention::Due;
use crate::execute::decode_event;
use crate::file::in_vault;
use crate::seal::{product_key, user_key};
use crate::{Ask, Commands, Error};

/// How many deletions are followed up at once.
const AT_ONCE: usize = 4;

/// How many streams of one deletion are ended at once: their events share commits.
const STREAMS_AT_ONCE: usize = 64;

/// What is to be erased is set aside however new it is, also where a store's clock is ahead.
const WHENEVER: Duration = Duration::from_secs(24 * 3_600);

/// Whose the events are that follow from a deletion.
pub(super) const NAME: &str = "erasure";

/// What is inside something that is deleted, as the read side knows it.
#[async_trait]
pub trait Contents: Send + Sync + 'static {
    /// Waits until the other answers know everything up to a position.
    async fn know(&self, position: Position) -> Result<(), NotNow>;

    /// Waits until no search reads what was gone by a position.
    async fn forget(&self, position: Position) -> Result<(), NotNow>;

    /// The sessions of a user that have not ended.
    async fn sessions_of(&self, user: Uuid) -> Result<Vec<Uuid>, NotNow>;

    /// Those of them that are from before the user's password was changed, or from outside and from before
    /// that was unlinked.
    async fn outdated_sessions_of(&self, user: Uuid) -> Result<Vec<Uuid>, NotNow>;

    /// The files of a knowledge base.
    async fn files_of(&self, knowledge_base: Uuid) -> Result<Vec<Uuid>, NotNow>;

    /// What is inside a product.
    async fn inside(&self, product: Uuid) -> Result<Inside, NotNow>;

    /// The names of the artifacts that were made of a product's files, deleted ones included.
    async fn artifacts_of(&self, product: Uuid) -> Result<Vec<String>, NotNow>;

    /// Whether a file that is there has these bytes, by the name of their blob. A side that knows of no files
    /// has none.
    async fn has_file_with(&self, _product: Uuid, _blob: &str) -> Result<bool, NotNow> {
        Ok(false)
    }

    /// The deleted files that the rules of their products do not keep any longer: as many as may be added to those that
    /// are being erased, for these to be no more than `most`. A side that knows of no rules has none.
    async fn due_files(&self, _now: DateTime<Utc>, _most: usize) -> Result<Due, NotNow> {
        Ok(Due::default())
    }

    /// The triggers of an agent that are left, as they were at a position or later. A side that knows
    /// of none has none.
    async fn triggers_of(&self, _agent: Uuid, _at: Position) -> Result<Vec<Uuid>, NotNow> {
        Ok(Vec::new())
    }

    /// The generations of embeddings, as they were at a position or later. A side that knows of none has none.
    async fn generations(&self, _at: Position) -> Result<Vec<GenerationState>, NotNow> {
        Ok(Vec::new())
    }

    /// The models whose generations are gone, while something that they made is stored, as it was at a position or
    /// later. A side that knows of none has none.
    async fn removed_generations(&self, _at: Position) -> Result<Vec<String>, NotNow> {
        Ok(Vec::new())
    }

    /// The names of the artifacts that a model made.
    async fn artifacts_by(&self, _model_revision: &str) -> Result<Vec<String>, NotNow> {
        Ok(Vec::new())
    }

    /// How many files a model has made something of, and how many chunks they have.
    async fn embedded(&self, _model_revision: &str) -> Result<(u64, u64), NotNow> {
        Ok((0, 0))
    }

    /// Files that can be found and that a model has made nothing of, with their products, in the order of their
    /// ids: some of those behind `after`.
    async fn unembedded(
        &self,
        _model_revision: &str,
        _after: Uuid,
    ) -> Result<Vec<(Uuid, Uuid)>, NotNow> {
        Ok(Vec::new())
    }

    /// The executions that a trigger started and that have not ended, as it was at a position or
    /// later.
    async fn executions_of(&self, _trigger: Uuid, _at: Position) -> Result<Vec<Uuid>, NotNow> {
        Err(NotNow("which executions run is not known here".to_owned()))
    }
}

/// A generation of embeddings, as the read side knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationState {
    /// Its model.
    pub model_revision: String,
    /// Whether every file was there once.
    pub is_complete: bool,
}

/// What is inside a product and has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// Its API tokens.
    pub tokens: Vec<Uuid>,
    /// Its agents.
    pub agents: Vec<Uuid>,
    /// Its executions.
    pub executions: Vec<Uuid>,
    /// Its knowledge bases.
    pub knowledge_bases: Vec<Uuid>,
    /// Their files.
    pub files: Vec<Uuid>,
    /// Its integrations, and deleted ones whose data keys are left.
    pub integrations: Vec<Uuid>,
}

impl Inside {
    fn is_empty(&self) -> bool {
        *self == Inside::default()
    }
}

/// The read side cannot say now; it may in a moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotNow(pub String);

/// Why a deletion was not followed up, this time.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    NotNow(#[from] NotNow),
    #[error(transparent)]
    Command(#[from] Error),
}

impl From<vault::Error> for Failure {
    fn from(error: vault::Error) -> Failure {
        Failure::Command(error.into())
    }
}

/// What is ended because of a deletion.
#[derive(Clone, Copy)]
enum Ending {
    Session(EndReason),
    Token,
    Agent,
    Execution,
    KnowledgeBase,
    File,
    Integration,
}

impl Ending {
    /// Whose the event of an end is.
    fn because_of(self) -> &'static str {
        match self {
            Ending::Session(EndReason::PasswordChanged) => "password change",
            _ => NAME,
        }
    }

    /// Ends one of them. Answers the position at which it ended now.
    async fn end(self, commands: &Commands, id: Uuid, ask: &Ask) -> Result<Position, Error> {
        let ended = match self {
            Ending::Session(reason) => {
                commands.execute::<Session>(id, SessionCommand::End { reason }, ask).await
            }
            Ending::Token => commands.delete_api_token(id, ask).await,
            Ending::Agent => {
                let uninstalled = commands.uninstall_agent(id, ask).await;
                // It may have been uninstalled, and cut off before its triggers were removed.
                commands.complete_agent(id).await?;
                uninstalled
            }
            Ending::Execution => {
                let cancel = ExecutionCommand::Cancel { reason: CancelReason::ProductDeleted };
                commands.execute::<Execution>(id, cancel, ask).await
            }
            Ending::KnowledgeBase => {
                let delete = KnowledgeBaseCommand::Delete { with_product: true };
                commands.execute::<KnowledgeBase>(id, delete, ask).await
            }
            Ending::File => commands.delete_file(id, ask).await,
            Ending::Integration => {
                let deleted = commands.delete_integration(id, ask).await;
                let erased = commands.settle_integration(id).await?;
                if erased > Position::START {
                    return Ok(erased);
                }
                deleted
            }
        };
        match ended {
            Ok(done) => Ok(done.position()),
            // Somebody else was faster.
            Err(Error::Refused { .. }) => Ok(Position::START),
            Err(error) => Err(error),
        }
    }
}

/// The process manager of what was deleted.
pub(super) struct Erasure {
    commands: Commands,
    contents: Arc<dyn Contents>,
    queue: Arc<Queue>,
}

impl Erasure {
    pub(super) fn start(commands: Commands, contents: Arc<dyn Contents>) -> Arc<Erasure> {
        Arc::new(Erasure { commands, contents, queue: Arc::new(Queue::new(NAME, AT_ONCE)) })
    }

    /// Follows up the deletion of a user, or a change of its password.
    pub(super) fn add_user(self: &Arc<Self>, user: Uuid) {
        let erasure = self.clone();
        self.queue.add(user, move || {
            let erasure = erasure.clone();
            async move { outcome(erasure.settle_user(user).await) }
        });
    }

    /// Follows up the deletion of a product.
    pub(super) fn add_product(self: &Arc<Self>, product: Uuid) {
        let erasure = self.clone();
        self.queue.add(product, move || {
            let erasure = erasure.clone();
            async move { outcome(erasure.erase_product(product).await) }
        });
    }

    /// Follows up the deletion of a knowledge base.
    pub(super) fn add_knowledge_base(self: &Arc<Self>, base: Uuid) {
        let erasure = self.clone();
        self.queue.add(base, move || {
            let erasure = erasure.clone();
            async move { outcome(erasure.empty(base).await) }
        });
    }

    /// Removes the bytes of a deleted file.
    pub(super) fn add_file(self: &Arc<Self>, file: Uuid) {
        let erasure = self.clone();
        self.queue.add(file, move || {
            let erasure = erasure.clone();
            async move { outcome(erasure.erase_file(file).await) }
        });
    }

    /// Shreds the data keys that an integration has given up.
    pub(super) fn add_integration(self: &Arc<Self>, integration: Uuid) {
        let erasure = self.clone();
        self.queue.add(integration, move || {
            let erasure = erasure.clone();
            async move {
                let settled = erasure.commands.settle_integration(integration).await;
                outcome(settled.map(drop).map_err(Failure::from))
            }
        });
    }

    pub(super) async fn stop(&self) {
        self.queue.stop().await;
    }

    async fn settle_user(&self, user: Uuid) -> Result<(), Failure> {
        let events = self.commands.whole_stream(&StreamId::new("user", user)).await?;
        let find = |event_type| events.iter().rfind(|event| event.event_type == event_type);
        if find("user.erased.v1").is_some() {
            // Another node did it, and this one may know the key.
            self.commands.vault().forget_key(&user_key(user));
            return Ok(());
        }
        if let Some(deleted) = find("user.deleted.v1") {
            return self.erase_user(user, deleted).await;
        }
        let changes = [
            (find("user.password_changed.v1"), EndReason::PasswordChanged),
            (find("user.identity_unlinked.v1"), EndReason::IdentityUnlinked),
        ];
        let changes = changes.into_iter().filter_map(|(event, reason)| Some((event?, reason)));
        match changes.max_by_key(|(event, _)| event.position) {
            Some((changed, reason)) => self.end_outdated_sessions(user, changed, reason).await,
            None => Ok(()),
        }
    }

    async fn end_outdated_sessions(
        &self,
        user: Uuid,
        changed: &RecordedEvent,
        reason: EndReason,
    ) -> Result<(), Failure> {
        self.contents.know(changed.position).await?;
        let sessions = self.contents.outdated_sessions_of(user).await?;
        self.end_each(Ending::Session(reason), sessions, changed).await?;
        Ok(())
    }

    async fn erase_user(&self, user: Uuid, deleted: &RecordedEvent) -> Result<(), Failure> {
        // Before the key is gone: nobody knows the address afterwards.
        if let Some(email) = self.commands.past_email_of(user, deleted.organization).await? {
            let ask = Ask::because_of(deleted, NAME, &[b"address"]);
            self.commands.release_email(&email, user, &ask).await?;
        }
        self.contents.know(deleted.position).await?;
        let sessions = self.contents.sessions_of(user).await?;
        self.end_each(Ending::Session(EndReason::UserDeleted), sessions, deleted).await?;
        self.commands.vault().shred_key(&user_key(user)).await?;
        let ask = Ask::because_of(deleted, NAME, &[b"erased"]);
        self.commands.execute::<User>(user, UserCommand::Erase, &ask).await?;
        Ok(())
    }

    async fn erase_product(&self, product: Uuid) -> Result<(), Failure> {
        let events = self.commands.whole_stream(&StreamId::new("product", product)).await?;
        let vault = self.commands.vault();
        // Of an erased one the last event is another.
        let deleted = events.last().filter(|last| last.event_type == "product.deleted.v1");
        let Some(deleted) = deleted else {
            // Another node did it, and this one may know the key.
            vault.forget_key(&product_key(product));
            return Ok(());
        };
        let mut reached = deleted.position;
        loop {
            self.contents.know(reached).await?;
            let inside = self.contents.inside(product).await?;
            if inside.is_empty() {
                break;
            }
            // What was being made when the product was deleted may come after the first look.
            reached = newer(self.end_all(inside, deleted).await?)?;
        }
        vault.shred_key(&product_key(product)).await?;
        vault.delete_blobs(product).await?;
        self.contents.forget(reached).await?;
        for artifact in self.contents.artifacts_of(product).await? {
            vault.delete_artifact(&artifact).await?;
        }
        let ask = Ask::because_of(deleted, NAME, &[b"erased"]);
        self.commands.execute::<Product>(product, ProductCommand::Erase, &ask).await?;
        Ok(())
    }

    /// Ends what is inside a product: knowledge bases before files, so that none comes in.
    async fn end_all(&self, inside: Inside, deleted: &RecordedEvent) -> Result<Position, Failure> {
        let Inside { tokens, agents, executions, knowledge_bases, files, integrations } = inside;
        let mut reached = Position::START;
        for (what, ids) in [
            (Ending::Token, tokens),
            (Ending::Agent, agents),
            (Ending::Execution, executions),
            (Ending::KnowledgeBase, knowledge_bases),
            (Ending::File, files),
            (Ending::Integration, integrations),
        ] {
            reached = reached.max(self.end_each(what, ids, deleted).await?);
        }
        Ok(reached)
    }

    /// Deletes the files of a knowledge base that was deleted.
    async fn empty(&self, base: Uuid) -> Result<(), Failure> {
        let events = self.commands.whole_stream(&StreamId::new("knowledge_base", base)).await?;
        let deleted = events.last().filter(|last| last.event_type == "knowledge_base.deleted.v1");
        let Some(deleted) = deleted else { return Ok(()) };
        let mut reached = deleted.position;
        loop {
            self.contents.know(reached).await?;
            let files = self.contents.files_of(base).await?;
            if files.is_empty() {
                return Ok(());
            }
            reached = newer(self.end_each(Ending::File, files, deleted).await?)?;
        }
    }

    /// Removes the bytes of a deleted file, and what was made of them, unless another file has the same ones.
    async fn erase_file(&self, file: Uuid) -> Result<(), Failure> {
        let stream = StreamId::new("file", file);
        let events = self.commands.whole_stream(&stream).await?;
        // Of an erased one the last event is another.
        let requested = events.last().filter(|it| it.event_type == "file.erasure_requested.v1");
        let Some(requested) = requested else { return Ok(()) };
        let (Some(product), Some(blob)) = (requested.product, blob_of(&events)?) else {
            return Err(NotNow("the log does not say where its bytes are".into()).into());
        };
        if is_being_read(&events) && !self.commands.meet_lease(&stream).await?.is_zero() {
            return Err(NotNow("somebody is still reading it".into()).into());
        }
        self.contents.forget(requested.position).await?;
        self.remove_bytes(product, &blob).await?;
        let ask = Ask::because_of(requested, NAME, &[b"erased"]);
        self.commands.execute::<File>(file, FileCommand::Erase, &ask).await?;
        Ok(())
    }

    /// Sets them aside first. Whoever uploads them meanwhile has either said so by then, and gets them back, or
    /// finds afterwards that they are gone, and says that they must be sent again.
    async fn remove_bytes(&self, product: Uuid, blob: &vault::BlobRef) -> Result<(), Failure> {
        let vault = self.commands.vault();
        if self.is_used(product, blob).await? {
            return Ok(());
        }
        let stored = vault.stored_of(product, blob).await?;
        let whenever = SystemTime::now() + WHENEVER;
        for object in &stored {
            vault.set_aside(object, whenever).await?;
        }
        if self.is_used(product, blob).await? {
            for object in &stored {
                vault.bring_back_aside(object).await?;
            }
            return Ok(());
        }
        for object in &stored {
            vault.remove_aside(object).await?;
        }
        Ok(())
    }

    /// Whether a file that is there by now has these bytes.
    async fn is_used(&self, product: Uuid, blob: &vault::BlobRef) -> Result<bool, Failure> {
        let now = self.commands.log().head().await.map_err(Error::from)?;
        self.contents.know(now).await?;
        Ok(self.contents.has_file_with(product, &blob.name).await?)
    }

    /// Ends several things because of an event, and answers the position of the last one's end.
    async fn end_each(
        &self,
        what: Ending,
        ids: Vec<Uuid>,
        why: &RecordedEvent,
    ) -> Result<Position, Failure> {
        let asks = ids.into_iter().map(|id| {
            let ask = Ask::because_of(why, what.because_of(), &[b"end", id.as_bytes()]);
            (self.commands.clone(), id, ask)
        });
        let ended = stream::iter(asks.collect::<Vec<_>>())
            .map(|(commands, id, ask)| async move { what.end(&commands, id, &ask).await })
            .buffer_unordered(STREAMS_AT_ONCE);
        Ok(ended.try_fold(Position::START, |last, next| async move { Ok(last.max(next)) }).await?)
    }
}

/// Where the bytes of a file are.
fn blob_of(events: &[Arc<RecordedEvent>]) -> Result<Option<vault::BlobRef>, Error> {
    for event in events.iter().rev() {
        if let FileEvent::Uploaded { blob, .. } = decode_event(event)? {
            return Ok(Some(in_vault(&blob)));
        }
    }
    Ok(None)
}

/// Whether a worker was reading a file when it was deleted.
fn is_being_read(events: &[Arc<RecordedEvent>]) -> bool {
    let ends = ["file.indexed.v1", "file.failed.v1", "file.uploaded.v1"];
    let mut newest = events.iter().rev().map(|event| event.event_type.as_str());
    newest.find_map(|name| match name {
        "file.ingestion_started.v1" => Some(true),
        name => ends.contains(&name).then_some(false),
    }) == Some(true)
}

/// The position to look again from. Where nothing was ended, somebody else is at it.
fn newer(ended: Position) -> Result<Position, NotNow> {
    if ended > Position::START {
        return Ok(ended);
    }
    Err(NotNow("what is inside is being ended by others".into()))
}

fn outcome(followed_up: Result<(), Failure>) -> Outcome {
    match followed_up {
        Ok(()) => Outcome::Finished,
        Err(failure) => Outcome::TryAgain(failure.to_string()),
    }
}

#[cfg(test)]
mod tests;

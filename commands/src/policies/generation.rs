//! Generations: what further models make of the files that are there already, and what is left of it when one
//! is removed.
//!
//! The rule of this file: files are taken one after the other, behind everything that somebody waits for; a file
//! that was embedded is so by an event, so nothing is done twice but what was under way when the server stopped,
//! or on another node in the same moment. What was removed is begun again only after the vault has
//! forgotten it: so nothing is taken away from whoever finds it there.

use std::sync::Arc;
use std::time::Duration;

use domain::file::{File, FileCommand, FileEvent};
use domain::generation::{Generation, GenerationCommand, GenerationEvent, generation_id};
use embeddings::Embedder;
use eventlog::{Position, RecordedEvent, StreamId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::ingestion::{Failure, Ingestion, Unreadable, Work};
use super::{Contents, GenerationState, NotNow};
use crate::execute::decode_event;
use crate::{Ask, Commands, Done, Error};

/// Whose the events are.
const NAME: &str = "generation";

/// How long to wait after something could not be done.
const REST: Duration = Duration::from_secs(5);

/// The process manager of generations.
pub(super) struct Generations {
    commands: Commands,
    contents: Arc<dyn Contents>,
    ingestion: Arc<Ingestion>,
    models: watch::Receiver<Vec<Embedder>>,
    /// Up to where something has happened that concerns generations.
    looked: watch::Sender<Position>,
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Generations {
    pub(super) fn start(
        commands: Commands,
        contents: Arc<dyn Contents>,
        ingestion: Arc<Ingestion>,
        models: watch::Receiver<Vec<Embedder>>,
    ) -> Arc<Generations> {
        let generations = Arc::new(Generations {
            commands,
            contents,
            ingestion,
            models,
            looked: watch::Sender::new(Position::START),
            stop: watch::Sender::new(false),
            task: Mutex::default(),
        });
        *generations.task.lock() = Some(tokio::spawn(generations.clone().run()));
        generations
    }

    /// Looks what is left to do once the read side knows of this position.
    pub(super) fn look(&self, position: Position) {
        self.looked.send_if_modified(|looked| {
            let is_later = position > *looked;
            *looked = position.max(*looked);
            is_later
        });
    }

    /// As [`Generations::look`], because a file can be found: unless its model is the only one here, as usual.
    pub(super) fn indexed(&self, event: &RecordedEvent) {
        let by = match decode_event(event) {
            Ok(FileEvent::Indexed { model_revision, .. }) => Some(model_revision),
            _ => None,
        };
        let models = self.models.borrow();
        let is_all = |by: String| models.iter().all(|it| it.model().revision() == by);
        if !by.is_some_and(is_all) {
            self.look(event.position);
        }
    }

    pub(super) async fn stop(&self) {
        self.stop.send_replace(true);
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }

    async fn run(self: Arc<Self>) {
        let (mut looked, mut models) = (self.looked.subscribe(), self.models.clone());
        let mut stopped = self.stop.subscribe();
        loop {
            let at = *looked.borrow_and_update();
            let loaded = models.borrow_and_update().clone();
            let outcome = tokio::select! {
                outcome = self.build_all(at, loaded) => outcome,
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            let pause = async {
                match outcome {
                    Ok(()) => {
                        tokio::select! {
                            _ = looked.changed() => {}
                            Ok(()) = models.changed() => {}
                        }
                    }
                    Err(why) => {
                        tracing::warn!(why, "a generation is not complete yet; trying again");
                        tokio::time::sleep(REST).await;
                    }
                }
            };
            tokio::select! {
                () = pause => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    /// Embeds every file by every model that is loaded and has a generation.
    async fn build_all(&self, at: Position, loaded: Vec<Embedder>) -> Result<(), String> {
        let generations = self.contents.generations(at).await.map_err(said)?;
        let mut trouble = None;
        for revision in self.contents.removed_generations(at).await.map_err(said)? {
            if let Err(why) = self.clear(&revision).await {
                trouble = Some(why);
            }
        }
        for generation in generations {
            let model = loaded.iter().find(|it| it.model().revision() == generation.model_revision);
            let Some(embedder) = model else { continue };
            if let Err(why) = self.build(generation, embedder).await {
                trouble = Some(why);
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// Removes what the model of a removed generation made. A cut does no harm: it is done again, and said last.
    async fn clear(&self, revision: &str) -> Result<(), String> {
        let stream = StreamId::new("generation", generation_id(revision));
        let events =
            self.commands.whole_stream(&stream).await.map_err(|error| error.to_string())?;
        let removed = events.last().filter(|last| last.event_type == "generation.removed.v1");
        let Some(removed) = removed else { return Ok(()) };
        // A search may be loading it.
        self.contents.forget(removed.position).await.map_err(said)?;
        let names = self.contents.artifacts_by(revision).await.map_err(said)?;
        for name in &names {
            let deleted = self.commands.vault().delete_artifact(name).await;
            deleted.map_err(|error| error.to_string())?;
        }
        let ask = Ask::because_of(removed, NAME, &[b"cleared"]);
        let clear = GenerationCommand::Clear;
        let done = self.commands.execute::<Generation>(generation_id(revision), clear, &ask).await;
        done.map_err(|error| error.to_string())?;
        tracing::info!(
            revision,
            artifacts = names.len(),
            "what a removed generation had made is gone"
        );
        Ok(())
    }

    async fn build(&self, generation: GenerationState, embedder: &Embedder) -> Result<(), String> {
        let revision = generation.model_revision.as_str();
        let begun = self.begun(revision).await.map_err(|error| error.to_string())?;
        // Nodes begin at different files, so that they share the work.
        let start = Uuid::new_v4();
        let mut trouble = None;
        for (first, last) in [(start, Uuid::max()), (Uuid::nil(), start)] {
            let mut after = first;
            loop {
                let some = self.contents.unembedded(revision, after).await.map_err(said)?;
                let some: Vec<_> = some.into_iter().filter(|(file, _)| *file <= last).collect();
                let Some((furthest, _)) = some.last() else { break };
                after = *furthest;
                let mut at = Position::START;
                for (file, product) in some {
                    match self.embed(file, product, embedder, begun.as_deref()).await {
                        Ok(Some(done)) => at = at.max(done.position()),
                        Ok(None) | Err(Failure::NotOurs) => {}
                        Err(Failure::Passing(why)) => trouble = Some(why),
                    }
                }
                self.contents.know(at).await.map_err(said)?;
            }
        }
        match (trouble, begun) {
            (Some(why), _) => Err(why),
            (None, Some(begun)) if !generation.is_complete => self.complete(revision, &begun).await,
            (None, _) => Ok(()),
        }
    }

    /// The event that began a generation; `None` where files were embedded by its model before there were generations.
    async fn begun(&self, revision: &str) -> Result<Option<Arc<RecordedEvent>>, Error> {
        let stream = StreamId::new("generation", generation_id(revision));
        let events = self.commands.log().read_stream(&stream, 0, usize::MAX).await?;
        for event in events.into_iter().rev() {
            if let GenerationEvent::Begun(_) = decode_event(&event)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Lets a model make something of a file. `None` where there is nothing to do.
    async fn embed(
        &self,
        file: Uuid,
        product: Uuid,
        embedder: &Embedder,
        begun: Option<&RecordedEvent>,
    ) -> Result<Option<Done>, Failure> {
        let stream = StreamId::new("file", file);
        // From the log itself: the state in memory may lag behind the event that led here.
        let (state, sequence) = self.commands.replay::<File>(&stream).await?;
        let File::Ready { upload, fence, .. } = state else { return Ok(None) };
        let revision = embedder.model().revision();
        let work = Work { file, product, upload: &upload, embedder, claim: None };
        let command = match self.ingestion.index(&work).await? {
            Ok(index) => FileCommand::Embed(index),
            Err(Unreadable { code, message }) => {
                let model_revision = revision.to_owned();
                FileCommand::FailEmbedding { model_revision, code, message }
            }
        };
        // A file that was deleted and came again is embedded again.
        let life = fence.to_be_bytes();
        let ask = match begun {
            Some(begun) => Ask::because_of(begun, NAME, &[file.as_bytes(), &life]),
            None => {
                let log = self.commands.log();
                let last = log.read_stream(&stream, sequence - 1, 1).await.map_err(Error::from)?;
                let last = last.into_iter().next().ok_or(Failure::NotOurs)?;
                Ask::because_of(&last, NAME, &[revision.as_bytes()])
            }
        };
        let done = self.commands.execute::<File>(file, command, &ask.in_product(product)).await?;
        Ok(Some(done))
    }

    /// Says that every file of this moment is there.
    async fn complete(&self, revision: &str, begun: &RecordedEvent) -> Result<(), String> {
        let (files, chunks) = self.contents.embedded(revision).await.map_err(said)?;
        let complete = GenerationCommand::Complete { files, chunks };
        let ask = Ask::because_of(begun, NAME, &[b"complete"]);
        match self.commands.execute::<Generation>(generation_id(revision), complete, &ask).await {
            Ok(_) => {
                tracing::info!(revision, files, chunks, "a generation is complete");
                Ok(())
            }
            // It was removed.
            Err(Error::Refused { .. }) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn said(not_now: NotNow) -> String {
    not_now.to_string()
}

//! Executions that only compute, asked for by somebody who waits: carried out before they are asked for in
//! the log, and stored with their ends.
//!
//! The rule of this file: until the one append that holds all of it nothing has happened, and after it
//! everything has. What does not come to an end at once is asked for as usual, as if nothing had been
//! tried here.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::Utc;
use cqrs_es::Aggregate;
use domain::execution::{Execution, ExecutionCommand, ExecutionEvent};
use eventlog::{Append, Expected, NewEvent, RecordedEvent};
use tokio_util::sync::CancellationToken;

use super::course::{Course, claim_of};
use super::interruption::Interruption;
use super::{LEASE, Run, Runner, count};
use crate::execution::{REQUESTED, Wanted, Wish};
use crate::{Ask, Done, Error, NewExecution};

/// How long an execution may compute before it is left to a worker, which bounds it by its own limits.
const AT_MOST: Duration = Duration::from_millis(250);

impl Runner {
    /// Asks for an execution, and carries it out with that if it only computes and a worker is free.
    ///
    /// # Errors
    /// As [`crate::Commands::request_execution_of`].
    pub(in super::super) async fn request_at_once(
        &self,
        new: NewExecution,
        version: Option<uuid::Uuid>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let wanted = match self.commands.wish(new, version, ask).await? {
            Wish::Granted(done) => return Ok(done),
            Wish::New(wanted) => wanted,
        };
        if wanted.manifest.only_computes()
            && let Some(product) = ask.metadata.product
            && let Some(_slot) = self.queue.free_slot(product)
            && let Ok(Ok(carried_out)) =
                tokio::time::timeout(AT_MOST, self.carry_out(&wanted, ask)).await
            && let Some(done) = self.store(&wanted, carried_out, ask).await?
        {
            return Ok(done);
        }
        self.commands.ask_for(*wanted, ask).await
    }

    /// Carries an execution out of which the log knows nothing. Answers what follows from its request.
    async fn carry_out(&self, wanted: &Wanted, ask: &Ask) -> Result<CarriedOut, Interruption> {
        let ExecutionCommand::Request(request) = &wanted.command else {
            return Err(Interruption::NotOurs);
        };
        let mut state = Execution::default();
        let asked = state.decide(wanted.command.clone()).map_err(|_| Interruption::NotOurs)?;
        let requested = Arc::new(as_it_will_be(wanted, asked.first(), ask)?);
        asked.into_iter().for_each(|event| state.apply(event));

        let product = requested.product.ok_or(Interruption::NotOurs)?;
        self.check_wanted(product, request.agent).await?;
        let mut course = Course::unasked(state);
        course.claim_later(self.lease(LEASE))?;
        let run = Run {
            id: wanted.execution,
            stream: wanted.stream.clone(),
            organization: requested.organization,
            product,
            request: request.clone(),
            deadline: Utc::now() + wanted.manifest.limits.timeout,
            requested,
            stop: CancellationToken::new(),
            unplaced: None,
            veil: OnceLock::new(),
            course: tokio::sync::Mutex::new(course),
        };
        let prepared = self.prepared(&run, wanted.manifest.clone(), wanted.input.clone()).await;
        let outcome = match prepared {
            Ok(mut work) => self.work(&run, &mut work).await,
            Err(interruption) => Err(interruption),
        };
        let outcome = match outcome {
            Ok(output) => Ok(output),
            Err(Interruption::Failed { step, error }) => Err((step, error)),
            Err(other) => return Err(other),
        };
        let word = self.note_outcome(&run, outcome).await?;
        let follows = ExecutionCommand::Together(run.course.into_inner().into_noted());
        Ok(CarriedOut { follows, ask: claim_of(&run.requested), word })
    }

    /// Stores a request with what followed from it; nothing where somebody was faster.
    async fn store(
        &self,
        wanted: &Wanted,
        carried_out: CarriedOut,
        ask: &Ask,
    ) -> Result<Option<Done>, Error> {
        let CarriedOut { follows, ask: theirs, word } = carried_out;
        let new = (Execution::default(), 0);
        let follows = Some((follows, theirs.metadata));
        let command = wanted.command.clone();
        match self.commands.decide_with(&wanted.stream, new, command, follows, ask).await {
            Ok(done) if !done.replayed => {
                count(word);
                Ok(Some(done))
            }
            Ok(done) => Ok(Some(done)),
            Err(Error::Conflict | Error::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What came of an execution that is not stored yet.
struct CarriedOut {
    follows: ExecutionCommand,
    /// Who reports it, and why.
    ask: Ask,
    /// How it ended.
    word: &'static str,
}

/// The event of a request as it will be stored, but for its place and time.
fn as_it_will_be(
    wanted: &Wanted,
    event: Option<&ExecutionEvent>,
    ask: &Ask,
) -> Result<RecordedEvent, Interruption> {
    let (event_type, data) = domain::event::encode(event.ok_or(Interruption::NotOurs)?);
    debug_assert_eq!(event_type, REQUESTED);
    let append = Append {
        stream: wanted.stream.clone(),
        expected: Expected::Sequence(0),
        command_id: ask.command_id,
        request_hash: ask.request_hash.clone(),
        metadata: ask.metadata.clone(),
        keys: Vec::new(),
        events: vec![NewEvent { event_type, data, metadata: None }],
    };
    let events = eventlog::foreseen(append).map_err(|_| Interruption::NotOurs)?;
    events.into_iter().next().ok_or(Interruption::NotOurs)
}

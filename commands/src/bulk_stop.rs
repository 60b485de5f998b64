//! Stopping several executions by one request.
//!
//! The rule of this file: which executions are meant is stored first; each is then stopped under a command that
//! follows from that event. So whoever finishes it, the handler or, after a cut, somebody else, stops the same ones and
//! counts the same, and the answer is read off the log.

use cqrs_es::Aggregate;
use domain::bulk_stop::{BulkStop, BulkStopCommand, BulkStopError};
use eventlog::{Position, StreamId};
use futures::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use crate::execute::state_after;
use crate::{Ask, Commands, Error};

/// How many executions are stopped at once: their events share commits.
const STOPPED_AT_ONCE: usize = 64;

/// What became of executions that were to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoppedExecutions {
    /// How many were stopped; the others had ended by themselves.
    pub count: u64,
    /// There were more that had not ended.
    pub more: bool,
    /// The position at which none of them went on any more.
    pub position: Position,
}

impl Commands {
    /// What came of this very request when it was made before. What a cut had left undone of it is done now.
    ///
    /// # Errors
    /// [`Error::CommandReused`] where it was another request; log or vault fail.
    pub async fn stopped_before(&self, ask: &Ask) -> Result<Option<StoppedExecutions>, Error> {
        let stream = bulk_stop_of(ask);
        match self.done_before(&stream, ask).await? {
            Some(done) => self.finish_bulk_stop(&done.stream).await.map(Some),
            None => Ok(None),
        }
    }

    /// Stops executions of an agent. Those that have ended are passed over.
    ///
    /// # Errors
    /// Log or vault fail; some may have been stopped by then, and the others will be.
    pub async fn stop_executions(
        &self,
        agent: Uuid,
        executions: Vec<Uuid>,
        more: bool,
        ask: &Ask,
    ) -> Result<StoppedExecutions, Error> {
        let request = BulkStopCommand::Request { agent, executions, more };
        let done = self.execute_anew::<BulkStop>(bulk_stop_of(ask), request, ask).await?;
        self.finish_bulk_stop(&done.stream).await
    }

    /// Stops what a bulk stop means and has not stopped yet. Again is the same as once, and so is at the same time.
    ///
    /// # Errors
    /// There is none of that stream; log or vault fail.
    pub(crate) async fn finish_bulk_stop(
        &self,
        stream: &StreamId,
    ) -> Result<StoppedExecutions, Error> {
        let events = self.whole_stream(stream).await?;
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Err(Error::refused(&BulkStopError::NotFound));
        };
        match state_after(&events)? {
            BulkStop::Missing => Err(Error::refused(&BulkStopError::NotFound)),
            BulkStop::Finished { stopped, more } => {
                Ok(StoppedExecutions { count: stopped, more, position: last.position })
            }
            BulkStop::Open { executions, more } => {
                let ask = Ask::rest_of(first);
                let stopped = self.stop_each(executions, &ask).await?;
                let finish = BulkStopCommand::Finish { stopped };
                let done =
                    self.execute::<BulkStop>(stream.id(), finish, &ask.follow_up("finish")).await?;
                // Who came first has said it; where that is somebody else, it is read.
                match done.events.is_empty() {
                    true => Box::pin(self.finish_bulk_stop(stream)).await,
                    false => {
                        let position = done.position();
                        Ok(StoppedExecutions { count: stopped, more, position })
                    }
                }
            }
        }
    }

    /// Stops executions; answers how many of them `ask` stopped, now or before.
    async fn stop_each(&self, executions: Vec<Uuid>, ask: &Ask) -> Result<u64, Error> {
        let stopped = stream::iter(executions)
            .map(|execution| {
                let (commands, ask) = (self.clone(), ask.follow_up(&format!("stop {execution}")));
                async move { commands.stops(execution, &ask).await }
            })
            .buffer_unordered(STOPPED_AT_ONCE);
        let add = |sum: u64, is_stopped: bool| async move { Ok(sum + u64::from(is_stopped)) };
        stopped.try_fold(0, add).await
    }

    /// Stops an execution unless it has ended. Whether it was `ask` that did.
    async fn stops(&self, execution: Uuid, ask: &Ask) -> Result<bool, Error> {
        match self.stop_execution(execution, ask).await {
            // It was stopped already: by somebody else, or for the same request, beside us.
            Ok(done) if done.events.is_empty() => {
                let stream = StreamId::new("execution", execution);
                Ok(self.done_before(&stream, ask).await?.is_some())
            }
            Ok(_) => Ok(true),
            Err(Error::Refused { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn bulk_stop_of(ask: &Ask) -> StreamId {
    StreamId::new(BulkStop::TYPE, ask.new_id("bulk stop"))
}

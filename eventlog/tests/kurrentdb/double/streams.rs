//! Appends and reads, as the server's `Streams` service answers them.
//!
//! The rule of this file: statuses, their metadata and the order of messages are the server's.
#![expect(clippy::result_large_err, reason = "tonic's status is as large as it is")]

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use crate::proto::shared::{StreamIdentifier, Uuid, uuid::Value};
use crate::proto::streams::append_req::Content as AppendContent;
use crate::proto::streams::append_req::options::ExpectedStreamRevision;
use crate::proto::streams::append_resp::{self, success, wrong_expected_version as wrong};
use crate::proto::streams::read_req::options::{
    CountOption, FilterOption, StreamOption, all_options, filter_options::Filter, stream_options,
};
use crate::proto::streams::read_resp::{self, Content as ReadContent, read_event};
use crate::proto::streams::streams_server::Streams as Service;
use crate::proto::streams::{AppendReq, AppendResp, ReadReq, ReadResp};
use base64::Engine;
use futures::Stream;
use futures::channel::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::log::{Database, Expects, Outcome, Stored};
use crate::wire::Wires;
use crate::{AppendFault, Role, Switches, USER};

/// What the server takes in one append.
const MOST_BYTES: usize = 1024 * 1024;

/// Events that a filtered subscription looks at between two checkpoints.
const CHECKPOINT_EVERY: usize = 32;

/// One node's service.
pub struct Streams {
    pub database: Arc<Database>,
    pub switches: Arc<Switches>,
    pub wires: Arc<Wires>,
}

/// A message's id, in either of its two forms.
pub fn id(id: Option<&Uuid>) -> uuid::Uuid {
    match id.and_then(|id| id.value.as_ref()) {
        Some(Value::String(text)) => text.parse().unwrap(),
        Some(Value::Structured(halves)) => uuid::Uuid::from_u64_pair(
            halves.most_significant_bits as u64,
            halves.least_significant_bits as u64,
        ),
        None => uuid::Uuid::nil(),
    }
}

impl Streams {
    /// Refuses strangers, and sends on who asks for a leader.
    fn admit(&self, metadata: &MetadataMap) -> Result<(), Status> {
        let is = |name: &str, value: &str| {
            metadata.get(name).and_then(|found| found.to_str().ok()) == Some(value)
        };
        let known = base64::engine::general_purpose::STANDARD.encode(USER);
        if !is("authorization", &format!("Basic {known}")) {
            return Err(Status::unauthenticated("Authentication Failed"));
        }
        match *self.switches.role.lock() {
            Role::Leader => Ok(()),
            Role::NotReady => Err(Status::unavailable("Server Is Not Ready")),
            _ if !is("requires-leader", "true") => Ok(()),
            Role::Leaderless => Err(Status::unknown("No leader info available in response")),
            Role::Follower { leader } => {
                let mut metadata = MetadataMap::new();
                metadata.insert("exception", "not-leader".parse().unwrap());
                metadata.insert("leader-endpoint-host", leader.ip().to_string().parse().unwrap());
                metadata.insert("leader-endpoint-port", leader.port().to_string().parse().unwrap());
                Err(Status::with_metadata(Code::NotFound, "Leader info available", metadata))
            }
        }
    }

    fn read_stream(&self, request: &ReadReq, count: u64) -> Result<Vec<ReadResp>, Status> {
        let options = request.options.as_ref().unwrap();
        let Some(StreamOption::Stream(stream)) = &options.stream_option else { unreachable!() };
        let name = String::from_utf8(stream_name(stream.stream_identifier.as_ref())).unwrap();
        let Some(mut events) = self.database.stream(&name) else {
            return Ok(vec![response(ReadContent::StreamNotFound(read_resp::StreamNotFound {
                stream_identifier: stream.stream_identifier.clone(),
            }))]);
        };
        let is_backwards = options.read_direction == 1;
        match stream.revision_option.as_ref().unwrap() {
            stream_options::RevisionOption::Revision(at) if is_backwards => {
                events.retain(|event| event.revision <= *at);
            }
            stream_options::RevisionOption::Revision(at) => {
                events.retain(|event| event.revision >= *at);
            }
            stream_options::RevisionOption::Start(()) | stream_options::RevisionOption::End(()) => {
            }
        }
        if is_backwards {
            events.reverse();
        }
        let tells_position = !*self.database.is_old.lock();
        let events = events.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX));
        Ok(events.map(|event| response(event_content(&event, tells_position))).collect())
    }

    fn read_all(&self, request: &ReadReq, count: u64) -> Result<Vec<ReadResp>, Status> {
        let options = request.options.as_ref().unwrap();
        let is_wanted = filter(options.filter_option.as_ref())?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let events = match (self.place(request), options.read_direction == 1) {
            (None, true) => self.database.backwards(is_wanted, count),
            (Some(_), true) => return Err(Status::unimplemented("backwards from a place")),
            (place, false) => self.from(place.unwrap_or(0), is_wanted, count)?,
        };
        Ok(events.iter().map(|event| response(event_content(event, true))).collect())
    }

    /// The server reads the bytes at a position, whatever they are.
    fn from(
        &self,
        position: u64,
        is_wanted: impl Fn(&Stored) -> bool,
        count: usize,
    ) -> Result<Vec<Arc<Stored>>, Status> {
        self.database.from(position, is_wanted, count).map_err(|error| {
            Status::unknown(format!("Unexpected FilteredReadAllResult: Error {error}"))
        })
    }

    /// Where a read of all streams begins; `None` at the end that lies before it.
    fn place(&self, request: &ReadReq) -> Option<u64> {
        let options = request.options.as_ref().unwrap();
        let Some(StreamOption::All(all)) = &options.stream_option else { unreachable!() };
        match all.all_option.as_ref().unwrap() {
            all_options::AllOption::Position(position) => Some(position.commit_position),
            all_options::AllOption::Start(()) | all_options::AllOption::End(()) => None,
        }
    }

    /// Sends what is there, then what comes, until nobody listens.
    async fn subscribe(
        self: Arc<Self>,
        request: ReadReq,
        is_wanted: Wanted,
        answers: mpsc::UnboundedSender<Result<ReadResp, Status>>,
    ) -> Result<(), mpsc::TrySendError<Result<ReadResp, Status>>> {
        let mut quiet_end = self.switches.quiet_ends.lock().pop_front();
        let mut cut = self.switches.cuts.lock().pop_front();
        let mut news = self.database.news();
        let confirmation =
            read_resp::SubscriptionConfirmation { subscription_id: "of the double".into() };
        answers.unbounded_send(Ok(response(ReadContent::Confirmation(confirmation))))?;
        let mut after = self.place(&request);
        let mut considered = 0;
        let mut has_caught_up = false;
        loop {
            news.mark_unchanged();
            let page = match self.from(after.unwrap_or(0), |_| true, usize::MAX) {
                Ok(page) => page,
                Err(status) => return answers.unbounded_send(Err(status)),
            };
            let known = after;
            for event in page.iter().filter(|event| known.is_none_or(|at| event.position > at)) {
                after = Some(event.position);
                considered += 1;
                if is_wanted(event) {
                    answers.unbounded_send(Ok(response(event_content(event, true))))?;
                    for (left, is_quiet) in [(&mut quiet_end, true), (&mut cut, false)] {
                        let Some(left) = left else { continue };
                        *left = left.saturating_sub(1);
                        if *left == 0 {
                            if !is_quiet {
                                self.wires.cut();
                            }
                            return Ok(());
                        }
                    }
                }
                if considered % CHECKPOINT_EVERY == 0 {
                    answers.unbounded_send(Ok(checkpoint(event.position)))?;
                }
            }
            if !has_caught_up {
                has_caught_up = true;
                if let Some(at) = after {
                    answers.unbounded_send(Ok(checkpoint(at)))?;
                }
                let position = after
                    .map(|at| read_resp::Position { commit_position: at, prepare_position: at });
                let caught_up = read_resp::CaughtUp {
                    timestamp: Some(prost_types::Timestamp::default()),
                    stream_revision: None,
                    position,
                };
                answers.unbounded_send(Ok(response(ReadContent::CaughtUp(caught_up))))?;
            }
            if news.changed().await.is_err() || answers.is_closed() {
                return Ok(());
            }
        }
    }
}

#[tonic::async_trait]
impl Service for Streams {
    type ReadStream = Pin<Box<dyn Stream<Item = Result<ReadResp, Status>> + Send>>;

    async fn read(&self, request: Request<ReadReq>) -> Result<Response<Self::ReadStream>, Status> {
        self.admit(request.metadata())?;
        let request = request.into_inner();
        let options = request.options.as_ref().unwrap();
        let answers = match (&options.stream_option, &options.count_option) {
            (Some(StreamOption::Stream(_)), Some(CountOption::Count(count))) => {
                self.read_stream(&request, *count)?
            }
            (Some(StreamOption::All(_)), Some(CountOption::Count(count))) => {
                self.read_all(&request, *count)?
            }
            (Some(StreamOption::All(_)), Some(CountOption::Subscription(_))) => {
                let is_wanted = filter(options.filter_option.as_ref())?;
                let (sender, answers) = mpsc::unbounded();
                let this = Arc::new(Streams {
                    database: self.database.clone(),
                    switches: self.switches.clone(),
                    wires: self.wires.clone(),
                });
                // It ends when nobody listens any more.
                tokio::spawn(async move {
                    let _ = this.subscribe(request, is_wanted, sender).await;
                });
                return Ok(Response::new(Box::pin(answers)));
            }
            other => return Err(Status::unimplemented(format!("{other:?}"))),
        };
        Ok(Response::new(Box::pin(futures::stream::iter(answers.into_iter().map(Ok)))))
    }

    async fn append(
        &self,
        request: Request<Streaming<AppendReq>>,
    ) -> Result<Response<AppendResp>, Status> {
        self.admit(request.metadata())?;
        let mut request = request.into_inner();
        let mut options = None;
        let mut messages = Vec::new();
        while let Some(part) = request.message().await? {
            match part.content {
                Some(AppendContent::Options(found)) => options = Some(found),
                Some(AppendContent::ProposedMessage(message)) => messages.push(message),
                None => return Err(Status::invalid_argument("an empty message")),
            }
        }
        let bytes: usize = messages.iter().map(|m| m.data.len() + m.custom_metadata.len()).sum();
        if bytes > MOST_BYTES {
            let why = format!("Maximum Append Size of {MOST_BYTES} Exceeded.");
            return Err(Status::invalid_argument(why));
        }
        let fault = self.switches.appends.lock().pop_front();
        if fault == Some(AppendFault::CutBefore) {
            self.wires.cut();
            return Err(Status::aborted("never heard"));
        }
        if fault == Some(AppendFault::Busy) {
            return Err(Status::unavailable("Server Is Too Busy"));
        }
        let options = options.unwrap();
        let name = String::from_utf8(stream_name(options.stream_identifier.as_ref())).unwrap();
        let expected = options.expected_stream_revision.unwrap();
        let expects = match expected {
            ExpectedStreamRevision::Revision(revision) => Expects::Revision(revision),
            ExpectedStreamRevision::NoStream(()) => Expects::NoStream,
            ExpectedStreamRevision::Any(()) => Expects::Any,
            ExpectedStreamRevision::StreamExists(()) => {
                return Err(Status::unimplemented("StreamExists"));
            }
        };
        let outcome = self.database.append(&name, expects, &messages);
        match fault {
            Some(AppendFault::CutAfter) => {
                self.wires.cut();
                return Err(Status::aborted("never heard"));
            }
            Some(AppendFault::TimeOutAfter) => {
                return Err(Status::aborted("Operation timed out: prepare phase"));
            }
            _ => {}
        }
        let result = match outcome {
            Outcome::Stored { revision, position } => {
                append_resp::Result::Success(append_resp::Success {
                    current_revision_option: Some(success::CurrentRevisionOption::CurrentRevision(
                        revision,
                    )),
                    position_option: Some(success::PositionOption::Position(
                        append_resp::Position {
                            commit_position: position,
                            prepare_position: position,
                        },
                    )),
                })
            }
            Outcome::WrongRevision(current) => {
                append_resp::Result::WrongExpectedVersion(wrong_revision(current, expects))
            }
        };
        Ok(Response::new(AppendResp { result: Some(result) }))
    }
}

fn wrong_revision(current: Option<u64>, expects: Expects) -> append_resp::WrongExpectedVersion {
    use wrong::{CurrentRevisionOption as Current, ExpectedRevisionOption as Expected};
    append_resp::WrongExpectedVersion {
        current_revision_option: Some(match current {
            Some(revision) => Current::CurrentRevision(revision),
            None => Current::CurrentNoStream(()),
        }),
        expected_revision_option: Some(match expects {
            Expects::Any => Expected::ExpectedAny(()),
            Expects::NoStream => Expected::ExpectedNoStream(()),
            Expects::Revision(revision) => Expected::ExpectedRevision(revision),
        }),
        ..append_resp::WrongExpectedVersion::default()
    }
}

/// Says whether an event is asked for.
type Wanted = Box<dyn Fn(&Stored) -> bool + Send + Sync>;

/// Knows prefixes, and of regular expressions the one that leaves out the system's events.
fn filter(option: Option<&FilterOption>) -> Result<Wanted, Status> {
    let Some(FilterOption::Filter(options)) = option else { return Ok(Box::new(|_| true)) };
    let (expression, by_stream) = match options.filter.as_ref().unwrap() {
        Filter::StreamIdentifier(expression) => (expression.clone(), true),
        Filter::EventType(expression) => (expression.clone(), false),
    };
    if !matches!(expression.regex.as_str(), "" | r"^[^\$].*") {
        return Err(Status::unimplemented(expression.regex));
    }
    Ok(Box::new(move |event| {
        let text = if by_stream { &event.stream } else { &event.event_type };
        if expression.regex.is_empty() {
            expression.prefix.iter().any(|prefix| text.starts_with(prefix))
        } else {
            !text.starts_with('$')
        }
    }))
}

fn stream_name(identifier: Option<&StreamIdentifier>) -> Vec<u8> {
    identifier.unwrap().stream_name.clone()
}

fn response(content: ReadContent) -> ReadResp {
    ReadResp { content: Some(content) }
}

fn checkpoint(position: u64) -> ReadResp {
    response(ReadContent::Checkpoint(read_resp::Checkpoint {
        commit_position: position,
        prepare_position: position,
        timestamp: Some(prost_types::Timestamp::default()),
    }))
}

fn event_content(event: &Stored, tells_position: bool) -> ReadContent {
    let position = if tells_position { event.position } else { u64::MAX };
    let recorded = read_event::RecordedEvent {
        id: Some(Uuid { value: Some(Value::String(event.id.to_string())) }),
        stream_identifier: Some(StreamIdentifier {
            stream_name: event.stream.clone().into_bytes(),
        }),
        stream_revision: event.revision,
        prepare_position: position,
        commit_position: position,
        metadata: HashMap::from([
            ("type".into(), event.event_type.clone()),
            ("created".into(), event.created.to_string()),
            ("content-type".into(), event.content_type.clone()),
        ]),
        custom_metadata: event.metadata.clone(),
        data: event.data.clone(),
    };
    ReadContent::Event(read_resp::ReadEvent {
        event: Some(recorded),
        link: None,
        position: Some(if tells_position {
            read_event::Position::CommitPosition(position)
        } else {
            read_event::Position::NoPosition(())
        }),
    })
}

//! Files that people send to a bot: they come into the knowledge base that its integration names.
//!
//! The rule of this file: what became of a file is noted before anybody is told of it, and its bytes
//! are safe before that. One that is cut off in between is fetched again, and is the same file: by its
//! bytes, and by the command that put it there.

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use domain::conversation::{ConversationCommand, ConversationEvent, FileFate};
use domain::refusal::RefusalKind;
use domain::{BlobRef, FileName};
use eventlog::RecordedEvent;
use uuid::Uuid;
use vault::PutError;

use super::{Conversations, Heard, NAME, Stop, ToolError};
use crate::communicator::SentFile;
use crate::execute::decode_event;
use crate::file::{FileFacts, NewFile, media_type_of};
use crate::{Ask, Error, OpenIntegration};

const REFUSED: &str = "conversation.file_refused.v1";
const ERROR: &str = "error";

/// For how long after a message its files are asked for again where that may help.
const PATIENCE: TimeDelta = TimeDelta::minutes(3);

/// How long one file may take.
const LIMIT: Duration = Duration::from_secs(300);

/// What became of a file, as people are told.
pub(super) struct TakenFile {
    name: String,
    /// The file that it is in the knowledge base.
    pub(super) file: Option<Uuid>,
    told: Told,
}

enum Told {
    New,
    Known,
    Refused(String),
}

/// Why a file is not taken, this time.
enum Trouble {
    /// Nobody can take it.
    Refused(ToolError),
    /// The work stops here.
    Stop(Stop),
}

impl From<ToolError> for Trouble {
    fn from(error: ToolError) -> Trouble {
        Trouble::Refused(error)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Stop(error.into())
    }
}

fn refused(code: &str, message: impl ToString) -> Trouble {
    Trouble::Refused(ToolError::lasting(code, message.to_string()))
}

/// Where the files of a message go.
struct Target {
    integration: OpenIntegration,
    knowledge_base: Uuid,
}

impl Conversations {
    /// Takes in what comes with a message, where its integration says so. Answers what became of each file,
    /// in their order; nothing where files go nowhere.
    pub(super) async fn take_files(
        &self,
        heard: &Heard,
        events: &[Arc<RecordedEvent>],
        conversation: Uuid,
    ) -> Result<Vec<TakenFile>, Stop> {
        let mut taken = Vec::new();
        if heard.said.files.is_empty() {
            return Ok(taken);
        }
        let target = self.target(heard).await?;
        for (number, sent) in (0..).zip(&heard.said.files) {
            let known = self.settled(heard, events, number).await?;
            let (file, told) = match (known, &target) {
                (Some(known), _) => known,
                (None, Some(target)) => {
                    self.take(heard, target, conversation, number, sent).await?
                }
                // Nobody wants it, or no longer.
                (None, None) => break,
            };
            taken.push(TakenFile { name: sent.name.clone(), file, told });
        }
        Ok(taken)
    }

    /// Where files go that come through the integration of a message.
    async fn target(&self, heard: &Heard) -> Result<Option<Target>, Stop> {
        let integration = match self.commands.open_integration(heard.message.integration).await {
            Ok(found) if found.enabled => found,
            Ok(_) | Err(Error::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let named = integration.told.config.get("ingest_files").and_then(|base| base.as_str());
        let Some(knowledge_base) = named.and_then(|base| base.parse().ok()) else {
            return Ok(None);
        };
        Ok(Some(Target { integration, knowledge_base }))
    }

    /// What is noted of a file already.
    async fn settled(
        &self,
        heard: &Heard,
        events: &[Arc<RecordedEvent>],
        wanted: u32,
    ) -> Result<Option<(Option<Uuid>, Told)>, Error> {
        for event in events {
            match decode_event(event)? {
                ConversationEvent::FileTaken { message, number, file, is_known, .. }
                    if message == heard.message.message && number == wanted =>
                {
                    let told = if is_known { Told::Known } else { Told::New };
                    return Ok(Some((Some(file), told)));
                }
                ConversationEvent::FileRefused { message, number, error, .. }
                    if message == heard.message.message && number == wanted =>
                {
                    let room = &heard.room;
                    let opened = self.commands.open_text_in(room, REFUSED, ERROR, &error).await?;
                    return Ok(Some((None, Told::Refused(opened.unwrap_or_default()))));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Takes a file in, or notes why not.
    async fn take(
        &self,
        heard: &Heard,
        target: &Target,
        conversation: Uuid,
        number: u32,
        sent: &SentFile,
    ) -> Result<(Option<Uuid>, Told), Stop> {
        let message = heard.message.message;
        let fetched = self.fetch(heard, target, conversation, number, sent).await;
        let (fate, told) = match fetched {
            Ok((file, is_known)) => {
                let knowledge_base = target.knowledge_base;
                let told = if is_known { Told::Known } else { Told::New };
                (FileFate::Taken { knowledge_base, file, is_known }, (Some(file), told))
            }
            Err(Trouble::Stop(stop)) => return Err(stop),
            Err(Trouble::Refused(error))
                if error.is_passing && Utc::now() - heard.event.time < PATIENCE =>
            {
                return Err(Stop::Passing(error.message));
            }
            Err(Trouble::Refused(ToolError { code, message, .. })) => {
                let text = message.as_bytes();
                let error = self.commands.seal_in(&heard.room, REFUSED, ERROR, text).await?;
                (FileFate::Refused { code, error }, (None, Told::Refused(message)))
            }
        };
        let settle = ConversationCommand::SettleFile { message, number, fate };
        let ask = self.ask(heard, &[b"file settled", &number.to_be_bytes()]);
        self.tell(conversation, settle, &ask).await?;
        Ok(told)
    }

    /// Fetches a file and puts it into the knowledge base. Answers which file it is there, and whether its
    /// bytes were there before.
    async fn fetch(
        &self,
        heard: &Heard,
        target: &Target,
        conversation: Uuid,
        number: u32,
        sent: &SentFile,
    ) -> Result<(Uuid, bool), Trouble> {
        let (product, limit) = (heard.room.product, self.tools.file_limit);
        let too_large = || {
            let message = format!("it has more than {limit} bytes, and larger files are not read");
            refused("too_large", message)
        };
        let name = FileName::parse(&sent.name).map_err(|why| refused("name_invalid", why))?;
        embeddings::check_format(name.as_str(), sent.media_type.as_deref())
            .map_err(|why| refused(why.code(), why))?;
        if sent.size.is_some_and(|size| size > limit) {
            return Err(too_large());
        }
        if !self.knowledge.has_base(product, target.knowledge_base).await? {
            let message =
                "the knowledge base that files go into is gone: name another one as ingest_files";
            return Err(refused("knowledge_base_not_found", message));
        }
        let message = heard.message.message;
        let secrets_version = target.integration.secrets_version;
        let attempt = ConversationCommand::AttemptFile { message, number, secrets_version };
        let parts = [&b"file attempted"[..], &number.to_be_bytes(), &secrets_version.to_be_bytes()];
        self.commands.converse(conversation, attempt, &self.ask(heard, &parts)).await?;

        let stored = async {
            let fetched = self.tools.connectors.fetch(&target.integration, sent).await?;
            if fetched.length().is_some_and(|length| length > limit) {
                return Err(too_large());
            }
            let bytes = fetched.into_stream();
            self.commands.vault().put_blob(product, bytes, limit).await.map_err(|error| match error
            {
                PutError::TooLarge { .. } => too_large(),
                PutError::Body(error) => Trouble::Refused(error),
                PutError::Vault(error) => Error::from(error).into(),
            })
        };
        let stored = tokio::time::timeout(LIMIT, stored).await.unwrap_or_else(|_| {
            let message = format!("it did not come within {} s", LIMIT.as_secs());
            Err(Trouble::Refused(ToolError::passing("timed_out", message)))
        });
        let blob = stored.map(|blob| BlobRef { name: blob.name, size: blob.size })?;
        let media_type = sent.media_type.clone().unwrap_or_else(|| media_type_of(&name));
        let ask = self.ask(heard, &[b"file", &number.to_be_bytes(), blob.name.as_bytes()]);
        let new = NewFile { name, media_type, blob };
        let source = format!("{}/{conversation}/{message}", heard.said.communicator);
        let facts = FileFacts { source: Some(source), ..FileFacts::default() };
        let into = target.knowledge_base;
        match self.commands.upload_file(into, new, &facts, false, &ask).await {
            Ok(uploaded) => Ok((uploaded.id, uploaded.done.is_none())),
            Err(Error::Refused { kind: RefusalKind::NotFound, message, .. }) => {
                Err(refused("knowledge_base_not_found", message))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn ask(&self, heard: &Heard, parts: &[&[u8]]) -> Ask {
        Ask::because_of(&heard.event, NAME, parts)
    }
}

/// What people are told of the files that they sent.
pub(super) fn report(files: &[TakenFile]) -> Option<String> {
    let lines: Vec<String> = files
        .iter()
        .map(|TakenFile { name, told, .. }| match told {
            Told::New => format!("I took {name} in, and read it now."),
            Told::Known => format!("I have {name} already."),
            Told::Refused(why) => format!("I did not take {name} in: {why}."),
        })
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

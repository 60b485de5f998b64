//! Integrations: connections to outside tools, and the data keys that their secrets are sealed under.
//!
//! The rule of this file: a secret comes in, is checked and sealed, and is opened again only for whoever
//! calls the other side. What is shown of it is its mask.

use std::collections::{BTreeMap, BTreeSet};

use cqrs_es::Aggregate;
use domain::integration::kind::{Secrets, Told};
use domain::integration::{
    Integration, IntegrationCommand, IntegrationError, IntegrationEvent, IntegrationKind,
};
use domain::integration_use::{IntegrationUse, IntegrationUseCommand};
use domain::knowledge_base::KnowledgeBaseEvent;
use domain::values::Object;
use domain::{InvalidDocument, Name, Sealed, refusal};
use eventlog::{Position, RecordedEvent, StreamId};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::agent::{MASK, masked};
use crate::execute::decode_event;
use crate::{Ask, Commands, Done, Error};

mod receiver;

const CREATED: &str = "integration.created.v1";
const CONFIGURED: &str = "integration.configured.v1";
const SECRETS_CHANGED: &str = "integration.secrets_changed.v1";
const KEY_ROTATED: &str = "integration.key_rotated.v1";
const CONFIG: &str = "config";

/// Where an integration's configuration names the knowledge base that files go into.
const INGEST_FILES: &str = "ingest_files";

/// How often an integration is read again that was changed, or whose key was given up, meanwhile.
const LOOKS: usize = 3;

/// The first data key of an integration.
fn first_key(integration: Uuid) -> String {
    format!("integration-{integration}")
}

/// The name of the field that a secret is sealed for.
pub fn secret_field(name: &str) -> String {
    format!("secrets/{name}")
}

/// An integration that is to be made: in the product of the one who asks, or of the organization.
#[derive(Debug)]
pub struct NewIntegration {
    /// What it connects to.
    pub kind: IntegrationKind,
    /// What people call it.
    pub title: Name,
    /// How to reach the other side.
    pub config: Object,
    /// What lets it in.
    pub secrets: Secrets,
}

/// What is to be changed of an integration; nothing that is not given.
#[derive(Debug, Default)]
pub struct IntegrationChange {
    /// Another title.
    pub title: Option<Name>,
    /// Another configuration, whole.
    pub config: Option<Object>,
    /// Other secrets. One that comes back as it was shown, masked, stays as it is.
    pub secrets: Secrets,
    /// Secrets that are to go.
    pub removed: BTreeSet<String>,
    /// Switched on or off.
    pub enabled: Option<bool>,
}

/// An integration with what it was told, in the clear.
#[derive(Clone, Debug)]
pub struct OpenIntegration {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub organization: Uuid,
    /// The product, of a local one.
    pub product: Option<Uuid>,
    /// What it connects to.
    pub kind: IntegrationKind,
    /// Whether it may be used.
    pub enabled: bool,
    /// What it was told.
    pub told: Told,
    /// Which secrets these are.
    pub secrets_version: u64,
    /// The data key that all is sealed under.
    pub(crate) key: String,
}

/// An integration as it was read: what follows from it holds only as long as its stream does not move.
struct AsRead {
    open: OpenIntegration,
    state: Integration,
    sequence: u64,
}

/// A sealed text, and the event that it was sealed for.
struct SealedFor {
    event_type: String,
    sealed: Sealed,
}

/// What the events of an integration say, still sealed.
struct Known {
    organization: Uuid,
    product: Option<Uuid>,
    kind: IntegrationKind,
    enabled: bool,
    key: String,
    config: SealedFor,
    secrets: BTreeMap<String, SealedFor>,
    secrets_version: u64,
}

impl Known {
    /// The integration that a stream tells of; none where it is missing or deleted.
    fn of(events: &[std::sync::Arc<RecordedEvent>]) -> Result<Option<Known>, Error> {
        let mut known: Option<Known> = None;
        for event in events {
            let sealed = |sealed| SealedFor { event_type: event.event_type.clone(), sealed };
            match (decode_event(event)?, &mut known) {
                (IntegrationEvent::Created { kind, key, config, secrets, .. }, _) => {
                    known = Some(Known {
                        organization: event.organization,
                        product: event.product,
                        kind,
                        enabled: true,
                        key,
                        config: sealed(config),
                        secrets: secrets.into_iter().map(|(name, it)| (name, sealed(it))).collect(),
                        secrets_version: 1,
                    });
                }
                (IntegrationEvent::Configured { config }, Some(known)) => {
                    known.config = sealed(config);
                }
                (
                    IntegrationEvent::SecretsChanged { secrets, removed, secrets_version },
                    Some(known),
                ) => {
                    known.secrets.retain(|name, _| !removed.contains(name));
                    let new = secrets.into_iter().map(|(name, it)| (name, sealed(it)));
                    known.secrets.extend(new);
                    known.secrets_version = secrets_version;
                }
                (IntegrationEvent::KeyRotated { key, config, secrets }, Some(known)) => {
                    known.key = key;
                    known.config = sealed(config);
                    known.secrets =
                        secrets.into_iter().map(|(name, it)| (name, sealed(it))).collect();
                }
                (IntegrationEvent::Enabled {}, Some(known)) => known.enabled = true,
                (IntegrationEvent::Disabled {}, Some(known)) => known.enabled = false,
                (IntegrationEvent::Deleted {} | IntegrationEvent::Erased {}, _) => known = None,
                (IntegrationEvent::Renamed { .. }, _) | (_, None) => {}
            }
        }
        Ok(known)
    }
}

impl Commands {
    /// Makes an integration. Nothing is connected to.
    ///
    /// # Errors
    /// What it was told is not what its kind needs.
    pub async fn create_integration(&self, new: NewIntegration, ask: &Ask) -> Result<Done, Error> {
        let integration = ask.new_id("integration");
        let stream = StreamId::new("integration", integration);
        // Before the key: that of one which was deleted since is not made again.
        if let Some(done) = self.done_before(&stream, ask).await? {
            return Ok(done);
        }
        refuse_masks(&new.secrets)?;
        let told = new.kind.check(new.config, new.secrets).map_err(|it| Error::refused(&it))?;
        self.check_ingests_into(&told.config, ask.metadata.product).await?;
        let key = first_key(integration);
        self.vault.create_key(&key).await?;
        let create = IntegrationCommand::Create {
            kind: new.kind,
            title: new.title,
            config: self.seal_told(&key, ask, &stream, CREATED, &told.config).await?,
            secrets: self.seal_secrets(&key, ask, &stream, CREATED, &told.secrets).await?,
            key,
        };
        self.execute::<Integration>(integration, create, ask).await
    }

    /// Changes an integration.
    ///
    /// # Errors
    /// There is none of that id, or what it is told then is not what its kind needs.
    pub async fn change_integration(
        &self,
        integration: Uuid,
        change: IntegrationChange,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let stream = StreamId::new("integration", integration);
        for _ in 0..LOOKS {
            if let Some(done) = self.done_before(&stream, ask).await? {
                return Ok(done);
            }
            let read = self.read_integration(integration).await?;
            match self.change_as_read(read, &change, ask).await {
                Err(Error::Conflict) => {}
                done => return done,
            }
        }
        Err(Error::Conflict)
    }

    async fn change_as_read(
        &self,
        read: AsRead,
        change: &IntegrationChange,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let AsRead { open: present, state, sequence } = read;
        let stream = StreamId::new("integration", present.id);
        let mut secrets = present.told.secrets.clone();
        secrets.0.retain(|name, _| !change.removed.contains(name));
        // Those that whoever asks knows.
        let mut given = BTreeSet::new();
        for (name, text) in &change.secrets.0 {
            let shown = present.told.secrets.0.get(name).map(|known| masked(known));
            if shown.as_ref() != Some(text) {
                secrets.0.insert(name.clone(), text.clone());
                given.insert(name.as_str());
            }
        }
        let untouched =
            |name: &String, text: &String| present.told.secrets.0.get(name) == Some(text);
        let mut new: BTreeMap<_, _> = secrets.0.clone();
        new.retain(|name, text| !untouched(name, text));
        let new = Secrets(new);
        refuse_masks(&new)?;
        let config = change.config.clone().unwrap_or_else(|| present.told.config.clone());
        let told = present.kind.check(config, secrets).map_err(|it| Error::refused(&it))?;
        receiver::check(present.kind, &present.told, &told, &given)?;
        if told.config.get(INGEST_FILES) != present.told.config.get(INGEST_FILES) {
            self.check_ingests_into(&told.config, present.product).await?;
        }

        let key = present.key;
        let config = match told.config == present.told.config {
            true => None,
            false => Some(self.seal_told(&key, ask, &stream, CONFIGURED, &told.config).await?),
        };
        let command = IntegrationCommand::Change {
            title: change.title.clone(),
            config,
            secrets: self.seal_secrets(&key, ask, &stream, SECRETS_CHANGED, &new).await?,
            removed: change.removed.clone(),
            enabled: change.enabled,
            key,
        };
        let done = self.decide(&stream, (state, sequence), command, ask).await;
        self.unless_done(&stream, done, ask).await
    }

    /// Seals everything that an integration was told under a new data key, and shreds the old one: what
    /// was sealed before is beyond reach afterwards, in backups of the log too.
    ///
    /// # Errors
    /// There is none of that id, or it was changed meanwhile.
    pub async fn rotate_integration_key(
        &self,
        integration: Uuid,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let stream = StreamId::new("integration", integration);
        for _ in 0..LOOKS {
            if let Some(done) = self.done_before(&stream, ask).await? {
                return Ok(done);
            }
            let read = self.read_integration(integration).await?;
            match self.rotate_as_read(read, ask).await {
                // Sealed was what is past: it is read again, and nothing of it lost.
                Err(Error::Conflict) => {}
                done => {
                    let done = done?;
                    self.settle_integration(integration).await?;
                    return Ok(done);
                }
            }
        }
        Err(Error::Conflict)
    }

    async fn rotate_as_read(&self, read: AsRead, ask: &Ask) -> Result<Done, Error> {
        let AsRead { open: present, state, sequence } = read;
        let stream = StreamId::new("integration", present.id);
        let key = format!("{}-{}", first_key(present.id), ask.new_id("data key").simple());
        self.vault.create_key(&key).await?;
        let Told { config, secrets } = &present.told;
        let rotate = IntegrationCommand::RotateKey {
            secrets_version: present.secrets_version,
            config: self.seal_told(&key, ask, &stream, KEY_ROTATED, config).await?,
            secrets: self.seal_secrets(&key, ask, &stream, KEY_ROTATED, secrets).await?,
            key,
        };
        let done = self.decide(&stream, (state, sequence), rotate, ask).await;
        self.unless_done(&stream, done, ask).await
    }

    /// Deletes an integration. A process manager then shreds its data keys.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn delete_integration(&self, integration: Uuid, ask: &Ask) -> Result<Done, Error> {
        self.execute::<Integration>(integration, IntegrationCommand::Delete, ask).await
    }

    /// Shreds the data keys that an integration has given up, and writes down that it is erased where it
    /// is deleted. Several may be at it. Answers the position that shows it.
    pub(crate) async fn settle_integration(&self, integration: Uuid) -> Result<Position, Error> {
        let stream = StreamId::new("integration", integration);
        let events = self.whole_stream(&stream).await?;
        let mut keys = BTreeSet::new();
        let (mut deleted, mut is_erased, mut current) = (None, false, None);
        for event in &events {
            match decode_event(event)? {
                IntegrationEvent::Created { key, .. }
                | IntegrationEvent::KeyRotated { key, .. } => {
                    keys.insert(key.clone());
                    current = Some(key);
                }
                IntegrationEvent::Deleted {} => deleted = Some(event),
                IntegrationEvent::Erased {} => is_erased = true,
                _ => {}
            }
        }
        if is_erased {
            // Another node did it, and this one may know the keys.
            keys.iter().for_each(|key| self.vault.forget_key(key));
            return Ok(Position::START);
        }
        let stays = current.filter(|_| deleted.is_none());
        for key in keys.iter().filter(|key| stays.as_ref() != Some(*key)) {
            if self.vault.key_exists(key).await? {
                self.vault.shred_key(key).await?;
            }
        }
        let Some(deleted) = deleted else { return Ok(Position::START) };
        let ask = Ask::because_of(deleted, "erasure", &[b"erased"]);
        match self.execute::<Integration>(integration, IntegrationCommand::Erase, &ask).await {
            Ok(done) => Ok(done.position()),
            Err(Error::Conflict) => Ok(Position::START),
            Err(error) => Err(error),
        }
    }

    /// An integration with what it was told, in the clear.
    ///
    /// # Errors
    /// There is none of that id, or log or vault fail.
    pub async fn open_integration(&self, integration: Uuid) -> Result<OpenIntegration, Error> {
        self.read_integration(integration).await.map(|read| read.open)
    }

    async fn read_integration(&self, integration: Uuid) -> Result<AsRead, Error> {
        let missing = || Error::refused(&IntegrationError::NotFound);
        let stream = StreamId::new("integration", integration);
        // A key may be given up between the read and the opening: then there is something new to read.
        for _ in 0..LOOKS {
            let events = self.whole_stream(&stream).await?;
            let known = Known::of(&events)?.ok_or_else(missing)?;
            let Some(told) = self.open_known(&stream, &known).await? else { continue };
            let mut state = Integration::default();
            for event in &events {
                state.apply(decode_event(event)?);
            }
            let open = OpenIntegration {
                id: integration,
                organization: known.organization,
                product: known.product,
                kind: known.kind,
                enabled: known.enabled,
                told,
                secrets_version: known.secrets_version,
                key: known.key,
            };
            let sequence = events.last().map_or(0, |last| last.sequence);
            return Ok(AsRead { open, state, sequence });
        }
        Err(missing())
    }

    async fn open_known(&self, stream: &StreamId, known: &Known) -> Result<Option<Told>, Error> {
        let open = async |field: &str, text: &SealedFor| {
            let SealedFor { event_type, sealed } = text;
            self.unseal(known.organization, stream, event_type, field, sealed).await
        };
        let Some(config) = open(CONFIG, &known.config).await? else { return Ok(None) };
        let config = serde_json::from_slice(&config)
            .map_err(|source| Error::Decode { stream: stream.to_string(), source })?;
        let mut secrets = BTreeMap::new();
        for (name, sealed) in &known.secrets {
            let Some(text) = open(&secret_field(name), sealed).await? else { return Ok(None) };
            secrets.insert(name.clone(), String::from_utf8_lossy(&text).into_owned());
        }
        Ok(Some(Told { config, secrets: Secrets(secrets) }))
    }

    /// Writes down that it was tried whether a credential lets anybody in.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn record_integration_test(
        &self,
        tested: &OpenIntegration,
        failure: Option<String>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let test = IntegrationUseCommand::Test {
            integration: tested.id,
            secrets_version: tested.secrets_version,
            failure,
        };
        self.execute::<IntegrationUse>(integration_test(ask), test, ask).await
    }

    /// Writes down that a step is about to call the other side with a credential: before it does, so that
    /// no crash hides it.
    ///
    /// # Errors
    /// Log or vault fail.
    pub(crate) async fn record_integration_call(
        &self,
        called: &OpenIntegration,
        execution: Uuid,
        step_id: &str,
        operation: &str,
        requested: &RecordedEvent,
    ) -> Result<(), Error> {
        let once = Ask::because_of(requested, "runner", &[]);
        // Every attempt is a use of its own.
        let ask = Ask { command_id: Uuid::now_v7(), repeatable: false, ..once };
        let call = IntegrationUseCommand::Call {
            integration: called.id,
            secrets_version: called.secrets_version,
            execution,
            step_id: step_id.to_owned(),
            operation: operation.to_owned(),
        };
        self.execute::<IntegrationUse>(ask.new_id("integration call"), call, &ask).await?;
        Ok(())
    }

    /// What came of a test that was asked for before under the same key.
    ///
    /// # Errors
    /// [`Error::CommandReused`] where it was another request.
    pub async fn integration_test_before(&self, ask: &Ask) -> Result<Option<Done>, Error> {
        self.done_before(&StreamId::new("integration_use", integration_test(ask)), ask).await
    }

    /// Refuses a configuration whose files go into a knowledge base that is not of the product.
    async fn check_ingests_into(
        &self,
        config: &Object,
        product: Option<Uuid>,
    ) -> Result<(), Error> {
        let Some(base) = config.get(INGEST_FILES).and_then(|base| base.as_str()) else {
            return Ok(());
        };
        if let Ok(base) = base.parse::<Uuid>() {
            let events = self.whole_stream(&StreamId::new("knowledge_base", base)).await?;
            let is_there = match (events.first(), events.last()) {
                (Some(first), Some(last)) => {
                    first.product == product
                        && !matches!(decode_event(last)?, KnowledgeBaseEvent::Deleted {})
                }
                _ => false,
            };
            if is_there && product.is_some() {
                return Ok(());
            }
        }
        let message = "this is no knowledge base of the integration's product: name one that is listed there; files of a \
                       global integration go nowhere";
        let fault = refusal::Fault::new("/config/ingest_files", "knowledge_base_unknown", message);
        let message = "files cannot go where the configuration says: mend what `errors` lists";
        Err(Error::refused(&InvalidDocument {
            code: "integration_invalid",
            message: message.to_owned(),
            faults: vec![fault],
        }))
    }

    async fn seal_told(
        &self,
        key: &str,
        ask: &Ask,
        stream: &StreamId,
        event_type: &str,
        config: &Object,
    ) -> Result<Sealed, Error> {
        let text = serde_json::to_string(config)
            .map_err(|source| Error::Decode { stream: stream.to_string(), source })?;
        let text = Zeroizing::new(text);
        self.seal(key, ask.organization(), stream, event_type, CONFIG, text.as_bytes()).await
    }

    async fn seal_secrets(
        &self,
        key: &str,
        ask: &Ask,
        stream: &StreamId,
        event_type: &str,
        secrets: &Secrets,
    ) -> Result<BTreeMap<String, Sealed>, Error> {
        let mut sealed = BTreeMap::new();
        for (name, text) in &secrets.0 {
            let field = secret_field(name);
            let text = text.as_bytes();
            let one = self.seal(key, ask.organization(), stream, event_type, &field, text).await?;
            sealed.insert(name.clone(), one);
        }
        Ok(sealed)
    }
}

fn integration_test(ask: &Ask) -> Uuid {
    ask.new_id("integration test")
}

/// What was only ever shown is no secret: it would be stored in its stead.
fn refuse_masks(secrets: &Secrets) -> Result<(), Error> {
    let faults: Vec<_> = secrets
        .0
        .iter()
        .filter(|(_, text)| text.starts_with(MASK))
        .map(|(name, _)| {
            let pointer = format!("/secrets/{}", refusal::pointer_segment(name));
            let message = "this is how a secret is shown, and not the one that is there: send the \
                           secret itself, or leave it out";
            refusal::Fault::new(pointer, "secret_masked", message)
        })
        .collect();
    if faults.is_empty() {
        return Ok(());
    }
    let message = "a secret came masked that is not there: errors names the places to mend";
    let refused =
        InvalidDocument { code: "integration_invalid", message: message.to_owned(), faults };
    Err(Error::refused(&refused))
}

#[cfg(test)]
mod tests;

//! Conversations: what people say is kept, and what is said back.
//!
//! The rule of this file: what is said, and by whom, is sealed with the key of the product; what follows
//! from it is decided afterwards, by the process managers.

use domain::conversation::{Conversation, ConversationCommand, ConversationEvent, Message};
use domain::integration::IntegrationError;
use domain::product::Product;
use domain::{Payload, Refusal, derived_id};
use eventlog::StreamId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::communicator::{IncomingMessage, Revised, Revision, Said, Saying};
use crate::execute::decode_event;
use crate::{Ask, Commands, Done, Error, OpenIntegration};

const RECEIVED: &str = "conversation.message_received.v1";
const CHANGED: &str = "conversation.message_changed.v1";
const QUEUED: &str = "conversation.reply_queued.v1";
const CONTENT: &str = "content";

/// How often a conversation in which others speak is told something.
const MOST_RACES: usize = 20;

/// Where a conversation is kept, and for whom.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub(crate) organization: Uuid,
    pub(crate) product: Uuid,
    pub(crate) stream: StreamId,
}

impl Commands {
    /// The communicator that people speak through at an address: one of a product, that is enabled.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn communicator(&self, id: Uuid) -> Result<Option<OpenIntegration>, Error> {
        let not_found = IntegrationError::NotFound.reason().1;
        let integration = match self.open_integration(id).await {
            Ok(found) => found,
            Err(Error::Refused { code, .. }) if code == not_found => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(product) = integration.product else { return Ok(None) };
        if !integration.enabled || !integration.kind.is_communicator() {
            return Ok(None);
        }
        Ok(self.has_product(product).await?.then_some(integration))
    }

    /// Keeps what somebody said. What came before under the same id is not kept again.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn receive_message(
        &self,
        integration: &OpenIntegration,
        incoming: IncomingMessage,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let IncomingMessage { delivery_id, conversation, said } = incoming;
        let of = integration.id.as_bytes();
        let message = derived_id(&[b"message", of, delivery_id.as_bytes()]);
        // A delivery that comes again is of the same conversation: what it says is the same.
        let conversation = derived_id(&[b"conversation", of, conversation.as_bytes()]);
        let stream = StreamId::new("conversation", conversation);
        let ask = Ask {
            command_id: derived_id(&[b"receive message", message.as_bytes()]),
            repeatable: true,
            request_hash: None,
            if_match: None,
            ..ask.clone()
        };
        if let Some(done) = self.done_before(&stream, &ask).await? {
            return Ok(done);
        }
        let room = Room {
            organization: integration.organization,
            product: integration.product.unwrap_or_default(),
            stream,
        };
        let content = self.seal_content(&room, RECEIVED, &said).await?;
        let received = Message { integration: integration.id, message, content };
        self.converse(conversation, ConversationCommand::Receive(received), &ask).await
    }

    /// Keeps what somebody says in place of what was said, or that it was taken back. What nobody heard is none
    /// of our business.
    ///
    /// # Errors
    /// Log or vault fail.
    pub async fn revise_message(
        &self,
        integration: &OpenIntegration,
        revision: Revision,
        ask: &Ask,
    ) -> Result<Option<Done>, Error> {
        let Revision { of, conversation, at, said } = revision;
        let us = integration.id.as_bytes();
        let conversation = derived_id(&[b"conversation", us, conversation.as_bytes()]);
        let room = Room {
            organization: integration.organization,
            product: integration.product.unwrap_or_default(),
            stream: StreamId::new("conversation", conversation),
        };
        let message = match of {
            Revised::Delivery(id) => derived_id(&[b"message", us, id.as_bytes()]),
            Revised::Message(id) => match self.heard_as(&room, &id).await? {
                Some(message) => message,
                None => return Ok(None),
            },
        };
        let what: &[u8] = if said.is_some() { b"changed" } else { b"withdrawn" };
        let ask = Ask {
            command_id: derived_id(&[b"revise message", message.as_bytes(), what, at.as_bytes()]),
            repeatable: true,
            request_hash: None,
            if_match: None,
            ..ask.clone()
        };
        if let Some(done) = self.done_before(&room.stream, &ask).await? {
            return Ok(Some(done));
        }
        let content = match said {
            Some(said) => Some(self.seal_content(&room, CHANGED, &said).await?),
            None => None,
        };
        let revise = ConversationCommand::Revise { message, content };
        match self.converse(conversation, revise, &ask).await {
            Ok(done) => Ok(Some(done)),
            Err(Error::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The message of a conversation that the other side calls so.
    async fn heard_as(&self, room: &Room, message_id: &str) -> Result<Option<Uuid>, Error> {
        // People revise what they said just now.
        for event in self.whole_stream(&room.stream).await?.iter().rev() {
            if let ConversationEvent::MessageReceived(received) = decode_event(event)?
                && let Some(said) = self.open_said(room, &received.content).await?
                && said.message_id == message_id
            {
                return Ok(Some(received.message));
            }
        }
        Ok(None)
    }

    /// Whether there is a product that people may hear of: nobody is told anything of one that is deleted.
    pub(crate) async fn has_product(&self, product: Uuid) -> Result<bool, Error> {
        let (state, _) = self.load::<Product>(&StreamId::new("product", product)).await?;
        Ok(matches!(state, Product::Active { .. }))
    }

    /// Carries out a command on a conversation in which others speak meanwhile: each may come first.
    pub(crate) async fn converse(
        &self,
        conversation: Uuid,
        command: ConversationCommand,
        ask: &Ask,
    ) -> Result<Done, Error> {
        for _ in 1..MOST_RACES {
            match self.execute::<Conversation>(conversation, command.clone(), ask).await {
                Err(Error::Conflict) => {}
                outcome => return outcome,
            }
        }
        self.execute::<Conversation>(conversation, command, ask).await
    }

    pub(crate) async fn open_said(
        &self,
        room: &Room,
        content: &Payload,
    ) -> Result<Option<Said>, Error> {
        self.open_content(room, RECEIVED, content).await
    }

    pub(crate) async fn seal_saying(&self, room: &Room, saying: &Saying) -> Result<Payload, Error> {
        self.seal_content(room, QUEUED, saying).await
    }

    pub(crate) async fn open_saying(
        &self,
        room: &Room,
        content: &Payload,
    ) -> Result<Option<Saying>, Error> {
        self.open_content(room, QUEUED, content).await
    }

    async fn seal_content(
        &self,
        room: &Room,
        event_type: &str,
        content: &impl Serialize,
    ) -> Result<Payload, Error> {
        let text = serde_json::to_vec(content)
            .map_err(|source| Error::Decode { stream: room.stream.to_string(), source })?;
        self.seal_in(room, event_type, CONTENT, &Zeroizing::new(text)).await
    }

    /// Seals a text for an event of a conversation.
    pub(crate) async fn seal_in(
        &self,
        room: &Room,
        event_type: &str,
        field: &str,
        text: &[u8],
    ) -> Result<Payload, Error> {
        let Room { organization, product, stream } = room;
        self.seal_payload(*organization, *product, stream, event_type, field, text).await
    }

    async fn open_content<T: DeserializeOwned>(
        &self,
        room: &Room,
        event_type: &str,
        content: &Payload,
    ) -> Result<Option<T>, Error> {
        self.open_json_in(room, event_type, CONTENT, content).await
    }

    /// Opens what [`Commands::seal_in`] sealed; `None` when its key was shredded.
    pub(crate) async fn open_text_in(
        &self,
        room: &Room,
        event_type: &str,
        field: &str,
        payload: &Payload,
    ) -> Result<Option<String>, Error> {
        let Room { organization, product, stream } = room;
        let opened =
            self.open_payload(*organization, *product, stream, event_type, field, payload).await?;
        Ok(opened.map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// Opens what [`Commands::seal_in`] sealed, where it is JSON; `None` when its key was shredded.
    pub(crate) async fn open_json_in<T: DeserializeOwned>(
        &self,
        room: &Room,
        event_type: &str,
        field: &str,
        payload: &Payload,
    ) -> Result<Option<T>, Error> {
        let Room { organization, product, stream } = room;
        let opened =
            self.open_payload(*organization, *product, stream, event_type, field, payload).await?;
        let Some(text) = opened else { return Ok(None) };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| Error::Decode { stream: stream.to_string(), source })
    }
}

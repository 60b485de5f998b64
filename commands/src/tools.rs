//! What steps do outside of this server: ask servers on the web, and let a model answer.
//!
//! The rule of this file: a tool knows nothing of executions. It does what it was told once, and says
//! of a failure whether it may pass. How long it may take is for whoever calls it to say: a call ends
//! when it is dropped.

pub mod address;
pub mod answer;
pub mod http;
pub mod integration;
mod transport;

pub(crate) use transport::root_cause;

use std::sync::Arc;
use std::time::Duration;

use embeddings::Embedder;
use ipnet::IpNet;
use tokio::sync::watch;

use address::AddressPolicy;
use answer::AnswerModel;
use answer::chat::{ChatCompletions, ChatServer};
use answer::extractive::Extractive;
use http::HttpTool;
use integration::Connectors;

use crate::policies::LARGEST_READ;

/// How long a chat model may send nothing, where nobody says so.
const CHAT_IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// What the tools need to be told.
#[derive(Clone, Debug, Default)]
pub struct ToolSettings {
    /// Networks that `http.request` may reach although they are private.
    pub http_allow: Vec<IpNet>,
    /// The server that `llm.answer` asks; without one, it finds the best sentences.
    pub chat: Option<ChatServer>,
    /// How long a chat model may send nothing; two minutes, without it.
    pub chat_idle_timeout: Option<Duration>,
    /// The largest file that may be uploaded, in bytes; as large as can be read, without it.
    pub upload_limit: Option<u64>,
}

/// The tools of this node.
pub struct Tools {
    /// What `http.request` does.
    pub http: HttpTool,
    /// What `llm.answer` does.
    pub answers: Arc<dyn AnswerModel>,
    /// It is a chat model, which follows a prompt.
    pub has_chat_model: bool,
    /// The other sides of integrations.
    pub connectors: Connectors,
    /// The largest file that is taken from one of them, in bytes.
    pub file_limit: u64,
}

impl Tools {
    /// Makes them; nothing is connected to yet.
    ///
    /// # Errors
    /// The certificates of this machine cannot be read.
    pub fn new(
        settings: ToolSettings,
        embedder: watch::Receiver<Option<Embedder>>,
    ) -> reqwest::Result<Tools> {
        let has_chat_model = settings.chat.is_some();
        let answers: Arc<dyn AnswerModel> = match settings.chat {
            Some(server) => Arc::new(ChatCompletions::new(server)?),
            None => Arc::new(Extractive::new(embedder)),
        };
        let policy = AddressPolicy::new(settings.http_allow);
        let http = HttpTool::new(policy.clone())?;
        let idle_timeout = settings.chat_idle_timeout.unwrap_or(CHAT_IDLE_TIMEOUT);
        let connectors = Connectors::new(http.client(), policy, idle_timeout);
        let file_limit = settings.upload_limit.unwrap_or(u64::MAX).min(LARGEST_READ);
        Ok(Tools { http, answers, has_chat_model, connectors, file_limit })
    }
}

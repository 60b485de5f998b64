//! What can go wrong here. The one rule: every message says what to do next.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why a file could not be turned into text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
pub enum ExtractError {
    /// A format that this version does not read.
    #[error(
        "{found} cannot be read by this version: upload it as TXT, Markdown, HTML, CSV, TSV, JSON, XML, PDF, DOCX, PPTX, XLSX, XLS or ODS"
    )]
    UnsupportedFormat {
        /// What it is, as far as it can be told.
        found: String,
    },
    /// The name or media type says one thing, the bytes another.
    #[error(
        "the file is said to be {expected}, but it is {found}: upload it under its true name and media type"
    )]
    MediaTypeMismatch {
        /// What its name or media type says.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Text that no encoding makes sense of.
    #[error(
        "the text is not UTF-8 (byte {offset} is the first that cannot be), nor of another encoding: save it as UTF-8, or as UTF-16 with a byte order mark"
    )]
    NotUtf8 {
        /// The first byte that is not.
        offset: usize,
    },
    /// Control characters, which no text has.
    #[error(
        "the file is not text (byte {offset} is a control character): save it as UTF-8, or upload it under its true name"
    )]
    NotText {
        /// The first of them.
        offset: usize,
    },
    /// The format's own rules are broken.
    #[error("the file is not valid {format}: {reason}; mend it and upload it again")]
    Malformed {
        /// The format.
        format: String,
        /// Where and why.
        reason: String,
    },
    /// Encrypted.
    #[error("the {format} is protected by a password: save it without one, and upload that")]
    PasswordProtected {
        /// What it is.
        format: String,
    },
    /// Nothing but white space came out.
    #[error("the file holds no text: there is nothing to search in it")]
    Empty,
    /// A PDF of pictures.
    #[error(
        "the PDF has no layer of text, it may be a scan: have its text recognised (OCR), and upload the result"
    )]
    NoTextLayer,
    /// More text than one file may have.
    #[error(
        "the file holds more than {} MiB of text: split it into smaller files",
        bytes / 1024 / 1024
    )]
    TooMuchText {
        /// How much there may be.
        bytes: u64,
    },
    /// It was still being read when its time was over.
    #[error(
        "the file could not be read in {seconds} seconds: split it into smaller files, or convert it to another format"
    )]
    TookTooLong {
        /// How long it may take.
        seconds: u64,
    },
    /// Reading it took more memory than one file may have.
    #[error(
        "reading the file takes more than {} MiB of memory: split it into smaller files, or convert it to another format",
        bytes / 1024 / 1024
    )]
    TooMuchMemory {
        /// How much it may take.
        bytes: u64,
    },
    /// The reader broke down over it.
    #[error(
        "the reader of this format crashed on the file: convert it to another format and upload that"
    )]
    ReaderCrashed,
}

impl ExtractError {
    pub(crate) fn mismatch(expected: &str, found: impl Into<String>) -> Self {
        Self::MediaTypeMismatch { expected: expected.to_owned(), found: found.into() }
    }

    pub(crate) fn malformed(format: &str, reason: impl ToString) -> Self {
        Self::Malformed { format: format.to_owned(), reason: reason.to_string() }
    }

    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnsupportedFormat { .. } => "unsupported_format",
            Self::MediaTypeMismatch { .. } => "media_type_mismatch",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotText { .. } => "not_text",
            Self::Malformed { .. } => "malformed",
            Self::PasswordProtected { .. } => "password_protected",
            Self::Empty => "empty",
            Self::NoTextLayer => "no_text_layer",
            Self::TooMuchText { .. } => "too_much_text",
            Self::TookTooLong { .. } => "took_too_long",
            Self::TooMuchMemory { .. } => "too_much_memory",
            Self::ReaderCrashed => "reader_crashed",
        }
    }
}

/// Why there is no model, or no vector from it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// No model on this machine.
    #[error(
        "no embedding model in {}: run `prodgy model fetch`, or scripts/fetch-model where the model hub cannot be reached",
        directory.display()
    )]
    Missing {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// A file of the model that cannot be read.
    #[error("cannot read {}: check its permissions, or fetch the model again with scripts/fetch-model", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file of the model that is not what it should be.
    #[error(
        "the model's {file} is damaged: delete it and run `prodgy model fetch` or scripts/fetch-model again"
    )]
    Damaged {
        /// The file's name.
        file: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A model of another make.
    #[error(
        "this model cannot be used: {0}; all-MiniLM-L6-v2 or another sentence model of BERT's family is needed"
    )]
    Unsupported(String),
    /// The hub did not give the model.
    #[error(
        "the model hub did not give {file}: try again, or run scripts/fetch-model, which needs no hub"
    )]
    Hub {
        /// The file that was asked for.
        file: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A text that the tokenizer refused.
    #[error("the tokenizer refused the text: shorten it or remove what is not text")]
    Tokenizer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A fault of ours, in the middle of the work.
    #[error(
        "embedding this text failed: the server's log says where; please report it with the text"
    )]
    Failed,
    /// The worker threads are gone.
    #[error(
        "the embedding workers have stopped: the server is shutting down, try again once it is back"
    )]
    Stopped,
}

impl ModelError {
    pub(crate) fn weights(source: candle_core::Error) -> Self {
        Self::Damaged { file: "model.safetensors", source: Box::new(source) }
    }
}

/// Why stored bytes are no artifact.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Cut off, altered, or something else altogether.
    #[error(
        "the stored artifact is damaged ({0}): delete it, and the file is read and embedded again"
    )]
    Damaged(&'static str),
    /// Its head cannot be read.
    #[error(
        "the stored artifact's head cannot be read: delete it, and the file is read and embedded again"
    )]
    Head(#[from] serde_json::Error),
}

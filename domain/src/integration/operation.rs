//! What can be asked of an integration, and what each operation needs to be told.
//!
//! The rule of this file: an operation that several kinds know is called the same and told the same. A new
//! one begins with a row here.

use super::IntegrationKind::{
    self, Github, Gitlab, GoogleChat, Http, OpenaiCompatible, Slack, Smtp, Teams,
};

/// Something that can be asked of an integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its name, as `create_issue`.
    pub name: &'static str,
    /// The kinds that know it.
    pub kinds: &'static [IntegrationKind],
    /// What it is told.
    pub arguments: &'static [Argument],
}

/// Something that an operation is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// What it looks like.
    pub form: Form,
    /// Whether the operation can be without it.
    pub required: bool,
}

/// What an argument looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A text that is not empty.
    Text,
    /// A text, or a list of texts.
    Texts,
    /// A whole number within bounds.
    Integer(u64, u64),
    /// A number from 0 to so many.
    Number(u32),
    /// `true` or `false`.
    Flag,
    /// An object of texts, numbers and flags.
    Fields,
    /// Any value.
    Any,
}

const fn needs(name: &'static str, form: Form) -> Argument {
    Argument { name, form, required: true }
}

const fn takes(name: &'static str, form: Form) -> Argument {
    Argument { name, form, required: false }
}

const CODE: &[IntegrationKind] = &[Github, Gitlab];

/// The most commits that one step lists.
pub const MOST_COMMITS: u64 = 1_000;

/// Every operation there is.
pub const OPERATIONS: &[Operation] = &[
    Operation {
        name: "create_issue",
        kinds: CODE,
        arguments: &[
            takes("repository", Form::Text),
            needs("title", Form::Text),
            takes("body", Form::Text),
            takes("labels", Form::Texts),
        ],
    },
    Operation {
        name: "comment",
        kinds: CODE,
        arguments: &[
            takes("repository", Form::Text),
            takes("issue", Form::Integer(1, u32::MAX as u64)),
            takes("pull_request", Form::Integer(1, u32::MAX as u64)),
            needs("body", Form::Text),
        ],
    },
    Operation {
        name: "list_commits",
        kinds: CODE,
        arguments: &[
            takes("repository", Form::Text),
            takes("ref", Form::Text),
            takes("path", Form::Text),
            takes("since", Form::Text),
            takes("until", Form::Text),
            takes("limit", Form::Integer(1, MOST_COMMITS)),
        ],
    },
    Operation {
        name: "open_pull_request",
        kinds: CODE,
        arguments: &[
            takes("repository", Form::Text),
            needs("title", Form::Text),
            needs("head", Form::Text),
            needs("base", Form::Text),
            takes("body", Form::Text),
        ],
    },
    Operation {
        name: "post_message",
        kinds: &[Slack, GoogleChat, Teams],
        arguments: &[
            needs("text", Form::Text),
            takes("channel", Form::Text),
            takes("thread", Form::Text),
        ],
    },
    Operation {
        name: "send_mail",
        kinds: &[Smtp],
        arguments: &[
            needs("to", Form::Texts),
            takes("cc", Form::Texts),
            takes("reply_to", Form::Text),
            needs("subject", Form::Text),
            needs("text", Form::Text),
        ],
    },
    Operation {
        name: "request",
        kinds: &[Http],
        arguments: &[
            takes("method", Form::Text),
            takes("path", Form::Text),
            takes("query", Form::Fields),
            takes("json", Form::Any),
        ],
    },
    Operation {
        name: "chat",
        kinds: &[OpenaiCompatible],
        arguments: &[
            needs("prompt", Form::Text),
            takes("system", Form::Text),
            takes("model", Form::Text),
            takes("temperature", Form::Number(2)),
            takes("max_tokens", Form::Integer(1, 100_000)),
        ],
    },
];

impl Operation {
    /// The operation of a name.
    pub fn find(name: &str) -> Option<&'static Operation> {
        OPERATIONS.iter().find(|operation| operation.name == name)
    }

    /// The operations that a kind knows.
    pub fn of(kind: IntegrationKind) -> impl Iterator<Item = &'static Operation> {
        OPERATIONS.iter().filter(move |operation| operation.kinds.contains(&kind))
    }
}

//! Every setting there is.
//!
//! The one rule: what is not in this table cannot be configured, and what is in it can be
//! configured everywhere its row says.

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its flag, without the dashes before it; the variable and the key are made from it.
    pub name: &'static str,
    /// What stands for its value in the help.
    pub value: &'static str,
    /// What holds when nobody says anything.
    pub default: Default,
    /// Where it can be said.
    pub place: Place,
    /// Which commands take it.
    pub commands: Commands,
    /// What it is for.
    pub help: &'static str,
}

/// What holds when nobody says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// This value.
    Value(&'static str),
    /// What these words say.
    Words(&'static str),
}

/// Where a setting can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the command line, in the environment, in the file.
    Everywhere,
    /// Not in the file: it says which file.
    NotInFile,
    /// In the environment alone: secrets do not belong into files that are copied around, and
    /// command lines are shown to everybody on the machine.
    EnvironmentOnly,
}

/// Which commands take a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commands {
    /// All of them.
    All,
    /// `serve` and `demo`.
    Serving,
}

impl Setting {
    /// The key in the file: `data_dir`.
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// The variable: `PRODGY_DATA_DIR`.
    pub fn variable(&self) -> String {
        format!("PRODGY_{}", self.key().to_uppercase())
    }

    /// Whether it can be a flag.
    pub fn has_flag(&self) -> bool {
        self.place != Place::EnvironmentOnly
    }

    /// Whether it can be in the file.
    pub fn has_key(&self) -> bool {
        self.place == Place::Everywhere
    }
}

/// Every setting there is, in the order of the help.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "config",
        value: "FILE",
        default: Default::Words("none"),
        place: Place::NotInFile,
        commands: Commands::All,
        help: "A TOML file with any of the other settings",
    },
    Setting {
        name: "data-dir",
        value: "DIR",
        default: Default::Value("./data"),
        place: Place::Everywhere,
        commands: Commands::All,
        help: "Where everything is kept that is not kept elsewhere",
    },
    Setting {
        name: "event-store",
        value: "ADDRESS",
        default: Default::Words("SQLite in the data directory"),
        place: Place::Everywhere,
        commands: Commands::All,
        help: "Where the log is kept: sqlite:PATH, postgres://USER:PASSWORD@HOST:PORT/DATABASE or kurrentdb://USER:PASSWORD@HOST:PORT",
    },
    Setting {
        name: "blobs",
        value: "ADDRESS",
        default: Default::Words("in the data directory"),
        place: Place::Everywhere,
        commands: Commands::All,
        help: "Where files and data keys are kept: file://DIR or s3://BUCKET/PREFIX",
    },
    Setting {
        name: "master-key",
        value: "KEY",
        default: Default::Words("made at first start, in the data directory"),
        place: Place::EnvironmentOnly,
        commands: Commands::All,
        help: "What seals every other key: 32 bytes in hex or base64",
    },
    Setting {
        name: "model-dir",
        value: "DIRS",
        default: Default::Words("./models/all-MiniLM-L6-v2, then the hub's cache"),
        place: Place::Everywhere,
        commands: Commands::All,
        help: "Where the embedding models are looked for first: the one that is to be used, and others that are to embed the same files, as models/one,models/other",
    },
    Setting {
        name: "log",
        value: "FILTER",
        default: Default::Value("info"),
        place: Place::Everywhere,
        commands: Commands::All,
        help: "Which lines are logged: error, warn, info, debug, trace, or directives by module",
    },
    Setting {
        name: "log-format",
        value: "FORMAT",
        default: Default::Value("text"),
        place: Place::Everywhere,
        commands: Commands::All,
        help: "How a log line looks: text or json",
    },
    Setting {
        name: "listen",
        value: "ADDRESS",
        default: Default::Value("127.0.0.1:8080"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The address and port to listen on; port 0 takes a free one",
    },
    Setting {
        name: "public-url",
        value: "URL",
        default: Default::Words("the address listened on"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "How clients reach this server, when a proxy stands before it",
    },
    Setting {
        name: "admin-email",
        value: "EMAIL",
        default: Default::Value("admin@example.com"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The owner that the first start makes",
    },
    Setting {
        name: "admin-password",
        value: "PASSWORD",
        default: Default::Words("made at first start, and printed once"),
        place: Place::EnvironmentOnly,
        commands: Commands::Serving,
        help: "The password of the owner that the first start makes",
    },
    Setting {
        name: "access-token-seconds",
        value: "SECONDS",
        default: Default::Value("900"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "How long an access token is good",
    },
    Setting {
        name: "refresh-token-seconds",
        value: "SECONDS",
        default: Default::Value("2592000"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "How long a refresh token is good",
    },
    Setting {
        name: "oidc-issuer",
        value: "URL",
        default: Default::Words("none"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "An outside OIDC issuer whose tokens are sessions too, as its tokens name it: https://login.example.org",
    },
    Setting {
        name: "oidc-audience",
        value: "NAMES",
        default: Default::Words("none: needed with an issuer"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "Whom its tokens must be for: one of these, as prodgy,https://prodgy.example.org",
    },
    Setting {
        name: "oidc-jwks",
        value: "PLACE",
        default: Default::Words("where its discovery document says"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "Where its public keys are: an address or a file of a JWK set, or of X.509 certificates by key id",
    },
    Setting {
        name: "oidc-email-claim",
        value: "NAME",
        default: Default::Value("email"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The claim that holds the e-mail address; the one with _verified behind its name must be true",
    },
    Setting {
        name: "oidc-subject-claim",
        value: "NAME",
        default: Default::Value("sub"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The claim that says for ever who it is",
    },
    Setting {
        name: "oidc-provision",
        value: "ROLE",
        default: Default::Words("none: a user must be there"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "Makes a user with this role for whoever comes first with a verified e-mail address: viewer, member or admin",
    },
    Setting {
        name: "rate-limit-per-second",
        value: "COUNT",
        default: Default::Value("1000"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "Requests a second for each credential, or address without one; 0 is no limit",
    },
    Setting {
        name: "webhook-limit-per-second",
        value: "COUNT",
        default: Default::Value("200"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "Deliveries a second for each address at each webhook and communicator; 0 is no limit",
    },
    Setting {
        name: "sign-in-limit-per-minute",
        value: "COUNT",
        default: Default::Value("10"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "Sign-ins and refreshes a minute for each address; 0 is no limit",
    },
    Setting {
        name: "trusted-proxies",
        value: "NETWORKS",
        default: Default::Words("none"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "Proxies whose word about a client's address is believed, as 10.0.0.0/8,192.0.2.7",
    },
    Setting {
        name: "forwarded-header",
        value: "HEADER",
        default: Default::Value("x-forwarded-for"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The header in which they write it: x-forwarded-for or forwarded (RFC 7239)",
    },
    Setting {
        name: "cors-origins",
        value: "ORIGINS",
        default: Default::Words("none"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "Origins whose pages may call the API, as https://app.example.org; * is every one",
    },
    Setting {
        name: "body-limit-bytes",
        value: "BYTES",
        default: Default::Value("1048576"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The longest body of an ordinary request",
    },
    Setting {
        name: "upload-limit-bytes",
        value: "BYTES",
        default: Default::Value("536870912"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The longest body of an upload",
    },
    Setting {
        name: "request-timeout-seconds",
        value: "SECONDS",
        default: Default::Value("30"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The longest that a request may take; uploads, downloads and streams excepted",
    },
    Setting {
        name: "shutdown-timeout-seconds",
        value: "SECONDS",
        default: Default::Value("30"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The longest that requests under way may hold up the end of the server",
    },
    Setting {
        name: "embedding-workers",
        value: "COUNT",
        default: Default::Words("one for each core"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "Threads that turn text into vectors",
    },
    Setting {
        name: "agent-workers",
        value: "COUNT",
        default: Default::Value("64"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "Executions of agents that run at once",
    },
    Setting {
        name: "agent-workers-per-product",
        value: "COUNT",
        default: Default::Words("half of agent_workers"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "Executions of one product that run at once",
    },
    Setting {
        name: "extraction-seconds",
        value: "SECONDS",
        default: Default::Value("60"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The longest that reading the text of one file, or cutting it into passages, may compute",
    },
    Setting {
        name: "extraction-memory-bytes",
        value: "BYTES",
        default: Default::Value("1073741824"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The most memory that reading the text of one file may take",
    },
    Setting {
        name: "extraction-output-bytes",
        value: "BYTES",
        default: Default::Value("67108864"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The most text that one file may hold",
    },
    Setting {
        name: "http-allow",
        value: "NETWORKS",
        default: Default::Words("none"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "Networks that agents and integrations may reach although they are not public, as 10.1.0.0/16,192.0.2.7",
    },
    Setting {
        name: "llm-url",
        value: "URL",
        default: Default::Words("none: llm.answer and the assistant find the best sentences"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The chat model that llm.answer and the assistant ask: the base address of an API that is compatible with OpenAI's, as http://127.0.0.1:11434/v1",
    },
    Setting {
        name: "llm-model",
        value: "NAME",
        default: Default::Words("the one that a step names"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The model that is asked where a step names none",
    },
    Setting {
        name: "llm-api-key",
        value: "KEY",
        default: Default::Words("none"),
        place: Place::EnvironmentOnly,
        commands: Commands::Serving,
        help: "What lets in at llm-url, where it asks for a key",
    },
    Setting {
        name: "llm-idle-timeout-seconds",
        value: "SECONDS",
        default: Default::Value("60"),
        place: Place::Everywhere,
        commands: Commands::Serving,
        help: "The longest that a chat model may send nothing, before its answer and in the middle of it",
    },
];

/// The table of `docs/configuration.md`.
pub fn as_markdown() -> String {
    let mut table = String::from(
        "| key in the file | flag | variable | default | what it is for |\n\
         | --- | --- | --- | --- | --- |\n",
    );
    for setting in SETTINGS {
        let key = if setting.has_key() { format!("`{}`", setting.key()) } else { "–".to_owned() };
        let flag = if setting.has_flag() {
            format!("`--{} {}`", setting.name, setting.value)
        } else {
            "–".to_owned()
        };
        let default = match setting.default {
            Default::Value(value) => format!("`{value}`"),
            Default::Words(words) => words.to_owned(),
        };
        let variable = setting.variable();
        let help = setting.help;
        table.push_str(&format!("| {key} | {flag} | `{variable}` | {default} | {help} |\n"));
    }
    table
}

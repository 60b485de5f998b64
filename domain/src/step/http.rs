//! What `http.request` is told.
//!
//! The rule of this file: what is sent is what was written. Headers that say how a message travels
//! (`Host`, `Content-Length` and the like) are nobody's to write, and a line break is in none.

use serde_json::Value;

use super::reader::Reader;
use crate::refusal::{Fault, pointer_segment};

/// The largest answer, in bytes.
pub const MAX_BYTES: u64 = 10 * 1024 * 1024;

/// The largest answer when it is not told, in bytes.
pub const DEFAULT_BYTES: u64 = 1024 * 1024;

/// The most redirects.
pub const MAX_REDIRECTS: u64 = 10;

/// How many redirects when it is not told.
pub const DEFAULT_REDIRECTS: u32 = 5;

/// The most headers, or parameters of a query or a form.
const MAX_ENTRIES: usize = 100;

const MAX_URL_BYTES: usize = 8192;

/// A request to a server on the web.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpCall {
    /// Its verb; `GET` without it, or `POST` where there is something to send.
    pub method: Method,
    /// Where to; `http` or `https`. The query is not in it yet.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// Names and values to put behind the address, not escaped yet. A name may come repeatedly.
    pub query: Vec<(String, String)>,
    /// What to send.
    pub body: Option<Body>,
    /// Which statuses are a success.
    pub expect: Statuses,
    /// How to read the answer.
    pub response: ReadAs,
    /// How large the answer may be.
    pub max_bytes: u64,
    /// How many redirects are followed.
    pub redirects: u32,
}

/// The verb of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "HTTP says what they are")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

/// What a request sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Text, as it stands; `text/plain` unless a header says otherwise.
    Text(String),
    /// JSON, as `application/json`.
    Json(Value),
    /// A form, as `application/x-www-form-urlencoded`, not escaped yet.
    Form(Vec<(String, String)>),
}

/// How an answer is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadAs {
    /// As JSON where its content type says so, as text otherwise.
    #[default]
    Auto,
    /// As JSON; an answer that is none is a failure.
    Json,
    /// As text.
    Text,
    /// Not at all: what counts is that there is one.
    Nothing,
}

/// Statuses of HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<(u16, u16)>);

impl Statuses {
    /// Whether a status is one of these.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(least, most)| (*least..=*most).contains(&status))
    }
}

impl Default for Statuses {
    /// Those of success.
    fn default() -> Self {
        Statuses(vec![(200, 299)])
    }
}

impl Method {
    const ALL: [(&str, Method); 7] = [
        ("GET", Method::Get),
        ("HEAD", Method::Head),
        ("POST", Method::Post),
        ("PUT", Method::Put),
        ("PATCH", Method::Patch),
        ("DELETE", Method::Delete),
        ("OPTIONS", Method::Options),
    ];

    /// The verb as it is sent.
    pub fn as_str(self) -> &'static str {
        Method::ALL.into_iter().find(|(_, method)| *method == self).map_or("GET", |(name, _)| name)
    }

    /// Whether a request can be made again without doing anything twice.
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Method::Post | Method::Patch)
    }
}

const RESPONSES: [(&str, ReadAs); 4] = [
    ("auto", ReadAs::Auto),
    ("json", ReadAs::Json),
    ("text", ReadAs::Text),
    ("none", ReadAs::Nothing),
];

/// Headers that say how a message travels.
const OURS: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn read(read: &mut Reader<'_>) -> HttpCall {
    read.at_most_one(&["body", "json", "form"]);
    let text = read.text("body").map(Body::Text);
    let json = read.given("json").cloned().map(Body::Json);
    let form = read.given("form").is_some();
    let form = form.then(|| Body::Form(read_entries(read, "form", true)));
    let body = text.or(json).or(form);
    let method = read.choice("method", &Method::ALL);
    HttpCall {
        method: method.unwrap_or(if body.is_some() { Method::Post } else { Method::Get }),
        url: read_url(read),
        headers: read_headers(read),
        query: read_entries(read, "query", true),
        body,
        expect: read_statuses(read),
        response: read.choice("response", &RESPONSES).unwrap_or_default(),
        max_bytes: read.integer("max_bytes", 1, MAX_BYTES).unwrap_or(DEFAULT_BYTES),
        redirects: read
            .integer("redirects", 0, MAX_REDIRECTS)
            .map_or(DEFAULT_REDIRECTS, |most| most as u32),
    }
}

fn read_url(read: &mut Reader<'_>) -> String {
    let url = read.required_text("url");
    if read.given("url").is_some_and(Value::is_string) && !url.trim().is_empty() && !is_url(&url) {
        let message = format!(
            "`url` begins with http:// or https:// and a host, without a user name, and has no \
             spaces and at most {MAX_URL_BYTES} characters: put secrets into a header"
        );
        read.fault("url", "url_invalid", message);
    }
    url
}

fn is_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    !authority.is_empty()
        && !authority.contains(['@', '\\'])
        && url.chars().count() <= MAX_URL_BYTES
        && !url.contains(|sign: char| sign.is_whitespace() || sign.is_control())
}

fn read_headers(read: &mut Reader<'_>) -> Vec<(String, String)> {
    let headers = read_entries(read, "headers", false);
    for (name, value) in &headers {
        let pointer = format!("/headers/{}", pointer_segment(name));
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            let message = format!("`{name}` is no name of a header: use letters, digits and -");
            read.faults.push(Fault::new(pointer, "header_invalid", message));
        } else if OURS.contains(&name.to_ascii_lowercase().as_str()) {
            let message = format!("`{name}` is set by the server: leave it out");
            read.faults.push(Fault::new(pointer, "header_invalid", message));
        } else if value.contains(|sign: char| sign.is_control() && sign != '\t') {
            // What was given may be a secret: the message does not repeat it.
            let message = format!("the value of `{name}` holds a line break: take it out");
            read.faults.push(Fault::new(pointer, "header_invalid", message));
        }
    }
    headers
}

/// An object of names and values; of several values a name, where that is allowed.
fn read_entries(read: &mut Reader<'_>, field: &str, repeats: bool) -> Vec<(String, String)> {
    let Some(value) = read.with.get(field).filter(|value| !value.is_null()) else {
        return Vec::new();
    };
    let object = match value {
        _ if read.is_computed(value) => return Vec::new(),
        Value::Object(object) if object.len() <= MAX_ENTRIES => object,
        Value::Object(_) => {
            let message = format!("`{field}` has at most {MAX_ENTRIES} entries: leave some out");
            read.fault(field, "out_of_range", message);
            return Vec::new();
        }
        _ => {
            let message = format!("`{field}` is an object of names and texts");
            read.fault(field, "type_mismatch", message);
            return Vec::new();
        }
    };
    let mut entries = Vec::new();
    for (name, value) in object {
        read_entry(read, field, repeats, (name, value), &mut entries);
    }
    entries
}

fn read_entry(
    read: &mut Reader<'_>,
    field: &str,
    repeats: bool,
    (name, value): (&String, &Value),
    entries: &mut Vec<(String, String)>,
) {
    let values = match value {
        Value::Array(values) if repeats => values.as_slice(),
        value => std::slice::from_ref(value),
    };
    for value in values {
        let text = match value {
            Value::Null => continue,
            // Its name is looked at all the same.
            value if read.is_computed(value) => String::new(),
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => {
                let pointer = format!("/{field}/{}", pointer_segment(name));
                let message = format!("`{name}` is a text, a number or true or false");
                read.faults.push(Fault::new(pointer, "type_mismatch", message));
                return;
            }
        };
        entries.push((name.clone(), text));
    }
}

fn read_statuses(read: &mut Reader<'_>) -> Statuses {
    let Some(value) = read.given("expect") else { return Statuses::default() };
    let values = match value {
        Value::Array(values) => values.as_slice(),
        value => std::slice::from_ref(value),
    };
    let known = values.iter().filter(|value| !read.is_computed(value));
    let statuses: Option<Vec<_>> = known.map(status).collect();
    match statuses {
        Some(statuses) if !values.is_empty() => Statuses(statuses),
        _ => {
            let message = "`expect` is a status or a list of them, as 200, or [\"2xx\", 404]";
            read.fault("expect", "status_invalid", message);
            Statuses::default()
        }
    }
}

/// The least and the greatest status that is meant.
fn status(value: &Value) -> Option<(u16, u16)> {
    if let Some(status) = value.as_u64().and_then(|status| u16::try_from(status).ok()) {
        return (100..600).contains(&status).then_some((status, status));
    }
    let hundred = value.as_str()?.strip_suffix("xx")?;
    let hundred: u16 = Some(hundred).filter(|text| text.len() == 1)?.parse().ok()?;
    (1..6).contains(&hundred).then_some((hundred * 100, hundred * 100 + 99))
}

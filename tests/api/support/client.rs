//! Calling a server, and its answers.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::multipart::{Form, Part};
use serde_json::Value;

use super::PATIENCE;

/// Somebody who calls the server. Stays good when the server is started again.
#[derive(Clone, Debug)]
pub struct Client {
    base: Arc<Mutex<String>>,
    http: reqwest::Client,
    credential: Option<(HeaderName, HeaderValue)>,
}

impl Client {
    /// A client without a credential.
    pub(super) fn new(address: String) -> Client {
        Client {
            base: Arc::new(Mutex::new(address)),
            http: reqwest::Client::new(),
            credential: None,
        }
    }

    /// Lets this client, and all that were made from it, call another address.
    pub(super) fn call_at(&self, address: String) {
        *self.base.lock().unwrap() = address;
    }

    /// A client without a credential.
    pub fn nobody(&self) -> Client {
        Client { credential: None, ..self.clone() }
    }

    /// A client that sends this as its bearer credential: a session's access token, or anything else.
    pub fn bearer(&self, credential: &str) -> Client {
        self.with_credential("authorization", &format!("Bearer {credential}"))
    }

    /// A client that sends this API token.
    pub fn with_token(&self, secret: &str) -> Client {
        self.with_credential("x-api-token", secret)
    }

    fn with_credential(&self, header: &'static str, value: &str) -> Client {
        let mut value = HeaderValue::try_from(value).unwrap();
        value.set_sensitive(true);
        Client { credential: Some((HeaderName::from_static(header), value)), ..self.clone() }
    }

    /// Where the server listens: `http://127.0.0.1:…`.
    pub fn base(&self) -> String {
        self.base.lock().unwrap().clone()
    }

    /// The credential as it is sent, without `Bearer`.
    pub fn credential(&self) -> &str {
        let (_, value) = self.credential.as_ref().unwrap();
        let text = value.to_str().unwrap();
        text.strip_prefix("Bearer ").unwrap_or(text)
    }

    /// A request with the credential, to be added to and given to [`Client::send`].
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base()));
        match &self.credential {
            Some((name, value)) => request.header(name, value.clone()),
            None => request,
        }
    }

    /// Sends a request and reads its whole answer.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Reply {
        self.try_send(request).await.unwrap()
    }

    /// As [`Client::send`], where the server may be gone.
    ///
    /// # Errors
    /// No answer came.
    pub async fn try_send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Reply> {
        let response = request.timeout(PATIENCE).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.bytes().await?.to_vec();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok(Reply { status, headers, bytes, body })
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    /// `GET` with a header.
    pub async fn get_with(&self, path: &str, header: &str, value: impl ToString) -> Reply {
        self.send(self.request(Method::GET, path).header(header, value.to_string())).await
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    /// `POST` of JSON with a header.
    pub async fn post_with(
        &self,
        path: &str,
        body: Value,
        header: &str,
        value: impl ToString,
    ) -> Reply {
        self.send(self.request(Method::POST, path).header(header, value.to_string()).json(&body))
            .await
    }

    /// `POST` without a body.
    pub async fn post_empty(&self, path: &str) -> Reply {
        self.send(self.request(Method::POST, path)).await
    }

    /// `PUT` of JSON.
    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    /// `PUT` of JSON with a header.
    pub async fn put_with(
        &self,
        path: &str,
        body: Value,
        header: &str,
        value: impl ToString,
    ) -> Reply {
        self.send(self.request(Method::PUT, path).header(header, value.to_string()).json(&body))
            .await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// `DELETE` with a header.
    pub async fn delete_with(&self, path: &str, header: &str, value: impl ToString) -> Reply {
        self.send(self.request(Method::DELETE, path).header(header, value.to_string())).await
    }

    /// Uploads files, each a name, a media type and its bytes.
    pub async fn upload(&self, knowledge_base: &str, files: &[(&str, &str, &[u8])]) -> Reply {
        self.send(self.upload_request(knowledge_base, files)).await
    }

    /// The request of [`Client::upload`], to be added to and sent.
    pub fn upload_request(
        &self,
        knowledge_base: &str,
        files: &[(&str, &str, &[u8])],
    ) -> reqwest::RequestBuilder {
        let mut form = Form::new().text("knowledge_base_id", knowledge_base.to_owned());
        for (name, media_type, bytes) in files {
            let part = Part::bytes(bytes.to_vec())
                .file_name((*name).to_owned())
                .mime_str(media_type)
                .unwrap();
            form = form.part("file", part);
        }
        self.request(Method::POST, "/api/knowledge-base/storage/upload").multipart(form)
    }
}

/// A whole answer.
#[derive(Clone)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as it came.
    pub bytes: Vec<u8>,
    /// Its body as JSON; null where it is none.
    pub body: Value,
}

impl Reply {
    /// It is of the 200s.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Stops the test unless the answer has this status.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Stops the test unless this is a whole problem document with this status and code.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Reply {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.body["success"], false, "{self:?}");
        assert_eq!(self.body["error"], code, "{self:?}");
        assert_eq!(self.body["status"], status, "{self:?}");
        assert_eq!(self.body["request_id"], self.header("x-request-id"), "{self:?}");
        let says_something =
            |name: &str| self.body[name].as_str().is_some_and(|text| !text.is_empty());
        assert!(
            says_something("message") && says_something("title") && says_something("detail"),
            "{self:?}"
        );
        self
    }

    /// `data` of the envelope.
    pub fn data(&self) -> &Value {
        &self.body["data"]
    }

    /// The code of a failure; empty where there is none.
    pub fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }

    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The answer's `X-Event-Position`.
    #[track_caller]
    pub fn position(&self) -> u64 {
        self.header("x-event-position").parse().unwrap_or_else(|_| panic!("no position: {self:?}"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "{}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(formatter, "{name}: {value:?}")?;
        }
        formatter.write_char('\n')?;
        formatter.write_str(&self.text())
    }
}

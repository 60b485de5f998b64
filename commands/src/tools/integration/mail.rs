//! Mail servers.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use serde_json::{Value, json};

use super::client::refused_address;
use super::{Arguments, Connectors, secret, told};
use crate::OpenIntegration;
use crate::policies::ToolError;
use crate::tools::transport::causes;

/// How long each word of the conversation may take.
const LIMIT: Duration = Duration::from_secs(10);

impl Connectors {
    pub(super) async fn test_mail(
        &self,
        integration: &OpenIntegration,
    ) -> Result<String, ToolError> {
        let (side, transport) = self.mail_transport(integration).await?;
        match transport.test_connection().await {
            Ok(true) => match told(integration, "user") {
                Some(user) => Ok(format!("{side} takes the password of {user}")),
                None => Ok(format!("{side} answers")),
            },
            Ok(false) => {
                let message = format!("{side} broke the conversation off: check what runs there");
                Err(ToolError::lasting("unexpected_answer", message))
            }
            Err(error) => Err(mail_failed(&side, &error)),
        }
    }

    /// Sends a mail. Its id follows from the key, so that who gets it twice can tell.
    pub(super) async fn send_mail(
        &self,
        integration: &OpenIntegration,
        given: Arguments<'_>,
        key: &str,
    ) -> Result<Value, ToolError> {
        let invalid = |what: &str| {
            let message = format!(
                "{what} is no address of mail: write it as name@example.com, or Name <name@example.com>"
            );
            ToolError::lasting("address_invalid", message)
        };
        let mailbox =
            |text: &str| text.parse::<Mailbox>().map_err(|_| invalid("one of the recipients"));
        let from: Mailbox = told(integration, "from")
            .and_then(|from| from.parse().ok())
            .ok_or_else(|| invalid("the `from` of the integration"))?;
        let id = format!("<{key}@{}>", from.email.domain());
        let mut message = Message::builder()
            .from(from)
            .message_id(Some(id.clone()))
            .subject(given.text("subject").unwrap_or_default());
        let to = given.texts("to");
        for recipient in &to {
            message = message.to(mailbox(recipient)?);
        }
        for recipient in given.texts("cc") {
            message = message.cc(mailbox(recipient)?);
        }
        if let Some(reply_to) = given.text("reply_to") {
            message = message.reply_to(mailbox(reply_to)?);
        }
        let text = given.text("text").unwrap_or_default().to_owned();
        let message = message.header(ContentType::TEXT_PLAIN).body(text).map_err(|error| {
            ToolError::lasting("mail_invalid", format!("the mail cannot be written: {error}"))
        })?;
        let (side, transport) = self.mail_transport(integration).await?;
        let sent = transport.send(message).await.map_err(|error| mail_failed(&side, &error))?;
        let said: Vec<&str> = sent.message().collect();
        Ok(json!({ "id": id, "response": said.join(" ") }))
    }

    /// The way to a server: to one of its addresses that may be reached, under its name.
    async fn mail_transport(
        &self,
        integration: &OpenIntegration,
    ) -> Result<(String, AsyncSmtpTransport<Tokio1Executor>), ToolError> {
        let host = told(integration, "host").unwrap_or_default();
        let port = integration.told.config.get("port").and_then(Value::as_u64);
        let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(587);
        let side = format!("{host}:{port}");
        let found = tokio::net::lookup_host((host, port)).await.map_err(|error| {
            let message = format!("there is no server called {host}: check its name ({error})");
            ToolError::passing("dns_failed", message)
        })?;
        let address: SocketAddr = found
            .into_iter()
            .find(|address| self.policy.permits(address.ip()))
            .ok_or_else(|| ToolError::lasting("address_refused", refused_address(&side)))?;
        let parameters = || {
            TlsParameters::new(host.to_owned()).map_err(|error| {
                let message = format!("{host} cannot be checked by a certificate: {error}");
                ToolError::lasting("tls_failed", message)
            })
        };
        let tls = match told(integration, "security") {
            Some("none") => Tls::None,
            Some("tls") => Tls::Wrapper(parameters()?),
            _ => Tls::Required(parameters()?),
        };
        let mut builder =
            AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(address.ip().to_string())
                .port(port)
                .tls(tls)
                .timeout(Some(LIMIT));
        if let Some(user) = told(integration, "user") {
            let password = secret(integration, "password")?.to_owned();
            builder = builder.credentials(Credentials::new(user.to_owned(), password));
        }
        Ok((side, builder.build()))
    }
}

/// Why a mail server did not do it, in words that help.
fn mail_failed(side: &str, error: &lettre::transport::smtp::Error) -> ToolError {
    let status = error.status().map(|code| code.to_string());
    let said = error.source().map(|source| format!(" ({source})")).unwrap_or_default();
    if error.is_timeout() {
        let message = format!("{side} did not answer in time: check the port, and the way to it");
        return ToolError::passing("timed_out", message);
    }
    if error.is_tls() || causes(error).any(is_of_tls) {
        let message = format!(
            "the connection to {side} is not to be trusted: check its certificate, and whether the port is for \
             `tls` or `starttls`{said}"
        );
        return ToolError::lasting("tls_failed", message);
    }
    match status.as_deref() {
        Some("530" | "534" | "535" | "538") => {
            let message =
                format!("{side} does not take the user and the password: check both{said}");
            ToolError::lasting("unauthorized", message)
        }
        Some(_) if error.is_transient() => {
            let message = format!("{side} cannot do it now: try again in a moment{said}");
            ToolError::passing("unavailable", message)
        }
        Some(_) => ToolError::lasting("rejected", format!("{side} does not take this{said}")),
        None if error.is_response() || error.is_client() => {
            let message = format!(
                "{side} does not speak as a mail server should: check the port, whether it is for `tls` or \
                 `starttls`, and whether it lets users sign in{said}"
            );
            ToolError::lasting("unexpected_answer", message)
        }
        None => {
            let message = format!("{side} cannot be reached: check host and port{said}");
            ToolError::passing("unreachable", message)
        }
    }
}

/// Whether this failed of what TLS found, which lettre tells as a connection that broke.
fn is_of_tls(cause: &(dyn Error + 'static)) -> bool {
    let within = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    cause.is::<rustls::Error>() || within.is_some_and(|within| within.is::<rustls::Error>())
}

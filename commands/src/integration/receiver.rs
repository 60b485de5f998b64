//! Who is told the secrets of an integration: the servers that its configuration names.
//!
//! The rule of this file: a secret that goes in and never comes out is not sent to a server that was named
//! without knowing it. Whoever may write an integration could read it there.

use std::collections::BTreeSet;

use domain::InvalidDocument;
use domain::integration::IntegrationKind;
use domain::integration::kind::Told;
use domain::refusal::Fault;
use domain::values::Object;
use serde_json::Value;
use url::Url;

use crate::Error;

/// A part of a configuration that says where secrets go, or what is made of them.
struct Receiver {
    field: &'static str,
    secrets: &'static [&'static str],
    /// Whether it leads elsewhere than before.
    is_another: fn(&Object, &Object, &str) -> bool,
}

fn receivers(kind: IntegrationKind) -> Vec<Receiver> {
    let address = |field, secrets| Receiver { field, secrets, is_another: is_another_server };
    match kind {
        IntegrationKind::Github | IntegrationKind::Gitlab => vec![address("base_url", &["token"])],
        // The signing secret stays here.
        IntegrationKind::Slack => vec![address("base_url", &["bot_token"])],
        IntegrationKind::GoogleChat => vec![address("base_url", &["service_account_key"])],
        IntegrationKind::Teams => vec![
            address("login_url", &["app_password"]),
            address("service_url", &["app_password"]),
            Receiver {
                field: "service_hosts",
                secrets: &["app_password"],
                is_another: has_more_hosts,
            },
        ],
        IntegrationKind::Smtp => vec![Receiver {
            field: "host",
            secrets: &["password"],
            is_another: is_another_mail_server,
        }],
        IntegrationKind::OpenaiCompatible => vec![address("base_url", &["api_key"])],
        IntegrationKind::Http => vec![address("base_url", &["token", "password"])],
    }
}

/// Refuses to send a secret elsewhere that was not given with what says so.
///
/// # Errors
/// `secret_required`, with every secret that is.
pub(super) fn check(
    kind: IntegrationKind,
    before: &Told,
    after: &Told,
    given: &BTreeSet<&str>,
) -> Result<(), Error> {
    let mut faults = Vec::new();
    for Receiver { field, secrets, is_another } in receivers(kind) {
        let stays = |name: &&&str| {
            let kept = after.secrets.0.get(**name);
            kept.is_some() && kept == before.secrets.0.get(**name) && !given.contains(**name)
        };
        let kept: Vec<_> = secrets.iter().filter(stays).collect();
        if kept.is_empty() || !is_another(&before.config, &after.config, field) {
            continue;
        }
        for name in kept {
            let message = format!(
                "`{field}` leads to another server, which would be told `{name}`: send `{name}` along, or leave \
                 `{field}` as it is"
            );
            faults.push(Fault::new(format!("/secrets/{name}"), "secret_required", message));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    let message = "a secret would go to another server than it was given for: send the secrets that `errors` lists in \
                   the same request";
    let message = message.to_owned();
    Err(Error::refused(&InvalidDocument { code: "secret_required", message, faults }))
}

/// Whether an address has another scheme, host or port.
fn is_another_server(before: &Object, after: &Object, field: &str) -> bool {
    let origin = |config: &Object| {
        let url = config.get(field).and_then(Value::as_str).and_then(|url| Url::parse(url).ok());
        url.map(|url| url.origin().ascii_serialization())
    };
    before.get(field) != after.get(field) && origin(before) != origin(after)
}

/// Whether mail goes to another server or port, or there with less safety.
fn is_another_mail_server(before: &Object, after: &Object, _: &str) -> bool {
    ["host", "port", "security"].iter().any(|part| before.get(*part) != after.get(*part))
}

/// Whether a host is trusted that was not named before. Without names those of Microsoft are.
fn has_more_hosts(before: &Object, after: &Object, field: &str) -> bool {
    let hosts = |config: &Object| -> BTreeSet<String> {
        let hosts = config.get(field).and_then(Value::as_array).into_iter().flatten();
        hosts.filter_map(Value::as_str).map(str::to_ascii_lowercase).collect()
    };
    !hosts(after).is_subset(&hosts(before))
}

//! The address of a server or a cluster, as `--event-store` gives it.
//!
//! The rule of this file: the address holds a password, so nothing that is shown is made of it but
//! hosts and ports.

use std::collections::HashMap;

use eventstore::ClientSettings;

use super::error::KurrentdbError;

/// Between two attempts to find a node, in milliseconds, where the address does not say it. The
/// client's own half second would pass before its very first attempt too.
const DISCOVERY_INTERVAL_MS: u32 = 50;

/// An address, read.
pub(super) struct Address {
    pub settings: ClientSettings,
    /// Hosts and ports, to be shown.
    pub nodes: String,
    /// What the names of this log's streams begin with: empty, or ends with a dot.
    pub prefix: String,
}

impl Address {
    /// Reads `kurrentdb://…`, `esdb://…` and their `+discover` kin. `?namespace=` is ours; all
    /// other parameters are the client's.
    pub fn parse(text: &str) -> Result<Address, KurrentdbError> {
        refuse_what_ends_a_password(text)?;
        let (server, query) = text.split_once('?').unwrap_or((text, ""));
        let (ours, mut theirs): (Vec<&str>, Vec<&str>) = query
            .split('&')
            .filter(|parameter| !parameter.is_empty())
            .partition(|parameter| name(parameter) == "namespace");
        let prefix = match ours.as_slice() {
            [] => String::new(),
            [one] => prefix(one.split_once('=').map_or("", |(_, value)| value))?,
            _ => return Err(KurrentdbError::Address("it names two namespaces".into())),
        };
        let interval = format!("discoveryInterval={DISCOVERY_INTERVAL_MS}");
        if !theirs.iter().any(|parameter| name(parameter) == "discoveryinterval") {
            theirs.push(&interval);
        }
        let settings: ClientSettings =
            format!("{server}?{}", theirs.join("&")).parse().map_err(unreadable)?;
        refuse_what_is_sent_encoded(&settings)?;
        let nodes: Vec<_> =
            settings.hosts().iter().map(|host| format!("{}:{}", host.host, host.port)).collect();
        Ok(Address { settings, nodes: nodes.join(", "), prefix })
    }
}

/// What a user or a password may hold.
const PLAIN: &str = "its user and its password may hold letters, digits and -._~!$&'()*+, because the \
                     client sends anything else encoded";

/// A `/`, `?` or `#` ends the part of an address where user and password stand. What is behind it
/// would be taken, and shown, for something else.
fn refuse_what_ends_a_password(text: &str) -> Result<(), KurrentdbError> {
    let (_, rest) = text.split_once("://").unwrap_or_default();
    let behind = rest.find(['/', '?', '#']).map_or("", |end| &rest[end..]);
    if behind.contains('@') { Err(KurrentdbError::Address(PLAIN.into())) } else { Ok(()) }
}

/// The client sends user and password as they stand in the address, where many characters are
/// encoded, and the server knows nothing of that: it would be a wrong password that looks right.
fn refuse_what_is_sent_encoded(settings: &ClientSettings) -> Result<(), KurrentdbError> {
    let credentials = serde_json::to_vec(settings.default_authenticated_user());
    let credentials: Option<HashMap<String, Vec<u8>>> =
        credentials.ok().and_then(|json| serde_json::from_slice(&json).ok()).flatten();
    let is_encoded = credentials.iter().flat_map(HashMap::values).any(|text| text.contains(&b'%'));
    if is_encoded { Err(KurrentdbError::Address(PLAIN.into())) } else { Ok(()) }
}

fn name(parameter: &str) -> String {
    parameter.split_once('=').map_or(parameter, |(name, _)| name).to_lowercase()
}

/// A namespace with a dot behind it. It holds none itself, so that none is the beginning of
/// another, and no dash, so that a category stays one.
fn prefix(namespace: &str) -> Result<String, KurrentdbError> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if namespace.is_empty() || !namespace.chars().all(is_word) {
        let why = "its namespace may hold letters, digits and underscores, and at least one";
        return Err(KurrentdbError::Address(why.into()));
    }
    Ok(format!("{namespace}."))
}

/// The client's reason, unless it would repeat the address.
fn unreadable(error: eventstore::ClientSettingsParseError) -> KurrentdbError {
    KurrentdbError::Address(match error.error() {
        Some(reason) => reason.to_string(),
        None => error.message().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Address::parse(text).err().expect("an address that is none").to_string()
    }

    #[test]
    fn an_address_shows_its_hosts_and_hides_its_password() {
        let address = Address::parse("kurrentdb://admin:changeit@a:1113,b:2113?tls=false").unwrap();
        assert_eq!(address.nodes, "a:1113, b:2113");
        assert_eq!(address.prefix, "");
        assert!(!address.settings.is_secure_mode_enabled());

        for text in [
            "kurrentdb://admin:changeit@a:port",
            "kurrentdb://admin:changeit@",
            "postgres://admin:changeit@a:2113",
            "kurrentdb://admin:changeit@a:1?nodePreference=nobody",
            "kurrentdb://admin:changeit@a:1,b:port",
        ] {
            let why = refused(text);
            assert!(!why.contains("changeit"), "{why}");
            assert!(why.contains("kurrentdb://user:password@host:2113"), "{why}");
        }
    }

    #[test]
    fn a_password_that_would_be_sent_as_another_is_refused_and_not_shown() {
        for password in [
            "p%40canary",
            "canary;1",
            "12/canary",
            "12?canary",
            "canary#1",
            "x@y/canary",
            "x@canary",
            "%canary",
            "ß-canary",
        ] {
            let why = refused(&format!("esdb://admin:{password}@a"));
            assert!(!why.contains("canary") && why.contains("its password may hold"), "{why}");
        }
        assert!(refused("esdb://a%40b:changeit@a").contains("its user"));
        assert!(Address::parse("esdb://ad.min-1:c~h!a$n&g'e(i)t*+@a").is_ok());
    }

    #[test]
    fn a_namespace_is_ours_and_no_beginning_of_another() {
        let address = Address::parse("esdb://a?namespace=test_1&tls=false").unwrap();
        assert_eq!(address.prefix, "test_1.");
        assert_eq!(address.nodes, "a:2113");
        for namespace in ["", "a.b", "a-b", "$a", "a&namespace=b"] {
            assert!(refused(&format!("esdb://a?namespace={namespace}")).contains("namespace"));
        }
    }

    #[test]
    fn how_often_a_node_is_looked_for_can_be_said() {
        let interval = |text| Address::parse(text).unwrap().settings.discovery_interval();
        assert_eq!(interval("esdb://a").as_millis(), 50);
        assert_eq!(interval("esdb://a?DiscoveryInterval=700").as_millis(), 700);
    }
}

//! S3, and what speaks as it does: an address, and what the environment says beside it.
//!
//! The rule of this file: credentials come from the environment alone, by the names that every tool
//! for S3 knows, and are never part of an address, which is logged and shown.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    path::Path as Key,
    prefix::PrefixStore,
};

use crate::Error;

/// What the names of variables begin with that are read.
const PREFIX: &str = "AWS_";
/// How long a store may take to take a connection, and to answer a request in full.
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(30);
/// A store that is away is told to the caller soon; what must wait for it tries again by itself.
const RETRIES: usize = 3;
const RETRY_FOR: Duration = Duration::from_secs(15);

/// Where in S3 a vault lies: `s3://BUCKET/PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Address {
    bucket: String,
    prefix: String,
}

impl FromStr for S3Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<S3Address, Error> {
        let malformed = |reason: &str| Error::StoreMalformed { reason: reason.to_owned() };
        let rest =
            text.strip_prefix("s3://").ok_or_else(|| malformed("it must be s3://BUCKET/PREFIX"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let allowed =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(allowed) {
            return Err(malformed(
                "the name of a bucket has 3 to 63 of a-z, 0-9, '.' and '-'; it must be s3://BUCKET/PREFIX",
            ));
        }
        let prefix = prefix.trim_end_matches('/');
        if prefix.starts_with('/') || Key::parse(prefix).is_err() {
            return Err(malformed("PREFIX must be names with single slashes between them"));
        }
        Ok(S3Address { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for S3Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// What the environment of this process says about S3. A variable that is empty says nothing.
pub fn s3_environment() -> Vec<(String, String)> {
    let said = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    said.filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty()).collect()
}

impl S3Address {
    /// A client for it, and what the store is called in messages. Nothing is asked of the store yet.
    pub(crate) fn client(
        &self,
        environment: &[(String, String)],
    ) -> Result<(Arc<dyn ObjectStore>, String), Error> {
        let mut builder = AmazonS3Builder::new().with_bucket_name(&self.bucket);
        let mut options = ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(ANSWER);
        let mut endpoint = None;
        for (name, value) in environment {
            let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else { continue };
            match key {
                AmazonS3ConfigKey::Bucket => continue,
                AmazonS3ConfigKey::Client(key) => options = options.with_config(key, value),
                AmazonS3ConfigKey::S3Endpoint => endpoint = Some(value.as_str()),
                AmazonS3ConfigKey::Endpoint => endpoint = endpoint.or(Some(value)),
                key => builder = builder.with_config(key, value),
            }
        }
        let mut place = self.to_string();
        if let Some(endpoint) = endpoint {
            place.push_str(&format!(" at {endpoint}"));
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
            let allows_http = |name: &str| name.eq_ignore_ascii_case("AWS_ALLOW_HTTP");
            if is_loopback(endpoint) {
                options = options.with_allow_http(true);
            } else if endpoint.starts_with("http://")
                && !environment.iter().any(|(name, _)| allows_http(name))
            {
                let reason = format!(
                    "{endpoint} is not encrypted: use https, or set AWS_ALLOW_HTTP=true where nobody can listen"
                );
                return Err(Error::StoreMalformed { reason });
            }
        }
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(50),
                max_backoff: Duration::from_secs(1),
                base: 2.0,
            },
            max_retries: RETRIES,
            retry_timeout: RETRY_FOR,
        };
        let built = builder.with_retry(retry).with_client_options(options).build();
        let client = built.map_err(|error| Error::StoreMalformed { reason: error.to_string() })?;
        let store: Arc<dyn ObjectStore> = match self.prefix.as_str() {
            "" => Arc::new(client),
            prefix => Arc::new(PrefixStore::new(client, prefix)),
        };
        Ok((store, place))
    }
}

/// Whether an address names this very machine: there nobody listens in.
fn is_loopback(endpoint: &str) -> bool {
    let Some(rest) = endpoint.strip_prefix("http://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    //! Which addresses there are, and where nothing need be encrypted.

    use super::*;

    #[test]
    fn an_address_is_a_bucket_and_perhaps_a_prefix() {
        for text in ["s3://bucket", "s3://my.bucket-1/a/b"] {
            assert_eq!(text.parse::<S3Address>().unwrap().to_string(), text);
        }
        assert_eq!("s3://bucket/".parse::<S3Address>().unwrap().to_string(), "s3://bucket");
        for text in [
            "",
            "s3:",
            "s3://",
            "s3://ab",
            "s3://Bucket",
            "s3://bucket//a",
            "s3://b@c:d/e",
            "s3://bucket/a//b",
            "s3://bucket/../a",
        ] {
            assert!(text.parse::<S3Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn http_without_encryption_is_for_this_machine_alone() {
        for here in
            ["http://127.0.0.1:9000", "http://localhost", "http://[::1]:80/x", "http://127.8.9.1"]
        {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in [
            "https://127.0.0.1",
            "http://10.0.0.1",
            "http://s3:9000",
            "http://localhost.example.org",
        ] {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }
}

//! API tokens: making secrets that are shown once and kept as keyed hashes.

mod format;

use std::collections::BTreeSet;

use chrono::Utc;
use domain::api_token::{ApiToken, ApiTokenCommand};
use domain::{Name, Scope, Timestamp, TokenPrefix};
use ipnet::IpNet;
use secrecy::SecretString;
use uuid::Uuid;

use crate::{Ask, Commands, Done, Error};

/// An API token that is to be made, in the product of the one who asks.
pub struct NewApiToken {
    /// Its name.
    pub name: Name,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// From which networks it may come; from everywhere when there is none.
    pub allowed_ips: BTreeSet<IpNet>,
    /// When it runs out.
    pub expires_at: Option<Timestamp>,
}

/// What is to be changed of an API token; nothing that is `None`.
#[derive(Default)]
pub struct ApiTokenChange {
    /// Another name.
    pub name: Option<Name>,
    /// Other scopes.
    pub scopes: Option<BTreeSet<Scope>>,
    /// Other networks.
    pub allowed_ips: Option<BTreeSet<IpNet>>,
    /// Switched on or off.
    pub active: Option<bool>,
}

/// A command's outcome and the secret that it made, if it was carried out now.
pub struct WithSecret {
    /// The outcome.
    pub done: Done,
    /// To be shown once.
    pub secret: Option<SecretString>,
}

impl Commands {
    /// Makes an API token.
    ///
    /// # Errors
    /// It would have run out already.
    pub async fn create_api_token(&self, new: NewApiToken, ask: &Ask) -> Result<WithSecret, Error> {
        let (secret, prefix) = new_secret()?;
        let create = ApiTokenCommand::Create {
            name: new.name,
            secret_hash: self.secrets.token(&secret),
            prefix,
            scopes: new.scopes,
            allowed_ips: new.allowed_ips,
            expires_at: new.expires_at,
            now: Timestamp::from(Utc::now()),
        };
        let done = self.execute::<ApiToken>(ask.new_id("api token"), create, ask).await?;
        Ok(WithSecret::shown_once(done, secret))
    }

    /// Changes an API token.
    ///
    /// # Errors
    /// It was revoked.
    pub async fn change_api_token(
        &self,
        token: Uuid,
        change: ApiTokenChange,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let ApiTokenChange { name, scopes, allowed_ips, active } = change;
        self.execute::<ApiToken>(
            token,
            ApiTokenCommand::Change { name, scopes, allowed_ips, active },
            ask,
        )
        .await
    }

    /// Revokes an API token, for good.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn revoke_api_token(&self, token: Uuid, ask: &Ask) -> Result<Done, Error> {
        self.execute::<ApiToken>(token, ApiTokenCommand::Revoke, ask).await
    }

    /// Gives an API token another end; without one it never runs out.
    ///
    /// # Errors
    /// That end is past, or the token was revoked.
    pub async fn renew_api_token(
        &self,
        token: Uuid,
        expires_at: Option<Timestamp>,
        ask: &Ask,
    ) -> Result<Done, Error> {
        let now = Timestamp::from(Utc::now());
        self.execute::<ApiToken>(token, ApiTokenCommand::Renew { expires_at, now }, ask).await
    }

    /// Gives an API token another secret. The old one stays good until `previous_valid_until`.
    ///
    /// # Errors
    /// The token was revoked or has run out.
    pub async fn regenerate_api_token(
        &self,
        token: Uuid,
        previous_valid_until: Option<Timestamp>,
        ask: &Ask,
    ) -> Result<WithSecret, Error> {
        let (secret, prefix) = new_secret()?;
        let secret_hash = self.secrets.token(&secret);
        let now = Timestamp::from(Utc::now());
        let command =
            ApiTokenCommand::Regenerate { prefix, secret_hash, previous_valid_until, now };
        let done = self.execute::<ApiToken>(token, command, ask).await?;
        Ok(WithSecret::shown_once(done, secret))
    }

    /// Deletes an API token.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn delete_api_token(&self, token: Uuid, ask: &Ask) -> Result<Done, Error> {
        self.execute::<ApiToken>(token, ApiTokenCommand::Delete, ask).await
    }

    /// Notices that an API token has run out at `expires_at`, if it has.
    ///
    /// # Errors
    /// The log fails, or the token was deleted.
    pub async fn expire_api_token(
        &self,
        token: Uuid,
        organization: Uuid,
        product: Uuid,
        expires_at: &str,
    ) -> Result<Done, Error> {
        let name = [&b"expire"[..], token.as_bytes(), expires_at.as_bytes()];
        let ask = Ask::system("expiry", organization, Some(product), &name);
        let now = Timestamp::from(Utc::now());
        self.execute::<ApiToken>(token, ApiTokenCommand::Expire { now }, &ask).await
    }

    /// The keyed hash by which a token is found; none for what cannot be one, as a mistyped token.
    pub fn token_hash(&self, token: &str) -> Option<String> {
        format::is_well_written(token).then(|| self.secrets.token(token).as_str().to_owned())
    }

    /// The keyed hash of a request, by which two requests under one idempotency key are compared.
    pub fn request_hash(&self, digest: &[u8]) -> String {
        self.secrets.request(digest).as_str().to_owned()
    }
}

impl WithSecret {
    /// A repeated command shows no secret: the one just made stands nowhere.
    fn shown_once(done: Done, secret: String) -> WithSecret {
        let secret = (!done.replayed).then(|| SecretString::from(secret));
        WithSecret { done, secret }
    }
}

fn new_secret() -> Result<(String, TokenPrefix), Error> {
    let secret = format::new_token()?;
    let prefix = TokenPrefix::parse(&secret).map_err(|error| Error::refused(&error))?;
    Ok((secret, prefix))
}

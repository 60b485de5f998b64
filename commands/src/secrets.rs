//! Secrets of this instance: passwords, token secrets, and the keyed hashes that stand for them.
//!
//! The rule of this file: a secret leaves as a hash or as ciphertext, except the one time it is
//! shown to whom it belongs.

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Argon2, PasswordHash};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::Digest;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use tokio::sync::Semaphore;
use vault::Vault;
use zeroize::Zeroizing;

use crate::Error;

/// The vault key of the instance, from which every keyed hash comes.
pub(crate) const INSTANCE_KEY: &str = "instance";

/// How many passwords are hashed at once. Each takes 19 MiB and some 20 ms of a core (argon2id with
/// the parameters of RFC 9106's second choice as OWASP gives them).
const HASHING: usize = 2;

/// The keys of this instance's keyed hashes.
pub(crate) struct Secrets {
    tokens: Zeroizing<[u8; 32]>,
    refresh: Zeroizing<[u8; 32]>,
    claims: Zeroizing<[u8; 32]>,
    requests: Zeroizing<[u8; 32]>,
    hashing: Semaphore,
    /// What a password is compared with where there is no such user, so that both take as long.
    nobody: SecretString,
}

impl Secrets {
    /// Makes the instance's key where there is none, and derives the others from it.
    pub(crate) async fn open(vault: &Vault) -> Result<Secrets, Error> {
        vault.create_key(INSTANCE_KEY).await?;
        let nobody = hash(&SecretString::from(random_text()?))?;
        Ok(Secrets {
            tokens: vault.derive(INSTANCE_KEY, "api tokens").await?,
            refresh: vault.derive(INSTANCE_KEY, "refresh tokens").await?,
            claims: vault.derive(INSTANCE_KEY, "claims").await?,
            requests: vault.derive(INSTANCE_KEY, "requests").await?,
            hashing: Semaphore::new(HASHING),
            nobody,
        })
    }

    /// The keyed hash of an API token.
    pub(crate) fn token(&self, token: &str) -> Digest {
        keyed(&self.tokens, token.as_bytes())
    }

    /// The keyed hash of a refresh token.
    pub(crate) fn refresh(&self, token: &str) -> Digest {
        keyed(&self.refresh, token.as_bytes())
    }

    /// The name of the claim on something unique.
    pub(crate) fn claim(&self, kind: &str, what: &str) -> Digest {
        keyed(&self.claims, format!("{kind}\0{what}").as_bytes())
    }

    /// The keyed hash of a request, by which two requests under one idempotency key are compared.
    pub(crate) fn request(&self, digest: &[u8]) -> Digest {
        keyed(&self.requests, digest)
    }

    /// The argon2id hash of a password, in PHC form.
    pub(crate) async fn hash_password(
        &self,
        password: SecretString,
    ) -> Result<SecretString, Error> {
        let _permit = self.hashing.acquire().await.map_err(|_| eventlog::Error::Closed)?;
        off_thread(move || hash(&password)).await
    }

    /// Whether a password fits a hash. Takes as long where there is no hash.
    pub(crate) async fn password_fits(
        &self,
        password: SecretString,
        hash: Option<SecretString>,
    ) -> Result<bool, Error> {
        let _permit = self.hashing.acquire().await.map_err(|_| eventlog::Error::Closed)?;
        let is_known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        let fits = off_thread(move || {
            let verified = Argon2::default()
                .verify_password(password.expose_secret().as_bytes(), hash.expose_secret());
            Ok(verified.is_ok())
        });
        Ok(fits.await? && is_known)
    }
}

fn hash(password: &SecretString) -> Result<SecretString, Error> {
    let hash: PasswordHash =
        Argon2::default()
            .hash_password(password.expose_secret().as_bytes())
            .map_err(|error| Error::Crypto(format!("the password cannot be hashed: {error}")))?;
    Ok(SecretString::from(hash.to_string()))
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| eventlog::Error::Closed)?
}

fn keyed(key: &[u8; 32], message: &[u8]) -> Digest {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    mac.update(message);
    Digest::new(mac.finalize().into_bytes().into())
}

/// 32 random bytes as text.
pub(crate) fn random_text() -> Result<String, Error> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    fill_random(bytes.as_mut_slice())?;
    Ok(URL_SAFE_NO_PAD.encode(bytes.as_slice()))
}

/// The letters and digits, in the order in which they count.
pub(crate) const ALPHANUMERIC: &[u8; 62] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// `length` random letters and digits, each of 62 as likely as the other.
pub(crate) fn random_alphanumeric(length: usize) -> Result<String, Error> {
    let mut text = String::with_capacity(length);
    let mut bytes = Zeroizing::new([0_u8; 64]);
    while text.len() < length {
        fill_random(bytes.as_mut_slice())?;
        // Bytes from 248 on would make the first letters likelier.
        let letters = bytes
            .iter()
            .filter(|byte| **byte < 248)
            .map(|byte| char::from(ALPHANUMERIC[usize::from(*byte % 62)]));
        text.extend(letters.take(length - text.len()));
    }
    Ok(text)
}

pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), Error> {
    getrandom::fill(bytes)
        .map_err(|error| Error::Crypto(format!("the system gives no randomness: {error}")))
}

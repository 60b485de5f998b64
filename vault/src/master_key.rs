//! The master key: the one secret that wraps all others.
//!
//! The rule of this file: the key is never printed, never leaves this type, and its file is on the
//! disk before anything is wrapped with it.

use std::{fmt, fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use secrecy::{ExposeSecret, ExposeSecretMut};
use zeroize::Zeroizing;

use crate::{
    Error,
    cipher::{self, KEY_LENGTH, Secret},
    durable,
};

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: [GeneralPurpose; 2] = [
    GeneralPurpose::new(&alphabet::STANDARD, LENIENT),
    GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT),
];

/// The key that wraps every data key. Comes from the environment or from a file.
#[derive(Clone)]
pub struct MasterKey(Arc<Secret>);

impl MasterKey {
    /// Reads a key from text: 32 bytes as 64 hexadecimal digits, or in base64 of either alphabet.
    pub fn parse(text: &str) -> Result<MasterKey, Error> {
        MasterKey::parse_named(text, "the given text")
    }

    /// Makes a new random key.
    pub fn generate() -> Result<MasterKey, Error> {
        Ok(MasterKey(Arc::new(cipher::random_secret()?)))
    }

    /// Reads the key from its file; `None` when there is no such file.
    pub fn load(path: &Path) -> Result<Option<MasterKey>, Error> {
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Error::MasterKeyMalformed { source_name: path.display().to_string() });
            }
            Err(error) => return Err(Error::io(path, error)),
        };
        let mode = fs::metadata(path).map_err(|error| Error::io(path, error))?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "other users may read the master key, chmod 600 its file");
        }
        MasterKey::parse_named(&text, &path.display().to_string()).map(Some)
    }

    /// Reads the key from its file, or makes a new one there (mode 0600, synced). The flag says
    /// whether it was made now. [`Vault::local_with_key_file`](crate::Vault::local_with_key_file)
    /// also refuses to make a new key beside data that need the old one.
    pub fn load_or_create(path: &Path) -> Result<(MasterKey, bool), Error> {
        if let Some(key) = MasterKey::load(path)? {
            return Ok((key, false));
        }
        let key = MasterKey::generate()?;
        if key.save(path)? {
            return Ok((key, true));
        }
        // Another process was faster: its key is the key.
        let key = MasterKey::load(path)?
            .ok_or_else(|| Error::MasterKeyMissing { path: path.display().to_string() })?;
        Ok((key, false))
    }

    /// Writes the key to a file that is not there yet (mode 0600, synced); says whether it did.
    pub fn save(&self, path: &Path) -> Result<bool, Error> {
        let text = Zeroizing::new(format!("{}\n", *self.to_hex()));
        durable::create_file(path, text.as_bytes()).map_err(|error| Error::io(path, error))
    }

    /// Puts the file of a key in the place of another one's.
    pub fn take_over(file: &Path, of: &Path) -> Result<(), Error> {
        durable::rename_file(file, of).map_err(|error| Error::io(file, error))
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.0
    }

    fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.expose_secret()))
    }

    fn parse_named(text: &str, source_name: &str) -> Result<MasterKey, Error> {
        let text = text.trim();
        let mut secret = Secret::default();
        // Each attempt writes straight into the secret, so that no copy is left behind.
        let parsed = hex::decode_to_slice(text, secret.expose_secret_mut()).is_ok()
            || BASE64.iter().any(|base64| {
                // A little longer than a key: the decoder asks for whole groups.
                let mut buffer = Zeroizing::new([0; KEY_LENGTH + 4]);
                let length = base64.decode_slice(text, buffer.as_mut_slice());
                secret.expose_secret_mut().copy_from_slice(&buffer[..KEY_LENGTH]);
                length == Ok(KEY_LENGTH)
            });
        if parsed {
            Ok(MasterKey(Arc::new(secret)))
        } else {
            Err(Error::MasterKeyMalformed { source_name: source_name.to_owned() })
        }
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey([REDACTED])")
    }
}

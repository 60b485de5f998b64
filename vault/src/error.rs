//! What can go wrong with the vault.
//!
//! The rule of this file: every message says what to do next, and none holds a secret.

use std::{io, path::Path};

/// The vault could not store, find or read something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk is full; nothing was stored.
    #[error("the disk is full: free some space, nothing was stored")]
    DiskFull,
    /// A file or a folder failed.
    #[error("{path} cannot be used: check that it exists and that this user may read and write it")]
    Io {
        /// The file or folder.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address or the settings of an object store are not good.
    #[error("the object store cannot be used: {reason}")]
    StoreMalformed {
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The object store does not answer.
    #[error(
        "{place} cannot be reached: check the network, and that AWS_ENDPOINT_URL names the store (and AWS_REGION its region); nothing was changed"
    )]
    StoreUnreachable {
        /// The store.
        place: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// The object store refuses us.
    #[error(
        "{place} refuses these credentials: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and that they may list, read, write and delete objects there"
    )]
    StoreRefused {
        /// The store.
        place: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// There is no such bucket.
    #[error(
        "there is no bucket for {place}: make it (`aws s3 mb s3://BUCKET`), or correct --blobs or AWS_ENDPOINT_URL"
    )]
    BucketMissing {
        /// The store.
        place: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// The object store answers with failures of its own.
    #[error("{place} failed: look at its own log; it is tried again when it is needed")]
    Store {
        /// The store.
        place: String,
        /// Why.
        #[source]
        source: object_store::Error,
    },
    /// The object store does not keep conditional puts.
    #[error(
        "{place} lets several create the same object at once (`If-None-Match: *`), so two nodes could make different keys of one name: use a store, or a version of it, that keeps conditional writes, as S3 does"
    )]
    NoConditionalPuts {
        /// The store.
        place: String,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes, nothing was stored: try again")]
    Random(#[source] getrandom::Error),
    /// The server is stopping, so the work was not done.
    #[error("the server is stopping, nothing was stored: try again when it is back")]
    Stopping,

    /// What was given as a master key is none.
    #[error(
        "{source_name} is not a master key: it must be 32 random bytes, written as 64 hexadecimal digits or in base64 (`openssl rand -hex 32` makes one)"
    )]
    MasterKeyMalformed {
        /// Where the text came from.
        source_name: String,
    },
    /// There are sealed data, and the file of the master key is gone.
    #[error(
        "{path} is missing, but there are data that are sealed with the master key that it held: put that file back (or pass the key in PRODGY_MASTER_KEY); without it the sealed data cannot be read"
    )]
    MasterKeyMissing {
        /// The file.
        path: String,
    },
    /// The data are sealed with another master key.
    #[error(
        "the master key does not fit these data: they were sealed with another one. Start with the key that was used before (its file, or PRODGY_MASTER_KEY), or choose another data directory; nothing was changed"
    )]
    WrongMasterKey,
    /// Another master key is about to take over.
    #[error(
        "the master key is being replaced, and that was cut off: run `prodgy keys rotate-master` again to finish it, with the same keys; nothing is lost"
    )]
    MasterKeyChanging,

    /// A key id is not of the allowed form.
    #[error("{0:?} is no key id: it takes 1 to 128 of a-z, 0-9 and '-', and begins with a letter")]
    InvalidKeyId(String),
    /// There is no such key.
    #[error(
        "there is no key {id}: create it before anything is sealed with it; if it was there before, it was shredded, or its file must be restored from a backup"
    )]
    KeyMissing {
        /// The key's id.
        id: String,
    },
    /// The key was shredded, and a shredded key never comes back.
    #[error("the key {id} was shredded, and a shredded key never comes back: use a new id")]
    KeyShredded {
        /// The key's id.
        id: String,
    },
    /// The stored key cannot be unwrapped.
    #[error("the stored key {id} is damaged: restore keys/{id}.json from a backup")]
    KeyCorrupt {
        /// The key's id.
        id: String,
    },
    /// The stored key was written by a newer version.
    #[error("the stored key {id} has format {found}, this version knows 1: upgrade prodgy")]
    KeyNewer {
        /// The key's id.
        id: String,
        /// The format that was found.
        found: u64,
    },

    /// A text is not of the sealed form.
    #[error(
        "a sealed value must look like s1.<key id>.<base64url>: it was cut or changed, restore it from a backup"
    )]
    SealMalformed,
    /// A sealed value does not open at this place.
    #[error(
        "a sealed value (key {key_id}) does not open here: it was changed, or it was sealed for another place; restore it from a backup"
    )]
    SealRefused {
        /// The key that it names.
        key_id: String,
    },

    /// The name of a blob or an artifact is not of the allowed form.
    #[error("{0:?} is no name of a stored object: check what made it")]
    InvalidName(String),
    /// A blob is not there.
    #[error("the blob {name} is missing: restore it from a backup, or upload the file again")]
    BlobMissing {
        /// Its name.
        name: String,
    },
    /// A blob is not what was stored.
    #[error("the blob {name} is damaged: restore it from a backup, or upload the file again")]
    Corrupt {
        /// Its name.
        name: String,
    },
    /// A blob is larger than the caller takes.
    #[error(
        "a blob of {size} bytes is more than the {max} that are taken here: read it as a stream, or raise the limit"
    )]
    TooLong {
        /// Its size.
        size: u64,
        /// What the caller takes.
        max: u64,
    },
    /// What is stored under a name is not what is brought there.
    #[error(
        "{name} is in the vault already, and is another one: import into an empty data directory (or bucket)"
    )]
    Taken {
        /// Its name.
        name: String,
    },
    /// An object was changed while it was read.
    #[error("{name} was changed while it was read: begin again")]
    Changed {
        /// Its name.
        name: String,
    },
    /// A range lies outside the blob.
    #[error(
        "the range {start}..{end} does not lie within the {size} bytes of the blob: ask for less"
    )]
    InvalidRange {
        /// The first byte.
        start: u64,
        /// One past the last byte.
        end: u64,
        /// The blob's size.
        size: u64,
    },
}

/// A blob was not stored; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum PutError<E> {
    /// The body is longer than the limit.
    #[error("the body is larger than the {limit} bytes allowed: send less, or raise the limit")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The body itself failed before its end.
    #[error("the body broke off before its end, nothing was stored: send it again")]
    Body(#[source] E),
    /// The vault failed.
    #[error(transparent)]
    Vault(#[from] Error),
}

impl Error {
    /// Whether something stored is not what it was: trying again does not help, a backup does.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Error::KeyMissing { .. }
                | Error::KeyCorrupt { .. }
                | Error::SealMalformed
                | Error::SealRefused { .. }
                | Error::BlobMissing { .. }
                | Error::Corrupt { .. }
        )
    }

    /// Names the file that failed, and knows a full disk when it sees one.
    pub(crate) fn io(path: &Path, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull,
            _ => Error::Io { path: path.display().to_string(), source },
        }
    }

    /// Tells what an object store's failure means.
    pub(crate) fn store(place: &str, source: object_store::Error) -> Error {
        let place = place.to_owned();
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&source);
        let mut is_unreachable = false;
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<io::Error>()
                && matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            {
                return Error::DiskFull;
            }
            is_unreachable |= inner.is::<object_store::client::HttpError>();
            cause = inner.source();
        }
        let text = source.to_string();
        if text.contains("NoSuchBucket") {
            return Error::BucketMissing { place, source };
        }
        // Some requests, as a listing, say what went wrong in words alone. The last two ask the cloud that
        // this machine may be in for credentials, because nobody gave any.
        let is_refused =
            ["status code: 401", "status code: 403", "/latest/api/token", "/latest/meta-data/"]
                .iter()
                .any(|said| text.contains(said));
        match source {
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => Error::StoreRefused { place, source },
            _ if is_refused => Error::StoreRefused { place, source },
            _ if is_unreachable => Error::StoreUnreachable { place, source },
            _ => Error::Store { place, source },
        }
    }

    /// Whether the object store is why, and may be back soon.
    pub fn is_store_away(&self) -> bool {
        matches!(
            self,
            Error::StoreUnreachable { .. }
                | Error::StoreRefused { .. }
                | Error::BucketMissing { .. }
                | Error::Store { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    //! A full disk is seen wherever it hides.

    use super::*;

    #[test]
    fn a_full_disk_is_found_below_an_object_store() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let deep =
            io::Error::other(object_store::Error::Generic { store: "a", source: full().into() });
        for source in [full(), deep] {
            let error = object_store::Error::Generic { store: "any", source: Box::new(source) };
            assert!(matches!(Error::store("a store", error), Error::DiskFull));
        }
        let other = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = object_store::Error::Generic { store: "any", source: Box::new(other) };
        assert!(matches!(Error::store("a store", error), Error::Store { .. }));
    }
}

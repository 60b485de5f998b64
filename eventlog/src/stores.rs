//! Picks the store that an address names.
//!
//! The rule of this file: an address says what the store is before its first colon, and an error
//! about it never repeats the rest, which may hold a password.

use std::path::Path;
use std::sync::Arc;

use crate::importer::{ImportError, Importer};
use crate::{
    Error, EventStore, KurrentdbOptions, KurrentdbStore, PostgresOptions, PostgresStore,
    SqliteOptions, SqliteStore,
};

/// What an address names, with what the store itself is to read of it.
enum Address<'a> {
    Sqlite(&'a Path),
    Postgres(&'a str),
    Kurrentdb(&'a str),
}

impl Address<'_> {
    fn parse(address: &str) -> Result<Address<'_>, Error> {
        let (scheme, rest) = address.split_once(':').unwrap_or_default();
        match scheme {
            "sqlite" => match rest.strip_prefix("//").unwrap_or(rest) {
                "" => Err(Error::Address(
                    "sqlite: is followed by a path, as sqlite:data/events.db".into(),
                )),
                path => Ok(Address::Sqlite(Path::new(path))),
            },
            "postgres" | "postgresql" => Ok(Address::Postgres(address)),
            "kurrentdb" | "kurrentdb+discover" | "esdb" | "esdb+discover" => {
                Ok(Address::Kurrentdb(address))
            }
            _ => Err(Error::Address(
                "must be sqlite:PATH, postgres://USER:PASSWORD@HOST:PORT/DATABASE or kurrentdb://USER:PASSWORD@HOST:PORT".into(),
            )),
        }
    }
}

/// Reads an address without opening anything.
///
/// # Errors
/// [`Error::Address`] when it names no store.
pub fn check_address(address: &str) -> Result<(), Error> {
    match Address::parse(address)? {
        Address::Sqlite(_) => Ok(()),
        Address::Postgres(url) => PostgresStore::check_address(url),
        Address::Kurrentdb(url) => KurrentdbStore::check_address(url),
    }
}

/// Opens the log at an address: `sqlite:PATH`, `postgres://USER:PASSWORD@HOST:PORT/DATABASE` or
/// `kurrentdb://USER:PASSWORD@HOST:PORT` (`esdb://…` is the same; `+discover` behind either name
/// looks the cluster's nodes up). One that is to be read only must be there, and is not migrated.
///
/// # Errors
/// It is no address, or the log there cannot be opened: the error says what to do.
pub async fn open(address: &str, read_only: bool) -> Result<Arc<dyn EventStore>, Error> {
    match Address::parse(address)? {
        Address::Sqlite(path) => {
            let path = path.to_owned();
            let options = SqliteOptions { read_only, ..SqliteOptions::default() };
            let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&path, options));
            Ok(Arc::new(opened.await.unwrap_or(Err(Error::Closed))?))
        }
        Address::Postgres(url) => {
            let options = PostgresOptions { read_only, ..PostgresOptions::default() };
            Ok(Arc::new(PostgresStore::open(url, options).await?))
        }
        Address::Kurrentdb(url) => {
            let options = KurrentdbOptions { read_only, ..KurrentdbOptions::default() };
            Ok(Arc::new(KurrentdbStore::open(url, options).await?))
        }
    }
}

/// Opens the log at an address to be filled with what another one recorded, and makes it where there
/// is none.
///
/// # Errors
/// It cannot be opened, or gives positions and times itself, as KurrentDB does.
pub async fn open_importer(address: &str) -> Result<Importer, ImportError> {
    match Address::parse(address)? {
        Address::Sqlite(path) => {
            let path = path.to_owned();
            let opened = tokio::task::spawn_blocking(move || Importer::sqlite(&path));
            Ok(opened.await.unwrap_or(Err(Error::Closed))?)
        }
        Address::Postgres(url) => Ok(Importer::postgres(url).await?),
        Address::Kurrentdb(_) => Err(ImportError::Refused(
            "KurrentDB gives positions and times itself, so no log can be brought there exactly: \
             choose a log in SQLite or PostgreSQL"
                .into(),
        )),
    }
}

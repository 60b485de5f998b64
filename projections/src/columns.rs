//! How ids and lists stand in columns: as text, so that a person can read a views file. Where a table
//! has a row for every event or every run, ids are their sixteen bytes: half the file, half the time.

use rusqlite::Row;
use rusqlite::types::{FromSqlError, Type, ValueRef};
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// A column that holds an id, in either form.
pub(crate) fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    read_id(row.get_ref(column)?, column)
}

/// A column that may hold an id, in either form.
pub(crate) fn optional_id(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Uuid>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        value => read_id(value, column).map(Some),
    }
}

fn read_id(value: ValueRef<'_>, column: usize) -> rusqlite::Result<Uuid> {
    match value {
        ValueRef::Blob(bytes) => Uuid::from_slice(bytes),
        text => Uuid::try_parse_ascii(text.as_bytes()?),
    }
    .map_err(|error| unreadable(column, error))
}

/// A column that holds JSON.
pub(crate) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|error| unreadable(column, error))
}

/// A column that may hold JSON.
pub(crate) fn optional_json<T: DeserializeOwned>(
    row: &Row<'_>,
    column: usize,
) -> rusqlite::Result<Option<T>> {
    match row.get_ref(column)?.as_str_or_null()? {
        Some(text) => {
            serde_json::from_str(text).map(Some).map_err(|error| unreadable(column, error))
        }
        None => Ok(None),
    }
}

fn unreadable(
    column: usize,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    let cause = FromSqlError::Other(Box::new(error));
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(cause))
}

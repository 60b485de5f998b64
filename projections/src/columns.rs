//! How ids and lists stand in columns: as text, so that a person can read a views file.

use rusqlite::Row;
use rusqlite::types::{FromSqlError, Type};
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// A column that holds an id.
pub(crate) fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    parse_id(row.get_ref(column)?.as_bytes()?, column)
}

/// A column that may hold an id.
pub(crate) fn optional_id(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Uuid>> {
    let text = row.get_ref(column)?.as_bytes_or_null()?;
    text.map(|text| parse_id(text, column)).transpose()
}

fn parse_id(text: &[u8], column: usize) -> rusqlite::Result<Uuid> {
    Uuid::try_parse_ascii(text).map_err(|error| unreadable(column, error))
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

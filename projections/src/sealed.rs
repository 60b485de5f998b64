//! A sealed text as a read model keeps it: still sealed, with the name of the event that sealed it,
//! which is part of what it is bound to.
//!
//! The rule of this file: nothing personal lies open in a views file, so that shredding a key
//! reaches the read models at once.

use domain::{Description, Sealed};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use uuid::Uuid;
use vault::{Opened, Place, Vault};

use crate::Error;

/// A sealed text and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedField {
    /// See [`SealedField::as_column`].
    text: String,
    /// Where the bar is.
    bar: usize,
}

impl SealedField {
    /// What `event_type` carried.
    pub fn new(event_type: &str, sealed: &Sealed) -> SealedField {
        SealedField { text: column_of(event_type, sealed.as_str()), bar: event_type.len() }
    }

    /// An address or a user agent of a request. Those are bound to no stream: one request can change
    /// several.
    pub fn of_client(sealed: String) -> SealedField {
        let event_type = domain::values::CLIENT;
        SealedField { text: column_of(event_type, &sealed), bar: event_type.len() }
    }

    /// The address or user agent of a request, sealed as [`domain::values::CLIENT`] says.
    ///
    /// # Errors
    /// As [`SealedField::open`].
    pub async fn open_client(
        &self,
        vault: &Vault,
        organization: Uuid,
        field: &str,
    ) -> Result<Option<String>, Error> {
        self.open(vault, organization, domain::values::CLIENT, field).await
    }

    /// The text, or `None` when its key was shredded.
    ///
    /// # Errors
    /// The vault fails, or the text was not sealed for this place.
    pub async fn open(
        &self,
        vault: &Vault,
        organization: Uuid,
        stream: &str,
        field: &str,
    ) -> Result<Option<String>, Error> {
        let place = self.place(organization, stream, field);
        match vault.open(&vault::Sealed::parse(self.sealed())?, &place).await? {
            Opened::Clear(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Opened::Shredded => Ok(None),
        }
    }

    /// See [`column_of`].
    pub(crate) fn as_column(&self) -> &str {
        &self.text
    }

    fn place<'a>(&'a self, organization: Uuid, stream: &'a str, field: &'a str) -> Place<'a> {
        Place { organization, stream, event_type: &self.text[..self.bar], field }
    }

    fn sealed(&self) -> &str {
        &self.text[self.bar + 1..]
    }
}

/// As a column holds a sealed text: `<event type>|<sealed text>`.
pub(crate) fn column_of(event_type: &str, sealed: &str) -> String {
    format!("{event_type}|{sealed}")
}

/// Where the bar is in what [`column_of`] answered.
pub(crate) fn bar_of(text: &str) -> FromSqlResult<usize> {
    text.find('|').ok_or(FromSqlError::InvalidType)
}

/// What people say about a thing: sealed, or in the clear where the log has it so for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// In the clear.
    Clear(String),
    /// Sealed.
    Sealed(SealedField),
}

impl Said {
    /// What a column holds where an event said nothing, in the clear.
    pub(crate) const NOTHING: &'static str = "|";

    /// What an event from before descriptions were sealed said.
    pub(crate) fn clear(description: &Description) -> Said {
        Said::Clear(description.as_str().to_owned())
    }

    /// The text of what was said, if anything was; `None` also when its key was shredded.
    ///
    /// # Errors
    /// As [`SealedField::open`].
    pub async fn open(
        said: Option<Said>,
        vault: &Vault,
        organization: Uuid,
        stream: &str,
    ) -> Result<Option<String>, Error> {
        match said {
            None => Ok(None),
            Some(Said::Clear(text)) => Ok(Some(text)),
            Some(Said::Sealed(field)) => {
                let place = field.place(organization, stream, "description");
                Ok(vault.open_kept(field.sealed(), &place).await?)
            }
        }
    }
}

/// As a [`SealedField`]; what is in the clear has no event that it is bound to.
impl ToSql for Said {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Said::Clear(text) => Ok(format!("{}{text}", Said::NOTHING).into()),
            Said::Sealed(field) => field.to_sql(),
        }
    }
}

impl FromSql for Said {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()?.strip_prefix(Said::NOTHING) {
            Some(text) => Ok(Said::Clear(text.to_owned())),
            None => SealedField::column_result(value).map(Said::Sealed),
        }
    }
}

impl ToSql for SealedField {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_column().into())
    }
}

impl FromSql for SealedField {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        let bar = bar_of(text)?;
        Ok(SealedField { text: text.to_owned(), bar })
    }
}

//! Opened texts that stay in memory, since lists show them over and over.
//!
//! The rule of this file: no text outlives its key, and none is shown at a place that it was not
//! sealed for.

use std::collections::HashMap;

use parking_lot::RwLock;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    Error, Opened, Place, Sealed, Vault,
    keys::{Known, keys_of},
};

/// How many bytes of texts are kept, with what they are found by.
const KEPT_BYTES: usize = 8 * 1024 * 1024;
/// What an entry takes besides its texts.
const ENTRY_BYTES: usize = 256;

/// The opened texts of a vault.
#[derive(Default)]
pub(crate) struct Kept(RwLock<Texts>);

#[derive(Default)]
struct Texts {
    /// The keys are ciphertexts of our own: a fast hash will do, and a list looks fifty of them up.
    by_sealed: HashMap<Box<str>, Text, foldhash::fast::RandomState>,
    bytes: usize,
}

/// A text, and the one place where it may be shown.
struct Text {
    organization: Uuid,
    stream: Box<str>,
    event_type: Box<str>,
    field: Box<str>,
    clear: Zeroizing<String>,
}

impl Text {
    fn new(place: &Place<'_>, clear: &str) -> Text {
        Text {
            organization: place.organization,
            stream: place.stream.into(),
            event_type: place.event_type.into(),
            field: place.field.into(),
            clear: Zeroizing::new(clear.to_owned()),
        }
    }

    fn bytes(&self, sealed: &str) -> usize {
        sealed.len() + self.stream.len() + self.clear.len() + ENTRY_BYTES
    }

    fn stands_at(&self, place: &Place<'_>) -> bool {
        let Place { organization, stream, event_type, field } = *place;
        self.organization == organization
            && *self.stream == *stream
            && *self.event_type == *event_type
            && *self.field == *field
    }
}

impl Kept {
    fn get(&self, sealed: &str, place: &Place<'_>) -> Option<String> {
        let texts = self.0.read();
        let text = texts.by_sealed.get(sealed).filter(|text| text.stands_at(place))?;
        Some(text.clear.as_str().to_owned())
    }

    /// Keeps a text, if its key is there still: whoever destroys the key [forgets](Kept::forget) its
    /// texts after that.
    fn keep(&self, sealed: &str, text: Text, key_is_there: impl FnOnce() -> bool) {
        let bytes = text.bytes(sealed);
        let mut texts = self.0.write();
        if !key_is_there() || texts.by_sealed.contains_key(sealed) {
            return;
        }
        if texts.bytes + bytes > KEPT_BYTES {
            // All at once: it is rare, and each costs no more than to be opened once more.
            *texts = Texts::default();
        }
        texts.bytes += bytes;
        texts.by_sealed.insert(sealed.into(), text);
    }

    /// Wipes what a key has opened.
    pub(crate) fn forget(&self, key_id: &str) {
        let is_of_another = |sealed: &str| {
            let mut keys = Sealed::key_id_of(sealed).into_iter().flat_map(keys_of);
            !keys.any(|id| id == key_id)
        };
        let mut texts = self.0.write();
        texts.by_sealed.retain(|sealed, _| is_of_another(sealed));
        texts.bytes = texts.by_sealed.iter().map(|(sealed, text)| text.bytes(sealed)).sum();
    }
}

impl Vault {
    /// Opens a sealed text, and keeps it in memory while its key is there: for what lists show. Not for
    /// what nobody should find in the memory of the process.
    ///
    /// `None` when its key was shredded.
    ///
    /// # Errors
    /// As [`Vault::open`], and where it is no sealed text.
    pub async fn open_kept(
        &self,
        sealed: &str,
        place: &Place<'_>,
    ) -> Result<Option<String>, Error> {
        let kept = &self.inner.kept;
        if let Some(text) = kept.get(sealed, place) {
            return Ok(Some(text));
        }
        let parsed = Sealed::parse(sealed)?;
        let Opened::Clear(clear) = self.open(&parsed, place).await? else { return Ok(None) };
        let clear = String::from_utf8_lossy(&clear).into_owned();
        kept.keep(sealed, Text::new(place, &clear), || {
            matches!(self.keys().cached(parsed.key_id()), Some(Known::Key(_)))
        });
        Ok(Some(clear))
    }
}

#[cfg(test)]
mod tests;

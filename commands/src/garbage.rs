//! Garbage: blobs and artifacts that no event names, as those of rejected uploads.
//!
//! The rule of this file: what any event names stays, whatever came after that event: the bytes of a
//! deleted file are what its history, a citation or an `as_of` shows. Only what no event names and
//! nobody has touched for a while is set aside, and only what has lain aside for a while is removed
//! (see [`vault::Vault::set_aside`]).
//!
//! A name is looked for in every text of every event, known type or not: an event type that names
//! blobs in a new way needs no change here.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use eventlog::{EventStore, Position};
use futures::TryStreamExt;
use serde_json::Value;
use sha2::{Digest, Sha256};
use vault::{StoredObject, Vault};

use crate::Error;

/// How many events one read of the log brings.
const BATCH: usize = 1_000;

/// The hexadecimal digits of a blob's name.
const BLOB_NAME: usize = 64;

/// How garbage is collected.
#[derive(Clone, Copy, Debug)]
pub struct Collection {
    /// How long an object must not have been touched. What is uploaded just now is not named yet.
    pub older_than: Duration,
    /// Only look what would be done.
    pub dry_run: bool,
}

/// How far a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It reads the log, up to this position.
    Log {
        /// The position reached.
        position: Position,
        /// The newest one.
        head: Position,
    },
    /// It has looked at so many objects.
    Store(u64),
    /// It has taken so many objects away.
    Garbage {
        /// So many.
        done: u64,
        /// Of so many.
        of: u64,
    },
}

/// Some objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub objects: u64,
    /// How many bytes they take.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, object: &StoredObject) {
        self.objects += 1;
        self.bytes += object.size;
    }
}

/// What a collection has done, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// What events name. It stays.
    pub named: Amount,
    /// What nobody names and is too young, or is aside and waits there.
    pub waiting: Amount,
    /// What was set aside.
    pub set_aside: Amount,
    /// What was brought back, because an event names it by now.
    pub brought_back: Amount,
    /// What was removed for good.
    pub removed: Amount,
    /// The names of what was set aside, brought back or removed, each behind what was done.
    pub actions: Vec<(Action, String)>,
}

/// What is done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is set aside.
    SetAside,
    /// It is brought back.
    BringBack,
    /// It is removed for good.
    Remove,
}

/// Collects garbage.
///
/// # Errors
/// Log or vault fail; or the log is empty and the store is not, so that they cannot belong together.
pub async fn collect_garbage(
    log: &dyn EventStore,
    vault: &Vault,
    how: Collection,
    mut report: impl FnMut(Progress),
) -> Result<Collected, Error> {
    let cutoff = SystemTime::now().checked_sub(how.older_than).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut named = Named::default();
    named.read_on(log, &mut report).await?;

    let mut collected = Collected::default();
    let mut planned = Vec::new();
    let mut looked_at = 0;
    for (is_aside, mut objects) in [(true, vault.stored_aside()), (false, vault.stored())] {
        while let Some(object) = objects.try_next().await? {
            if named.position == Position::START {
                return Err(Error::EmptyLog);
            }
            looked_at += 1;
            report(Progress::Store(looked_at));
            let is_old = object.modified <= cutoff;
            match (is_aside, named.has(&object)) {
                (true, true) => planned.push((Action::BringBack, object)),
                (true, false) if is_old => planned.push((Action::Remove, object)),
                (false, true) => collected.named.add(&object),
                (false, false) if is_old => planned.push((Action::SetAside, object)),
                (_, false) => collected.waiting.add(&object),
            }
        }
    }

    // Once more: what was named while the store was listed is no garbage.
    named.read_on(log, &mut report).await?;
    let of = planned.len() as u64;
    for (done, (action, object)) in (0..).zip(planned) {
        report(Progress::Garbage { done, of });
        let action = match action {
            Action::SetAside if named.has(&object) => {
                collected.named.add(&object);
                continue;
            }
            Action::Remove if named.has(&object) => Action::BringBack,
            action => action,
        };
        let is_done = how.dry_run
            || match action {
                Action::SetAside => vault.set_aside(&object, cutoff).await?,
                Action::BringBack => vault.bring_back_aside(&object).await?,
                Action::Remove => vault.remove_aside(&object).await.map(|()| true)?,
            };
        if is_done {
            match action {
                Action::SetAside => collected.set_aside.add(&object),
                Action::BringBack => collected.brought_back.add(&object),
                Action::Remove => collected.removed.add(&object),
            }
            collected.actions.push((action, object.name));
        } else {
            // Somebody has put it again, or another collection was faster.
            collected.waiting.add(&object);
        }
    }
    if !how.dry_run {
        vault.clear_unfinished(cutoff).await?;
    }
    report(Progress::Garbage { done: of, of });
    Ok(collected)
}

/// Every name that the log was found to hold so far: their hashes, as memory should not hold them
/// all in full.
#[derive(Default)]
struct Named {
    names: HashSet<[u8; 32]>,
    position: Position,
}

impl Named {
    /// Reads what was appended since.
    async fn read_on(
        &mut self,
        log: &dyn EventStore,
        report: &mut impl FnMut(Progress),
    ) -> Result<(), Error> {
        let head = log.head().await?;
        loop {
            let events = log.read_after(self.position, BATCH).await?;
            let Some(last) = events.last() else { return Ok(()) };
            for event in &events {
                let data: Value = serde_json::from_str(event.data.get())
                    .map_err(|source| Error::Decode { stream: event.stream.to_string(), source })?;
                self.take(&data);
            }
            self.position = last.position;
            report(Progress::Log { position: self.position, head: head.max(self.position) });
        }
    }

    fn take(&mut self, value: &Value) {
        match value {
            Value::String(text) if may_be_a_name(text) => {
                self.names.insert(Sha256::digest(text).into());
            }
            Value::Array(items) => items.iter().for_each(|item| self.take(item)),
            Value::Object(members) => members.values().for_each(|member| self.take(member)),
            _ => {}
        }
    }

    /// Whether an event names the object. One whose name no event could hold is nobody's to take.
    fn has(&self, object: &StoredObject) -> bool {
        let name = object.named();
        !may_be_a_name(name) || self.names.contains::<[u8; 32]>(&Sha256::digest(name).into())
    }
}

/// Whether a text could be the name of a blob, or of an artifact: those have a folder.
fn may_be_a_name(text: &str) -> bool {
    let is_artifact =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/._-".contains(&byte);
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match text.contains('/') {
        true => text.len() <= 512 && text.bytes().all(is_artifact),
        false => text.len() == BLOB_NAME && text.bytes().all(is_hex),
    }
}

#[cfg(test)]
mod tests;

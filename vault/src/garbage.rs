//! Garbage: what is stored and nobody names, taken away in two steps.
//!
//! The rule of this file: nothing is removed at once. What is taken for garbage is set aside first,
//! and removed only when it has lain there for a while; whoever reads it meanwhile brings it back.
//! So whoever names an object in the very moment in which it is set aside loses nothing, nor does
//! who let the collector read the wrong log. What is to be erased goes the same way, without the while.
//!
//! Which objects are named is not known here: the vault knows nothing of events.

use std::time::SystemTime;

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use uuid::Uuid;

use crate::{
    BlobRef, Error, Vault,
    blobs::object_name,
    objects::{Listed, Objects},
};

/// Where blobs and artifacts are.
const KINDS: [&str; 2] = ["blobs", "artifacts"];
/// What is set before the name of an object that was set aside.
const ASIDE: &str = "garbage/";

/// A blob or an artifact, as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Where it is, or was before it was set aside: `blobs/…` or `artifacts/…`.
    pub name: String,
    /// How many bytes it takes.
    pub size: u64,
    /// When it was stored, or set aside.
    pub modified: SystemTime,
}

impl StoredObject {
    /// What an event says that names it: the name of the blob, or of the artifact.
    pub fn named(&self) -> &str {
        match self.name.strip_prefix("artifacts/") {
            Some(artifact) => artifact,
            None => self.name.rsplit('/').next().unwrap_or_default(),
        }
    }
}

impl Vault {
    /// Every blob and artifact, in no order.
    pub fn stored(&self) -> BoxStream<'static, Result<StoredObject, Error>> {
        self.listed("")
    }

    /// Every blob and artifact that was set aside, in no order.
    pub fn stored_aside(&self) -> BoxStream<'static, Result<StoredObject, Error>> {
        self.listed(ASIDE)
    }

    fn listed(&self, before: &'static str) -> BoxStream<'static, Result<StoredObject, Error>> {
        let kinds = KINDS.map(|kind| self.objects().list_all(&format!("{before}{kind}")));
        let listed = futures::stream::iter(kinds).flatten();
        listed
            .map_ok(move |Listed { name, size, modified }| StoredObject {
                name: name.strip_prefix(before).unwrap_or(&name).to_owned(),
                size,
                modified,
            })
            .boxed()
    }

    /// Sets an object aside unless it was written after `cutoff`; says whether it did.
    pub async fn set_aside(
        &self,
        object: &StoredObject,
        cutoff: SystemTime,
    ) -> Result<bool, Error> {
        let StoredObject { name, .. } = object;
        self.objects().move_older(name, &format!("{ASIDE}{name}"), cutoff).await
    }

    /// A blob, and every artifact of its product whose name begins with the blob's, wherever they lie now.
    pub async fn stored_of(
        &self,
        product: Uuid,
        blob: &BlobRef,
    ) -> Result<Vec<StoredObject>, Error> {
        let name = object_name(product, blob)?;
        let mut found =
            vec![StoredObject { name, size: blob.size, modified: SystemTime::UNIX_EPOCH }];
        let artifacts = format!("artifacts/{product}");
        for before in ["", ASIDE] {
            let mut listed = self.objects().list_all(&format!("{before}{artifacts}"));
            while let Some(Listed { name, size, modified }) = listed.try_next().await? {
                let name = name.strip_prefix(before).unwrap_or(&name).to_owned();
                let own = name.strip_prefix(&artifacts).and_then(|name| name.strip_prefix('/'));
                if own.is_some_and(|own| own.starts_with(&blob.name)) {
                    found.push(StoredObject { name, size, modified });
                }
            }
        }
        Ok(found)
    }

    /// Brings back what was set aside; says whether it was there.
    pub async fn bring_back_aside(&self, object: &StoredObject) -> Result<bool, Error> {
        self.bring_back(&object.name).await
    }

    /// Removes what was set aside, for good.
    pub async fn remove_aside(&self, object: &StoredObject) -> Result<(), Error> {
        self.objects().delete(&format!("{ASIDE}{}", object.name)).await
    }

    /// Removes what was begun before `cutoff` and never got its name. A local folder does so
    /// whenever it is opened.
    pub async fn clear_unfinished(&self, cutoff: SystemTime) -> Result<(), Error> {
        match self.objects() {
            Objects::Local(_) => Ok(()),
            Objects::Remote(remote) => remote.clear_unfinished(cutoff).await,
        }
    }

    /// Brings an object back that was set aside, by where it was.
    pub(crate) async fn bring_back(&self, name: &str) -> Result<bool, Error> {
        self.objects().rename(&format!("{ASIDE}{name}"), name).await
    }

    /// Removes an object, for good, also where it was set aside.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), Error> {
        self.objects().delete(name).await?;
        self.objects().delete(&format!("{ASIDE}{name}")).await
    }
}

//! tmp
use crate::trigger::TriggerKind;
use crate::values::{Digest, Object};
/// The manifest
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    document: Object,
    /// n
    pub name: String,
    /// n
    pub version: String,
    /// n
    pub triggers: Vec<TriggerSpec>,
}
/// t
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerSpec {
    /// n
    pub key: String,
    /// n
    pub kind: TriggerKind,
    /// n
    pub configuration: Object,
}
impl Manifest {
    /// n
    pub fn canonical(&self) -> &Object {
        &self.document
    }
    /// n
    pub fn digest(&self) -> Digest {
        Digest::sha256(b"")
    }
    /// n
    pub fn has_slot(&self, _: &str) -> bool {
        true
    }
}

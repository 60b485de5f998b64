//! What another version of an agent changes.
//!
//! The rule of this file: the patch leads from the one manifest to the other, exactly; the rest tells
//! people the same, step by step, by the steps' ids and not by their places.

use std::collections::BTreeSet;

use json_patch::{PatchOperation, diff, patch};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// What leads from one manifest to another.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct ManifestDiff {
    /// Each change, in a sentence.
    summary: Vec<String>,
    /// What became of the steps, by their ids.
    steps: StepChanges,
    /// Each change, by its step where it is in one.
    changes: Vec<Change>,
    /// The same as a JSON Patch (RFC 6902): applied to the one manifest it makes the other.
    #[schema(value_type = Vec<Object>)]
    patch: Vec<PatchOperation>,
}

/// What became of the steps, by their ids.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
struct StepChanges {
    /// Steps that only the other manifest has.
    added: Vec<String>,
    /// Steps that only the one manifest has.
    removed: Vec<String>,
    /// Steps that are defined otherwise.
    changed: Vec<String>,
    /// The steps that both have are written in another order.
    reordered: bool,
}

/// One change.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
struct Change {
    /// The step that it is in; none where it is in none.
    step: Option<String>,
    /// A JSON pointer into the step, or into the manifest.
    path: String,
    /// `add`, `remove` or `replace`.
    op: &'static str,
    /// What was there.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// What is there now.
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
}

impl Change {
    fn sentence(&self) -> String {
        let verb = match self.op {
            "add" => "added",
            "remove" => "removed",
            _ => "changed",
        };
        match &self.step {
            Some(step) if self.path.is_empty() => format!("step `{step}` was {verb}"),
            Some(step) => format!("step `{step}`: `{}` was {verb}", self.path),
            None => format!("`{}` was {verb}", self.path),
        }
    }
}

/// What leads from one manifest to another.
pub(super) fn between(before: &Value, after: &Value) -> ManifestDiff {
    let mut changes = Vec::new();
    collect(&mut changes, None, &without_steps(before), &without_steps(after));
    let (old, new) = (steps(before), steps(after));
    let find = |steps: &[(&str, &Value)], id: &str| {
        steps.iter().find(|(known, _)| *known == id).map(|(_, step)| (*step).clone())
    };
    let mut became = StepChanges::default();
    for (id, step) in &old {
        let step_id = || Some((*id).to_owned());
        match find(&new, id) {
            None => {
                became.removed.push((*id).to_owned());
                let before = Some((*step).clone());
                changes.push(Change {
                    step: step_id(),
                    path: String::new(),
                    op: "remove",
                    before,
                    after: None,
                });
            }
            Some(now) if now != **step => {
                became.changed.push((*id).to_owned());
                collect(&mut changes, step_id(), step, &now);
            }
            Some(_) => {}
        }
    }
    for (id, step) in new.iter().filter(|(id, _)| find(&old, id).is_none()) {
        became.added.push((*id).to_owned());
        changes.push(Change {
            step: Some((*id).to_owned()),
            path: String::new(),
            op: "add",
            before: None,
            after: Some((*step).clone()),
        });
    }
    became.reordered = common(&old, &new) != common(&new, &old);
    let mut summary: Vec<String> = changes.iter().map(Change::sentence).collect();
    if became.reordered {
        summary.push("the steps are in another order".to_owned());
    }
    ManifestDiff { summary, steps: became, changes, patch: diff(before, after).0 }
}

fn without_steps(manifest: &Value) -> Value {
    let mut rest = manifest.clone();
    rest.as_object_mut().map(|rest| rest.remove("steps"));
    rest
}

fn steps(manifest: &Value) -> Vec<(&str, &Value)> {
    let steps = manifest["steps"].as_array().into_iter().flatten();
    steps.filter_map(|step| Some((step["id"].as_str()?, step))).collect()
}

/// The ids of the steps that are in both lists, in the order of the first.
fn common<'a>(of: &[(&'a str, &Value)], and: &[(&'a str, &Value)]) -> Vec<&'a str> {
    let there: BTreeSet<&str> = and.iter().map(|(id, _)| *id).collect();
    of.iter().map(|(id, _)| *id).filter(|id| there.contains(id)).collect()
}

/// Each operation on a part of the manifest, with what was there right before it.
fn collect(changes: &mut Vec<Change>, step: Option<String>, before: &Value, after: &Value) {
    let mut course = before.clone();
    for operation in diff(before, after).0 {
        let path = operation.path().to_string();
        let there = course.pointer(&path).cloned();
        let (op, before, after) = match &operation {
            PatchOperation::Add(add) => ("add", None, Some(add.value.clone())),
            PatchOperation::Remove(_) => ("remove", there, None),
            PatchOperation::Replace(replace) => ("replace", there, Some(replace.value.clone())),
            // Two documents are never told apart by these.
            PatchOperation::Move(_) | PatchOperation::Copy(_) | PatchOperation::Test(_) => continue,
        };
        changes.push(Change { step: step.clone(), path, op, before, after });
        if patch(&mut course, &[operation]).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;

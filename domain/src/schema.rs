//! JSON Schemas of manifests: what an agent's `config` and an execution's `input` must look like.
//!
//! The rule of this file: a schema is checked as it stands. It fetches nothing, and its patterns run
//! in linear time, so that nobody can hang the server with one.

use std::sync::Arc;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::{Map, Value};

use crate::refusal::{Fault, pointer_segment};

/// A schema that compiled. Cheap to check with, and not to make.
#[derive(Clone, Debug)]
pub struct Schema {
    document: Value,
    validator: Arc<Validator>,
}

impl PartialEq for Schema {
    /// The same document is compiled alike.
    fn eq(&self, other: &Schema) -> bool {
        self.document == other.document
    }
}

impl Schema {
    /// Compiles a schema (draft 2020-12, unless it names another).
    ///
    /// # Errors
    /// Its fault, with a JSON pointer into the schema.
    pub fn compile(document: &Value) -> Result<Self, Fault> {
        let fault = |pointer: String, message: &str| {
            let message = format!("this is not a JSON Schema: {message}");
            Fault::new(pointer, "schema_invalid", message)
        };
        if let Err(error) = jsonschema::meta::validate(document) {
            return Err(fault(error.instance_path().to_string(), &error.to_string()));
        }
        jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .build(document)
            .map(|validator| Schema { document: document.clone(), validator: Arc::new(validator) })
            .map_err(|error| fault(error.instance_path().to_string(), &error.to_string()))
    }

    /// The schema as it was written.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// The value with the schema's `default`s filled in.
    ///
    /// # Errors
    /// Every fault that it has then, with JSON pointers into the value.
    pub fn complete(&self, mut value: Value) -> Result<Value, Vec<Fault>> {
        fill_in(&self.document, &mut value);
        let faults: Vec<_> = self.validator.iter_errors(&value).map(fault).collect();
        if faults.is_empty() { Ok(value) } else { Err(faults) }
    }

    /// JSON pointers of the properties that are marked `"x-secret": true`, `"secret": true` or
    /// `"writeOnly": true`.
    pub fn secret_paths(&self) -> Vec<String> {
        secret_paths(&self.document)
    }
}

/// As [`Schema::secret_paths`], of a schema that was accepted once, whether it still compiles or not.
pub fn secret_paths(document: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    find_secrets(document, String::new(), &mut paths);
    paths
}

/// What is wrong, and where. What was given may be a secret: the message does not repeat it.
fn fault(error: ValidationError<'_>) -> Fault {
    let pointer = error.instance_path().to_string();
    if let ValidationErrorKind::Required { property: Value::String(name) } = error.kind() {
        let pointer = format!("{pointer}/{}", pointer_segment(name));
        return Fault::new(pointer, "field_missing", format!("`{name}` is missing"));
    }
    Fault::new(pointer, "schema_violation", error.masked_with("the value").to_string())
}

/// Properties that are missing and have a default get it; those that are there are looked into.
fn fill_in(schema: &Value, value: &mut Value) {
    let (Some(properties), Some(object)) = (properties(schema), value.as_object_mut()) else {
        return;
    };
    for (name, property) in properties {
        if !object.contains_key(name)
            && let Some(default) = property.get("default")
        {
            object.insert(name.clone(), default.clone());
        }
        if let Some(inner) = object.get_mut(name) {
            fill_in(property, inner);
        }
    }
}

fn find_secrets(schema: &Value, path: String, paths: &mut Vec<String>) {
    for (name, property) in properties(schema).into_iter().flatten() {
        let path = format!("{path}/{}", pointer_segment(name));
        let marked = |mark: &str| property.get(mark) == Some(&Value::Bool(true));
        if marked("x-secret") || marked("secret") || marked("writeOnly") {
            paths.push(path);
        } else {
            find_secrets(property, path, paths);
        }
    }
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties")?.as_object()
}

#[cfg(test)]
mod tests;

//! The manifest of an agent, `prodgy.agent/1`: what it needs, what starts it, and its steps.
//!
//! The rule of this file: a manifest is either valid as a whole or refused with every fault it has,
//! each at its place. Nothing in it is ignored: what is not known is a fault.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::expression::{self, Place};
use crate::integration::IntegrationKind;
use crate::reader::{Reader, check_numbers, is_manifest_name, is_semantic_version};
use crate::refusal::{Fault, InvalidDocument};
use crate::schema::{Schema, secret_paths};
use crate::step::{self, StepKind};
use crate::values::{Digest, Name, Object};

mod control;
mod limits;
mod triggers;
mod yaml;

pub use control::{
    Backoff, Control, DEFAULT_ITEMS, Failure, Foreach, MAX_ATTEMPTS, MAX_BACKOFF, MAX_ITEMS,
    MAX_PARALLEL, MAX_STEP_TIMEOUT, OnError, Retry, RetryOn,
};
pub use limits::{
    Concurrency, ConcurrencyStrategy, Limits, MAX_CONCURRENCY, MAX_QUEUE_TIMEOUT, MAX_TIMEOUT,
};
pub use triggers::{MANUAL_TRIGGER, MAX_TRIGGERS, TriggerSpec};
pub use yaml::from_yaml;

/// What the field `manifest` must say.
pub const MANIFEST_VERSION: &str = "prodgy.agent/1";

/// The JSON Schema (draft 2020-12) of what can be checked of a manifest without knowing what it means.
pub const JSON_SCHEMA: &str = include_str!("../schemas/agent-manifest.json");

/// The most steps a manifest may have.
pub const MAX_STEPS: usize = 100;

/// The largest manifest, in canonical form.
pub const MAX_BYTES: usize = 256 * 1024;

/// A manifest that was found to be valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    document: Object,
    /// Its name, as `acme.counter`.
    pub name: String,
    /// Its version, as `1.0.0`.
    pub version: String,
    /// What people call it.
    pub title: Name,
    /// What it does, in a sentence.
    pub summary: String,
    /// The JSON Schema of its configuration.
    pub config: Option<Schema>,
    /// The JSON Schema of what an execution works on.
    pub inputs: Option<Schema>,
    /// What it needs from its product.
    pub requires: Requires,
    /// What it may take.
    pub limits: Limits,
    /// What starts it: a manual trigger, and what else it names.
    pub triggers: Vec<TriggerSpec>,
    /// What it does, in the order of the document; [`Manifest::order`] is the one to run them in.
    pub steps: Vec<StepSpec>,
    /// What comes out; that of the last step where it is not said.
    pub output: Option<Value>,
    order: Vec<usize>,
}

/// What an agent needs from its product.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requires {
    /// Connections to outside tools.
    pub integrations: Vec<IntegrationSlot>,
    /// Knowledge bases. An unbound one is the product's default.
    pub knowledge: Vec<String>,
    /// A language model that can do this. Without it, one that finds sentences will do.
    pub model: Option<Capability>,
    /// The slot of an integration that is asked in place of the server's own model; one of
    /// `integrations`, too.
    pub model_slot: Option<String>,
}

/// What a language model must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Follow a prompt.
    Chat,
}

/// A place for a connection to an outside tool.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegrationSlot {
    /// Its name.
    pub slot: String,
    /// Which kinds of tools will do.
    pub kinds: Vec<String>,
}

/// One thing an agent does.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSpec {
    /// Its id.
    pub id: String,
    /// What it does.
    pub kind: StepKind,
    /// The steps that must be done before.
    pub needs: Vec<String>,
    /// What it is told, with its expressions.
    pub with: Object,
    /// Whether it runs, how often, for how long, and what if it fails.
    pub control: Control,
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// Every fault it has, in the order of the document's parts.
    pub fn read(document: &Value) -> Result<Manifest, Vec<Fault>> {
        let document = normalised(document)?;
        let mut read = Reader::new(&document);
        read.only(&[
            "manifest", "name", "version", "title", "summary", "config", "inputs", "requires",
            "limits", "triggers", "steps", "output",
        ]);
        read_format(&mut read);
        let name = read.required_text("name").filter(|name| {
            read.require(is_manifest_name(name), "/name", "name_invalid", || {
                "a name is lower-case words of letters, digits, - and _, joined by dots, as \
                 acme.counter, of at most 100 characters"
                    .to_owned()
            })
        });
        let version = read.required_text("version").filter(|version| {
            read.require(is_semantic_version(version), "/version", "version_invalid", || {
                "a version is three numbers joined by dots, as 1.0.0 (semver.org)".to_owned()
            })
        });
        let title = read.required_text("title").and_then(|title| {
            Name::parse(&title).map_err(|error| read.fault("/title", "title_invalid", error)).ok()
        });
        let summary = read.text("summary").unwrap_or_default();
        let config = read_schema(&mut read, "config");
        let inputs = read_schema(&mut read, "inputs");
        let requires = read_requires(&mut read);
        let limits = limits::read_limits(&mut read);
        let triggers = triggers::read_triggers(&mut read, inputs.as_ref(), &requires.integrations);
        let mut steps = read_steps(&mut read, &requires);
        let order = read_order(&mut read, &steps);
        read_controls(&mut read, &mut steps);
        read_expressions(&mut read, &steps);
        check_steps(&mut read, &steps, &limits);

        let output = document.get("output").cloned();
        match (read.faults.is_empty(), name, version, title) {
            (true, Some(name), Some(version), Some(title)) => Ok(Manifest {
                name,
                version,
                title,
                summary,
                config,
                inputs,
                requires,
                limits,
                triggers,
                steps,
                output,
                order,
                document,
            }),
            _ => Err(read.faults),
        }
    }

    /// [`Manifest::read`], with the faults as a refusal.
    ///
    /// # Errors
    /// `manifest_invalid`, with every fault.
    pub fn accept(document: &Value) -> Result<Manifest, InvalidDocument> {
        Manifest::read(document)
            .map_err(|faults| invalid("manifest_invalid", "the manifest has faults", faults))
    }

    /// The document as it is stored.
    pub fn canonical(&self) -> &Object {
        &self.document
    }

    /// The SHA-256 of the document in canonical form (RFC 8785).
    pub fn digest(&self) -> Digest {
        Digest::sha256(canonical_text(&self.document))
    }

    /// The steps, each behind all that it needs; otherwise in the order of the document.
    pub fn order(&self) -> impl Iterator<Item = &StepSpec> {
        self.order.iter().map(|index| &self.steps[*index])
    }

    /// Whether an execution does nothing but compute, from what is known when it is asked for: it reaches
    /// nothing outside, waits for nothing, and looks at neither itself nor the clock.
    pub fn only_computes(&self) -> bool {
        let is_seen = |value: &Value| expression::mentions(value, "execution");
        let computes = |step: &StepSpec| {
            let control = &step.control;
            let conditions = [control.when.as_ref(), control.foreach.as_ref().map(|it| &it.items)];
            step.kind.computes()
                && control.retry.attempts == 1
                && !step.with.values().any(is_seen)
                && !conditions.into_iter().flatten().any(|cel| cel.source().contains("execution"))
        };
        self.limits.concurrency.is_none()
            && !self.output.as_ref().is_some_and(is_seen)
            && self.steps.iter().all(computes)
    }

    /// The steps that a step needs, and those that they need: whose outputs it sees.
    pub fn needed_by(&self, step_id: &str) -> BTreeSet<&str> {
        needed_by(&self.steps, step_id)
    }

    /// Whether something can be bound to a slot of this name.
    pub fn has_slot(&self, slot: &str) -> bool {
        self.requires.knowledge.iter().any(|known| known == slot)
            || self.requires.integrations.iter().any(|known| known.slot == slot)
    }

    /// The input of an execution, with defaults filled in.
    ///
    /// # Errors
    /// `input_invalid`, with every fault.
    pub fn check_input(&self, input: Option<Value>) -> Result<Value, InvalidDocument> {
        complete(self.inputs.as_ref(), input).map_err(|faults| {
            invalid("input_invalid", "the input is not what the agent works on", faults)
        })
    }

    /// Whether the input has a place for the event that an execution reacts to.
    pub fn takes_event(&self) -> bool {
        let has_place = |schema: &Schema| schema.document()["properties"].get("event").is_some();
        self.inputs.as_ref().is_none_or(has_place)
    }

    /// The configuration of an agent, with defaults filled in.
    ///
    /// # Errors
    /// `config_invalid`, with every fault.
    pub fn check_config(&self, config: Option<Value>) -> Result<Value, InvalidDocument> {
        complete(self.config.as_ref(), config).map_err(|faults| {
            invalid("config_invalid", "the configuration is not what the agent needs", faults)
        })
    }
}

/// JSON pointers into the configuration, to what must never be shown, as a stored manifest says.
pub fn secret_config_paths(document: &Object) -> Vec<String> {
    document.get("config").map(secret_paths).unwrap_or_default()
}

fn invalid(code: &'static str, what: &str, faults: Vec<Fault>) -> InvalidDocument {
    let message = format!("{what}: mend what `errors` lists, and send it again");
    InvalidDocument { code, message, faults }
}

/// What is not given is an empty object, so that defaults have a place.
fn complete(schema: Option<&Schema>, value: Option<Value>) -> Result<Value, Vec<Fault>> {
    let value = value.filter(|value| !value.is_null()).unwrap_or_else(|| json!({}));
    match schema {
        Some(schema) => schema.complete(value),
        None => Ok(value),
    }
}

fn canonical_text(document: &Object) -> String {
    serde_json_canonicalizer::to_string(document).expect("a JSON object can be written")
}

/// The document as it will be read back from the log: numbers in canonical form.
fn normalised(document: &Value) -> Result<Object, Vec<Fault>> {
    let object = document
        .as_object()
        .ok_or_else(|| vec![Fault::new("", "type_mismatch", "a manifest is a JSON object")])?;
    let mut faults = Vec::new();
    check_numbers(document, "", &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    let text = canonical_text(object);
    if text.len() > MAX_BYTES {
        let message =
            format!("a manifest is at most {} KiB: leave something out", MAX_BYTES / 1024);
        return Err(vec![Fault::new("", "manifest_too_large", message)]);
    }
    Ok(serde_json::from_str(&text).expect("what was just written can be read"))
}

fn read_format(read: &mut Reader<'_>) {
    if let Some(format) = read.required_text("manifest") {
        read.require(format == MANIFEST_VERSION, "/manifest", "manifest_version_unknown", || {
            format!("this server knows manifests of the version `{MANIFEST_VERSION}`")
        });
    }
}

fn read_schema(read: &mut Reader<'_>, field: &str) -> Option<Schema> {
    let compiled = Schema::compile(read.document.get(field)?);
    compiled.map_err(|fault| read.faults.push(fault.within(&format!("/{field}")))).ok()
}

fn read_requires(read: &mut Reader<'_>) -> Requires {
    let mut requires = Requires::default();
    let Some(mut inner) = read.object("requires") else { return requires };
    inner.only(&["integrations", "knowledge", "model"]);
    let mut taken = BTreeSet::new();
    for mut slot in inner.objects("integrations") {
        slot.only(&["slot", "kinds"]);
        let name = slot.new_key("slot", &mut taken, "slot_duplicate");
        let kinds = slot.texts("kinds").unwrap_or_default();
        slot.require(!kinds.is_empty(), "/kinds", "kinds_empty", || {
            "say which kinds of integrations will do, as [\"github\"]".to_owned()
        });
        requires.integrations.extend(name.map(|slot| IntegrationSlot { slot, kinds }));
        inner.take(slot);
    }
    for mut slot in inner.objects("knowledge") {
        slot.only(&["slot"]);
        requires.knowledge.extend(slot.new_key("slot", &mut taken, "slot_duplicate"));
        inner.take(slot);
    }
    if let Some(mut model) = inner.object("model") {
        model.only(&["capability", "slot"]);
        let is_there = model.document.contains_key("capability");
        model.require(is_there, "/capability", "field_missing", || {
            "`capability` is missing: say what the model must be able to do, as chat".to_owned()
        });
        requires.model = model.choice("capability", &[("chat", Capability::Chat)]);
        if model.document.contains_key("slot") {
            requires.model_slot = model.new_key("slot", &mut taken, "slot_duplicate");
        }
        inner.take(model);
    }
    let kinds = vec![IntegrationKind::OpenaiCompatible.as_str().to_owned()];
    let slot = requires.model_slot.clone().map(|slot| IntegrationSlot { slot, kinds });
    requires.integrations.extend(slot);
    read.take(inner);
    requires
}

fn read_steps(read: &mut Reader<'_>, requires: &Requires) -> Vec<StepSpec> {
    let mut steps = Vec::new();
    let mut taken = BTreeSet::new();
    let readers = read.objects("steps");
    read.require((1..=MAX_STEPS).contains(&readers.len()), "/steps", "steps_count", || {
        format!("an agent has 1 to {MAX_STEPS} steps")
    });
    for mut step in readers {
        step.only(&[
            "id", "type", "needs", "with", "when", "foreach", "retry", "timeout", "on_error",
        ]);
        let id = step.new_key("id", &mut taken, "step_id_duplicate");
        let needs = step.texts("needs").unwrap_or_default();
        let with = match step.document.get("with") {
            None => Map::new(),
            Some(Value::Object(with)) => with.clone(),
            Some(_) => {
                step.fault("/with", "type_mismatch", "`with` is an object");
                Map::new()
            }
        };
        let kind = step.required_text("type").and_then(|kind| {
            let known = StepKind::parse(&kind);
            step.require(known.is_some(), "/type", "step_type_unknown", || {
                let known = StepKind::ALL.map(StepKind::as_str).join(", ");
                format!("there is no step of type `{kind}`: use one of {known}")
            });
            known
        });
        if let Some(kind) = kind {
            let mut faults = step::check(kind, &with, &requires.knowledge);
            faults.extend(step::check_integration(kind, &with, &requires.integrations));
            step.add(faults.into_iter().map(|fault| fault.within("/with")));
        }
        if let (Some(id), Some(kind)) = (id, kind) {
            steps.push(StepSpec { id, kind, needs, with, control: Control::default() });
        }
        read.take(step);
    }
    steps
}

/// An order in which every step comes behind those it needs. Steps that are free to run come in the
/// order of the document.
fn read_order(read: &mut Reader<'_>, steps: &[StepSpec]) -> Vec<usize> {
    // A step that is faulty by itself was left out of `steps`, but it is there to be needed.
    let written: BTreeSet<&str> = read.ids("steps").collect();
    for (index, id) in read.places("steps") {
        let Some(step) = steps.iter().find(|step| step.id == id) else { continue };
        for (place, need) in step.needs.iter().enumerate() {
            let pointer = format!("/steps/{index}/needs/{place}");
            read.require(written.contains(need.as_str()), &pointer, "needs_unknown", || {
                format!("there is no step `{need}`: name one that this manifest has")
            });
            let repeated = step.needs[..place].contains(need);
            read.require(!repeated, &pointer, "needs_duplicate", || {
                format!("`{need}` is named twice: once is enough")
            });
        }
    }

    let mut order: Vec<usize> = Vec::new();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let here: BTreeSet<&str> = steps.iter().map(|step| step.id.as_str()).collect();
    let ready = |step: &StepSpec, done: &BTreeSet<&str>| {
        step.needs.iter().all(|need| done.contains(need.as_str()) || !here.contains(need.as_str()))
    };
    while let Some(next) =
        (0..steps.len()).find(|index| !order.contains(index) && ready(&steps[*index], &done))
    {
        order.push(next);
        done.insert(&steps[next].id);
    }
    if order.len() < steps.len() {
        let circle: Vec<_> = here.difference(&done).map(|step| format!("`{step}`")).collect();
        let message = format!(
            "the steps {} wait for each other: take one of their `needs` away",
            circle.join(", ")
        );
        read.fault("/steps", "needs_cycle", message);
    }
    order
}

/// What is said of each step beside what it does. Of a step that is faulty by itself, too: its
/// expressions may then name any step.
fn read_controls(read: &mut Reader<'_>, steps: &mut [StepSpec]) {
    let mut seen = BTreeSet::new();
    let written: BTreeSet<&str> = read.ids("steps").collect();
    for (_, mut reader) in read.objects_again("steps") {
        let id = reader.document.get("id").and_then(Value::as_str).unwrap_or_default();
        let place = steps.iter().position(|step| step.id == id).filter(|_| seen.insert(id));
        let kind = place.map(|place| steps[place].kind);
        let needed = if place.is_some() { needed_by(steps, id) } else { written.clone() };
        let control = control::read_control(&mut reader, kind, &needed);
        if let Some(place) = place {
            steps[place].control = control;
        }
        read.take(reader);
    }
}

fn read_expressions(read: &mut Reader<'_>, steps: &[StepSpec]) {
    let places = places(read);
    for step in steps {
        let Some(index) = places.get(&step.id) else { continue };
        let prefix = format!("/steps/{index}/with");
        let repeats = read.document["steps"][*index].get("foreach").is_some();
        let place = if repeats { Place::Repeated } else { Place::Step };
        let needed = needed_by(steps, &step.id);
        let faults = expression::check(&Value::Object(step.with.clone()), place, &needed);
        read.add(faults.into_iter().map(|fault| fault.within(&prefix)));
    }
    if let Some(output) = read.document.get("output") {
        let all = steps.iter().map(|step| step.id.as_str()).collect();
        let faults = expression::check(output, Place::Step, &all);
        read.add(faults.into_iter().map(|fault| fault.within("/output")));
    }
}

/// Where each step stands; of several with one id, the first.
fn places(read: &Reader<'_>) -> BTreeMap<String, usize> {
    read.places("steps").into_iter().rev().map(|(index, id)| (id, index)).collect()
}

/// What of a step depends on other parts of the manifest.
fn check_steps(read: &mut Reader<'_>, steps: &[StepSpec], limits: &Limits) {
    let places = places(read);
    let has_model = read.document.get("requires").is_some_and(|it| it.get("model").is_some());
    for step in steps {
        let Some(index) = places.get(&step.id) else { continue };
        let at = |field: &str| format!("/steps/{index}/with/{field}");
        if step.kind == StepKind::Answer && !has_model {
            for field in ["prompt", "schema"].into_iter().filter(|it| step.with.contains_key(*it)) {
                let message = format!(
                    "`{field}` needs a chat model: add \"model\": {{\"capability\": \"chat\"}} to \
                     `requires`"
                );
                read.fault(&at(field), "model_not_required", message);
            }
        }
        let length =
            step.with.get("for").and_then(Value::as_str).filter(|_| step.kind == StepKind::Wait);
        let length = length.and_then(|text| crate::duration::parse(text).ok());
        let is_limited = !read.faults.iter().any(|fault| fault.pointer.starts_with("/limits"));
        let fits = !is_limited || length.is_none_or(|length| length < limits.timeout);
        read.require(fits, &at("for"), "wait_longer_than_timeout", || {
            let timeout = crate::duration::write(limits.timeout);
            format!(
                "the execution times out after {timeout}: wait for less, or raise limits.timeout"
            )
        });
    }
}

fn needed_by<'a>(steps: &'a [StepSpec], step_id: &str) -> BTreeSet<&'a str> {
    let step = |id: &str| steps.iter().find(|step| step.id == id);
    let mut needed = BTreeSet::new();
    let mut open: Vec<&StepSpec> = step(step_id).into_iter().collect();
    while let Some(next) = open.pop() {
        for need in next.needs.iter().filter_map(|need| step(need)) {
            if needed.insert(need.id.as_str()) {
                open.push(need);
            }
        }
    }
    needed
}

#[cfg(test)]
mod tests;

//! Expressions: how a step's `with` becomes values when the step runs.
//!
//! Anywhere in it a value is literal, unless it is an object with the one key `cel` (an expression)
//! or `template` (text with `{{ }}`). The rule of this file: an evaluation depends on what it sees
//! and on nothing else, and it ends, within bounds of time and memory, whoever wrote it.

mod cel;
mod effort;
mod template;

pub use effort::at_little_cost;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::refusal::{Fault, pointer_segment};

/// The largest value that may come out of one evaluation, as JSON text.
pub const MAX_OUTPUT_BYTES: usize = 1024 * 1024;

/// What an expression sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// What the execution works on.
    pub input: Value,
    /// How the agent is configured.
    pub config: Value,
    /// What started the execution.
    pub trigger: Value,
    /// The execution itself: its id and the like.
    pub execution: Value,
    /// The outputs of the steps that are done, by the steps' ids.
    pub steps: BTreeMap<String, Value>,
    /// What a step that repeats is at.
    pub item: Option<Item>,
    /// The event that a trigger looks at.
    pub event: Option<Value>,
}

/// One item of the list that a step repeats for.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The item.
    pub value: Value,
    /// Its place in the list, from 0.
    pub index: usize,
}

/// Where an expression stands, and so what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a step, or in the output.
    Step,
    /// In the `with` of a step that repeats.
    Repeated,
    /// In the key by which executions are told apart, before one begins.
    Key,
    /// In the filter of an event trigger.
    Match,
    /// In the input that a schedule gives.
    ScheduleInput,
    /// In the input that an event trigger gives.
    EventInput,
    /// In the filter of a webhook trigger, and in the input that it gives.
    Webhook,
    /// In the filter of a message trigger, and in the input that it gives.
    Message,
}

impl Place {
    /// The names that stand at the beginning of what an expression sees here.
    fn names(self) -> &'static [&'static str] {
        match self {
            Place::Step => &["input", "config", "trigger", "execution", "steps"],
            Place::Repeated => {
                &["input", "config", "trigger", "execution", "steps", "item", "index"]
            }
            Place::Key => &["input", "config", "trigger"],
            Place::Match => &["event", "trigger"],
            Place::ScheduleInput | Place::Webhook | Place::Message => &["config", "trigger"],
            Place::EventInput => &["config", "trigger", "event"],
        }
    }

    /// The names, as an error lists them.
    fn known(self) -> String {
        let words = self.names().iter().map(|name| match *name {
            "steps" => "steps.<id>.output",
            name => name,
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

impl Scope {
    /// Every name with what stands behind it; a step's output stands behind `steps.<id>.output`.
    fn variables(&self) -> Vec<Variable<'_>> {
        let output = |(id, output): (&String, &Value)| (id.clone(), json!({ "output": output }));
        let steps = self.steps.iter().map(output).collect::<Map<_, _>>();
        let mut variables = vec![
            ("input", Cow::Borrowed(&self.input)),
            ("config", Cow::Borrowed(&self.config)),
            ("trigger", Cow::Borrowed(&self.trigger)),
            ("execution", Cow::Borrowed(&self.execution)),
            ("steps", Cow::Owned(Value::Object(steps))),
        ];
        if let Some(item) = &self.item {
            variables.push(("item", Cow::Borrowed(&item.value)));
            variables.push(("index", Cow::Owned(Value::from(item.index))));
        }
        variables.extend(self.event.as_ref().map(|event| ("event", Cow::Borrowed(event))));
        variables
    }
}

/// A name that stands at the beginning of what an expression sees, with what stands behind it.
type Variable<'a> = (&'static str, Cow<'a, Value>);

/// A CEL expression that stands by itself, outside of any `with`, and compiles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cel(String);

impl Cel {
    /// The expression that a value means: a text, or `{"cel": text}`.
    ///
    /// # Errors
    /// Every fault it has where it stands, with JSON pointers into the value.
    pub fn parse(value: &Value, place: Place, steps: &BTreeSet<&str>) -> Result<Cel, Vec<Fault>> {
        let (source, pointer) = match (value, node(value)) {
            (Value::String(source), _) => (source.as_str(), ""),
            (_, Node::Cel(source)) => (source, "/cel"),
            _ => {
                let message = "write a CEL expression as text, as `input.n > 3`";
                return Err(vec![Fault::new("", "type_mismatch", message)]);
            }
        };
        let mut faults = Vec::new();
        let compiled = cel::references(source);
        complain(compiled, "cel_invalid", pointer.to_owned(), place, steps, &mut faults);
        if faults.is_empty() { Ok(Cel(source.to_owned())) } else { Err(faults) }
    }

    /// The expression, as it is written.
    pub fn source(&self) -> &str {
        &self.0
    }

    /// Whether it uses a name that stands at the beginning of what expressions see.
    pub fn sees(&self, name: &str) -> bool {
        cel::sees(&self.0, name)
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// When it fails, or comes to neither `true` nor `false`.
    pub fn truth(&self, scope: &Scope) -> Result<bool, EvaluationError> {
        self.value(scope)?.as_bool().ok_or_else(|| self.is_not("true or false"))
    }

    /// The list it comes to.
    ///
    /// # Errors
    /// When it fails, or comes to something else.
    pub fn list(&self, scope: &Scope) -> Result<Vec<Value>, EvaluationError> {
        match self.value(scope)? {
            Value::Array(items) => Ok(items),
            _ => Err(self.is_not("a list")),
        }
    }

    /// The key it comes to: a text, a number or a truth, as text.
    ///
    /// # Errors
    /// When it fails, or comes to something else.
    pub fn key(&self, scope: &Scope) -> Result<String, EvaluationError> {
        match self.value(scope)? {
            Value::String(text) => Ok(text),
            scalar @ (Value::Number(_) | Value::Bool(_)) => Ok(scalar.to_string()),
            _ => Err(self.is_not("a text, a number or true or false")),
        }
    }

    fn value(&self, scope: &Scope) -> Result<Value, EvaluationError> {
        evaluate(&json!({ "cel": self.0 }), scope)
    }

    fn is_not(&self, wanted: &str) -> EvaluationError {
        let message = format!("`{}` does not come to {wanted}: mend the manifest", brief(&self.0));
        EvaluationError { pointer: String::new(), code: "cel_type_mismatch", message }
    }
}

/// Why an evaluation came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvaluationError {
    /// Where the expression stands, as a JSON pointer into the value that was evaluated.
    pub pointer: String,
    /// A stable code: `cel_failed`, `cel_type_mismatch`, `template_failed` or `output_too_large`.
    pub code: &'static str,
    /// A sentence for a person.
    pub message: String,
}

impl EvaluationError {
    /// Whether it would have taken more work than an expression may do.
    pub fn is_too_costly(&self) -> bool {
        self.message == cel::TOO_COSTLY
    }
}

/// A literal, or one of the two kinds of expression.
enum Node<'a> {
    Cel(&'a str),
    Template(&'a str),
    /// An object that looks like an expression and is none.
    NotText(&'static str),
    Literal,
}

fn node(value: &Value) -> Node<'_> {
    let Some(object) = value.as_object().filter(|object| object.len() == 1) else {
        return Node::Literal;
    };
    match (object.get("cel"), object.get("template")) {
        (Some(Value::String(source)), _) => Node::Cel(source),
        (_, Some(Value::String(source))) => Node::Template(source),
        (Some(_), _) => Node::NotText("cel"),
        (_, Some(_)) => Node::NotText("template"),
        (None, None) => Node::Literal,
    }
}

/// Whether a value is computed when the step runs, so that its type is not known before.
pub fn is_expression(value: &Value) -> bool {
    !matches!(node(value), Node::Literal)
}

/// Whether there is an expression in a value, so that what it comes to is not known before.
pub fn holds_expression(value: &Value) -> bool {
    is_expression(value) || children(value).into_iter().any(|(_, child)| holds_expression(child))
}

/// Whether a name occurs in an expression in a value, in whatever sense.
pub fn mentions(value: &Value, name: &str) -> bool {
    match node(value) {
        Node::Cel(source) | Node::Template(source) => source.contains(name),
        Node::NotText(_) => false,
        Node::Literal => children(value).into_iter().any(|(_, child)| mentions(child, name)),
    }
}

/// Finds the faults of every expression in `value`: those that do not compile, and those that name
/// what they will not see. `steps` are the steps whose output is there by then.
pub fn check(value: &Value, place: Place, steps: &BTreeSet<&str>) -> Vec<Fault> {
    let mut faults = Vec::new();
    check_at(value, place, steps, String::new(), &mut faults);
    faults
}

fn check_at(
    value: &Value,
    place: Place,
    steps: &BTreeSet<&str>,
    pointer: String,
    faults: &mut Vec<Fault>,
) {
    let (key, code, compiled) = match node(value) {
        Node::Cel(source) => ("cel", "cel_invalid", cel::references(source)),
        Node::Template(source) => ("template", "template_invalid", template::references(source)),
        Node::NotText(key) => {
            (key, "type_mismatch", Err("write the expression as text".to_owned()))
        }
        Node::Literal => {
            for (segment, child) in children(value) {
                check_at(child, place, steps, format!("{pointer}/{segment}"), faults);
            }
            return;
        }
    };
    complain(compiled, code, format!("{pointer}/{key}"), place, steps, faults);
}

/// Notes what is wrong with an expression.
fn complain(
    compiled: Result<References, String>,
    code: &'static str,
    pointer: String,
    place: Place,
    steps: &BTreeSet<&str>,
    faults: &mut Vec<Fault>,
) {
    let references = match compiled {
        Ok(references) => references,
        Err(message) => return faults.push(Fault::new(pointer, code, message)),
    };
    for name in references.names.iter().filter(|name| !place.names().contains(&name.as_str())) {
        let message = format!("`{name}` is not known here: use one of {}", place.known());
        faults.push(Fault::new(pointer.clone(), "name_unknown", message));
    }
    let sees_steps = place.names().contains(&"steps");
    for step in references.steps.iter().filter(|step| !steps.contains(step.as_str())) {
        if sees_steps {
            let message = format!(
                "the output of step `{step}` is not there by then: name the step in `needs`"
            );
            faults.push(Fault::new(pointer.clone(), "step_not_needed", message));
        }
    }
}

/// The names that an expression uses, as far as they can be known before it runs.
#[derive(Clone, Debug, Default, PartialEq)]
struct References {
    /// The steps whose output it reads.
    steps: BTreeSet<String>,
    /// The names that it expects to find.
    names: BTreeSet<String>,
}

/// The value with every expression in it replaced by what it evaluates to.
///
/// # Errors
/// When an expression fails, or the result is larger than [`MAX_OUTPUT_BYTES`].
pub fn evaluate(value: &Value, scope: &Scope) -> Result<Value, EvaluationError> {
    let variables = scope.variables();
    if effort::is_little() && !effort::is_little_to_see(&variables) {
        effort::exceed();
        let message = "there is too much to see".to_owned();
        return Err(EvaluationError { pointer: String::new(), code: "cel_failed", message });
    }
    let mut room = MAX_OUTPUT_BYTES;
    let mut at = Vec::new();
    evaluate_at(value, &variables, &mut room, &mut at).map_err(|(code, message)| {
        let pointer = at.iter().map(|segment| format!("/{segment}")).collect();
        EvaluationError { pointer, code, message }
    })
}

fn evaluate_at(
    value: &Value,
    variables: &[Variable<'_>],
    room: &mut usize,
    at: &mut Vec<String>,
) -> Result<Value, (&'static str, String)> {
    let result = match node(value) {
        Node::Cel(source) => {
            cel::evaluate(source, variables).map_err(|message| ("cel_failed", message))?
        }
        // It needs a large stack.
        Node::Template(_) if effort::is_little() => {
            effort::exceed();
            return Err(("template_failed", "it may take more than a little".to_owned()));
        }
        Node::Template(source) => template::render(source, variables)
            .map(Value::String)
            .map_err(|message| ("template_failed", message))?,
        Node::NotText(_) => {
            return Err(("cel_failed", "an expression is text: mend the manifest".to_owned()));
        }
        Node::Literal => {
            let mut results = Vec::new();
            for (segment, child) in children(value) {
                at.push(segment);
                results.push(evaluate_at(child, variables, room, at)?);
                at.pop();
            }
            return Ok(match value {
                Value::Array(_) => Value::Array(results),
                Value::Object(object) => {
                    Value::Object(object.keys().cloned().zip(results).collect())
                }
                scalar => scalar.clone(),
            });
        }
    };
    let size = result.to_string().len();
    *room = room.checked_sub(size).ok_or_else(|| {
        let limit = MAX_OUTPUT_BYTES / 1024;
        ("output_too_large", format!("the result is larger than {limit} KiB: let it keep less"))
    })?;
    Ok(result)
}

/// What a value holds, each with its place as a part of a JSON pointer.
fn children(value: &Value) -> Vec<(String, &Value)> {
    match value {
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect()
        }
        Value::Object(object) => {
            object.iter().map(|(key, item)| (pointer_segment(key), item)).collect()
        }
        _ => Vec::new(),
    }
}

/// A message of a library, on one line and of a length that people read.
fn brief(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests;

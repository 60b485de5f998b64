//! What triggers that fire by themselves have in common: computing the input of an execution, and
//! saying why none can be asked for.
//!
//! The rule of this file: what a person has to mend is told apart from what passes by itself.

use domain::expression::{self, Cel, Scope};
use domain::manifest::Manifest;
use serde_json::Value;

use crate::veil::Veil;
use crate::{Error, evaluate};

/// Why an execution cannot be asked for, whoever tries.
#[derive(Clone)]
pub(super) struct Refused {
    pub(super) code: String,
    pub(super) message: String,
}

impl Refused {
    /// What stands in the way of the agent's configuration.
    ///
    /// # Errors
    /// The error itself, where nobody has to mend anything.
    pub(super) fn by_configuration(error: Error) -> Result<Refused, Error> {
        match error {
            Error::Refused { code, .. } | Error::Invalid { code, .. } => {
                Ok(Refused { code: code.to_owned(), message: error.in_a_line() })
            }
            error => Err(error),
        }
    }

    /// What stands in the way of an execution that was asked for.
    ///
    /// # Errors
    /// As [`Refused::by_configuration`].
    pub(super) fn by_request(error: Error) -> Result<Refused, Error> {
        match error {
            Error::Refused { code, message, .. } => Ok(Refused { code: code.to_owned(), message }),
            Error::Invalid { code, faults, .. } => {
                let faults = faults.iter().map(|it| format!("{}: {}", it.pointer, it.message));
                let faults = faults.collect::<Vec<_>>().join("; ");
                let message = format!(
                    "the input of the trigger is not what the agent works on ({faults}): mend the \
                     trigger's `input`"
                );
                Ok(Refused { code: code.to_owned(), message })
            }
            error => Err(error),
        }
    }

    /// What computes an input crashed.
    pub(super) fn by_crash() -> Refused {
        Refused {
            code: "input_invalid".to_owned(),
            message:
                "computing the input of the trigger crashed, which is a fault of this server: \
                      report it with the server's log"
                    .to_owned(),
        }
    }
}

/// The input of a trigger with its expressions computed, without the secrets of the agent's configuration:
/// what an execution works on is seen by whoever may see the execution.
pub(super) async fn computed_input(
    input: Value,
    scope: Scope,
    manifest: &Manifest,
) -> Result<Value, Refused> {
    let veil = Veil::of_config(manifest, &scope.config);
    match evaluate::evaluated(move || expression::evaluate(&input, &scope)).await {
        Ok(Ok(input)) => Ok(veil.value(input)),
        Ok(Err(error)) => Err(Refused {
            code: "input_invalid".to_owned(),
            message: format!(
                "the input of the trigger came to nothing ({}: {}): mend the trigger's `input`",
                error.pointer, error.message
            ),
        }),
        Err(_) => Err(Refused::by_crash()),
    }
}

/// The input of an execution for what came in from outside, where a trigger wants that: `otherwise`, if it
/// does not say which. As [`computed_input`], without secrets.
pub(super) async fn wanted_input(
    filter: Option<Cel>,
    input: Option<Value>,
    otherwise: Value,
    scope: Scope,
    manifest: &Manifest,
) -> Result<Option<Value>, Refused> {
    let veil = input.is_some().then(|| Veil::of_config(manifest, &scope.config));
    let computed = evaluate::evaluated(move || {
        if let Some(filter) = &filter
            && !filter.truth(&scope).map_err(|error| ("match", error))?
        {
            return Ok(None);
        }
        match &input {
            Some(input) => {
                expression::evaluate(input, &scope).map(Some).map_err(|error| ("input", error))
            }
            None => Ok(Some(otherwise.clone())),
        }
    });
    match computed.await {
        Ok(Ok(input)) => Ok(match veil {
            Some(veil) => input.map(|input| veil.value(input)),
            None => input,
        }),
        Ok(Err((field, error))) => Err(Refused {
            code: format!("{field}_invalid"),
            message: format!(
                "the `{field}` of the trigger came to nothing ({}: {}): mend it",
                error.pointer, error.message
            ),
        }),
        Err(_) => Err(Refused::by_crash()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_an_execution_works_on_holds_no_secret_of_the_configuration() {
        let manifest = Manifest::read(&json!({
            "manifest": "prodgy.agent/1", "name": "test.secrets", "version": "1.0.0", "title": "Secrets",
            "config": { "type": "object", "properties": {
                "token": { "type": "string", "secret": true }, "city": { "type": "string" }
            } },
            "steps": [{ "id": "one", "type": "transform", "with": {} }]
        }))
        .expect("a manifest");
        let scope = || Scope {
            config: json!({ "token": "tok-12345", "city": "Lisbon" }),
            ..Scope::default()
        };
        let input =
            json!({ "all": { "cel": "config" }, "as": { "template": "{{ config.token }}!" } });
        let masked = json!({ "all": { "token": "••••", "city": "Lisbon" }, "as": "••••!" });
        let computed = computed_input(input.clone(), scope(), &manifest).await;
        assert_eq!(computed.ok(), Some(masked.clone()));
        let wanted = wanted_input(None, Some(input), json!({}), scope(), &manifest).await;
        assert_eq!(wanted.ok(), Some(Some(masked)));
    }
}

//! How attempts become steps.

use super::*;

fn attempt(step_id: &str, attempt: u32, status: &str, ended_at: Option<&str>) -> Attempt {
    Attempt {
        step_id: step_id.to_owned(),
        attempt,
        status: status.to_owned(),
        input: None,
        output: None,
        error: None,
        started_at: format!("start {step_id} {attempt}"),
        ended_at: ended_at.map(str::to_owned),
    }
}

#[test]
fn a_step_shows_its_newest_attempt_and_holds_them_all() {
    let mut steps = Vec::new();
    let cut_off = Failure { code: "interrupted".into(), step: None, message: None };
    let cut_off = explain(&cut_off, None);
    let failed = AttemptTexts { error: Some(cut_off.clone()), ..AttemptTexts::default() };
    add_attempt(&mut steps, attempt("one", 1, "failed", Some("t1")), failed);
    add_attempt(&mut steps, attempt("two", 1, "running", None), AttemptTexts::default());
    let done = AttemptTexts {
        input: Some(Value::from("told")),
        output: Some(Value::from(7)),
        error: None,
    };
    add_attempt(&mut steps, attempt("one", 2, "succeeded", Some("t2")), done);

    let ids: Vec<_> = steps.iter().map(|step| step.step_id.as_str()).collect();
    assert_eq!(ids, ["one", "two"]);
    let one = &steps[0];
    assert_eq!(
        (one.status.as_str(), &one.output, &one.error),
        ("succeeded", &Some(Value::from(7)), &None)
    );
    assert_eq!(one.input, Some(Value::from("told")));
    assert_eq!((one.started_at.as_str(), one.ended_at.as_deref()), ("start one 1", Some("t2")));
    assert_eq!(one.attempts.len(), 2);
    assert_eq!(one.attempts[0].error, Some(cut_off));
    assert!(one.attempts[0].error.as_ref().is_some_and(|error| error.message.is_some()));
}

#[test]
fn every_status_is_written_as_it_is_asked_for() {
    for status in [
        ExecutionStatus::Queued,
        ExecutionStatus::Running,
        ExecutionStatus::Paused,
        ExecutionStatus::Waiting,
        ExecutionStatus::Succeeded,
        ExecutionStatus::Failed,
        ExecutionStatus::Cancelled,
        ExecutionStatus::TimedOut,
    ] {
        assert_eq!(serde_json::to_value(status).ok(), Some(Value::from(status.as_str())));
    }
}

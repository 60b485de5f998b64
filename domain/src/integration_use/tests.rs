//! What is written down of a credential's use, and that it is written down once.

use super::*;
use crate::history::{given, id, walk};

fn test(failure: Option<&str>) -> IntegrationUseCommand {
    IntegrationUseCommand::Test {
        integration: id(1),
        secrets_version: 1,
        failure: failure.map(str::to_owned),
    }
}

fn call() -> IntegrationUseCommand {
    IntegrationUseCommand::Call {
        integration: id(1),
        secrets_version: 3,
        execution: id(2),
        step_id: "one".to_owned(),
        operation: "send_mail".to_owned(),
    }
}

#[test]
fn a_call_says_with_which_secrets_it_was_made() {
    given::<IntegrationUse>(vec![]).when(call()).then_expect_events(vec![
        IntegrationUseEvent::Called {
            integration: id(1),
            secrets_version: 3,
            execution: id(2),
            step_id: "one".to_owned(),
            operation: "send_mail".to_owned(),
        },
    ]);
}

#[test]
fn a_test_says_what_came_of_it() {
    for (failure, succeeded) in [(None, true), (Some("unauthorized"), false)] {
        let code = failure.map(str::to_owned);
        given::<IntegrationUse>(vec![]).when(test(failure)).then_expect_events(vec![
            IntegrationUseEvent::Tested { integration: id(1), secrets_version: 1, succeeded, code },
        ]);
    }
}

#[test]
fn what_is_written_down_stays() {
    let log = walk::<IntegrationUse>(vec![call(), test(None), call()]);
    assert_eq!(log.len(), 1);
    given::<IntegrationUse>(log)
        .when(test(None))
        .then_expect_error(IntegrationUseError::AlreadyRecorded);
    let reason = (RefusalKind::Conflict, "integration_use_already_recorded");
    assert_eq!(IntegrationUseError::AlreadyRecorded.reason(), reason);
}

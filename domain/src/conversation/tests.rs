//! What a conversation allows.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::history::{at, given, id, outlasted, sealed, walk};

const COMMUNICATOR: u8 = 1;
const MESSAGE: u8 = 2;
const EXECUTION: u8 = 3;

#[test]
fn a_message_that_comes_twice_is_one() {
    given::<Conversation>(vec![])
        .when(ConversationCommand::Receive(message(MESSAGE)))
        .then_expect_events(vec![heard()]);
    for past in [vec![heard()], vec![heard(), handled(&[])]] {
        given::<Conversation>(past)
            .when(ConversationCommand::Receive(message(MESSAGE)))
            .then_expect_events(vec![]);
    }
    given::<Conversation>(vec![heard()])
        .when(ConversationCommand::Receive(message(9)))
        .then_expect_events(vec![ConversationEvent::MessageReceived(message(9))]);
}

#[test]
fn a_message_is_handled_once_with_all_that_comes_of_it() {
    let failure =
        TriggerFailure { trigger: id(5), code: "input_invalid".to_owned(), error: payload() };
    let handle = ConversationCommand::Handle {
        message: id(MESSAGE),
        executions: vec![id(EXECUTION)],
        failures: vec![failure],
        reply: Some(reply(7)),
    };
    let failed = ConversationEvent::TriggerFailed {
        message: id(MESSAGE),
        trigger: id(5),
        code: "input_invalid".to_owned(),
        error: payload(),
    };
    given::<Conversation>(vec![])
        .when(handle.clone())
        .then_expect_error(ConversationError::NotFound);
    given::<Conversation>(vec![heard()]).when(handle.clone()).then_expect_events(vec![
        failed,
        handled(&[EXECUTION]),
        queued(7),
    ]);
    given::<Conversation>(vec![heard(), handled(&[])])
        .when(handle)
        .then_expect_error(ConversationError::Handled);
}

#[test]
fn an_execution_is_answered_once() {
    let answer =
        |with: Option<Reply>| ConversationCommand::Answer { execution: id(EXECUTION), reply: with };
    let said = ConversationEvent::ReplyQueued(Reply { execution: Some(id(EXECUTION)), ..reply(7) });
    let silent = ConversationEvent::ExecutionUnanswered { execution: id(EXECUTION) };
    let running = vec![heard(), handled(&[EXECUTION])];
    given::<Conversation>(running.clone())
        .when(answer(Some(reply(7))))
        .then_expect_events(vec![said.clone()]);
    given::<Conversation>(running.clone())
        .when(answer(None))
        .then_expect_events(vec![silent.clone()]);
    for end in [said, silent] {
        given::<Conversation>([running.clone(), vec![end]].concat())
            .when(answer(Some(reply(7))))
            .then_expect_error(ConversationError::Handled);
    }
}

#[test]
fn what_a_step_says_in_between_is_no_answer_and_is_said_once() {
    let of_step =
        Reply { execution: Some(id(EXECUTION)), step_id: Some("tell".to_owned()), ..reply(7) };
    let said = ConversationEvent::ReplyQueued(of_step.clone());
    let past = vec![heard(), handled(&[EXECUTION]), said.clone()];
    given::<Conversation>(past.clone())
        .when(ConversationCommand::Say(of_step.clone()))
        .then_expect_events(vec![]);
    given::<Conversation>(past)
        .when(ConversationCommand::Answer { execution: id(EXECUTION), reply: None })
        .then_expect_events(vec![ConversationEvent::ExecutionUnanswered {
            execution: id(EXECUTION),
        }]);
    given::<Conversation>(vec![])
        .when(ConversationCommand::Say(of_step))
        .then_expect_events(vec![said]);
}

#[test]
fn the_oldest_reply_is_sent_by_one_worker_at_a_time() {
    let past = vec![queued(7), queued(8)];
    given::<Conversation>(past.clone())
        .when(attempt(8, 1, 10))
        .then_expect_error(ConversationError::NotNext);
    given::<Conversation>(past.clone())
        .when(attempt(7, 1, 10))
        .then_expect_events(vec![attempted(7, 1, 1)]);
    let past = [past, vec![attempted(7, 1, 1)]].concat();
    let held = ConversationError::Lease(LeaseError::Held { until: at(100) });
    given::<Conversation>(past.clone()).when(attempt(7, 2, 99)).then_expect_error(held);
    // Its worker may have died: after the lease anybody may, and itself at once.
    let claim = |worker, second, until, exclusive| {
        let (now, lease_until) = (at(second), at(until));
        let gone = Arc::default();
        let (worker, outlasted) = (id(worker), outlasted(second));
        let lease = LeaseClaim { worker, now, lease_until, exclusive, gone, outlasted };
        ConversationCommand::Attempt { reply: id(7), lease, secrets_version: 4 }
    };
    for (worker, now, until, exclusive) in
        [(2, 100, 200, false), (1, 20, 200, false), (2, 20, 200, true)]
    {
        let mut again = attempted(7, 2, worker);
        if let ConversationEvent::ReplyAttempted { lease_until, .. } = &mut again {
            *lease_until = at(until);
        }
        given::<Conversation>(past.clone())
            .when(claim(worker, now, until, exclusive))
            .then_expect_events(vec![again]);
    }
}

#[test]
fn only_the_newest_attempt_says_what_came_of_a_reply() {
    let past = vec![queued(7), queued(8), attempted(7, 1, 1), attempted(7, 2, 2)];
    for (command, event) in reports(7, 2) {
        let (old, _) = reports(7, 1).into_iter().find(|(it, _)| same_kind(it, &command)).unwrap();
        given::<Conversation>(past.clone()).when(old).then_expect_error(ConversationError::Lost);
        given::<Conversation>(past.clone())
            .when(command.clone())
            .then_expect_events(vec![event.clone()]);
        if !matches!(event, ConversationEvent::ReplyFailed { .. }) {
            let past = [past.clone(), vec![event]].concat();
            given::<Conversation>(past.clone())
                .when(command)
                .then_expect_error(ConversationError::Lost);
            given::<Conversation>(past)
                .when(attempt(8, 1, 10))
                .then_expect_events(vec![attempted(8, 1, 1)]);
        }
    }
}

#[test]
fn a_reply_that_failed_waits_and_holds_up_those_behind_it() {
    let (_, failed) = reports(7, 1).into_iter().nth(1).unwrap();
    let past = vec![queued(7), queued(8), attempted(7, 1, 1), failed];
    for (reply, now) in [(7, 49), (8, 49), (8, 1_000)] {
        given::<Conversation>(past.clone())
            .when(attempt(reply, 1, now))
            .then_expect_error(ConversationError::NotNext);
    }
    given::<Conversation>(past)
        .when(attempt(7, 2, 50))
        .then_expect_events(vec![attempted(7, 2, 2)]);
}

#[test]
fn it_is_unfinished_until_everything_is_said() {
    let mut conversation = Conversation::default();
    let delivered = reports(7, 1).remove(0).1;
    let answer =
        ConversationEvent::ReplyQueued(Reply { execution: Some(id(EXECUTION)), ..reply(7) });
    for event in [heard(), handled(&[EXECUTION]), answer, attempted(7, 1, 1)] {
        conversation.apply(event);
        assert!(conversation.talk().unwrap().is_unfinished());
    }
    conversation.apply(delivered);
    let talk = conversation.talk().unwrap();
    assert!(!talk.is_unfinished());
    assert_eq!(talk.fates.get(&id(7)), Some(&Fate::Delivered));
}

#[test]
fn every_refusal_has_its_code() {
    for (error, code) in [
        (ConversationError::NotFound, "conversation_not_found"),
        (ConversationError::Handled, "message_handled"),
        (ConversationError::NotNext, "reply_not_next"),
        (ConversationError::Lease(LeaseError::EndsInPast), "lease_until_in_past"),
        (ConversationError::Lost, "attempt_lost"),
    ] {
        assert_eq!(error.reason().1, code);
    }
}

proptest! {
    #[test]
    fn the_log_tells_everything(asked in prop::collection::vec((0..8_u8, 1..4_u8), 0..20)) {
        let commands = asked.iter().map(|(what, number)| match what {
            0 => ConversationCommand::Receive(message(*number)),
            1 => ConversationCommand::Handle {
                message: id(*number),
                executions: vec![id(10 + number)],
                failures: vec![],
                reply: Some(reply(20 + number)),
            },
            2 => ConversationCommand::Answer { execution: id(10 + number), reply: Some(reply(30 + number)) },
            3 => ConversationCommand::Say(reply(20 + number)),
            4 => attempt(20 + number, *number, 60),
            what => reports(20 + number, 1).swap_remove(usize::from(what - 5)).0,
        });
        walk::<Conversation>(commands.collect());
    }
}

fn payload() -> Payload {
    Payload::Sealed(sealed("text"))
}

fn message(number: u8) -> Message {
    Message { integration: id(COMMUNICATOR), message: id(number), content: payload() }
}

fn heard() -> ConversationEvent {
    ConversationEvent::MessageReceived(message(MESSAGE))
}

fn handled(executions: &[u8]) -> ConversationEvent {
    let executions = executions.iter().map(|number| id(*number)).collect();
    ConversationEvent::MessageHandled { message: id(MESSAGE), executions }
}

fn reply(number: u8) -> Reply {
    Reply {
        integration: id(COMMUNICATOR),
        reply: id(number),
        message: Some(id(MESSAGE)),
        execution: None,
        step_id: None,
        content: payload(),
    }
}

fn queued(number: u8) -> ConversationEvent {
    ConversationEvent::ReplyQueued(reply(number))
}

fn attempt(reply: u8, worker: u8, now: i64) -> ConversationCommand {
    let lease = LeaseClaim {
        worker: id(worker),
        now: at(now),
        lease_until: at(100),
        exclusive: false,
        gone: Arc::default(),
        outlasted: outlasted(now),
    };
    ConversationCommand::Attempt { reply: id(reply), lease, secrets_version: 4 }
}

fn attempted(reply: u8, attempt: u32, worker: u8) -> ConversationEvent {
    ConversationEvent::ReplyAttempted {
        reply: id(reply),
        attempt,
        worker: id(worker),
        lease_until: at(100),
        integration: id(COMMUNICATOR),
        secrets_version: 4,
        execution: None,
    }
}

/// What can be reported of an attempt, and what follows.
fn reports(number: u8, attempt: u32) -> Vec<(ConversationCommand, ConversationEvent)> {
    let (reply, code) = (id(number), || "unavailable".to_owned());
    vec![
        (
            ConversationCommand::Deliver { reply, attempt, receipt: payload() },
            ConversationEvent::ReplyDelivered { reply, attempt, receipt: payload() },
        ),
        (
            ConversationCommand::Fail {
                reply,
                attempt,
                code: code(),
                error: payload(),
                retry_at: at(50),
            },
            ConversationEvent::ReplyFailed {
                reply,
                attempt,
                code: code(),
                error: payload(),
                retry_at: at(50),
            },
        ),
        (
            ConversationCommand::GiveUp { reply, attempt, code: code(), error: payload() },
            ConversationEvent::ReplyGivenUp { reply, attempt, code: code(), error: payload() },
        ),
    ]
}

fn same_kind(one: &ConversationCommand, other: &ConversationCommand) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

#[test]
fn a_file_of_a_message_is_settled_once_and_its_credential_is_named_once() {
    use ConversationEvent as Did;
    let (message, number) = (id(MESSAGE), 0);
    let attempt =
        |secrets_version| ConversationCommand::AttemptFile { message, number, secrets_version };
    let attempted = |secrets_version| Did::FileAttempted {
        message,
        number,
        integration: id(COMMUNICATOR),
        secrets_version,
    };
    let (knowledge_base, file, is_known) = (id(50), id(51), true);
    let settle = ConversationCommand::SettleFile {
        message,
        number,
        fate: FileFate::Taken { knowledge_base, file, is_known },
    };
    let taken = Did::FileTaken { message, number, knowledge_base, file, is_known };
    given::<Conversation>(vec![heard()]).when(attempt(1)).then_expect_events(vec![attempted(1)]);
    let past = vec![heard(), attempted(1)];
    given::<Conversation>(past.clone()).when(attempt(1)).then_expect_events(vec![]);
    given::<Conversation>(past.clone()).when(attempt(2)).then_expect_events(vec![attempted(2)]);
    given::<Conversation>(past.clone())
        .when(settle.clone())
        .then_expect_events(vec![taken.clone()]);
    for past in [vec![heard(), taken], vec![heard(), handled(&[])]] {
        for late in [settle.clone(), attempt(1)] {
            given::<Conversation>(past.clone())
                .when(late)
                .then_expect_error(ConversationError::Handled);
        }
    }
}

#[test]
fn what_is_said_in_place_of_a_message_starts_nothing_and_stands_beside_it() {
    let revise = |content| ConversationCommand::Revise { message: id(MESSAGE), content };
    let changed = ConversationEvent::MessageChanged { message: id(MESSAGE), content: payload() };
    let withdrawn = ConversationEvent::MessageWithdrawn { message: id(MESSAGE) };
    given::<Conversation>(vec![]).when(revise(None)).then_expect_error(ConversationError::NotFound);
    for past in [vec![heard()], vec![heard(), handled(&[EXECUTION]), changed.clone()]] {
        given::<Conversation>(past.clone())
            .when(revise(Some(payload())))
            .then_expect_events(vec![changed.clone()]);
        given::<Conversation>(past).when(revise(None)).then_expect_events(vec![withdrawn.clone()]);
    }
    let other = ConversationCommand::Revise { message: id(9), content: None };
    given::<Conversation>(vec![heard()]).when(other).then_expect_error(ConversationError::NotFound);
}

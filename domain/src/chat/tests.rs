//! What a chat session allows.

use proptest::prelude::*;

use super::*;
use crate::history::{given, id, sealed, walk};

fn payload() -> Payload {
    Payload::Sealed(sealed("message"))
}

fn started() -> ChatSessionEvent {
    ChatSessionEvent::Started { session_id: sealed("name"), title: sealed("title") }
}

fn asked(run: u8) -> ChatSessionEvent {
    ChatSessionEvent::MessageAsked { run: id(run), message: payload() }
}

fn ask(run: u8, ended: Option<u8>) -> ChatSessionCommand {
    ChatSessionCommand::Ask {
        session_id: sealed("name"),
        title: sealed("title"),
        run: id(run),
        message: payload(),
        ended: ended.map(id),
    }
}

#[test]
fn the_first_message_begins_a_session() {
    given::<ChatSession>(vec![]).when(ask(1, None)).then_expect_events(vec![started(), asked(1)]);
}

#[test]
fn a_message_waits_for_the_answer_to_the_one_before() {
    let open = || vec![started(), asked(1)];
    given::<ChatSession>(open()).when(ask(2, None)).then_expect_error(ChatSessionError::Busy);
    given::<ChatSession>(open()).when(ask(2, Some(1))).then_expect_events(vec![asked(2)]);
    // Somebody else asked between the look at the run and this.
    let past = vec![started(), asked(1), asked(2)];
    given::<ChatSession>(past).when(ask(3, Some(1))).then_expect_error(ChatSessionError::Busy);
}

#[test]
fn a_deleted_session_is_gone_until_its_name_is_used_again() {
    let deleted = || vec![started(), asked(1), ChatSessionEvent::Deleted {}];
    for command in
        [ChatSessionCommand::Delete, ChatSessionCommand::Rename { title: sealed("other") }]
    {
        given::<ChatSession>(deleted())
            .when(command.clone())
            .then_expect_error(ChatSessionError::NotFound);
        given::<ChatSession>(vec![]).when(command).then_expect_error(ChatSessionError::NotFound);
    }
    given::<ChatSession>(deleted())
        .when(ask(2, None))
        .then_expect_events(vec![started(), asked(2)]);
}

#[test]
fn an_open_session_is_renamed_and_deleted() {
    let title = sealed("other");
    given::<ChatSession>(vec![started()])
        .when(ChatSessionCommand::Rename { title: title.clone() })
        .then_expect_events(vec![ChatSessionEvent::Renamed { title }]);
    given::<ChatSession>(vec![started(), asked(1)])
        .when(ChatSessionCommand::Delete)
        .then_expect_events(vec![ChatSessionEvent::Deleted {}]);
}

proptest! {
    #[test]
    fn whatever_is_asked_the_log_tells_the_whole_state(
        steps in prop::collection::vec((0..4_u8, 0..4_u8, 0..4_u8), 0..24)
    ) {
        let commands = steps.into_iter().map(|(what, run, ended)| match what {
            0 | 1 => ask(run, (ended > 0).then_some(ended)),
            2 => ChatSessionCommand::Rename { title: sealed("other") },
            _ => ChatSessionCommand::Delete,
        });
        walk::<ChatSession>(commands.collect());
    }
}

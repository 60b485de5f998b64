//! What a delivery allows.

use proptest::prelude::*;

use super::*;
use crate::history::{given, id, sealed, walk};

#[test]
fn a_delivery_that_comes_twice_is_one() {
    given::<Delivery>(vec![])
        .when(DeliveryCommand::Receive(receipt("one")))
        .then_expect_events(vec![received()]);
    for past in [vec![received()], vec![received(), DeliveryEvent::Filtered {}]] {
        given::<Delivery>(past)
            .when(DeliveryCommand::Receive(receipt("two")))
            .then_expect_events(vec![]);
    }
}

#[test]
fn a_delivery_is_settled_once() {
    let (code, error) = ("input_invalid".to_owned(), Payload::Sealed(sealed("error")));
    let table = [
        (DeliveryCommand::Start { execution: id(3) }, DeliveryEvent::Started { execution: id(3) }),
        (DeliveryCommand::Filter, DeliveryEvent::Filtered {}),
        (
            DeliveryCommand::Fail { code: code.clone(), error: error.clone() },
            DeliveryEvent::Failed { code, error },
        ),
    ];
    for (command, event) in table {
        given::<Delivery>(vec![]).when(command.clone()).then_expect_error(DeliveryError::NotFound);
        given::<Delivery>(vec![received()])
            .when(command.clone())
            .then_expect_events(vec![event.clone()]);
        given::<Delivery>(vec![received(), event])
            .when(command)
            .then_expect_error(DeliveryError::Settled);
    }
}

#[test]
fn every_refusal_has_its_code() {
    assert_eq!(DeliveryError::NotFound.reason(), (RefusalKind::NotFound, "delivery_not_found"));
    assert_eq!(DeliveryError::Settled.reason(), (RefusalKind::Conflict, "delivery_settled"));
}

proptest! {
    #[test]
    fn the_log_tells_everything(asked in prop::collection::vec(0..4_u8, 0..10)) {
        let commands = asked.iter().map(|what| match what {
            0 => DeliveryCommand::Receive(receipt("one")),
            1 => DeliveryCommand::Start { execution: id(3) },
            2 => DeliveryCommand::Filter,
            _ => DeliveryCommand::Fail {
                code: "input_invalid".to_owned(),
                error: Payload::Sealed(sealed("error")),
            },
        });
        walk::<Delivery>(commands.collect());
    }
}

fn receipt(content: &str) -> Receipt {
    Receipt {
        trigger: id(1),
        agent: id(2),
        verify: "github".to_owned(),
        size: 3,
        content_hash: Digest::new([7; 32]),
        content: Payload::Sealed(sealed(content)),
    }
}

fn received() -> DeliveryEvent {
    DeliveryEvent::Received(receipt("one"))
}

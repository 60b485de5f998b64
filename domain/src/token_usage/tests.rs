//! How uses are counted.

use proptest::prelude::*;

use super::*;
use crate::history::{at, given, walk};

#[test]
fn a_batch_is_written_down_as_it_came() {
    let uses = vec![used(2, 10), used(1, 20)];
    given::<TokenUsage>(vec![])
        .when(TokenUsageCommand::Record { uses: uses.clone() })
        .then_expect_events(vec![TokenUsageEvent::Recorded { uses }]);
}

#[test]
fn nothing_is_not_written_down() {
    let record = |uses| given::<TokenUsage>(vec![]).when(TokenUsageCommand::Record { uses });
    record(vec![]).then_expect_error(TokenUsageError::Empty);
    record(vec![used(1, 1), used(0, 1)]).then_expect_error(TokenUsageError::WithoutCount);
    assert_eq!(TokenUsageError::Empty.reason(), (RefusalKind::Invalid, "token_usage_empty"));
    let reason = (RefusalKind::Invalid, "token_use_without_count");
    assert_eq!(TokenUsageError::WithoutCount.reason(), reason);
}

#[test]
fn uses_add_up_and_the_last_one_is_known() {
    let mut usage = TokenUsage::default();
    usage.apply(TokenUsageEvent::Recorded { uses: vec![used(2, 20), used(1, 10)] });
    usage.apply(TokenUsageEvent::Recorded { uses: vec![used(u64::MAX, 15)] });
    assert_eq!(usage, TokenUsage { count: u64::MAX, last_used_at: Some(at(20)) });
}

proptest! {
    #[test]
    fn the_log_tells_everything(counts in prop::collection::vec((0_u64..5, 0_i64..100), 0..20)) {
        let record = |(count, at): (u64, i64)| TokenUsageCommand::Record { uses: vec![used(count, at)] };
        walk::<TokenUsage>(counts.into_iter().map(record).collect());
    }
}

fn used(count: u64, last: i64) -> TokenUse {
    TokenUse {
        method: "GET".to_owned(),
        route: "/api/agent-base/{id}".to_owned(),
        status: 200,
        count,
        first_at: at(0),
        last_at: at(last),
        address: None,
    }
}

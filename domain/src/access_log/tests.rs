//! How rejected attempts are counted.

use proptest::prelude::*;

use super::*;
use crate::history::{at, given, id, walk};

#[test]
fn a_batch_is_written_down_as_it_came() {
    let attempts = vec![attempt(2), attempt(1)];
    given::<AccessLog>(vec![])
        .when(AccessLogCommand::Record { attempts: attempts.clone() })
        .then_expect_events(vec![AccessLogEvent::Rejected { attempts }]);
}

#[test]
fn nothing_is_not_written_down() {
    let record = |attempts| given::<AccessLog>(vec![]).when(AccessLogCommand::Record { attempts });
    record(vec![]).then_expect_error(AccessLogError::Empty);
    record(vec![attempt(0)]).then_expect_error(AccessLogError::WithoutCount);
    assert_eq!(AccessLogError::Empty.reason(), (RefusalKind::Invalid, "access_log_empty"));
    let reason = (RefusalKind::Invalid, "attempt_without_count");
    assert_eq!(AccessLogError::WithoutCount.reason(), reason);
}

#[test]
fn each_organization_has_a_log_for_each_day() {
    let day = NaiveDate::from_ymd_opt(2026, 11, 3).unwrap();
    let expected = "01010101-0101-0101-0101-010101010101-2026-11-03";
    assert_eq!(access_log_id(id(1), day), expected);
}

proptest! {
    #[test]
    fn the_log_tells_everything(counts in prop::collection::vec(0_u64..5, 0..20)) {
        let record = |count| AccessLogCommand::Record { attempts: vec![attempt(count)] };
        walk::<AccessLog>(counts.into_iter().map(record).collect());
    }
}

fn attempt(count: u64) -> Attempt {
    Attempt {
        at: at(0),
        actor: "anonymous".to_owned(),
        method: "GET".to_owned(),
        path: "/api/products/x".to_owned(),
        route: Some("/api/products/{productId}".to_owned()),
        status: 401,
        code: "credential_missing".to_owned(),
        count,
        last_at: at(1),
        request_ids: vec![],
        address: None,
        user_agent: None,
        product: None,
        resource_type: None,
        resource_id: None,
    }
}

//! What is kept of a flood of refused requests.

use domain::access_log::AccessLogEvent;
use tempfile::TempDir;

use super::*;
use crate::execute::decode_event;
use crate::testing::{open_commands, open_log};

#[tokio::test]
async fn like_attempts_are_one_with_the_requests_of_the_first_ones() {
    let folder = TempDir::new().unwrap();
    let commands = open_commands(folder.path(), open_log(folder.path())).await;
    let pending = PendingRejections::default();
    for number in 0..NAMED + 8 {
        pending.notice(refused("/api/users"), Some(format!("request-{number}")));
    }
    pending.notice(refused("/api/products"), None);

    let position = commands.record_rejections(&pending).await.unwrap();

    let attempts = written(&commands, position).await;
    let [many, one] = &attempts[..] else { panic!("{attempts:#?}") };
    assert_eq!(many.count, NAMED as u64 + 8);
    assert_eq!(many.request_ids.len(), NAMED);
    assert_eq!(many.request_ids[0], "request-0");
    assert_eq!((one.count, one.request_ids.len()), (1, 0));
}

#[test]
fn what_could_not_be_written_is_kept_with_what_came_since() {
    let pending = PendingRejections::default();
    let notice = |request: &str| pending.notice(refused("/api/users"), Some(request.to_owned()));
    notice("one");
    let taken = pending.0.noticed.lock().drain().collect();
    notice("two");
    let later = pending.0.noticed.lock().values().map(|seen| seen.last_at).next();

    pending.put_back(taken);

    let kept = pending.0.noticed.lock();
    let seen = kept.values().next().unwrap();
    assert_eq!((kept.len(), seen.count), (1, 2));
    assert_eq!(seen.request_ids, ["one", "two"]);
    assert!(seen.first_at <= seen.last_at && Some(seen.last_at) == later);
}

async fn written(commands: &Commands, position: Position) -> Vec<Attempt> {
    let events = commands.log().read_after(Position(position.0 - 1), 1).await.unwrap();
    let AccessLogEvent::Rejected { attempts } = decode_event(&events[0]).unwrap();
    attempts
}

fn refused(path: &str) -> Rejection {
    Rejection {
        organization: Uuid::nil(),
        actor: Actor::Anonymous,
        product: None,
        method: "GET".to_owned(),
        path: path.to_owned(),
        route: None,
        status: 401,
        code: "credential_missing".to_owned(),
        address: None,
        user_agent: None,
        resource: None,
    }
}

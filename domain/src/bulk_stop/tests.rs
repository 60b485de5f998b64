//! That it is asked for once, and remembers what came of it.

use super::*;
use crate::history::{given, id, walk};

fn request(executions: &[u8]) -> BulkStopCommand {
    let executions = executions.iter().map(|number| id(*number)).collect();
    BulkStopCommand::Request { agent: id(9), executions, more: true }
}

#[test]
fn it_is_asked_for_once_and_finished_once() {
    let finish = BulkStopCommand::Finish { stopped: 1 };
    let all = vec![finish.clone(), request(&[1, 2]), request(&[3]), finish.clone(), finish.clone()];
    let log = walk::<BulkStop>(all);
    let requested =
        BulkStopEvent::Requested { agent: id(9), executions: vec![id(1), id(2)], more: true };
    assert_eq!(log, [requested, BulkStopEvent::Finished { stopped: 1 }]);
    let other = BulkStopCommand::Finish { stopped: 2 };
    given::<BulkStop>(log.clone()).when(other).then_expect_events(vec![]);
    given::<BulkStop>(log).when(request(&[1])).then_expect_error(BulkStopError::Requested);
    given::<BulkStop>(vec![]).when(finish).then_expect_error(BulkStopError::NotFound);
}

#[test]
fn one_that_means_nothing_is_finished_at_once() {
    let log = walk::<BulkStop>(vec![request(&[])]);
    assert_eq!(log.last(), Some(&BulkStopEvent::Finished { stopped: 0 }));
    let mut state = BulkStop::default();
    log.into_iter().for_each(|event| state.apply(event));
    assert_eq!(state, BulkStop::Finished { stopped: 0, more: true });
}

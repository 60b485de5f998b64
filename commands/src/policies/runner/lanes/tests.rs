//! How much of a lane's stream is read.

use domain::lane::SUMMARIZED_AFTER;

use super::*;
use crate::policies::altered::Altered;
use crate::testing::{open_commands, open_log};

const AGENT: Uuid = Uuid::from_u128(7);

fn guest(number: u128) -> Guest {
    let requested_at = Timestamp::from(DateTime::UNIX_EPOCH + TimeDelta::seconds(number as i64));
    Guest { execution: Uuid::from_u128(number), key: None, requested_at }
}

async fn decide(lanes: &Lanes, guest: &Guest, command: LaneCommand) -> View {
    let ask = Ask::once("test", Uuid::nil(), None);
    lanes.decide(AGENT, guest, command, &ask).await.expect("decided")
}

async fn enter(lanes: &Lanes, number: u128) -> View {
    let guest = guest(number);
    decide(lanes, &guest, LaneCommand::Enter { guest: guest.clone(), max: 2, waits: true }).await
}

async fn leave(lanes: &Lanes, number: u128) {
    let execution = Uuid::from_u128(number);
    decide(lanes, &guest(number), LaneCommand::Leave { execution }).await;
}

#[tokio::test]
async fn a_lane_that_many_went_through_is_read_from_its_last_summary_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open_log(folder.path());
    let lanes = Lanes::new(open_commands(folder.path(), log.clone()).await);
    // One that stays all the while.
    assert!(enter(&lanes, 1).await.is_inside);
    let fresh = async |lives| {
        let counted = Altered::mortal(&log, lives, false);
        (Lanes::new(open_commands(folder.path(), counted.clone()).await), counted)
    };
    let mut last = 1;
    for through in [5, 700, 2_000] {
        while last < through {
            last += 1;
            assert!(enter(&lanes, last).await.is_inside, "{last}");
            leave(&lanes, last).await;
        }
        let (other, counted) = fresh(usize::MAX).await;
        let waiting = other.waiting(AGENT, None).await.expect("read");
        assert_eq!(waiting, [], "{through} went through");
        let read = counted.read();
        let stored = log.read_stream(&StreamId::new("lane", AGENT), 0, 10_000).await.expect("read");
        let all = stored.len();
        assert!(all >= 2 * through as usize - 3, "{all}");
        assert!(read <= 2 * BATCH + 40, "{read} of {all} were read");
        // What it knows is what whoever read it all knows.
        let known = other.known.get(&AGENT).expect("known");
        let known = known.lock().await;
        let (whole, sequence) =
            lanes.commands.replay::<Lane>(&StreamId::new("lane", AGENT)).await.expect("replayed");
        assert_eq!((&known.lane, known.sequence), (&whole, sequence));
        assert!(whole.since <= SUMMARIZED_AFTER);
        assert_eq!(whole.inside, [guest(1)]);
    }
    // Whoever waits is in the summary, too, and still comes first.
    assert!(enter(&lanes, 2_001).await.is_inside);
    assert!(!enter(&lanes, 2_002).await.is_inside);
    for number in 3_000..3_000 + u128::from(SUMMARIZED_AFTER) {
        assert!(!enter(&lanes, number).await.is_inside);
        leave(&lanes, number).await;
    }
    let (other, _) = fresh(usize::MAX).await;
    let waiting = other.waiting(AGENT, Some(&None)).await.expect("read");
    assert_eq!(waiting, [guest(2_002)]);
    leave(&lanes, 1).await;
    assert!(!enter(&other, 9_000).await.is_inside, "it is not its turn");
    assert!(enter(&other, 2_002).await.is_inside);
}

//! What can be said of a schedule, from outside: where its firings lie, what becomes of those that were missed,
//! and of those that come while an execution of it has not ended.

use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::{TestApp, eventually};

/// An agent whose executions wait for a while.
struct Patient {
    app: TestApp,
    agent: String,
}

async fn patient(wait: &str) -> Patient {
    let app = TestApp::spawn().await;
    let product = app.product().await;
    let body = json!({ "product_id": product.id, "manifest": {
        "manifest": "prodgy.agent/1", "name": "acme.patient", "version": "1.0.0", "title": "Patient",
        "steps": [{ "id": "wait", "type": "wait", "with": { "for": wait } }],
    } });
    let reply = app.post("/api/agent-base/install", body).await.expect_status(201);
    let agent = reply.data()["id"].as_str().unwrap().to_owned();
    Patient { app, agent }
}

impl Patient {
    /// Makes a schedule; answers its id and what is shown of it.
    async fn schedule(&self, options: Value) -> (String, Value) {
        let mut body = json!({ "type": "schedule" });
        body.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let path = format!("/api/agent-base/{}/triggers", self.agent);
        let made = self.app.post(&path, body).await.expect_status(201);
        (made.data()["id"].as_str().unwrap().to_owned(), made.data().clone())
    }

    async fn shown(&self, trigger: &str) -> Value {
        let path = format!("/api/agent-base/triggers/{trigger}");
        self.app.get(&path).await.expect_status(200).data().clone()
    }

    async fn executions(&self, trigger: &str) -> Vec<Value> {
        let path =
            format!("/api/agent-base/{}/executions?limit=1000&trigger_id={trigger}", self.agent);
        self.app.get(&path).await.expect_status(200).data().as_array().unwrap().clone()
    }

    /// The instants that fired, the oldest first, and when each did.
    async fn fired(&self, trigger: &str) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
        let path = format!("/api/audit-logs?limit=1000&resource_id={trigger}");
        let rows = self.app.get(&path).await.expect_status(200).data().clone();
        let fired = rows.as_array().unwrap().iter().filter(|row| row["action"] == "fired");
        let mut fired: Vec<_> =
            fired.map(|row| (time(&row["details"]["instant"]), time(&row["at"]))).collect();
        fired.sort_unstable();
        fired
    }
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap_or_else(|| panic!("a time: {value}")).parse().unwrap()
}

#[tokio::test]
async fn the_next_firings_lie_where_the_zone_the_start_and_the_end_say() {
    let it = patient("1s").await;
    let night = |start: &str| json!({ "cron": "30 2 * * *", "tz": "Europe/Madrid", "start": start, "jitter": "1m" });
    let firings = |shown: &Value| -> Vec<String> {
        let all = shown["next_firings"].as_array().unwrap();
        all.iter().map(|at| at.as_str().unwrap()[..16].to_owned()).collect()
    };
    // The hour that is left out in spring, and the one that comes twice in autumn.
    let (_, spring) = it.schedule(night("2027-03-27T00:00:00Z")).await;
    assert_eq!(
        firings(&spring),
        [
            "2027-03-27T01:30",
            "2027-03-28T01:00",
            "2027-03-29T00:30",
            "2027-03-30T00:30",
            "2027-03-31T00:30"
        ]
    );
    let (id, autumn) = it.schedule(night("2027-10-30T00:00:00Z")).await;
    let expected = [
        "2027-10-30T00:30",
        "2027-10-31T00:30",
        "2027-11-01T01:30",
        "2027-11-02T01:30",
        "2027-11-03T01:30",
    ];
    assert_eq!(firings(&autumn), expected);
    assert_eq!(firings(&it.shown(&id).await), expected);
    assert_eq!(autumn["configuration"]["jitter"], "1m", "{autumn}");

    let mut bounded = night("2027-10-30T00:00:00Z");
    bounded["end"] = json!("2027-11-01T12:00:00Z");
    let (_, bounded) = it.schedule(bounded).await;
    assert_eq!(firings(&bounded), expected[..3]);
}

#[tokio::test]
async fn a_schedule_fires_from_its_start_to_its_end_and_each_instant_within_its_jitter() {
    let it = patient("1s").await;
    let start = Utc::now().trunc_subsecs(0) + TimeDelta::seconds(3);
    let end = start + TimeDelta::seconds(4);
    let (id, shown) = it
        .schedule(json!({
            "cron": "* * * * * *", "overlap": "allow", "missed": "all", "jitter": "1s",
            "start": start.to_rfc3339(), "end": end.to_rfc3339(),
        }))
        .await;
    assert_eq!(time(&shown["next_firing_at"]), start);
    eventually("the schedule has not ended", async || {
        let shown = it.shown(&id).await;
        (shown["next_firings"] == json!([])).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let fired = it.fired(&id).await;
    let instants: Vec<_> = fired.iter().map(|(instant, _)| *instant).collect();
    let expected: Vec<_> = (0..5).map(|second| start + TimeDelta::seconds(second)).collect();
    // Whether the end itself is one is the schedule's to say.
    assert!(instants == expected || instants == expected[..4], "{instants:?} from {start}");
    for (instant, at) in fired {
        // And not before, however much of its jitter there is.
        assert!(at >= instant && at < instant + TimeDelta::seconds(4), "{instant} at {at}");
    }
    assert_eq!(it.executions(&id).await.len(), instants.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_is_passed_over_or_made_up_for_as_the_schedule_says() {
    let mut it = patient("1s").await;
    let each_second =
        |missed: &str| json!({ "cron": "* * * * * *", "overlap": "allow", "missed": missed });
    let (skip, _) = it.schedule(each_second("skip")).await;
    let (last, _) = it.schedule(each_second("last")).await;
    let (all, _) = it.schedule(each_second("all")).await;
    for trigger in [&skip, &last, &all] {
        eventually("nothing was fired", async || {
            (!it.fired(trigger).await.is_empty()).then_some(())
        })
        .await;
    }
    // What is less than a minute late was not missed, so this takes longer.
    let (from, awake) = tokio::task::block_in_place(|| {
        it.app.kill();
        let from = Utc::now() + TimeDelta::seconds(1);
        std::thread::sleep(Duration::from_secs(64));
        it.app.start();
        (from, Utc::now())
    });
    let to = from + TimeDelta::seconds(2);
    for trigger in [&skip, &last, &all] {
        eventually("nothing was fired after the start", async || {
            let newest = it.fired(trigger).await.last().unwrap().0;
            (newest > awake).then_some(())
        })
        .await;
    }
    let meanwhile = async |trigger: &str| {
        let fired = it.fired(trigger).await;
        let mut instants: Vec<_> = fired.iter().map(|(instant, _)| *instant).collect();
        instants.dedup();
        assert_eq!(instants.len(), fired.len(), "an instant fired twice");
        instants.retain(|instant| (from..to).contains(instant));
        instants.len()
    };
    assert_eq!(meanwhile(&skip).await, 0);
    assert_eq!(meanwhile(&last).await, 0, "the newest one is later than these");
    assert_eq!(meanwhile(&all).await, 2, "{from} to {to}");
    it.app.stop();
    it.app.verified();
}

#[tokio::test]
async fn what_fires_while_an_execution_has_not_ended_is_treated_as_the_schedule_says() {
    let it = patient("3s").await;
    let each_second = |overlap: &str| json!({ "cron": "* * * * * *", "overlap": overlap });
    let (allow, _) = it.schedule(each_second("allow")).await;
    let (skip, _) = it.schedule(each_second("skip")).await;
    let (queue, _) = it.schedule(each_second("queue")).await;
    let (cancel, _) = it.schedule(each_second("cancel_running")).await;
    let outcome = async |trigger: &str, wanted: &str| {
        let what = format!("no firing was {wanted}");
        eventually(&what, async || {
            let shown = it.shown(trigger).await;
            (shown["last_outcome"]["status"] == wanted).then_some(())
        })
        .await;
    };
    outcome(&skip, "skipped").await;
    outcome(&queue, "queued").await;
    let open = |executions: &[Value]| {
        let is_open = |it: &&Value| {
            ["queued", "running", "waiting"].contains(&it["status"].as_str().unwrap())
        };
        executions.iter().filter(is_open).count()
    };
    eventually("they do not run beside each other", async || {
        (open(&it.executions(&allow).await) >= 2).then_some(())
    })
    .await;
    eventually("the older one was not cancelled", async || {
        let executions = it.executions(&cancel).await;
        let cancelled = executions.iter().filter(|it| it["status"] == "cancelled").count();
        (cancelled >= 2).then_some(())
    })
    .await;
    // Two ran, one after the other.
    for trigger in [&skip, &queue] {
        let ran = eventually("no second one ran", async || {
            let executions = it.executions(trigger).await;
            assert!(open(&executions) <= 1, "{executions:?}");
            let ended = executions.into_iter().filter(|it| it["status"] == "succeeded");
            let mut ended: Vec<_> = ended.collect();
            ended.sort_by_key(|it| time(&it["started_at"]));
            (ended.len() >= 2).then_some(ended)
        });
        let ran = ran.await;
        assert!(time(&ran[1]["started_at"]) >= time(&ran[0]["ended_at"]), "{ran:?}");
    }
    let events = it.app.get("/api/events?limit=1000&type=execution.cancelled.v1").await;
    let events = events.expect_status(200).data().clone();
    assert!(
        events.as_array().unwrap().iter().all(|it| it["data"]["reason"] == "superseded"),
        "{events}"
    );
}

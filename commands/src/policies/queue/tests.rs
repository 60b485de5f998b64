//! What a queue promises to those who put work in.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;

async fn until(what: impl Fn() -> bool) {
    let reached = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), reached).await.expect("reached in time");
}

#[tokio::test]
async fn what_is_added_while_it_is_worked_on_is_looked_at_once_more() {
    let queue = Arc::new(Queue::new("test", 2));
    let (runs, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let work = {
        let (runs, go) = (runs.clone(), go.clone());
        move || {
            let (runs, go) = (runs.clone(), go.clone());
            async move {
                runs.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                Outcome::Finished
            }
        }
    };
    let id = Uuid::from_u128(1);
    queue.add(id, work.clone());
    until(|| runs.load(Ordering::SeqCst) == 1).await;
    queue.add(id, work.clone());
    queue.add(id, work);
    assert_eq!(runs.load(Ordering::SeqCst), 1, "one worker at a time");
    go.notify_one();
    until(|| runs.load(Ordering::SeqCst) == 2).await;
    go.notify_one();
    until(|| queue.busy.lock().is_empty()).await;
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_crash_costs_one_try_and_nobody_elses_slot() {
    let queue = Arc::new(Queue::new("test", 1));
    let (tries, others) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = tries.clone();
    queue.add(Uuid::from_u128(1), move || {
        let attempt = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            assert!(attempt > 0, "the first try crashes");
            Outcome::Finished
        }
    });
    let counted = others.clone();
    queue.add(Uuid::from_u128(2), move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Outcome::Finished }
    });
    until(|| others.load(Ordering::SeqCst) == 1 && tries.load(Ordering::SeqCst) == 2).await;
    until(|| queue.busy.lock().is_empty()).await;
}

#[tokio::test]
async fn the_work_of_one_owner_leaves_slots_for_others() {
    let queue = Arc::new(Queue::new("test", 4));
    let (running, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let work = {
        let (running, go) = (running.clone(), go.clone());
        move || {
            let (running, go) = (running.clone(), go.clone());
            async move {
                running.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                Outcome::Finished
            }
        }
    };
    let (greedy, modest) = (Uuid::from_u128(1), Uuid::from_u128(2));
    for id in 10..30 {
        queue.add_for(greedy, Uuid::from_u128(id), work.clone());
    }
    until(|| running.load(Ordering::SeqCst) == 2).await;
    let done = Arc::new(AtomicUsize::new(0));
    let counted = done.clone();
    queue.add_for(modest, Uuid::from_u128(40), move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Outcome::Finished }
    });
    until(|| done.load(Ordering::SeqCst) == 1).await;
    assert_eq!(running.load(Ordering::SeqCst), 2, "half of the slots");
    for _ in 0..20 {
        go.notify_one();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    until(|| queue.busy.lock().is_empty()).await;
    assert!(queue.slots.shares.lock().is_empty(), "owners without work are forgotten");
}

#[tokio::test]
async fn stopping_lets_running_work_finish_and_begins_nothing_new() {
    let queue = Arc::new(Queue::new("test", 1));
    let (begun, finished, go) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    for id in 1..4 {
        let (begun, finished, go) = (begun.clone(), finished.clone(), go.clone());
        queue.add(Uuid::from_u128(id), move || {
            let (begun, finished, go) = (begun.clone(), finished.clone(), go.clone());
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                finished.fetch_add(1, Ordering::SeqCst);
                Outcome::Finished
            }
        });
    }
    until(|| begun.load(Ordering::SeqCst) == 1).await;
    let stopping = tokio::spawn({
        let queue = queue.clone();
        async move { queue.stop().await }
    });
    until(|| queue.is_stopping()).await;
    go.notify_one();
    stopping.await.expect("stopped");
    assert_eq!((begun.load(Ordering::SeqCst), finished.load(Ordering::SeqCst)), (1, 1));
}

//! What is kept in memory of aggregates is what their streams tell, whatever was asked and however it ended.

use std::fmt::Debug;

use chrono::DateTime;
use domain::claim::{Claim, ClaimCommand, ClaimKind};
use domain::knowledge_base::{KnowledgeBase, KnowledgeBaseCommand};
use domain::lane::{Guest, Lane, LaneCommand};
use domain::product::{Product, ProductCommand};
use domain::session::{EndReason, Session, SessionCommand};
use domain::{Name, Rewording, Timestamp, derived_id};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use tempfile::TempDir;

use super::*;
use crate::policies::altered::{Altered, Fate};
use crate::testing::{open_commands, open_log};

/// How many streams a history is about, so that many commands meet.
const STREAMS: u8 = 3;

/// What is asked, and how.
#[derive(Clone, Debug)]
struct Step<C> {
    stream: u8,
    command: C,
    /// Asked under one of a few ids, or under its own.
    key: Option<u8>,
    /// The state that is meant, if one is.
    if_match: Option<u64>,
    fate: Fate,
    /// It comes while the one before is under way.
    at_once: bool,
    /// The state was not asked for lately, and is no longer kept.
    evicted: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn products_in_memory_are_those_of_the_log(steps in steps(product())) {
        run::<Product>(steps)?;
    }

    #[test]
    fn knowledge_bases_in_memory_are_those_of_the_log(steps in steps(knowledge_base())) {
        run::<KnowledgeBase>(steps)?;
    }

    #[test]
    fn claims_in_memory_are_those_of_the_log(steps in steps(claim())) {
        run::<Claim>(steps)?;
    }

    #[test]
    fn sessions_in_memory_are_those_of_the_log(steps in steps(session())) {
        run::<Session>(steps)?;
    }

    #[test]
    fn lanes_in_memory_are_those_of_the_log(steps in steps(lane())) {
        run::<Lane>(steps)?;
    }
}

#[tokio::test]
async fn what_was_changed_is_kept() {
    let folder = TempDir::new().unwrap();
    let commands = open_commands(folder.path(), open_log(folder.path())).await;
    let command =
        ProductCommand::Create { name: called("Shop"), description: None, knowledge_base: id(9) };
    let ask = Ask::once("a test", Uuid::nil(), None);
    let done = commands.execute::<Product>(id(1), command, &ask).await.unwrap();

    let kept = commands.hot.as_ref().unwrap().get(&done.stream).expect("it is kept");

    assert_eq!(kept.downcast_ref::<Hot<Product>>().unwrap().sequence, 1);
}

#[tokio::test]
async fn who_has_seen_an_event_is_told_of_it_though_its_command_has_not_heard_yet() {
    let folder = TempDir::new().unwrap();
    let log = Altered::fateful(&open_log(folder.path()));
    let commands = open_commands(folder.path(), log.clone()).await;
    let ask = || Ask::once("a test", Uuid::nil(), None);
    let command =
        ProductCommand::Create { name: called("Shop"), description: None, knowledge_base: id(9) };
    let made = commands.execute::<Product>(id(1), command, &ask()).await.unwrap();
    let mut head = log.watch();
    head.mark_unchanged();

    log.next_ends(Fate::Late);
    let deleting = {
        let (commands, ask) = (commands.clone(), ask());
        tokio::spawn(async move {
            commands.execute::<Product>(id(1), ProductCommand::Delete, &ask).await
        })
    };
    head.changed().await.unwrap();
    let (state, sequence) = commands.load::<Product>(&made.stream).await.unwrap();
    assert_eq!((state, sequence), (Product::Deleted, 2));

    log.tell();
    deleting.await.unwrap().unwrap();
    let (state, sequence) = commands.load::<Product>(&made.stream).await.unwrap();
    assert_eq!((state, sequence), (Product::Deleted, 2));
    assert!(!commands.appending.is_under_way(&made.stream));
}

fn run<A>(steps: Vec<Step<A::Command>>) -> TestCaseResult
where
    A: Aggregate<Services = ()> + Clone + PartialEq + Debug + 'static,
    A::Command: Clone + Send,
    A::Error: Refusal,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(walk::<A>(steps))
}

async fn walk<A>(steps: Vec<Step<A::Command>>) -> TestCaseResult
where
    A: Aggregate<Services = ()> + Clone + PartialEq + Debug + 'static,
    A::Command: Clone + Send,
    A::Error: Refusal,
{
    let folder = TempDir::new().unwrap();
    let log = Altered::fateful(&open_log(folder.path()));
    let commands = open_commands(folder.path(), log.clone()).await;
    let mut rest = &steps[..];
    while let Some((first, others)) = rest.split_first() {
        log.next_ends(first.fate);
        if first.evicted {
            commands.forget(&stream::<A>(first.stream));
        }
        match others.split_first() {
            Some((second, others)) if second.at_once => {
                tokio::join!(ask::<A>(&commands, first), ask::<A>(&commands, second));
                rest = others;
            }
            _ => {
                ask::<A>(&commands, first).await;
                rest = others;
            }
        }
        for (stream, hot) in commands.hot.as_ref().expect("nobody else appends").iter() {
            let hot = hot.downcast_ref::<Hot<A>>().expect("one kind is asked for");
            let (state, sequence) = commands.replay::<A>(&stream).await.unwrap();
            prop_assert_eq!((&hot.state, hot.sequence), (&state, sequence), "of {}", stream);
        }
    }
    Ok(())
}

/// Asks; whether it is refused or fails is not what is looked at.
async fn ask<A>(commands: &Commands, step: &Step<A::Command>)
where
    A: Aggregate<Services = ()> + Clone + 'static,
    A::Command: Clone,
    A::Error: Refusal,
{
    let once = Ask::once("a test", Uuid::nil(), None);
    let ask = match step.key {
        Some(key) => {
            let command_id = derived_id(&[b"key", &[key]]);
            Ask { command_id, repeatable: true, request_hash: Some("the same".into()), ..once }
        }
        None => once,
    };
    let ask = Ask { if_match: step.if_match.map(|sequence| vec![sequence]), ..ask };
    let id = Uuid::from_bytes([step.stream; 16]);
    let _ = commands.execute::<A>(id, step.command.clone(), &ask).await;
}

fn stream<A: Aggregate>(number: u8) -> StreamId {
    StreamId::new(A::TYPE, Uuid::from_bytes([number; 16]))
}

fn steps<C: Debug + Clone>(
    command: impl Strategy<Value = C>,
) -> impl Strategy<Value = Vec<Step<C>>> {
    let fate =
        prop_oneof![6 => Just(Fate::Good), 1 => Just(Fate::Failed), 1 => Just(Fate::Unheard)];
    let rarely = || prop::bool::weighted(0.2);
    let key = prop::option::weighted(0.3, 0..6_u8);
    let if_match = prop::option::weighted(0.2, 0..6_u64);
    let step = (0..STREAMS, command, key, if_match, fate, rarely(), rarely()).prop_map(
        |(stream, command, key, if_match, fate, at_once, evicted)| Step {
            stream,
            command,
            key,
            if_match,
            fate,
            at_once,
            evicted,
        },
    );
    prop::collection::vec(step, 1..40)
}

fn product() -> impl Strategy<Value = ProductCommand> {
    let create =
        ProductCommand::Create { name: called("Shop"), description: None, knowledge_base: id(9) };
    prop_oneof![
        3 => Just(create),
        6 => "[ab]".prop_map(|text| ProductCommand::Change { name: Some(called(&text)), description: Rewording::Kept, retention: None }),
        1 => Just(ProductCommand::Delete),
        1 => Just(ProductCommand::Erase),
    ]
}

fn knowledge_base() -> impl Strategy<Value = KnowledgeBaseCommand> {
    prop_oneof![
        3 => any::<bool>().prop_map(|default| KnowledgeBaseCommand::Create {
            name: called("Docs"),
            description: None,
            default
        }),
        6 => "[ab]"
            .prop_map(|text| KnowledgeBaseCommand::Change { name: Some(called(&text)), description: Rewording::Kept }),
        1 => any::<bool>().prop_map(|with_product| KnowledgeBaseCommand::Delete { with_product }),
    ]
}

fn claim() -> impl Strategy<Value = ClaimCommand> {
    (any::<bool>(), "user-[12]").prop_map(|(takes, holder)| match takes {
        true => ClaimCommand::Take { kind: ClaimKind::Email, holder },
        false => ClaimCommand::Release { holder },
    })
}

fn session() -> impl Strategy<Value = SessionCommand> {
    let start = |hash: String| SessionCommand::Start {
        user: id(1),
        refresh_hash: Digest::sha256(hash),
        expires_at: at(100),
    };
    prop_oneof![
        2 => "one|two".prop_map(start),
        6 => ("one|two|three", "one|two|three", 0_i64..120).prop_map(|(presented, new, now)| {
            SessionCommand::Refresh {
                presented_hash: Digest::sha256(presented),
                new_hash: Digest::sha256(new),
                now: at(now),
                expires_at: at(now + 100),
            }
        }),
        1 => Just(SessionCommand::End { reason: EndReason::Logout }),
    ]
}

fn lane() -> impl Strategy<Value = LaneCommand> {
    let guest = |number: u8| Guest {
        execution: id(number),
        key: None,
        requested_at: at(i64::from(number)),
    };
    prop_oneof![
        3 => (1..5_u8, any::<bool>())
            .prop_map(move |(number, waits)| LaneCommand::Enter { guest: guest(number), max: 2, waits }),
        2 => (1..5_u8).prop_map(|number| LaneCommand::Leave { execution: id(number) }),
        1 => (1..5_u8).prop_map(|number| LaneCommand::GiveUp { execution: id(number) }),
    ]
}

fn called(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn id(number: u8) -> Uuid {
    Uuid::from_bytes([number; 16])
}

fn at(second: i64) -> Timestamp {
    DateTime::from_timestamp(1_800_000_000 + second, 0).expect("a moment").into()
}

//! What rankings are worth, and that an evaluation is kept once.

use proptest::prelude::*;

use super::*;
use crate::history::{given, id, sealed, walk};

fn summary() -> Summary {
    Summary {
        knowledge_base: id(1),
        mode: "hybrid".to_owned(),
        k: 10,
        questions: 2,
        files: 7,
        model: "all-MiniLM-L6-v2".to_owned(),
        model_revision: "r".to_owned(),
        chunker: "2".to_owned(),
        scores: Scores { ndcg: 0.5, recall: 1.0, reciprocal_rank: 0.25 },
        latency: Latency { p50: 10, p99: 20, max: 30 },
    }
}

fn expected(ids: &[u8]) -> BTreeSet<Uuid> {
    ids.iter().map(|number| id(*number)).collect()
}

#[test]
fn an_outcome_is_kept_once() {
    let content = Payload::Sealed(sealed("questions"));
    let finish = EvaluationCommand::Finish { summary: summary(), content: content.clone() };
    let log = walk::<Evaluation>(vec![finish.clone(), finish.clone()]);
    assert_eq!(log, [EvaluationEvent::Finished { summary: summary(), content }]);
    given::<Evaluation>(log).when(finish).then_expect_error(EvaluationError::Finished);
}

#[test]
fn a_ranking_is_worth_what_the_papers_say() {
    let found = [id(9), id(1), id(8), id(2)];
    let scores = Scores::of(&found, &expected(&[1, 2, 3]), 10);
    // The expected ones stand at the ranks 2 and 4, of three that could stand at 1, 2 and 3.
    let ideal = 1.0 + 1.0 / 3_f64.log2() + 0.5;
    let gained = 1.0 / 3_f64.log2() + 1.0 / 5_f64.log2();
    assert!((scores.ndcg - gained / ideal).abs() < 1e-12);
    assert_eq!((scores.recall, scores.reciprocal_rank), (2.0 / 3.0, 0.5));

    let scores = Scores::of(&found, &expected(&[1, 2, 3]), 1);
    assert_eq!(scores, Scores::default(), "the first one alone is none of them");
    let perfect = Scores { ndcg: 1.0, recall: 1.0, reciprocal_rank: 1.0 };
    assert_eq!(Scores::of(&found, &expected(&[9, 1]), 10), perfect);
    assert_eq!(Scores::of(&found, &expected(&[]), 10), Scores::default());
    assert_eq!(Scores::mean(&[perfect, Scores::default()]).ndcg, 0.5);
}

#[test]
fn latencies_are_those_of_real_searches() {
    assert_eq!(Latency::of(vec![]), Latency::default());
    assert_eq!(Latency::of(vec![5]), Latency { p50: 5, p99: 5, max: 5 });
    assert_eq!(Latency::of((1..=200).rev().collect()), Latency { p50: 100, p99: 198, max: 200 });
}

proptest! {
    #[test]
    fn no_ranking_is_worth_less_than_nothing_or_more_than_all(
        found in prop::collection::btree_set(0_u8..40, 0..30),
        wanted in prop::collection::btree_set(0_u8..40, 1..20),
        k in 1_usize..30,
        turn in 0_usize..30,
    ) {
        let mut found: Vec<Uuid> = found.into_iter().map(id).collect();
        let middle = turn.min(found.len());
        found.rotate_left(middle);
        let wanted: BTreeSet<Uuid> = wanted.into_iter().map(id).collect();
        let scores = Scores::of(&found, &wanted, k);
        for score in [scores.ndcg, scores.recall, scores.reciprocal_rank] {
            prop_assert!((0.0..=1.0 + 1e-12).contains(&score), "{scores:?}");
        }
        let is_any_there = found.iter().take(k).any(|file| wanted.contains(file));
        prop_assert_eq!(is_any_there, scores.ndcg > 0.0);
        prop_assert_eq!(is_any_there, scores.recall > 0.0);
    }
}

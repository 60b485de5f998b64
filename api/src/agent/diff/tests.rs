//! That a diff says what is so, and leads where it should.

use serde_json::json;

use super::*;

fn manifest() -> Value {
    json!({
        "manifest": "prodgy.agent/1", "name": "acme.a", "version": "1.0.0", "title": "A",
        "steps": [
            { "id": "one", "type": "transform", "with": { "a": [1, 2, 3], "b": "x" } },
            { "id": "two", "type": "transform", "needs": ["one"] },
            { "id": "three", "type": "transform" },
        ],
    })
}

#[test]
fn nothing_changes_between_a_manifest_and_itself() {
    let nothing = between(&manifest(), &manifest());
    let none = StepChanges::default();
    let expected = ManifestDiff { summary: vec![], steps: none, changes: vec![], patch: vec![] };
    assert_eq!(nothing, expected);
}

#[test]
fn steps_are_told_apart_by_their_ids() {
    let after = json!({
        "manifest": "prodgy.agent/1", "name": "acme.a", "version": "2.0.0", "title": "A",
        "summary": "New",
        "steps": [
            { "id": "zero", "type": "transform" },
            { "id": "three", "type": "transform" },
            { "id": "one", "type": "transform", "with": { "a": [1], "b": "y" } },
        ],
    });
    let diff = between(&manifest(), &after);
    assert_eq!(diff.steps.added, ["zero"]);
    assert_eq!(diff.steps.removed, ["two"]);
    assert_eq!(diff.steps.changed, ["one"]);
    assert!(diff.steps.reordered);
    for sentence in [
        "`/version` was changed",
        "`/summary` was added",
        "step `one`: `/with/b` was changed",
        "step `two` was removed",
        "step `zero` was added",
        "the steps are in another order",
    ] {
        assert!(diff.summary.iter().any(|said| said == sentence), "{sentence}: {diff:#?}");
    }
    let of_list: Vec<_> = diff.changes.iter().filter(|it| it.path.starts_with("/with/a")).collect();
    let gone: BTreeSet<i64> =
        of_list.iter().filter_map(|it| it.before.as_ref()?.as_i64()).collect();
    assert_eq!(gone, BTreeSet::from([2, 3]), "each item that is gone is shown as it was");

    let mut patched = manifest();
    patch(&mut patched, &diff.patch).unwrap();
    assert_eq!(patched, after);
}

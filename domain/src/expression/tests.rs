//! What an expression comes to, and that none runs away.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn a_literal_stays_what_it_is() {
    let literal = json!({ "a": [1, 2.5, null, true, "{{ input.n }}"], "cel": "1 + 1", "b": {} });
    assert_eq!(evaluate(&literal, &scope()), Ok(literal.clone()));
}

#[test]
fn an_expression_is_replaced_wherever_it_stands() {
    let with = json!({ "list": [{ "cel": "input.n + config.start" }, "x"], "text": { "template": "n={{ input.n }}" } });
    assert_eq!(evaluate(&with, &scope()), Ok(json!({ "list": [42, "x"], "text": "n=40" })));
}

#[test]
fn whole_numbers_stay_whole_both_ways() {
    assert_eq!(cel("input.n + 1"), Ok(json!(41)));
    assert_eq!(cel("-input.n"), Ok(json!(-40)));
    assert_eq!(cel("input.n / 3"), Ok(json!(13)));
    assert_eq!(cel("9223372036854775807"), Ok(json!(9_223_372_036_854_775_807_i64)));
    assert_eq!(cel("input.ratio * 2.0"), Ok(json!(1.5)));
    assert_eq!(cel("type(input.n) == int && type(input.ratio) == double"), Ok(json!(true)));
}

#[test]
fn an_expression_sees_everything_it_is_promised() {
    assert_eq!(cel("trigger.key"), Ok(json!("manual")));
    assert_eq!(cel("execution.id"), Ok(json!("e1")));
    assert_eq!(cel("steps.one.output.value + 1"), Ok(json!(8)));
    assert_eq!(cel("steps['one'].output.value"), Ok(json!(7)));
    assert_eq!(template("{{ steps.one.output.value }} {{ trigger.key }}"), Ok(json!("7 manual")));
}

#[test]
fn the_macros_of_cel_work() {
    assert_eq!(cel("[3, 1, 2].filter(x, x > 1).map(x, x * 10)"), Ok(json!([30, 20])));
    assert_eq!(cel("[1, 2].map(x, x > 1, x + 1)"), Ok(json!([3])));
    assert_eq!(cel("[1, 2].exists(x, x == 2) && [1, 2].all(x, x > 0)"), Ok(json!(true)));
    assert_eq!(cel("[1, 2, 2].exists_one(x, x == 2)"), Ok(json!(false)));
    assert_eq!(cel("has(input.n) && !has(input.absent)"), Ok(json!(true)));
    assert_eq!(cel("input.text.matches('^h.*o$') && size(input.text) == 5"), Ok(json!(true)));
    assert_eq!(
        cel("{'a': 1 + 1, 'b': [input.text + '!']}"),
        Ok(json!({ "a": 2, "b": ["hello!"] }))
    );
    assert_eq!(cel("timestamp('2026-01-01T00:00:00Z')"), Ok(json!("2026-01-01T00:00:00.000000Z")));
    assert_eq!(cel("duration('90m')"), Ok(json!("5400s")));
}

#[test]
fn objects_are_walked_in_the_order_of_their_keys() {
    for _ in 0..20 {
        assert_eq!(cel("input.object.map(key, key)"), Ok(json!(["a", "b", "c", "d", "e"])));
    }
}

#[test]
fn what_fails_says_where_and_why() {
    let with = json!({ "a": { "b/c": [1, { "cel": "input.n + 'x'" }] } });
    let error = evaluate(&with, &scope()).unwrap_err();
    assert_eq!((error.pointer.as_str(), error.code), ("/a/b~1c/1", "cel_failed"));
    assert!(cel("input.absent").unwrap_err().message.contains("absent"));
    assert!(cel("1 / 0").is_err());
    assert!(cel("9223372036854775807 + 1").is_err());
    assert!(cel("0.0 / 0.0").unwrap_err().message.contains("finite"));
    let error = template("{{ input.absent }}").unwrap_err();
    assert_eq!(error.code, "template_failed");
}

#[test]
fn a_loop_of_loops_is_stopped() {
    let numbers: Vec<_> = (0..1000).collect();
    let scope = Scope { input: json!({ "numbers": numbers }), ..scope() };
    for source in [
        "input.numbers.map(a, input.numbers.map(b, input.numbers.map(c, a + b + c)))",
        "input.numbers.all(a, input.numbers.all(b, input.numbers.all(c, true)))",
        "input.numbers.filter(a, input.numbers.exists(b, input.numbers.exists(c, c < 0)))",
        "input.numbers.exists_one(a, input.numbers.exists_one(b, input.numbers.exists(c, false)))",
        "input.numbers.exists(a, input.numbers.all(b, input.numbers.all(c, true)) || true) || true",
    ] {
        let error = evaluate(&json!({ "cel": source }), &scope).unwrap_err();
        assert!(error.message.contains("too much work"), "{source}: {}", error.message);
    }
}

#[test]
fn a_text_that_doubles_is_stopped() {
    let long = "x".repeat(100_000);
    let numbers: Vec<_> = (0..10_000).collect();
    let scope = Scope { input: json!({ "long": long, "numbers": numbers }), ..scope() };
    for source in [
        "input.numbers.map(n, input.long)",
        "input.numbers.map(n, input.long + input.long)",
        "input.numbers.map(n, {'a': input.long})",
        "[[1,2,3,4].map(a, input.long)].map(a, [a,a,a,a,a,a,a,a]).map(a, [a,a,a,a,a,a,a,a,a,a,a])",
    ] {
        let error = evaluate(&json!({ "cel": source }), &scope).unwrap_err();
        assert!(error.message.contains("too much work"), "{source}: {}", error.message);
    }
    let error = evaluate(&json!({ "cel": "[1,2,3,4,5,6,7,8,9,10,11].map(n, input.long)" }), &scope);
    assert_eq!(error.unwrap_err().code, "output_too_large");
}

#[test]
fn deep_expressions_are_refused_and_not_followed() {
    for source in [
        format!("{}1{}", "(".repeat(2000), ")".repeat(2000)),
        format!("{}1{}", "[".repeat(2000), "]".repeat(2000)),
        format!("{}true", "!".repeat(4000)),
        format!("{}1", "-".repeat(4000)),
        format!("1{}", "+1".repeat(2000)),
        format!("input{}", ".a".repeat(2000)),
        format!("true{}", "?true:true".repeat(400)),
        format!("[1]{}", ".map(x, [x])".repeat(300)),
        format!("true{}", "||true".repeat(600)),
        format!("1{}", "==1".repeat(1300)),
    ] {
        // It compiles or it does not; either way it ends, on the stack of an ordinary thread.
        let _ = check(&json!({ "cel": source }), Place::Step, &BTreeSet::new());
        let _ = cel(&source);
    }
    let deep = format!("{}1{}", "(".repeat(60), ")".repeat(60));
    assert!(cel(&deep).unwrap_err().message.contains("nested"));
    let long = format!("1{}", "+1".repeat(1000));
    assert!(cel(&long).unwrap_err().message.contains("signs"));
}

#[test]
fn what_is_allowed_to_be_deep_works_on_an_ordinary_stack() {
    assert_eq!(cel(&format!("{}7{}", "(".repeat(32), ")".repeat(32))), Ok(json!(7)));
    assert!(cel(&format!("{}7{}", "[".repeat(32), "]".repeat(32))).is_err(), "too deep as a value");
    assert_eq!(cel(&format!("1{}", "+1".repeat(399))), Ok(json!(400)));
    assert_eq!(cel(&format!("{}1", "-".repeat(400))), Ok(json!(1)));
    assert_eq!(cel(&format!("true{}", "?true:true".repeat(90))), Ok(json!(true)));
    assert!(cel(&format!("1{}", "==1".repeat(190))).is_ok());
    assert!(cel(&format!("[1]{}", ".map(x,x)".repeat(90))).is_ok());
    assert!(cel(&format!("[1]{}{}", ".map(x,[1]".repeat(32), ")".repeat(32))).is_err());
}

#[test]
fn a_step_that_repeats_sees_its_item() {
    let scope = Scope { item: Some(Item { value: json!({ "a": 7 }), index: 2 }), ..scope() };
    assert_eq!(evaluate(&json!({ "cel": "[index, item.a]" }), &scope), Ok(json!([2, 7])));
    assert!(cel("item").is_err() && cel("index").is_err() && cel("event").is_err());
}

#[test]
fn each_place_has_its_own_names() {
    let known =
        |source: &str, place| check(&json!({ "cel": source }), place, &BTreeSet::new()).is_empty();
    assert!(known("item", Place::Repeated) && known("index + input.n", Place::Repeated));
    assert!(!known("item", Place::Step) && !known("event", Place::Step));
    assert!(known("event.type", Place::Match) && !known("input", Place::Match));
    assert!(
        known("input.a + config.b + trigger.key", Place::Key) && !known("execution", Place::Key)
    );
    assert!(!known("steps.one.output", Place::Key), "nothing has run by then");
    assert!(known("event", Place::EventInput) && !known("event", Place::ScheduleInput));
    let faults = check(&json!({ "template": "{{ item }}" }), Place::Key, &BTreeSet::new());
    assert_eq!(faults[0].message, "`item` is not known here: use one of input, config, trigger");
}

#[test]
fn an_expression_that_stands_by_itself_comes_to_what_is_wanted_or_says_so() {
    let parse = |source: &str| Cel::parse(&json!(source), Place::Step, &BTreeSet::new()).unwrap();
    assert_eq!(parse("input.n > 1").truth(&scope()), Ok(true));
    assert_eq!(parse("[1, 2]").list(&scope()), Ok(vec![json!(1), json!(2)]));
    assert_eq!(parse("input.text").key(&scope()), Ok("hello".to_owned()));
    assert_eq!(parse("input.n").key(&scope()), Ok("40".to_owned()));
    for error in [
        parse("input.n").truth(&scope()).unwrap_err(),
        parse("input.n").list(&scope()).unwrap_err(),
        parse("null").key(&scope()).unwrap_err(),
    ] {
        assert_eq!(error.code, "cel_type_mismatch");
    }
    assert_eq!(parse("input.absent").truth(&scope()).unwrap_err().code, "cel_failed");
    let object = Cel::parse(&json!({ "cel": "true" }), Place::Step, &BTreeSet::new()).unwrap();
    assert_eq!(object.source(), "true");
    let refused = Cel::parse(&json!({ "cel": "1 +" }), Place::Step, &BTreeSet::new()).unwrap_err();
    assert_eq!((refused[0].pointer.as_str(), refused[0].code), ("/cel", "cel_invalid"));
}

#[test]
fn every_filter_and_test_that_is_allowed_is_there() {
    for filter in template::FILTERS {
        let result = template(&format!("{{{{ input.list | {filter} }}}}"));
        let message = result.map_or_else(|error| error.message, |_| String::new());
        assert!(!message.contains("unknown filter"), "{filter}: {message}");
    }
    for test in template::TESTS {
        let result = template(&format!("{{{{ input.list is {test} }}}}"));
        let message = result.map_or_else(|error| error.message, |_| String::new());
        assert!(!message.contains("unknown test"), "{test}: {message}");
    }
}

#[test]
fn a_template_has_loops_conditions_and_filters() {
    let source = "{% for item in input.list %}{{ loop.index }}:{{ item | upper }}{% if not loop.last %}, {% endif %}{% else %}none{% endfor %}";
    assert_eq!(template(source), Ok(json!("1:A, 2:B")));
    assert_eq!(
        template("{{ input.list | join('-') }}{{ input.absent | default('!') }}"),
        Ok(json!("a-b!"))
    );
    assert_eq!(template("{% if input.absent %}yes{% else %}no{% endif %}"), Ok(json!("no")));
    assert_eq!(
        template("{{ input.object | tojson }}"),
        Ok(json!(r#"{"a":2,"b":1,"c":3,"d":4,"e":5}"#))
    );
    assert_eq!(template("<b>{{ input.text ~ '&' }}</b>"), Ok(json!("<b>hello&</b>")));
    assert_eq!(template("{{ input.n + 2 }}"), Ok(json!("42")));
}

#[test]
fn a_template_cannot_grow_without_end() {
    for source in [
        "{% set a = 'x' %}",
        "{% with a = 'x' %}{{ a }}{% endwith %}",
        "{% macro a() %}{% endmacro %}",
        "{{ 'x' * 100000000 }}",
        "{{ 10 ** 10 }}",
        "{{ range(10) }}",
        "{% for a in ['x' ~ 'x'] %}{{ a }}{% endfor %}",
        "{% for a in input.list recursive %}{{ loop(a) }}{% endfor %}",
        "{% filter upper %}x{% endfilter %}",
        "{% include 'x' %}",
        "{{ input.text | indent(100000000) }}",
    ] {
        let faults = check(&json!({ "template": source }), Place::Step, &BTreeSet::new());
        assert_eq!(faults.len(), 1, "{source}: {faults:?}");
        assert_eq!(faults[0].code, "template_invalid", "{source}");
        assert!(template(source).is_err(), "{source}");
    }
    let joins = format!("{{{{ 'x'{} }}}}", " ~ 'x'".repeat(100));
    assert!(template(&joins).unwrap_err().message.contains("joins at most"));
}

#[test]
fn a_deep_template_is_refused_or_rendered_but_never_followed_off_the_stack() {
    for source in [
        format!("{{{{ 1{} }}}}", "-1".repeat(16_000)),
        format!("{{{{ 1{} }}}}", "==1".repeat(10_000)),
        format!("{{{{ {}1{} }}}}", "(".repeat(15_000), ")".repeat(15_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(8_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(30_000)),
        format!("{{{{ input{} }}}}", ".a".repeat(16_000)),
        format!("{{{{ input{} }}}}", "[0]".repeat(10_000)),
        format!("{{{{ input.text{} }}}}", "|trim".repeat(6_000)),
        format!("{{{{ {}1 }}}}", "1 if 1 else ".repeat(2_500)),
        format!("{{{{ {}1 }}}}", "1 and ".repeat(5_000)),
        "{% if 1 %}".repeat(3_000),
        format!("{}{}", "{% if 1 %}".repeat(1_200), "{% endif %}".repeat(1_200)),
    ] {
        let _ = check(&json!({ "template": source }), Place::Step, &BTreeSet::new());
        let _ = template(&source);
    }
}

#[test]
fn a_template_ends() {
    let numbers: Vec<_> = (0..1000).collect();
    let long = "x".repeat(600_000);
    let scope = Scope { input: json!({ "numbers": numbers, "long": long }), ..scope() };
    let render = |source: &str| evaluate(&json!({ "template": source }), &scope).unwrap_err();
    let nested = "{% for a in input.numbers %}{% for b in input.numbers %}{% for c in input.numbers %}{% endfor %}{% endfor %}{% endfor %}";
    assert!(render(nested).message.contains("too much work"));
    assert!(render("{{ input.long }}{{ input.long }}").message.contains("longer than"));
    assert!(render("{{ input.long | replace('x', 'xxx') }}").message.contains("too long"));
    assert!(render("{{ input.numbers | join(input.long) }}").message.contains("too long"));
}

#[test]
fn names_that_are_not_there_are_found_before_it_runs() {
    let faults = |value: Value| {
        let faults = check(&value, Place::Step, &BTreeSet::from(["one"]));
        faults.into_iter().map(|fault| (fault.pointer, fault.code)).collect::<Vec<_>>()
    };
    let expect = |pointer: &str, code: &'static str| vec![(pointer.to_owned(), code)];
    assert_eq!(faults(json!({ "cel": "inputs.n" })), expect("/cel", "name_unknown"));
    assert_eq!(
        faults(json!({ "template": "{{ inputs.n }}" })),
        expect("/template", "name_unknown")
    );
    assert_eq!(faults(json!([{ "cel": "steps.two.output" }])), expect("/0/cel", "step_not_needed"));
    assert_eq!(faults(json!({ "cel": "steps['two'].output" })), expect("/cel", "step_not_needed"));
    assert_eq!(
        faults(json!({ "template": "{{ steps.two.output }}" })),
        expect("/template", "step_not_needed")
    );
    assert_eq!(faults(json!({ "cel": "1 +" })), expect("/cel", "cel_invalid"));
    assert_eq!(faults(json!({ "cel": 1 })), expect("/cel", "type_mismatch"));
    assert_eq!(
        faults(json!({ "template": "{{ input. }}" })),
        expect("/template", "template_invalid")
    );
    assert_eq!(faults(json!({ "cel": "input.list.map(x, x + steps.one.output.value)" })), vec![]);
    assert_eq!(
        faults(json!({ "template": "{% for x in input.list %}{{ x }}{% endfor %}" })),
        vec![]
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_evaluation_panic(source in ".{0,80}") {
        let _ = cel(&source);
        let _ = template(&source);
    }

    #[test]
    fn no_mixture_of_cel_makes_the_evaluation_panic(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..24),
    ) {
        let source = words.concat();
        let _ = cel(&source);
        let _ = template(&format!("{{{{ {source} }}}}"));
        let _ = template(&source);
    }
}

const WORDS: &[&str] = &[
    "input",
    ".n",
    ".list",
    ".object",
    "[0]",
    "['a']",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "<",
    "&&",
    "||",
    "!",
    "?",
    ":",
    ",",
    " in ",
    "1",
    "-1",
    "0.5",
    "'x'",
    "b'x'",
    "null",
    "true",
    "1u",
    ".map(x, ",
    ".filter(x, ",
    ".exists(x, ",
    "x",
    "size(",
    "string(",
    "timestamp(",
    "duration('1h')",
    "has(",
    ".matches(",
    "int(",
    "type(",
    "dyn(",
    "steps.one.output",
    "{%",
    "%}",
    "{{",
    "}}",
    " for x in ",
    " if ",
    " endif ",
    " endfor ",
    " | ",
    "join",
    "~",
    " is ",
];

fn cel(source: &str) -> Result<Value, EvaluationError> {
    evaluate(&json!({ "cel": source }), &scope())
}

fn template(source: &str) -> Result<Value, EvaluationError> {
    evaluate(&json!({ "template": source }), &scope())
}

fn scope() -> Scope {
    Scope {
        input: json!({
            "n": 40, "ratio": 0.75, "text": "hello", "list": ["a", "b"],
            "object": { "b": 1, "a": 2, "c": 3, "e": 5, "d": 4 },
        }),
        config: json!({ "start": 2 }),
        trigger: json!({ "key": "manual" }),
        execution: json!({ "id": "e1" }),
        steps: BTreeMap::from([("one".to_owned(), json!({ "value": 7 }))]),
        ..Scope::default()
    }
}

#[test]
fn what_takes_a_little_is_told_from_what_takes_more() {
    let scope = |input: Value| Scope { input, ..Scope::default() };
    let little = |value: &Value, scope: &Scope| at_little_cost(|| evaluate(value, scope));
    let sum = json!({ "n": { "cel": "input.n + 1" }, "literal": [1, { "cel": "true" }] });
    let small = scope(json!({ "n": 1 }));
    assert_eq!(little(&sum, &small), Some(evaluate(&sum, &small)));
    let missing = json!({ "cel": "input.missing" });
    assert_eq!(little(&missing, &small), Some(evaluate(&missing, &small)), "a failure is a result");

    // A loop, many expressions, much to see, a template: all of that is worth a thread, and is right there.
    let items: Vec<usize> = (0..2_000).collect();
    let long = scope(json!({ "items": items }));
    let looped = json!({ "cel": "input.items.map(i, i * 2).filter(i, i > 10)" });
    assert_eq!(little(&looped, &long), None);
    assert!(evaluate(&looped, &long).is_ok());
    let many = Value::Array(vec![json!({ "cel": "1 + 1" }); 100]);
    assert_eq!(little(&many, &small), None);
    let much = scope(json!({ "n": 1, "text": "x".repeat(100_000) }));
    assert_eq!(little(&sum, &much), None);
    assert_eq!(little(&json!({ "template": "{{ input.n }}" }), &small), None);
    // The next one is not held to it.
    assert!(evaluate(&looped, &long).is_ok());
}

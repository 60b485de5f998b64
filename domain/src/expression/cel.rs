//! CEL: one expression, computed on JSON.
//!
//! The rule of this file: every loop and every value that grows is paid for out of one budget, so
//! that no expression runs or grows without end. The `cel` crate has no such meter, so calls to ours
//! are woven into the expression before it runs. Objects are walked in the order of their keys: the
//! crate would walk them in a random one.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators,
};
use cel::objects::{Key, Map as CelMap};
use cel::{Context, Env, ExecutionError, Value as CelValue};
use moka::sync::Cache;
use serde_json::{Map, Number, Value};

use super::{References, Variable, brief, effort};

/// The longest expression. More is a program, and belongs into a step of its own.
const MAX_SOURCE_BYTES: usize = 4096;

/// How deep brackets may stand in each other, and values in the result.
const MAX_DEPTH: u16 = 32;

/// The most signs, as `+` and `.`, in one expression: each may be a level of its syntax tree.
const MAX_SIGNS: usize = 400;

/// The parser and the interpreter call themselves for every level, with large frames: what they need
/// at most, by the signs of the expression.
const STACK_BYTES: usize = 1024 * 1024;
const STACK_BYTES_A_SIGN: usize = 160 * 1024;

/// How much is kept of what was compiled, in bytes of source. A syntax tree is some fifty times as
/// large.
const KEPT_SOURCE_BYTES: u64 = 256 * 1024;

/// What one evaluation may spend, about a byte a unit.
const BUDGET: i64 = 8 * 1024 * 1024;

/// What a turn of a loop costs, beside what it makes.
const TURN: i64 = 32;

/// What a regular expression costs, which is compiled anew each time.
const PATTERN: i64 = 50_000;

/// What is said of an expression that spends more.
pub(super) const TOO_COSTLY: &str = "the expression does too much work: let it go over less";

/// What we weave in. A name with `@` cannot be written in an expression.
const CHARGE: &str = "@charge";
const IN_ORDER: &str = "@in_order";

/// The types of CEL, which stand in expressions as names.
const TYPES: [&str; 12] = [
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "uint",
];

static ENVIRONMENT: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

/// An expression that is ready to run, with the names it uses.
struct Compiled {
    expression: IdedExpr,
    references: References,
}

/// What runs often is compiled once. It depends on the source alone.
static COMPILED: LazyLock<Cache<String, Arc<Compiled>>> = LazyLock::new(|| {
    let weigh =
        |source: &String, _: &Arc<Compiled>| u32::try_from(source.len()).unwrap_or(u32::MAX);
    Cache::builder().weigher(weigh).max_capacity(KEPT_SOURCE_BYTES).build()
});

/// The names that an expression uses.
///
/// # Errors
/// A sentence, when it does not compile.
pub(super) fn references(source: &str) -> Result<References, String> {
    on_enough_stack(source, || Ok(compile(source)?.references.clone()))
}

/// Whether an expression uses a name; not so, where it does not compile.
pub(super) fn sees(source: &str, name: &str) -> bool {
    on_enough_stack(source, || compile(source).is_ok_and(|it| it.references.names.contains(name)))
}

/// What an expression comes to.
///
/// # Errors
/// A sentence, when it does not compile, fails, or spends its budget.
pub(super) fn evaluate(source: &str, variables: &[Variable<'_>]) -> Result<Value, String> {
    on_enough_stack(source, || evaluate_here(source, variables))
}

/// Most expressions are short, and a new stack costs more than they do.
fn on_enough_stack<T>(source: &str, work: impl FnOnce() -> T) -> T {
    let signs = source.bytes().filter(u8::is_ascii_punctuation).count().min(MAX_SIGNS + 1);
    let needed = STACK_BYTES + signs * STACK_BYTES_A_SIGN;
    stacker::maybe_grow(needed, needed, work)
}

fn compile(source: &str) -> Result<Arc<Compiled>, String> {
    if let Some(compiled) = COMPILED.get(source) {
        return Ok(compiled);
    }
    let mut expression = parse(source)?;
    let mut references = References::default();
    collect(&expression, &BTreeSet::new(), &mut references);
    meter(&mut expression);
    let compiled = Arc::new(Compiled { expression, references });
    COMPILED.insert(source.to_owned(), compiled.clone());
    Ok(compiled)
}

fn evaluate_here(source: &str, variables: &[Variable<'_>]) -> Result<Value, String> {
    let compiled = compile(source)?;
    let names = &compiled.references.names;

    let budget = Arc::new(AtomicI64::new(effort::budget(BUDGET)));
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    for (name, value) in variables.iter().filter(|(name, _)| names.contains(*name)) {
        context.add_variable_from_value(*name, to_cel(value));
    }
    let purse = Arc::clone(&budget);
    let charge = move |cost: i64, value: CelValue| pay(&purse, cost, value);
    let purse = Arc::clone(&budget);
    let in_order = move |range: CelValue| pay(&purse, 0, range).map(sorted);
    for added in [context.add_function(CHARGE, charge), context.add_function(IN_ORDER, in_order)] {
        added.expect("the standard library has no names with @");
    }

    let result = CelValue::resolve(&compiled.expression, &context);
    effort::account(budget.load(Ordering::Relaxed));
    match result {
        // An error may have hidden this one: `a || b` looks away when `b` is true.
        _ if budget.load(Ordering::Relaxed) < 0 => Err(TOO_COSTLY.to_owned()),
        Ok(result) => to_json(&result, MAX_DEPTH),
        Err(error) => Err(brief(&error.to_string())),
    }
}

fn parse(source: &str) -> Result<IdedExpr, String> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(format!("the expression is longer than {MAX_SOURCE_BYTES} bytes: split it"));
    }
    let (mut depth, mut signs) = (0_u16, 0_usize);
    for sign in source.bytes().filter(u8::is_ascii_punctuation) {
        match sign {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        signs += 1;
        if depth > MAX_DEPTH {
            return Err(format!("the expression is nested deeper than {MAX_DEPTH}: split it"));
        }
    }
    if signs > MAX_SIGNS {
        return Err(format!("the expression has more than {MAX_SIGNS} signs: split it"));
    }
    ENVIRONMENT.parser().parse(source).map_err(|error| brief(&error.to_string()))
}

/// Takes what a value costs out of the budget.
fn pay(budget: &AtomicI64, cost: i64, value: CelValue) -> Result<CelValue, ExecutionError> {
    let cost = cost.saturating_add(size(&value));
    if budget.fetch_sub(cost, Ordering::Relaxed) < cost {
        return Err(ExecutionError::function_error(CHARGE, "the budget is spent"));
    }
    Ok(value)
}

fn size(value: &CelValue) -> i64 {
    let content = match value {
        CelValue::List(items) => items.iter().map(size).sum(),
        CelValue::Map(map) => map.map.iter().map(|(key, item)| key_size(key) + size(item)).sum(),
        CelValue::String(text) => text.len() as i64,
        CelValue::Bytes(bytes) => bytes.len() as i64,
        _ => 0,
    };
    16 + content
}

fn key_size(key: &Key) -> i64 {
    match key {
        Key::String(text) => 16 + text.len() as i64,
        Key::Int(_) | Key::Uint(_) | Key::Bool(_) => 16,
    }
}

/// What a loop goes over: the keys of an object in their order.
fn sorted(range: CelValue) -> CelValue {
    let CelValue::Map(map) = range else { return range };
    let mut keys: Vec<Key> = map.map.keys().cloned().collect();
    keys.sort();
    CelValue::List(Arc::new(keys.into_iter().map(CelValue::from).collect()))
}

/// Weaves the meter into an expression.
fn meter(expression: &mut IdedExpr) {
    match &mut expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Select(select) => meter(&mut select.operand),
        Expr::List(list) => {
            for element in &mut list.elements {
                meter(element);
                charge(element, TURN);
            }
        }
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| meter_entry(&mut entry.expr)),
        Expr::Struct(object) => {
            object.entries.iter_mut().for_each(|entry| meter_entry(&mut entry.expr));
        }
        Expr::Call(call) => {
            call.target.iter_mut().for_each(|target| meter(target));
            call.args.iter_mut().for_each(meter);
            match call.func_name.as_str() {
                "matches" => call.args.iter_mut().for_each(|argument| charge(argument, PATTERN)),
                // A loop's own sum is made in place, and its elements were paid for.
                operators::ADD if !call.args.iter().any(is_accumulator) => charge(expression, 0),
                _ => {}
            }
        }
        Expr::Comprehension(comprehension) => meter_loop(comprehension),
    }
}

fn meter_entry(entry: &mut EntryExpr) {
    match entry {
        EntryExpr::StructField(field) => {
            meter(&mut field.value);
            charge(&mut field.value, TURN);
        }
        EntryExpr::MapEntry(entry) => {
            meter(&mut entry.key);
            meter(&mut entry.value);
            charge(&mut entry.value, TURN);
        }
    }
}

fn meter_loop(comprehension: &mut ComprehensionExpr) {
    let ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, .. } =
        comprehension;
    let collects = matches!(&accu_init.expr, Expr::List(list) if list.elements.is_empty());
    for part in [&mut *iter_range, accu_init, &mut *loop_cond, &mut *loop_step, result] {
        meter(part);
    }
    wrap(iter_range, IN_ORDER, None);
    if !collects {
        return charge(loop_cond, TURN);
    }
    // `map` and `filter`: the crate is quick only when their condition stays a literal, so each turn
    // is paid for in the guard, or where there is none, in the element.
    if let Expr::Call(step) = &mut loop_step.expr
        && step.func_name == operators::CONDITIONAL
        && let Some(guard) = step.args.first_mut()
    {
        charge(guard, TURN);
    }
}

fn is_accumulator(expression: &IdedExpr) -> bool {
    matches!(&expression.expr, Expr::Ident(name) if name.starts_with('@'))
}

fn charge(expression: &mut IdedExpr, cost: i64) {
    wrap(expression, CHARGE, Some(cost));
}

/// Puts a call of ours around an expression.
fn wrap(expression: &mut IdedExpr, function: &str, cost: Option<i64>) {
    let id = expression.id;
    let cost =
        cost.map(|cost| IdedExpr { id, expr: Expr::Literal(LiteralValue::Int(cost.into())) });
    let args = cost.into_iter().chain([std::mem::take(expression)]).collect();
    let call = CallExpr { func_name: function.to_owned(), target: None, args };
    *expression = IdedExpr { id, expr: Expr::Call(call) };
}

/// Collects the names that an expression uses; `bound` are those of the loops around it.
fn collect(expression: &IdedExpr, bound: &BTreeSet<&str>, found: &mut References) {
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => {}
        Expr::Ident(name) => {
            let name = name.as_str();
            if !bound.contains(name) && !TYPES.contains(&name) {
                found.names.insert(name.to_owned());
            }
        }
        Expr::Select(select) => {
            if is_steps(&select.operand, bound) {
                found.steps.insert(select.field.clone());
            }
            collect(&select.operand, bound, found);
        }
        Expr::Call(call) => {
            if let (operators::INDEX, [list, index]) = (call.func_name.as_str(), &call.args[..])
                && let Expr::Literal(LiteralValue::String(step)) = &index.expr
                && is_steps(list, bound)
            {
                found.steps.insert(step.inner().to_owned());
            }
            call.target.iter().for_each(|target| collect(target, bound, found));
            call.args.iter().for_each(|argument| collect(argument, bound, found));
        }
        Expr::List(list) => list.elements.iter().for_each(|item| collect(item, bound, found)),
        Expr::Map(map) => {
            map.entries.iter().for_each(|entry| collect_entry(&entry.expr, bound, found));
        }
        Expr::Struct(object) => {
            object.entries.iter().for_each(|entry| collect_entry(&entry.expr, bound, found));
        }
        Expr::Comprehension(comprehension) => {
            let ComprehensionExpr { iter_var, iter_var2, accu_var, .. } = &**comprehension;
            collect(&comprehension.iter_range, bound, found);
            let mut inner = bound.clone();
            inner.extend([iter_var.as_str(), accu_var.as_str()]);
            inner.extend(iter_var2.as_deref());
            let ComprehensionExpr { accu_init, loop_cond, loop_step, result, .. } =
                &**comprehension;
            for part in [accu_init, loop_cond, loop_step, result] {
                collect(part, &inner, found);
            }
        }
    }
}

fn collect_entry(entry: &EntryExpr, bound: &BTreeSet<&str>, found: &mut References) {
    match entry {
        EntryExpr::StructField(field) => collect(&field.value, bound, found),
        EntryExpr::MapEntry(entry) => {
            collect(&entry.key, bound, found);
            collect(&entry.value, bound, found);
        }
    }
}

fn is_steps(expression: &IdedExpr, bound: &BTreeSet<&str>) -> bool {
    matches!(&expression.expr, Expr::Ident(name) if name == "steps" && !bound.contains("steps"))
}

/// JSON as CEL. Integers become `int`, not the crate's `uint`: `uint + int` has no meaning in CEL.
fn to_cel(value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(truth) => CelValue::Bool(*truth),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), _, _) => CelValue::Int(int),
            (None, Some(large), _) => CelValue::UInt(large),
            (None, None, float) => CelValue::Float(float.unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(items) => CelValue::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(object) => {
            let entry =
                |(key, item): (&String, &Value)| (Key::String(Arc::new(key.clone())), to_cel(item));
            let map = object.iter().map(entry).collect::<HashMap<_, _>>();
            CelValue::Map(CelMap { map: Arc::new(map) })
        }
    }
}

/// CEL as JSON, by the rules of its specification where JSON has no such type.
fn to_json(value: &CelValue, depth: u16) -> Result<Value, String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(format!("the result is nested deeper than {MAX_DEPTH}: make it flatter"));
    };
    Ok(match value {
        CelValue::Null => Value::Null,
        CelValue::Bool(truth) => Value::Bool(*truth),
        CelValue::Int(int) => Value::from(*int),
        CelValue::UInt(int) => Value::from(*int),
        CelValue::Float(float) => Number::from_f64(*float)
            .map(Value::Number)
            .ok_or("the result is not a finite number: JSON has none but those")?,
        CelValue::String(text) => Value::String(text.as_str().to_owned()),
        CelValue::List(items) => {
            Value::Array(items.iter().map(|item| to_json(item, depth)).collect::<Result<_, _>>()?)
        }
        CelValue::Map(map) => {
            let mut object = Map::new();
            for (key, item) in map.map.iter() {
                object.insert(key.to_string(), to_json(item, depth)?);
            }
            Value::Object(object)
        }
        CelValue::Timestamp(time) => {
            Value::String(crate::Timestamp::from(time.to_utc()).to_string())
        }
        CelValue::Duration(duration) => Value::String(format!("{}s", duration.as_seconds_f64())),
        other => {
            return Err(format!("a {} is not JSON: convert it first", other.type_of()));
        }
    })
}

//! Templates: text with `{{ }}`, in the part of Jinja that cannot run away.
//!
//! The rule of this file: what can be written is what is listed here. Fuel bounds the time; but a
//! handful of assignments, each twice as long as the last, would fill any memory, so there is no
//! assignment, no macro and no multiplication, and a loop goes over what is there, not over what was
//! just made. What comes out is cut off at [`MAX_OUTPUT_BYTES`].

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::LazyLock;

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::machinery::{WhitespaceConfig, parse};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, filters, tests};

use super::{MAX_OUTPUT_BYTES, References, Variable, brief};

/// The longest template.
const MAX_SOURCE_BYTES: usize = 32 * 1024;

/// What one rendering may spend, an instruction a unit.
const FUEL: u64 = 200_000;

/// The most values that one template puts together with `~`, `+` or brackets.
const MAX_JOINS: usize = 64;

/// A chain of operators is a level of the syntax tree for each of them.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// How deep loops and conditions may stand in each other.
const MAX_DEPTH: usize = 16;

/// The filters there are, for looking a template over before it is rendered.
pub(super) const FILTERS: [&str; 34] = [
    "abs",
    "bool",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lower",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sort",
    "split",
    "string",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
];

/// The tests there are, as in `is defined`.
pub(super) const TESTS: [&str; 25] = [
    "defined",
    "undefined",
    "none",
    "true",
    "false",
    "boolean",
    "number",
    "integer",
    "float",
    "string",
    "sequence",
    "mapping",
    "odd",
    "even",
    "divisibleby",
    "eq",
    "equalto",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "in",
    "startingwith",
    "endingwith",
];

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::empty();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(64);
    environment.set_keep_trailing_newline(true);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);

    environment.add_filter("abs", filters::abs);
    environment.add_filter("bool", filters::bool);
    environment.add_filter("capitalize", filters::capitalize);
    environment.add_filter("count", filters::length);
    environment.add_filter("d", filters::default);
    environment.add_filter("default", filters::default);
    environment.add_filter("dictsort", filters::dictsort);
    environment.add_filter("e", filters::escape);
    environment.add_filter("escape", filters::escape);
    environment.add_filter("first", filters::first);
    environment.add_filter("float", filters::float);
    environment.add_filter("int", filters::int);
    environment.add_filter("items", filters::items);
    environment.add_filter("join", join);
    environment.add_filter("last", filters::last);
    environment.add_filter("length", filters::length);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("max", filters::max);
    environment.add_filter("min", filters::min);
    environment.add_filter("reject", filters::reject);
    environment.add_filter("rejectattr", filters::rejectattr);
    environment.add_filter("replace", replace);
    environment.add_filter("reverse", filters::reverse);
    environment.add_filter("round", filters::round);
    environment.add_filter("select", filters::select);
    environment.add_filter("selectattr", filters::selectattr);
    environment.add_filter("sort", filters::sort);
    environment.add_filter("split", filters::split);
    environment.add_filter("string", filters::string);
    environment.add_filter("title", filters::title);
    environment.add_filter("tojson", filters::tojson);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("unique", filters::unique);
    environment.add_filter("upper", filters::upper);

    environment.add_test("defined", tests::is_defined);
    environment.add_test("undefined", tests::is_undefined);
    environment.add_test("none", tests::is_none);
    environment.add_test("true", tests::is_true);
    environment.add_test("false", tests::is_false);
    environment.add_test("boolean", tests::is_boolean);
    environment.add_test("number", tests::is_number);
    environment.add_test("integer", tests::is_integer);
    environment.add_test("float", tests::is_float);
    environment.add_test("string", tests::is_string);
    environment.add_test("sequence", tests::is_sequence);
    environment.add_test("mapping", tests::is_mapping);
    environment.add_test("odd", tests::is_odd);
    environment.add_test("even", tests::is_even);
    environment.add_test("divisibleby", tests::is_divisibleby);
    environment.add_test("eq", tests::is_eq);
    environment.add_test("equalto", tests::is_eq);
    environment.add_test("ne", tests::is_ne);
    environment.add_test("lt", tests::is_lt);
    environment.add_test("le", tests::is_le);
    environment.add_test("gt", tests::is_gt);
    environment.add_test("ge", tests::is_ge);
    environment.add_test("in", tests::is_in);
    environment.add_test("startingwith", tests::is_startingwith);
    environment.add_test("endingwith", tests::is_endingwith);
    environment
});

/// The names that a template uses.
///
/// # Errors
/// A sentence, when it does not compile, or holds what cannot be written here.
pub(super) fn references(source: &str) -> Result<References, String> {
    stacker::grow(STACK_BYTES, || look_over(source))
}

fn look_over(source: &str) -> Result<References, String> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(format!("the template is longer than {MAX_SOURCE_BYTES} bytes: split it"));
    }
    let mut look = Look::default();
    {
        let tree = parse(source, "template", Default::default(), WhitespaceConfig::default())
            .map_err(|error| explain(&error))?;
        look.statement(&tree, MAX_DEPTH)?;
    }
    let template = ENVIRONMENT.template_from_str(source).map_err(|error| explain(&error))?;
    let names = template.undeclared_variables(false).into_iter().collect();
    Ok(References { steps: look.steps, names })
}

/// The text that a template comes to.
///
/// # Errors
/// A sentence, when it does not compile, fails, or goes on too long.
pub(super) fn render(source: &str, variables: &[Variable<'_>]) -> Result<String, String> {
    stacker::grow(STACK_BYTES, || render_here(source, variables))
}

fn render_here(source: &str, variables: &[Variable<'_>]) -> Result<String, String> {
    // Looked at again: what is rendered may come from elsewhere than what was checked.
    look_over(source)?;
    let template = ENVIRONMENT.template_from_str(source).map_err(|error| explain(&error))?;
    let variables: minijinja::Value = variables
        .iter()
        .map(|(name, value)| (*name, minijinja::Value::from_serialize(value)))
        .collect();
    let mut page = Page::default();
    match template.render_captured_to(variables, &mut page) {
        _ if page.full => Err(format!(
            "the text is longer than {} KiB: let it hold less",
            MAX_OUTPUT_BYTES / 1024
        )),
        Ok(_) => Ok(String::from_utf8_lossy(&page.text).into_owned()),
        Err(error) => Err(explain(&error)),
    }
}

/// Text up to a limit.
#[derive(Default)]
struct Page {
    text: Vec<u8>,
    full: bool,
}

impl Write for Page {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.text.len() + text.len() > MAX_OUTPUT_BYTES {
            self.full = true;
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.text.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is found while looking a template over.
#[derive(Default)]
struct Look {
    steps: BTreeSet<String>,
    joins: usize,
}

impl Look {
    fn statement(&mut self, statement: &Stmt<'_>, depth: usize) -> Result<(), String> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(format!("blocks stand deeper than {MAX_DEPTH} in each other: split them"));
        };
        match statement {
            Stmt::Template(template) => self.statements(&template.children, depth),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::EmitExpr(emitted) => self.expression(&emitted.expr),
            Stmt::IfCond(condition) => {
                self.expression(&condition.expr)?;
                self.statements(&condition.true_body, depth)?;
                self.statements(&condition.false_body, depth)
            }
            Stmt::ForLoop(repeated) => {
                if repeated.recursive {
                    return Err("a loop cannot be recursive here: nest loops instead".to_owned());
                }
                let before = self.joins;
                self.expression(&repeated.iter)?;
                if self.joins > before {
                    return Err(
                        "a loop goes over what is there: put the list together in a step before"
                            .to_owned(),
                    );
                }
                repeated.filter_expr.iter().try_for_each(|filter| self.expression(filter))?;
                self.statements(&repeated.body, depth)?;
                self.statements(&repeated.else_body, depth)
            }
            _ => Err("a template holds text, {{ }}, for and if: compute the rest with cel, in a \
                      step before"
                .to_owned()),
        }
    }

    fn statements(&mut self, statements: &[Stmt<'_>], depth: usize) -> Result<(), String> {
        statements.iter().try_for_each(|statement| self.statement(statement, depth))
    }

    fn expression(&mut self, expression: &Expr<'_>) -> Result<(), String> {
        match expression {
            Expr::Var(_) | Expr::Const(_) => Ok(()),
            Expr::GetAttr(attribute) => {
                self.step(&attribute.expr, Some(attribute.name));
                self.expression(&attribute.expr)
            }
            Expr::GetItem(item) => {
                if let Expr::Const(constant) = &item.subscript_expr {
                    self.step(&item.expr, constant.value.as_str());
                }
                self.expression(&item.expr)?;
                self.expression(&item.subscript_expr)
            }
            Expr::Slice(slice) => {
                self.expression(&slice.expr)?;
                let bounds = [&slice.start, &slice.stop, &slice.step];
                bounds.into_iter().flatten().try_for_each(|bound| self.expression(bound))
            }
            Expr::UnaryOp(operation) => self.expression(&operation.expr),
            Expr::BinOp(operation) => {
                match operation.op {
                    BinOpKind::Mul | BinOpKind::Pow => {
                        return Err(
                            "a template does not multiply: use cel, in a step before".to_owned()
                        );
                    }
                    BinOpKind::Add | BinOpKind::Concat => self.join(1)?,
                    _ => {}
                }
                self.expression(&operation.left)?;
                self.expression(&operation.right)
            }
            Expr::Compare(comparison) => {
                self.expression(&comparison.expr)?;
                comparison.ops.iter().try_for_each(|operand| self.expression(&operand.expr))
            }
            Expr::IfExpr(choice) => {
                self.expression(&choice.test_expr)?;
                self.expression(&choice.true_expr)?;
                choice.false_expr.iter().try_for_each(|other| self.expression(other))
            }
            Expr::Filter(filter) => {
                known("filter", filter.name, &FILTERS)?;
                filter.expr.iter().try_for_each(|expr| self.expression(expr))?;
                self.arguments(&filter.args)
            }
            Expr::Test(test) => {
                known("test", test.name, &TESTS)?;
                self.expression(&test.expr)?;
                self.arguments(&test.args)
            }
            Expr::List(list) => {
                self.join(list.items.len().max(1))?;
                list.items.iter().try_for_each(|item| self.expression(item))
            }
            Expr::Map(map) => {
                self.join(map.keys.len().max(1))?;
                map.keys.iter().chain(&map.values).try_for_each(|item| self.expression(item))
            }
            Expr::Call(_) => {
                Err("there is nothing to call here: use a filter, as in `| join(', ')`".to_owned())
            }
        }
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>]) -> Result<(), String> {
        arguments.iter().try_for_each(|argument| match argument {
            CallArg::Pos(value)
            | CallArg::Kwarg(_, value)
            | CallArg::PosSplat(value)
            | CallArg::KwargSplat(value) => self.expression(value),
        })
    }

    fn step(&mut self, list: &Expr<'_>, name: Option<&str>) {
        if let (Expr::Var(variable), Some(name)) = (list, name)
            && variable.id == "steps"
        {
            self.steps.insert(name.to_owned());
        }
    }

    fn join(&mut self, values: usize) -> Result<(), String> {
        self.joins += values;
        if self.joins > MAX_JOINS {
            return Err(format!("a template joins at most {MAX_JOINS} values: join lists instead"));
        }
        Ok(())
    }
}

fn known(what: &str, name: &str, names: &[&str]) -> Result<(), String> {
    if names.contains(&name) {
        return Ok(());
    }
    Err(format!("there is no {what} `{name}`: use one of {}", names.join(", ")))
}

/// `join`, that stops when the text gets too long.
fn join(values: minijinja::Value, separator: Option<String>) -> Result<String, Error> {
    let mut text = String::new();
    for (index, value) in values.try_iter()?.enumerate() {
        if index > 0 {
            text.push_str(separator.as_deref().unwrap_or_default());
        }
        match value.as_str() {
            Some(value) => text.push_str(value),
            None => text.push_str(&value.to_string()),
        }
        fits(text.len())?;
    }
    Ok(text)
}

/// `replace`, that stops when the text gets too long.
fn replace(text: String, from: String, to: String) -> Result<String, Error> {
    let found = text.matches(&from).count();
    fits(text.len().saturating_add(found.saturating_mul(to.len())))?;
    Ok(text.replace(&from, &to))
}

fn fits(length: usize) -> Result<(), Error> {
    if length <= MAX_OUTPUT_BYTES {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidOperation, "the text gets too long: let it hold less"))
}

fn explain(error: &Error) -> String {
    match error.kind() {
        ErrorKind::OutOfFuel => "the template does too much work: let it go over less".to_owned(),
        _ => brief(&error.to_string()),
    }
}

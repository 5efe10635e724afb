//! Which PromQL a probe may ask: exact names of series, in each selector a matcher that is granted, nothing that reads far.
//!
//! An expression such as `count({__name__=~".+"})` takes a monitoring system down, and any selector reads the data of all
//! tenants. So the expression is parsed here, looked at node by node, and sent as the parser writes it, once it was seen that
//! this text means the same tree: what Prometheus gets is what was looked at.

use crate::recording::format::Failure;
use promql_parser::label::{MatchOp, Matchers};
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{AtModifier, Expr, Offset, VectorSelector, parse};
use std::collections::BTreeSet;
use std::time::Duration;

/// Longest expression in bytes.
const LENGTH_MAX: usize = 2048;
/// Deepest nesting of parentheses and braces.
const DEPTH_MAX: usize = 32;
/// Selectors of one expression.
const SELECTORS_MAX: usize = 16;
/// How far back a selector may read.
const RANGE_MAX: Duration = Duration::from_secs(3600);
/// Functions that read series which the expression does not name.
const FORBIDDEN: &[&str] = &["info"];

/// What a selector may hold as its matcher.
pub(crate) struct Granted<'a> {
    /// Run id.
    pub(crate) run: &'a str,
    /// Namespaces of the probe.
    pub(crate) namespaces: Vec<&'a str>,
    /// Matchers of lines in effect: `job="dcgm"`.
    pub(crate) matchers: BTreeSet<&'a str>,
}

impl Granted<'_> {
    fn holds(&self, name: &str, value: &str) -> bool {
        let is_of_run = value == self.run
            || self.namespaces.contains(&value)
            || value
                .strip_suffix(self.run)
                .is_some_and(|front| front.len() > 1 && front.ends_with('-'));
        is_of_run
            || self
                .matchers
                .contains(format!("{name}=\"{value}\"").as_str())
    }
}

/// The expression as it may be sent.
pub(crate) fn check(text: &str, granted: &Granted<'_>) -> Result<String, Failure> {
    let malformed = |why: String| Failure::Malformed(format!("PromQL: {why}"));
    if text.len() > LENGTH_MAX {
        return Err(malformed(format!(
            "{} bytes; at most {LENGTH_MAX} are taken",
            text.len()
        )));
    }
    // Before the parser sees it: its stack shall not depend on a guest.
    let mut depth = 0_usize;
    for c in text.chars() {
        match c {
            '(' | '{' | '[' | '-' | '+' => depth += 1,
            ')' | '}' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(malformed(format!("nested deeper than {DEPTH_MAX}")));
        }
    }
    let tree = parse(text).map_err(|why| malformed(why.chars().take(300).collect()))?;
    if !matches!(tree.value_type(), ValueType::Vector | ValueType::Scalar) {
        return Err(malformed(
            "the expression gives neither a vector nor a scalar".to_owned(),
        ));
    }
    let mut selectors = 0;
    look(&tree, granted, &mut selectors)?;
    let sent = tree.to_string();
    match parse(&sent) {
        Ok(again) if again == tree => Ok(sent),
        _ => Err(malformed(
            "the parser cannot write this expression without changing it; write it more simply"
                .to_owned(),
        )),
    }
}

fn look(tree: &Expr, granted: &Granted<'_>, selectors: &mut usize) -> Result<(), Failure> {
    match tree {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(()),
        Expr::Unary(unary) => look(&unary.expr, granted, selectors),
        Expr::Paren(paren) => look(&paren.expr, granted, selectors),
        Expr::Binary(binary) => {
            look(&binary.lhs, granted, selectors)?;
            look(&binary.rhs, granted, selectors)
        }
        Expr::Aggregate(aggregate) => {
            if let Some(param) = &aggregate.param {
                look(param, granted, selectors)?;
            }
            look(&aggregate.expr, granted, selectors)
        }
        Expr::Call(call) => {
            if FORBIDDEN.contains(&call.func.name.to_string().as_str()) {
                return refused(format!(
                    "function {} reads series that nobody named",
                    call.func.name
                ));
            }
            call.args
                .args
                .iter()
                .try_for_each(|arg| look(arg, granted, selectors))
        }
        Expr::VectorSelector(selector) => one(selector, granted, selectors),
        Expr::MatrixSelector(matrix) => {
            if matrix.range > RANGE_MAX {
                return refused(format!(
                    "a range of {} s; at most one hour is read",
                    matrix.range.as_secs()
                ));
            }
            one(&matrix.vs, granted, selectors)
        }
        Expr::Subquery(_) => refused("a subquery".to_owned()),
        _ => refused("an extension of the language".to_owned()),
    }
}

fn one(
    selector: &VectorSelector,
    granted: &Granted<'_>,
    selectors: &mut usize,
) -> Result<(), Failure> {
    *selectors += 1;
    if *selectors > SELECTORS_MAX {
        return refused(format!("more than {SELECTORS_MAX} selectors"));
    }
    let Some(name) = selector
        .name
        .as_deref()
        .filter(|name| super::exposition::is_name(name))
    else {
        return refused("a selector without an exact name of a series".to_owned());
    };
    let Matchers {
        matchers,
        or_matchers,
    } = &selector.matchers;
    if !or_matchers.is_empty() {
        return refused(format!("`or` among the matchers of {name}"));
    }
    if matchers.iter().any(|matcher| matcher.name == "__name__") {
        return refused(format!("a matcher for the name of {name}"));
    }
    let is_held = matchers.iter().any(|matcher| {
        matches!(matcher.op, MatchOp::Equal) && granted.holds(&matcher.name, &matcher.value)
    });
    if !is_held {
        return refused(format!(
            "{name} without a granted matcher: an equality with the run id, a name of this run or one of its namespaces, or \
             one of `matchers` of a permission line"
        ));
    }
    match &selector.offset {
        Some(Offset::Pos(by) | Offset::Neg(by)) if *by > RANGE_MAX => {
            return refused(format!(
                "an offset of {} s; at most one hour is read",
                by.as_secs()
            ));
        }
        _ => {}
    }
    match &selector.at {
        Some(AtModifier::At(_)) => refused("`@` with a time".to_owned()),
        _ => Ok(()),
    }
}

fn refused(what: String) -> Result<(), Failure> {
    Err(Failure::Refused(format!("PromQL: {what} is refused")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<String, Failure> {
        let granted = Granted {
            run: "abcdefgh",
            namespaces: vec!["karat-abcdefgh-demo-main"],
            matchers: BTreeSet::from(["job=\"dcgm\""]),
        };
        check(text, &granted)
    }

    #[test]
    fn named_series_with_a_granted_matcher_are_sent_as_they_were_read() {
        for text in [
            "vector(1)",
            "1 + 1",
            "max(stub_requests_total{run=\"abcdefgh\"})",
            "max by (pod) (a{namespace=\"karat-abcdefgh-demo-main\",x=~\"y.*\"})",
            "rate(a{pod=\"echo-abcdefgh\"}[5m])",
            "histogram_quantile(0.9, sum by (le) (rate(h_bucket{run=\"abcdefgh\"}[1h])))",
            "a{job=\"dcgm\"} / on (gpu) b{job=\"dcgm\"}",
            "a{job=\"dcgm\"} offset 10m",
            "topk(3, a{job=\"dcgm\"})",
            "absent(vllm:num_requests_waiting{run=\"abcdefgh\"})",
        ] {
            let sent = checked(text);
            assert!(sent.is_ok(), "{text}: {sent:?}");
            assert!(checked(&sent.unwrap()).is_ok(), "{text}");
        }
    }

    #[test]
    fn everything_that_reads_more_is_refused() {
        for text in [
            "up",
            "count({__name__=~\".+\"})",
            "{__name__=\"up\",run=\"abcdefgh\"}",
            "{run=\"abcdefgh\"}",
            "up{run=~\"abcdefgh\"}",
            "up{run!=\"abcdefgh\"}",
            "up{run=\"other\"}",
            "up{job=\"other\"}",
            "up{run=\"xabcdefgh\"}",
            "up{run=\"-abcdefgh\"}",
            "up{job=\"dcgm\"} or up",
            "sum(up{job=\"dcgm\"}) + count(up)",
            "up{job=\"dcgm\" or job=\"x\"}",
            "rate(up{job=\"dcgm\"}[2h])",
            "up{job=\"dcgm\"} offset 2h",
            "up{job=\"dcgm\"} offset -2h",
            "up{job=\"dcgm\"} @ 1",
            "max_over_time(up{job=\"dcgm\"}[10m:1m])",
            "max_over_time(rate(up{job=\"dcgm\"}[5m])[30m:])",
            "topk(scalar(up), up{job=\"dcgm\"})",
        ] {
            assert!(
                matches!(
                    checked(text),
                    Err(Failure::Refused(_) | Failure::Malformed(_))
                ),
                "{text}: {:?}",
                checked(text)
            );
        }
        let many = vec!["a{job=\"dcgm\"}"; 17].join(" or ");
        for text in [
            "",
            "up{",
            "up{job=\"dcgm\"}[5m]",
            "\"text\"",
            &"(".repeat(100),
            &"-".repeat(100),
            &"a".repeat(3000),
            &many,
        ] {
            assert!(checked(text).is_err(), "{text}");
        }
    }
}

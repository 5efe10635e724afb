//! Test output, in the three kinds that the programme knows: `go test -v` text, `go test -json`, JUnit XML. What counts as a
//! result is what counts for its validator; beside that, the reader notes what a real run would have left and is not there.
//!
//! No entity is ever expanded beyond the five of XML, and a document that declares some is refused.

use quick_xml::events::{BytesStart, Event};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Deepest nesting of XML elements.
const XML_DEPTH_MAX: usize = 64;

/// Most characters of a test name that are kept.
const NAME_MAX: usize = 300;

/// Kind of an artefact, by its exact name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Json,
    Junit,
}

impl Kind {
    /// By the last part of a path; upper and lower case are one, as for the validator.
    pub(crate) fn of(name: &str) -> Option<Kind> {
        match name.to_lowercase().as_str() {
            "e2e.log" => Some(Kind::Text),
            "results.json" => Some(Kind::Json),
            "junit.xml" => Some(Kind::Junit),
            _ => None,
        }
    }

    /// What a file looks like, whatever its name.
    pub(crate) fn guess(text: &str) -> Option<(Kind, &'static str)> {
        if text.lines().any(|line| result_line(line).is_some()) {
            return Some((Kind::Text, "e2e.log"));
        }
        if text.contains("<testsuite") && text.contains("<testcase") {
            return Some((Kind::Junit, "junit.xml"));
        }
        let event = text.lines().next()?;
        (event.starts_with('{') && event.contains("\"Action\":") && event.contains("\"Package\":"))
            .then_some((Kind::Json, "results.json"))
    }
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Pass,
    Fail,
    Skip,
}

/// What an artefact says.
#[derive(Debug, Default)]
pub(crate) struct Results {
    tests: BTreeMap<String, Outcome>,
    /// Names of failed tests, or of packages that failed without one.
    pub(crate) failures: Vec<String>,
    /// What a real run would have written and is not there, each with its line.
    pub(crate) doubts: Vec<(u32, String)>,
    /// The latest time in it, as written; it begins with year, month and day.
    pub(crate) latest: Option<String>,
}

/// Why an artefact says nothing.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) line: u32,
    pub(crate) what: String,
    /// It could be right, but is not read here.
    pub(crate) unsupported: bool,
}

fn unreadable(line: u32, what: impl Into<String>) -> Unreadable {
    Unreadable {
        line,
        what: what.into(),
        unsupported: false,
    }
}

impl Results {
    /// A failure stays whatever comes later; otherwise the later result counts.
    fn record(&mut self, name: &str, outcome: Outcome) {
        let name: String = name.chars().take(NAME_MAX).collect();
        if self.tests.get(&name) == Some(&Outcome::Fail) {
            return;
        }
        if outcome == Outcome::Fail {
            self.failures.push(name.clone());
        }
        self.tests.insert(name, outcome);
    }

    /// The result of a test, or of its subtests together: one failure fails, and all skipped is skipped.
    pub(crate) fn outcome_of(&self, name: &str) -> Option<Outcome> {
        if let Some(outcome) = self.tests.get(name) {
            return Some(*outcome);
        }
        let prefix = format!("{name}/");
        let of_subtests = self
            .tests
            .range(prefix.clone()..)
            .take_while(|(name, _)| name.starts_with(&prefix))
            .map(|(_, outcome)| *outcome);
        of_subtests.reduce(|all, one| match (all, one) {
            (Outcome::Fail, _) | (_, Outcome::Fail) => Outcome::Fail,
            (Outcome::Skip, Outcome::Skip) => Outcome::Skip,
            _ => Outcome::Pass,
        })
    }

    fn doubt(&mut self, line: u32, what: impl Into<String>) {
        // One example of each kind is enough to look at the file.
        if self.doubts.len() < 3 {
            self.doubts.push((line, what.into()));
        }
    }

    fn saw_time(&mut self, time: &str) {
        let is_date = time.len() >= 10
            && time
                .bytes()
                .take(10)
                .enumerate()
                .all(|(at, byte)| match at {
                    4 | 7 => byte == b'-',
                    _ => byte.is_ascii_digit(),
                });
        if is_date && self.latest.as_deref().is_none_or(|latest| latest < time) {
            self.latest = Some(time.chars().take(40).collect());
        }
    }
}

/// Reads an artefact.
pub(crate) fn read(kind: Kind, text: &str) -> Result<Results, Unreadable> {
    match kind {
        Kind::Text => go_text(text),
        Kind::Json => go_json(text),
        Kind::Junit => junit(text),
    }
}

fn numbered(text: &str) -> impl Iterator<Item = (u32, &str)> {
    (1..).zip(text.lines())
}

/// `--- PASS: TestX (0.01s)`: outcome, name and what follows.
fn result_line(line: &str) -> Option<(Outcome, &str, &str)> {
    let rest = line.trim_start().strip_prefix("--- ")?;
    let (word, rest) = rest.split_once(": ")?;
    let outcome = match word {
        "PASS" => Outcome::Pass,
        "FAIL" => Outcome::Fail,
        "SKIP" => Outcome::Skip,
        _ => return None,
    };
    let (name, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    (!name.is_empty()).then_some((outcome, name, rest))
}

fn has_duration(rest: &str) -> bool {
    let inner = rest
        .trim()
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix("s)"));
    inner.is_some_and(|seconds| {
        seconds.split_once('.').is_some_and(|(whole, part)| {
            !whole.is_empty()
                && part.len() == 2
                && whole
                    .bytes()
                    .chain(part.bytes())
                    .all(|byte| byte.is_ascii_digit())
        })
    })
}

fn go_text(text: &str) -> Result<Results, Unreadable> {
    let mut results = Results::default();
    let mut begun = BTreeSet::new();
    let (mut closed, mut last) = (false, 0);
    for (number, line) in numbered(text) {
        last = number;
        if let Some(name) = line.trim_start().strip_prefix("=== RUN ") {
            begun.insert(name.trim());
        }
        // `PASS`, `FAIL` and `ok  	package	1.2s` end the output of a package.
        closed |= matches!(line.trim_end(), "PASS" | "FAIL")
            || line.starts_with("ok  \t")
            || line.starts_with("FAIL\t");
        let Some((outcome, name, rest)) = result_line(line) else {
            continue;
        };
        results.record(name, outcome);
        if !begun.contains(name) {
            results.doubt(
                number,
                format!("`{name}` ends here and was never run: no line `=== RUN   {name}` before"),
            );
        } else if !has_duration(rest) {
            results.doubt(
                number,
                format!("`{name}` has no duration such as `(1.23s)`"),
            );
        }
    }
    if results.tests.is_empty() {
        return Err(unreadable(
            0,
            "there is no line such as `--- PASS: TestName (1.23s)`",
        ));
    }
    if !closed {
        results.doubt(
            last,
            "the closing line `PASS`, `FAIL` or `ok <package> <time>` is missing",
        );
    }
    Ok(results)
}

/// One line of `go test -json`.
struct GoEvent(serde_json::Map<String, Value>);

impl GoEvent {
    fn read(line: &str) -> Result<GoEvent, String> {
        match serde_json::from_str(line) {
            Ok(Value::Object(members)) => Ok(GoEvent(members)),
            Ok(Value::Null) => Ok(GoEvent(serde_json::Map::new())),
            Ok(_) => Err("it is no object".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Go reads the names of members in upper and lower case alike.
    fn member(&self, name: &str) -> Option<&Value> {
        let mut members = self.0.iter();
        members
            .find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null())
            .map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> Result<&str, String> {
        match self.member(name) {
            None => Ok(""),
            Some(value) => value.as_str().ok_or_else(|| format!("`{name}` is no text")),
        }
    }
}

fn go_json(text: &str) -> Result<Results, Unreadable> {
    let mut results = Results::default();
    let mut begun = BTreeSet::new();
    let mut packages = Vec::new();
    for (number, line) in numbered(text) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let no_event = |cause: String| {
            let what = format!("the line is no event of `go test -json`: {cause}");
            unreadable(number, what)
        };
        let event = GoEvent::read(line).map_err(no_event)?;
        let action = event.text("Action").map_err(no_event)?;
        let package = event.text("Package").map_err(no_event)?;
        let test = event.text("Test").map_err(no_event)?;
        let time = event.member("Time").and_then(Value::as_str);
        if let Some(time) = time {
            results.saw_time(time);
        }
        let outcome = match action {
            "run" => {
                begun.insert(test.to_owned());
                continue;
            }
            "pass" => Outcome::Pass,
            "fail" => Outcome::Fail,
            "skip" => Outcome::Skip,
            _ => continue,
        };
        if test.is_empty() {
            if outcome == Outcome::Fail {
                packages.push(package.to_owned());
            }
            continue;
        }
        results.record(test, outcome);
        let timed = time.is_some() && event.member("Elapsed").is_some_and(Value::is_number);
        if !begun.contains(test) {
            let what = format!("`{test}` ends here and was never run: no event `run` before");
            results.doubt(number, what);
        } else if !timed {
            let what = format!("the end of `{test}` has no `Time` or no `Elapsed`");
            results.doubt(number, what);
        }
    }
    if results.failures.is_empty() {
        let names = packages.into_iter().map(|name| format!("package {name}"));
        results.failures.extend(names);
    }
    if results.tests.is_empty() && results.failures.is_empty() {
        return Err(unreadable(0, "there is no event of a test"));
    }
    Ok(results)
}

/// A `<testcase>` that is open.
struct Case {
    name: String,
    failed: bool,
    skipped: bool,
}

impl Case {
    fn outcome(&self) -> Outcome {
        match (self.failed, self.skipped) {
            (true, _) => Outcome::Fail,
            (false, true) => Outcome::Skip,
            (false, false) => Outcome::Pass,
        }
    }
}

fn junit(text: &str) -> Result<Results, Unreadable> {
    let mut reader = quick_xml::Reader::from_str(text);
    let mut lines = LineOf::new(text);
    let mut results = Results::default();
    // Names of open elements; results count below nested suites only, whatever the root is called.
    let mut open: Vec<String> = Vec::new();
    let mut case: Option<Case> = None;
    loop {
        let line = lines.at(reader.buffer_position());
        let event = reader
            .read_event()
            .map_err(|error| unreadable(line, format!("this is no XML: {error}")))?;
        match event {
            Event::Start(element) => {
                if open.len() >= XML_DEPTH_MAX {
                    return Err(Unreadable {
                        unsupported: true,
                        ..unreadable(line, "elements are nested too deep")
                    });
                }
                element_begins(&element, &open, &mut case, &mut results, line)?;
                open.push(local_name(&element));
            }
            Event::Empty(element) => {
                let is_case = element_begins(&element, &open, &mut case, &mut results, line)?;
                if is_case && let Some(case) = case.take() {
                    results.record(&case.name, case.outcome());
                }
                if open.is_empty() {
                    break;
                }
            }
            Event::End(_) => {
                open.pop();
                let ends = open.iter().skip(1).all(|name| name == "testsuite");
                if ends && let Some(case) = case.take() {
                    results.record(&case.name, case.outcome());
                }
                // What follows the root is not read, as in the validator.
                if open.is_empty() {
                    break;
                }
            }
            Event::Decl(declared) => {
                let utf8 = match declared.encoding() {
                    Some(Ok(name)) => name.eq_ignore_ascii_case(b"utf-8"),
                    Some(Err(_)) => false,
                    None => true,
                };
                if !utf8 {
                    return Err(unreadable(line, "the document is not declared as UTF-8"));
                }
            }
            Event::DocType(declared) if declared.contains(&b'[') => {
                return Err(Unreadable {
                    unsupported: true,
                    ..unreadable(line, "the document declares entities")
                });
            }
            Event::GeneralRef(reference) => {
                let known = reference.is_char_ref()
                    || matches!(&*reference, b"lt" | b"gt" | b"amp" | b"apos" | b"quot");
                if !known {
                    return Err(unreadable(
                        line,
                        "an entity that XML does not know stands here",
                    ));
                }
            }
            Event::Eof => return Err(unreadable(line, "the document ends too early")),
            _ => {}
        }
    }
    if results.tests.is_empty() {
        return Err(unreadable(0, "there is no `<testcase>`"));
    }
    Ok(results)
}

/// Notes what an element says; whether it is a test case.
fn element_begins(
    element: &BytesStart<'_>,
    open: &[String],
    case: &mut Option<Case>,
    results: &mut Results,
    line: u32,
) -> Result<bool, Unreadable> {
    let name = local_name(element);
    // All attributes are looked at, for one that is broken breaks the document.
    let mut values = BTreeMap::new();
    for attribute in element.attributes() {
        let broken =
            |cause: &dyn std::fmt::Display| unreadable(line, format!("this is no XML: {cause}"));
        let attribute = attribute.map_err(|error| broken(&error))?;
        let raw = String::from_utf8_lossy(&attribute.value);
        let value = quick_xml::escape::unescape(&raw).map_err(|error| broken(&error))?;
        let key = String::from_utf8_lossy(attribute.key.local_name().as_ref()).into_owned();
        values.insert(key, value.into_owned());
    }
    if let Some(case) = case {
        // Only direct children of the case tell how it ended.
        let direct = open.last().is_some_and(|parent| parent == "testcase")
            && open
                .iter()
                .skip(1)
                .rev()
                .skip(1)
                .all(|name| name == "testsuite");
        match name.as_str() {
            "failure" | "error" if direct => case.failed = true,
            "skipped" if direct => case.skipped = true,
            _ => {}
        }
        return Ok(false);
    }
    if name == "testsuite" || name == "testsuites" {
        if let Some(time) = values.get("timestamp") {
            results.saw_time(time);
        }
        return Ok(false);
    }
    let counts = name == "testcase"
        && !open.is_empty()
        && open.iter().skip(1).all(|name| name == "testsuite");
    if counts {
        let name = values.remove("name").unwrap_or_default();
        let timed = values
            .get("time")
            .is_some_and(|time| time.trim().parse::<f64>().is_ok());
        if !timed {
            results.doubt(line, format!("`{name}` has no `time`"));
        }
        *case = Some(Case {
            name,
            failed: false,
            skipped: false,
        });
    }
    Ok(counts)
}

fn local_name(element: &BytesStart<'_>) -> String {
    String::from_utf8_lossy(element.local_name().as_ref())
        .chars()
        .take(NAME_MAX)
        .collect()
}

/// Turns rising byte offsets into lines in one pass.
struct LineOf<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u32,
}

impl<'a> LineOf<'a> {
    fn new(text: &'a str) -> LineOf<'a> {
        LineOf {
            bytes: text.as_bytes(),
            at: 0,
            line: 1,
        }
    }

    fn at(&mut self, offset: u64) -> u32 {
        let offset = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.bytes.len());
        if offset > self.at {
            let breaks = self.bytes[self.at..offset]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            self.line = self
                .line
                .saturating_add(u32::try_from(breaks).unwrap_or(u32::MAX));
            self.at = offset;
        }
        self.line
    }
}

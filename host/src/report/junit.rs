//! JUnit XML: first one suite with a test for each requirement, then one suite for each probe with a test for each case.
//!
//! The same rule as for `go test` holds: a test fails only where the engine says that the platform failed, what could not be
//! told is skipped. Texts of the program are English sentences, foreign ones are harmless lines ([`Foreign::xml`]), and
//! the writer escapes all of them.

use super::go::{
    Outcome, Selection, because, case_lines, case_name, id_part, name_part, test_name, tier_line,
};
use super::model::{Attempt, Case, Probe, Report, Requirement, State};
use super::text::Foreign;
use jiff::Timestamp;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};
use std::io;

/// Longest foreign text of an attribute or a line, in characters.
const TEXT_MAX: usize = 300;

struct Test {
    class: String,
    name: String,
    outcome: Outcome,
    took_ms: u64,
    /// One line behind a failure or a skip.
    message: String,
    lines: Vec<String>,
}

struct Suite {
    name: String,
    began: Option<Timestamp>,
    took_ms: u64,
    properties: Vec<(&'static str, String)>,
    tests: Vec<Test>,
}

impl Suite {
    fn count(&self, outcome: Outcome) -> usize {
        let found = self.tests.iter().filter(|test| test.outcome == outcome);
        found.count()
    }
}

pub(super) fn render(report: &Report, selection: &Selection) -> io::Result<Vec<u8>> {
    let suites = suites(report, selection);
    let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let sum = |count: fn(&Suite) -> usize| suites.iter().map(count).sum::<usize>().to_string();
    let mut root = BytesStart::new("testsuites");
    root.push_attribute(("name", "karat"));
    root.push_attribute(("tests", sum(|suite| suite.tests.len()).as_str()));
    root.push_attribute(("failures", sum(|suite| suite.count(Outcome::Fail)).as_str()));
    root.push_attribute(("errors", "0"));
    root.push_attribute(("skipped", sum(|suite| suite.count(Outcome::Skip)).as_str()));
    root.push_attribute(("time", seconds(report.run.took_ms.unwrap_or(0)).as_str()));
    writer.write_event(Event::Start(root))?;
    for suite in &suites {
        write_suite(&mut writer, suite)?;
    }
    writer.write_event(Event::End(BytesEnd::new("testsuites")))?;
    let mut bytes = writer.into_inner();
    bytes.push(b'\n');
    Ok(bytes)
}

fn write_suite(writer: &mut Writer<Vec<u8>>, suite: &Suite) -> io::Result<()> {
    let mut element = BytesStart::new("testsuite");
    element.push_attribute(("name", suite.name.as_str()));
    element.push_attribute(("tests", suite.tests.len().to_string().as_str()));
    element.push_attribute(("failures", suite.count(Outcome::Fail).to_string().as_str()));
    element.push_attribute(("errors", "0"));
    element.push_attribute(("skipped", suite.count(Outcome::Skip).to_string().as_str()));
    element.push_attribute(("time", seconds(suite.took_ms).as_str()));
    if let Some(began) = suite.began {
        element.push_attribute(("timestamp", began.to_string().as_str()));
    }
    writer.write_event(Event::Start(element))?;
    writer.write_event(Event::Start(BytesStart::new("properties")))?;
    for (name, value) in &suite.properties {
        let mut property = BytesStart::new("property");
        property.push_attribute(("name", *name));
        property.push_attribute(("value", value.as_str()));
        writer.write_event(Event::Empty(property))?;
    }
    writer.write_event(Event::End(BytesEnd::new("properties")))?;
    for test in &suite.tests {
        write_test(writer, test)?;
    }
    writer.write_event(Event::End(BytesEnd::new("testsuite")))
}

fn write_test(writer: &mut Writer<Vec<u8>>, test: &Test) -> io::Result<()> {
    let mut element = BytesStart::new("testcase");
    element.push_attribute(("classname", test.class.as_str()));
    element.push_attribute(("name", test.name.as_str()));
    element.push_attribute(("time", seconds(test.took_ms).as_str()));
    writer.write_event(Event::Start(element))?;
    match test.outcome {
        Outcome::Pass => {}
        Outcome::Fail => {
            let mut failure = BytesStart::new("failure");
            failure.push_attribute(("message", test.message.as_str()));
            failure.push_attribute(("type", "fail"));
            writer.write_event(Event::Empty(failure))?;
        }
        Outcome::Skip => {
            let mut skipped = BytesStart::new("skipped");
            skipped.push_attribute(("message", test.message.as_str()));
            writer.write_event(Event::Empty(skipped))?;
        }
    }
    if !test.lines.is_empty() {
        let lines: Vec<String> = test
            .lines
            .iter()
            .map(|line| Foreign::new(line.as_str()).xml(usize::MAX))
            .collect();
        writer.write_event(Event::Start(BytesStart::new("system-out")))?;
        writer.write_event(Event::Text(BytesText::new(&lines.join("\n"))))?;
        writer.write_event(Event::End(BytesEnd::new("system-out")))?;
    }
    writer.write_event(Event::End(BytesEnd::new("testcase")))
}

fn suites(report: &Report, selection: &Selection) -> Vec<Suite> {
    let taken: Vec<&Requirement> = report
        .requirements
        .iter()
        .filter(|requirement| selection.takes(requirement))
        .collect();
    let mut suites = vec![requirements(report, &taken)];
    for (at, probe) in report.probes.iter().enumerate() {
        let wanted = *selection == Selection::Everything
            || taken
                .iter()
                .any(|requirement| requirement.probes.contains(&at));
        if wanted {
            suites.push(of_probe(probe));
        }
    }
    suites
}

fn requirements(report: &Report, taken: &[&Requirement]) -> Suite {
    let run = &report.run;
    let mut properties = vec![
        ("run", run.id.xml(TEXT_MAX)),
        ("server version", run.server_version.xml(TEXT_MAX)),
        ("cluster uid", run.cluster.xml(TEXT_MAX)),
        ("engine", run.engine.xml(TEXT_MAX)),
        ("run head", run.head.xml(TEXT_MAX)),
    ];
    for problem in &report.problems {
        let text = format!(
            "{}: {}",
            problem.place.xml(TEXT_MAX),
            problem.what.xml(TEXT_MAX)
        );
        properties.push(("incomplete", text));
    }
    Suite {
        name: "requirements".to_owned(),
        began: run.started.as_data().parse().ok(),
        took_ms: run.took_ms.unwrap_or(0),
        properties,
        tests: taken
            .iter()
            .map(|requirement| requirement_test(report, requirement))
            .collect(),
    }
}

fn requirement_test(report: &Report, requirement: &Requirement) -> Test {
    let probes = || {
        requirement
            .probes
            .iter()
            .filter_map(|at| report.probes.get(*at))
    };
    let mut messages = Vec::new();
    let mut lines = Vec::new();
    for probe in probes() {
        let id = probe.id.xml(TEXT_MAX);
        match probe.counting() {
            None => lines.push(format!("probe {id} was not started")),
            Some(attempt) => {
                lines.push(format!(
                    "probe {id}, attempt {}: {}",
                    attempt.attempt,
                    attempt.word()
                ));
                if let Some(before) = probe.pass_after {
                    lines.push(format!("an earlier attempt said {}", before.word()));
                }
                lines.extend(because(attempt));
                if attempt.verdict.is_some() {
                    lines.push(tier_line(attempt));
                }
                messages.push(message(attempt));
            }
        }
    }
    Test {
        class: "karat.requirements".to_owned(),
        name: test_name(&requirement.id),
        outcome: Outcome::of(requirement.state),
        took_ms: probes()
            .filter_map(Probe::counting)
            .map(|attempt| attempt.usage.wall_ms)
            .max()
            .unwrap_or(0),
        message: format!("{}: {}", requirement.state.word(), messages.join("; ")),
        lines,
    }
}

/// Why an attempt says what it says, on one line.
fn message(attempt: &Attempt) -> String {
    let mut parts = vec![attempt.word().to_owned()];
    if let Some(reason) = attempt.reason {
        parts.push(reason.to_string());
    }
    if !attempt.explanation.is_empty() {
        parts.push(attempt.explanation.xml(TEXT_MAX));
    } else if let Some(detail) = &attempt.detail {
        parts.push(detail.xml(TEXT_MAX));
    }
    parts.join(", ")
}

fn of_probe(probe: &Probe) -> Suite {
    let id = id_part(&probe.id);
    let attempt = probe.counting();
    let mut properties = vec![
        ("title", probe.title.xml(TEXT_MAX)),
        ("version", probe.version.xml(TEXT_MAX)),
        ("digest", probe.digest.xml(TEXT_MAX)),
        ("state", probe.state.word().to_owned()),
    ];
    if let Some(attempt) = attempt {
        properties.push(("attempt", attempt.attempt.to_string()));
        properties.push(("outcome", attempt.outcome.to_owned()));
        properties.push(("rules", attempt.rules.xml(TEXT_MAX)));
        if attempt.verdict.is_some() {
            properties.push(("tier", attempt.tier.to_string()));
        }
    }
    Suite {
        name: id.clone(),
        began: attempt.and_then(|attempt| attempt.started.as_data().parse().ok()),
        took_ms: attempt.map_or(0, |attempt| attempt.usage.wall_ms),
        properties,
        tests: attempt
            .into_iter()
            .flat_map(|attempt| attempt.cases.iter().map(move |case| (attempt, case)))
            .map(|(attempt, case)| case_test(&id, attempt, case))
            .collect(),
    }
}

fn case_test(probe: &str, attempt: &Attempt, case: &Case) -> Test {
    let mut name = format!("{probe}/{}", name_part(&case.id));
    if !case.subject.is_empty() {
        name.push_str(&format!("[{}]", name_part(&case.subject)));
    }
    let mut lines = Vec::new();
    case_lines(&mut lines, case);
    let mut message = format!("{}: {}", case_name(case), case.state().word());
    if case.state() == State::Fail && !case.required {
        message.push_str(", no part of the verdict");
    }
    if let Some(reason) = case.reason {
        message.push_str(&format!(", {reason}"));
    }
    if !case.explanation.is_empty() {
        message.push_str(&format!(": {}", case.explanation.xml(TEXT_MAX)));
    }
    Test {
        class: format!("karat.{probe}"),
        name,
        outcome: Outcome::of_case(case, attempt),
        took_ms: case
            .began_ms
            .zip(case.ended_ms)
            .map_or(0, |(began, ended)| ended.saturating_sub(began)),
        message,
        lines,
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

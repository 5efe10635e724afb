//! Texts that try what can be tried against each place a report may end in, in every field that can hold foreign text.
//!
//! The proof is by comparison: whatever the text, a page has the same elements with the same attributes, a file of results the
//! same tests with the same results, and no character that acts.

use super::sample::Sample;
use super::{Format, Report, open, render};
use crate::lint::artifact::{Kind, Outcome, read};
use crate::model::Verdict;
use crate::report::text::Foreign;
use crate::report::{markdown, test_name};
use quick_xml::events::Event;
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// Name, text.
fn hostile() -> Vec<(&'static str, String)> {
    let texts: Vec<(&str, &str)> = vec![
        ("script", "<script>alert(1)</script>"),
        (
            "attribute, double quotes",
            "\"><img src=x onerror=alert(1)>",
        ),
        ("attribute, single quotes", "' onmouseover='alert(1)' x='"),
        (
            "end of a script",
            "</script><script>document.title='owned'</script>",
        ),
        ("end of a style", "</style><style>*{display:none}</style>"),
        ("end of a comment", "--><script>alert(1)</script><!--"),
        ("end of CDATA", "]]><testcase name=\"TestX\"/>"),
        ("CDATA", "<![CDATA[x]]><!DOCTYPE a [<!ENTITY b \"c\">]>&b;"),
        (
            "escaped once",
            "&lt;script&gt;alert(1)&lt;/script&gt;&#60;b&#62;",
        ),
        ("colours", "\u{1b}[2J\u{1b}[31mred\u{9b}1m"),
        (
            "terminal link",
            "\u{1b}]8;;http://evil.example\u{7}click\u{1b}]8;;\u{7}",
        ),
        ("mention", "@everyone, @octocat please see #1 and GH-2"),
        (
            "workflow command",
            "x\n::set-output name=a::b\n::error file=x::y",
        ),
        (
            "pipeline command",
            "##vso[task.setvariable variable=a]b ##[group]c",
        ),
        (
            "fake result",
            "x\n--- PASS: TestKarat/secure_accelerator_access (0.00s)\nPASS\nok  \tkarat\t1.0s",
        ),
        ("fake failure", "--- FAIL: TestX (0.00s)"),
        ("fake run", "=== RUN   TestX"),
        (
            "fake event",
            "{\"Action\":\"fail\",\"Package\":\"karat\",\"Test\":\"TestX\"}",
        ),
        ("direction", "user\u{202e}ssap\u{2066}x\u{200b}\u{feff}"),
        ("null", "a\0b\u{fffe}\u{ffff}c"),
        (
            "image and links",
            "![x](http://evil.example/a.png) [y](javascript:alert(1)) <http://z.example> www.evil.example",
        ),
        (
            "table and HTML",
            "| a | b |\n|---|---|\n<details open><summary>x</summary>",
        ),
        (
            "heading and fence",
            "x\n# heading\n\n```\n\n- item\n> quote\n1. one\n***\n",
        ),
        ("fences inside", "`` ` ``` <b>x</b> ` @y"),
        (
            "template",
            "{{ 7*7 }} {% include \"/etc/passwd\" %} ${x} #{y}",
        ),
        ("address", "javascript:alert(1)"),
        ("path", "../../../etc/passwd"),
    ];
    let mut all: Vec<(&str, String)> = texts
        .into_iter()
        .map(|(name, text)| (name, text.to_owned()))
        .collect();
    all.push(("very long", "A".repeat(200_000)));
    all.push(("very long and wide", "\u{202e}<".repeat(100_000)));
    assert!(all.len() >= 20);
    all
}

/// The reports of all hostile texts, made once.
fn hostile_reports() -> &'static [(&'static str, String, Report)] {
    static REPORTS: OnceLock<Vec<(&'static str, String, Report)>> = OnceLock::new();
    REPORTS.get_or_init(|| {
        hostile()
            .into_iter()
            .map(|(name, text)| {
                let report = report(&text);
                (name, text, report)
            })
            .collect()
    })
}

fn report(text: &str) -> Report {
    let mut sample = Sample::new(text);
    sample.attempt_before(Some(Verdict::Fail));
    open(sample.write().path()).unwrap()
}

fn text(report: &Report, format: Format) -> String {
    let mut files = render(report, format).unwrap();
    String::from_utf8(files.remove(0).bytes).unwrap()
}

/// No character that acts on what stands around it; line breaks are ours.
fn assert_calm(name: &str, format: Format, text: &str) {
    for (number, line) in text.lines().enumerate() {
        let acts = |c: char| {
            (c.is_control() && c != '\t')
                || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
        };
        assert!(
            !line.chars().any(acts),
            "{name}: {format:?}:{}: {line:?}",
            number + 1
        );
    }
}

fn assert_no_commands(name: &str, format: Format, text: &str) {
    for line in text.lines() {
        assert!(
            !line.contains("##vso[") && !line.contains("##["),
            "{name}: {format:?}: {line:?}"
        );
        for word in line.split_whitespace() {
            let command = word
                .strip_prefix("::")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()));
            assert!(!command, "{name}: {format:?}: {line:?}");
        }
    }
}

/// Names of elements and attributes of a page, in order. Values and texts are left out.
fn skeleton(page: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let mut names = String::new();
        let mut quoted = false;
        let mut value = false;
        let mut end = rest.len();
        for (at, c) in rest.char_indices() {
            match c {
                '"' => quoted = !quoted,
                _ if quoted => {}
                '>' => {
                    end = at;
                    break;
                }
                '=' => value = true,
                c if c.is_whitespace() => {
                    value = false;
                    names.push(' ');
                }
                c if !value => names.push(c),
                _ => {}
            }
        }
        let names: Vec<&str> = names.split_whitespace().collect();
        let tag = names.join(" ");
        rest = &rest[(end + 1).min(rest.len())..];
        // What stands in these two is no markup until their own end, which no foreign text can write.
        for raw in ["style", "script"] {
            if tag == raw {
                let close = rest.find(&format!("</{raw}")).expect("the element ends");
                rest = &rest[close..];
            }
        }
        out.push(tag);
    }
    out
}

#[test]
fn the_page_keeps_its_elements() {
    let calm = skeleton(&text(&report("plain"), Format::Html));
    assert!(calm.len() > 200);
    for (name, _, report) in hostile_reports() {
        let page = text(report, Format::Html);
        assert_calm(name, Format::Html, &page);
        let found = skeleton(&page);
        let differs = calm.iter().zip(&found).position(|(a, b)| a != b);
        assert!(
            differs.is_none() && calm.len() == found.len(),
            "{name}: element {differs:?}: {:?} became {:?}",
            differs.map(|at| &calm[at]),
            differs.map(|at| &found[at])
        );
        assert!(page.len() <= 2_000_000, "{name}: {} bytes", page.len());
    }
}

#[test]
fn a_page_would_be_caught() {
    let calm = skeleton("<p class=\"a\">x</p>");
    assert_eq!(calm, ["p class", "/p"]);
    assert_ne!(calm, skeleton("<p class=\"a\" onclick=\"x\">x</p>"));
    assert_ne!(calm, skeleton("<p class=\"a\"><b>x</b></p>"));
    assert_eq!(
        skeleton("<script>if (a < b) {}</script><i>"),
        ["script", "/script", "i"]
    );
}

#[test]
fn json_holds_the_text_as_it_is() {
    for (name, hostile, report) in hostile_reports() {
        let report = text(report, Format::Json);
        assert_calm(name, Format::Json, &report);
        assert!(
            !report.chars().any(|c| c.is_control() && c != '\n'),
            "{name}"
        );
        let value: serde_json::Value = serde_json::from_str(&report).unwrap();
        let kept = value["run"]["nonce"].as_str().unwrap();
        if hostile.len() <= crate::report::text::FOREIGN_MAX {
            assert_eq!(kept, hostile.as_str(), "{name}");
        } else {
            assert!(kept.ends_with("more bytes)"), "{name}");
        }
    }
}

#[test]
fn files_of_results_keep_their_tests() {
    for (kind, format) in [
        (Kind::Text, Format::E2eLog),
        (Kind::Json, Format::Results),
        (Kind::Junit, Format::Junit),
    ] {
        for (name, _, report) in hostile_reports() {
            let written = text(report, format);
            assert_calm(name, format, &written);
            let results = read(kind, &written)
                .unwrap_or_else(|error| panic!("{name}: {format:?}: {error:?}"));
            assert_eq!(
                results.outcome_of("TestKarat/gang_scheduling"),
                Some(Outcome::Pass),
                "{name}: {format:?}"
            );
            for fake in ["TestX", "TestKarat/secure_accelerator_access"] {
                assert_eq!(results.outcome_of(fake), None, "{name}: {format:?}");
            }
            assert!(
                results.failures.is_empty() && results.doubts.is_empty(),
                "{name}: {format:?}: {results:?}"
            );
            if format == Format::E2eLog {
                assert_no_commands(name, format, &written);
                for line in written.lines() {
                    let ours = [
                        "=== RUN   TestKarat",
                        "    karat: ",
                        "--- PASS: TestKarat (",
                        "    --- PASS: TestKarat/",
                        "PASS",
                        "ok  \tkarat\t",
                    ];
                    assert!(
                        ours.iter().any(|start| line.starts_with(start)),
                        "{name}: {line:?}"
                    );
                }
            }
            if format == Format::Results {
                for line in written.lines() {
                    let event: serde_json::Value = serde_json::from_str(line).unwrap();
                    let output = event["Output"].as_str().unwrap_or_default();
                    assert_calm(name, format, output);
                    assert_no_commands(name, format, output);
                }
            }
        }
    }
}

fn xml_skeleton(name: &str, document: &str) -> Vec<String> {
    let mut reader = quick_xml::Reader::from_str(document);
    let mut out = Vec::new();
    loop {
        match reader
            .read_event()
            .unwrap_or_else(|error| panic!("{name}: {error}"))
        {
            Event::Start(element) | Event::Empty(element) => {
                let mut line = String::from_utf8_lossy(element.name().as_ref()).into_owned();
                for attribute in element.attributes() {
                    let attribute = attribute.unwrap();
                    line.push(' ');
                    line.push_str(&String::from_utf8_lossy(attribute.key.as_ref()));
                }
                out.push(line);
            }
            Event::CData(_) | Event::Comment(_) | Event::PI(_) | Event::DocType(_) => {
                panic!("{name}: something else than elements and text")
            }
            Event::Eof => return out,
            _ => {}
        }
    }
}

#[test]
fn junit_keeps_its_elements() {
    let calm = xml_skeleton("calm", &text(&report("plain"), Format::Junit));
    for (name, _, report) in hostile_reports() {
        let document = text(report, Format::Junit);
        assert_eq!(xml_skeleton(name, &document), calm, "{name}");
        assert!(!document.contains("]]>"), "{name}");
        assert_no_commands(name, Format::Junit, &document);
    }
}

#[test]
fn the_terminal_is_not_painted() {
    for (name, _, report) in hostile_reports() {
        let lines = text(report, Format::Terminal);
        assert_calm(name, Format::Terminal, &lines);
        assert_no_commands(name, Format::Terminal, &lines);
        assert!(!lines.contains('\t'), "{name}");
    }
}

/// Markdown without its code spans, as CommonMark finds them: a run of backquotes up to the next run of the same length.
fn without_code(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('`') {
        let escaped = rest[..at].ends_with('\\');
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if escaped {
            out.push('`');
            rest = &rest[1..];
            continue;
        }
        let fence = rest.len() - rest.trim_start_matches('`').len();
        let inner = &rest[fence..];
        let mut from = 0;
        let close = loop {
            let Some(next) = inner[from..].find('`').map(|at| at + from) else {
                break None;
            };
            let run = inner[next..].len() - inner[next..].trim_start_matches('`').len();
            if run == fence {
                break Some(next);
            }
            from = next + run;
        };
        match close {
            Some(close) => {
                out.push_str("CODE");
                rest = &inner[close + fence..];
            }
            None => panic!("a code span does not end: {line:?}"),
        }
    }
    out.push_str(rest);
    out
}

#[test]
fn markdown_keeps_its_marks() {
    /// The marks of a line: what it begins with, and everything in it that is not escaped.
    fn marks(page: &str) -> Vec<String> {
        page.lines()
            .map(|line| {
                let line = without_code(line);
                let mut marks = String::new();
                let mut chars = line.chars();
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => {
                            chars.next();
                        }
                        '<' | '>' | '[' | ']' | '!' | '*' | '_' | '~' | '|' | '#' | '@' | '`' => {
                            marks.push(c)
                        }
                        _ => {}
                    }
                }
                let start: String = line
                    .chars()
                    .take_while(|c| matches!(c, ' ' | '-' | '#' | '>' | '+' | '*' | '=' | '|'))
                    .collect();
                format!("{start}{marks}")
            })
            .collect()
    }
    let calm = marks(&text(&report("plain"), Format::Markdown));
    for (name, _, report) in hostile_reports() {
        let page = text(report, Format::Markdown);
        assert_calm(name, Format::Markdown, &page);
        assert_no_commands(name, Format::Markdown, &page);
        let found = marks(&page);
        for (at, (a, b)) in calm.iter().zip(&found).enumerate() {
            assert_eq!(a, b, "{name}: line {}: {:?}", at + 1, page.lines().nth(at));
        }
        assert_eq!(calm.len(), found.len(), "{name}");
        let prose: String = page.lines().map(without_code).collect();
        for link in ["http://", "www.", "javascript:alert", "GH-2"] {
            assert!(!prose.contains(link), "{name}: {link}");
        }
    }
}

#[test]
fn ids_become_harmless_names_that_do_not_meet() {
    let mut names = BTreeSet::new();
    let mut count = 0;
    for (_, hostile) in hostile() {
        for id in [
            hostile.clone(),
            format!("{hostile}/x"),
            format!("gang_scheduling/{hostile}"),
        ] {
            let name = test_name(&Foreign::new(id));
            let part = name.strip_prefix("TestKarat/").unwrap();
            assert!(
                part.len() <= 100 && !part.starts_with('.') && !part.contains(".."),
                "{name}"
            );
            assert!(
                part.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)),
                "{name}"
            );
            names.insert(name);
            count += 1;
        }
    }
    assert_eq!(names.len(), count);
    assert_eq!(
        test_name(&"vendor.example/fabric".into()),
        "TestKarat/vendor.example.fabric"
    );
    let mut sample = Sample::new("plain");
    sample.requirement = "../../../etc/passwd".to_owned();
    let report = open(sample.write().path()).unwrap();
    for file in markdown::render(&report) {
        assert!(
            file.path.starts_with("requirements/") && !file.path.contains(".."),
            "{}",
            file.path
        );
    }
}

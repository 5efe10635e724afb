//! What is written for the programme is read back as its validator reads it, with the right state; and the page keeps its
//! promises about itself.

use super::sample::Sample;
use super::{Format, Report, Selection, open, render, render_results};
use crate::lint::artifact::{Kind, Outcome as Read, read};
use crate::model::{Outcome, Reason, Verdict};
use sha2::{Digest as _, Sha256};

const RESULTS: [(Kind, Format); 3] = [
    (Kind::Text, Format::E2eLog),
    (Kind::Json, Format::Results),
    (Kind::Junit, Format::Junit),
];

fn text(report: &Report, format: Format) -> String {
    let mut files = render(report, format).unwrap();
    assert_eq!(Some(files[0].path.as_str()), format.file_name());
    String::from_utf8(files.remove(0).bytes).unwrap()
}

#[test]
fn every_state_is_read_back() {
    let told = Outcome::Concluded;
    for (verdict, reason, outcome, expected) in [
        (Some(Verdict::Pass), None, told.clone(), Read::Pass),
        (Some(Verdict::Fail), None, told.clone(), Read::Fail),
        (
            Some(Verdict::Unknown),
            Some(Reason::Gap),
            told.clone(),
            Read::Skip,
        ),
        (Some(Verdict::NotApplicable), None, told, Read::Skip),
        (
            None,
            None,
            Outcome::Denied("no grant".to_owned()),
            Read::Skip,
        ),
        (
            None,
            None,
            Outcome::OverBudget("wall".to_owned()),
            Read::Skip,
        ),
        (None, None, Outcome::Trapped("stack".to_owned()), Read::Skip),
        // A probe that broke after it had failed a case says nothing about the platform.
        (Some(Verdict::Fail), None, Outcome::Interrupted, Read::Skip),
    ] {
        let mut sample = Sample::new("plain");
        (sample.verdict, sample.reason, sample.outcome) = (verdict, reason, outcome.clone());
        let report = open(sample.write().path()).unwrap();
        for (kind, format) in RESULTS {
            let results = read(kind, &text(&report, format)).unwrap();
            let found = results.outcome_of("TestKarat/gang_scheduling");
            assert_eq!(found, Some(expected), "{verdict:?} {outcome:?} {format:?}");
            assert!(
                results.doubts.is_empty(),
                "{format:?}: {:?}",
                results.doubts
            );
            assert_eq!(
                results.failures.is_empty(),
                expected != Read::Fail,
                "{format:?}: {:?}",
                results.failures
            );
            let other = results.outcome_of("TestKarat/vendor.example.other");
            assert_eq!(other, Some(Read::Pass), "{format:?}");
            if format != Format::E2eLog {
                assert!(results.latest.is_some(), "{format:?} says when it was made");
            }
        }
    }
}

#[test]
fn a_failed_case_that_is_no_part_of_the_verdict_fails_no_test() {
    let mut sample = Sample::new("plain");
    sample.optional = Verdict::Fail;
    let report = open(sample.write().path()).unwrap();
    for (kind, format) in RESULTS {
        let written = text(&report, format);
        let results = read(kind, &written).unwrap();
        assert!(
            results.failures.is_empty(),
            "{format:?}: {:?}",
            results.failures
        );
        assert!(written.contains("no part of the verdict"), "{format:?}");
    }
}

#[test]
fn junit_has_a_test_for_each_case_and_each_requirement() {
    let mut sample = Sample::new("plain");
    sample.verdict = Some(Verdict::Fail);
    let report = open(sample.write().path()).unwrap();
    let results = read(Kind::Junit, &text(&report, Format::Junit)).unwrap();
    for (name, expected) in [
        ("TestKarat/gang_scheduling", Read::Fail),
        ("TestKarat/vendor.example.other", Read::Pass),
        ("gang-scheduling/there[plain]", Read::Pass),
        ("gang-scheduling/works", Read::Fail),
        ("gang-scheduling/none-starts", Read::Pass),
        ("vendor.example.other/works", Read::Pass),
    ] {
        assert_eq!(results.outcome_of(name), Some(expected), "{name}");
    }
}

#[test]
fn results_can_hold_some_requirements_only() {
    let mut sample = Sample::new("plain");
    sample.verdict = Some(Verdict::Fail);
    let report = open(sample.write().path()).unwrap();
    let only = Selection::Requirements(["vendor.example/other".to_owned()].into());
    for (kind, format) in RESULTS {
        let bytes = render_results(&report, format, &only).unwrap().unwrap();
        let results = read(kind, &String::from_utf8(bytes).unwrap()).unwrap();
        assert!(
            results.failures.is_empty(),
            "{format:?}: {:?}",
            results.failures
        );
        assert_eq!(
            results.outcome_of("TestKarat/gang_scheduling"),
            None,
            "{format:?}"
        );
        assert_eq!(
            results.outcome_of("TestKarat/vendor.example.other"),
            Some(Read::Pass),
            "{format:?}"
        );
    }
    assert_eq!(render_results(&report, Format::Html, &only).unwrap(), None);
    let none = Selection::Requirements(Default::default());
    let bytes = render_results(&report, Format::E2eLog, &none)
        .unwrap()
        .unwrap();
    assert!(
        String::from_utf8(bytes)
            .unwrap()
            .contains("--- SKIP: TestKarat (")
    );
}

fn digest(text: &str) -> String {
    use base64::Engine as _;
    let digest = Sha256::digest(text.as_bytes());
    format!(
        "'sha256-{}'",
        base64::engine::general_purpose::STANDARD.encode(digest)
    )
}

fn between<'a>(page: &'a str, open: &str, close: &str) -> &'a str {
    let start = page.find(open).unwrap() + open.len();
    &page[start..start + page[start..].find(close).unwrap()]
}

#[test]
fn the_page_runs_only_what_its_policy_names() {
    let page = text(
        &open(Sample::new("plain").write().path()).unwrap(),
        Format::Html,
    );
    let policy = between(&page, "Content-Security-Policy\" content=\"", "\"").replace("&#39;", "'");
    for part in [
        "default-src 'none'".to_owned(),
        format!(
            "style-src {};",
            digest(between(&page, "<style>", "</style>"))
        ),
        format!(
            "script-src {};",
            digest(between(&page, "<script>", "</script>"))
        ),
        "base-uri 'none'".to_owned(),
        "form-action 'none'".to_owned(),
    ] {
        assert!(policy.contains(&part), "{part} is not in {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"));
    assert_eq!(page.matches("<style").count(), 1);
    assert_eq!(page.matches("<script").count(), 1);
    // The policy comes before everything that it is about.
    assert!(page.find("Content-Security-Policy").unwrap() < page.find("<style").unwrap());
}

#[test]
fn the_page_reaches_nothing_and_can_be_used_by_all() {
    let page = text(
        &open(Sample::new("plain").write().path()).unwrap(),
        Format::Html,
    );
    for word in [
        " style=\"",
        " src=\"",
        "@import",
        "url(http",
        " onclick",
        "<iframe",
        "<img",
        "<link",
        "http://",
        "https://",
    ] {
        assert!(!page.contains(word), "{word}");
    }
    for (at, _) in page.match_indices("href=\"") {
        assert!(page[at + 6..].starts_with('#'), "{}", &page[at..at + 40]);
    }
    for word in [
        "<html lang=\"en\"",
        "<main",
        "<nav",
        "<header",
        "<footer",
        "class=\"skip\"",
        "name=\"viewport\"",
        "aria-live",
    ] {
        assert!(page.contains(word), "{word}");
    }
    let ids: Vec<&str> = page
        .match_indices(" id=\"")
        .map(|(at, _)| between(&page[at..], " id=\"", "\""))
        .collect();
    let unique: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len(), "ids are unique");
    for (at, _) in page.match_indices("href=\"#") {
        let target = between(&page[at..], "href=\"#", "\"");
        assert!(unique.contains(target), "#{target} leads nowhere");
    }
}

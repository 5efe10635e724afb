//! Every format says what the run says, whatever text stands in it, and a damaged folder is told and not hidden.

mod formats;
mod hostile;
mod sample;
mod schema;

use super::model::State;
use super::*;
use crate::model::{Outcome, Reason, Verdict};
use sample::Sample;
use std::fs;

fn text(report: &Report, format: Format) -> String {
    let files = render(report, format).unwrap();
    let texts: Vec<String> = files
        .into_iter()
        .map(|file| String::from_utf8(file.bytes).unwrap())
        .collect();
    texts.join("\n")
}

#[test]
fn the_same_folder_gives_the_same_bytes() {
    let folder = Sample::new("plain").write();
    let (one, two) = (open(folder.path()).unwrap(), open(folder.path()).unwrap());
    for format in Format::ALL {
        assert_eq!(render(&one, format).unwrap(), render(&two, format).unwrap());
    }
}

#[test]
fn a_whole_folder_has_no_problems() {
    let report = open(Sample::new("plain").write().path()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.checklist.as_deref(), Some("1.37"));
    let gang = &report
        .requirements
        .iter()
        .find(|r| r.id.as_data() == "gang_scheduling");
    let gang = gang.unwrap();
    assert_eq!(
        (gang.state, gang.level, gang.kar),
        (State::Pass, Some("MUST"), Some(53))
    );
    assert_eq!(report.summary.must.run(), 1);
    assert_eq!(report.summary.must.all(), 8);
    let attempt = report.probes[0].counting().unwrap();
    let case = &attempt.cases[0];
    assert_eq!((case.began_ms, case.ended_ms), (Some(10), Some(40)));
    assert_eq!(case.claim.as_ref().unwrap().as_data(), "the thing is there");
    let facts = case.facts.as_ref().unwrap();
    assert_eq!(
        (facts.live, facts.refused, facts.errors[0].code),
        (2, 0, 403)
    );
    assert_eq!(facts.objects[0].phases.len(), 1);
    let lease = &attempt.leases[0];
    assert_eq!((lease.waited_ms(), lease.granted), (150, true));
    assert_eq!(lease.released_ms, 400);
}

#[test]
fn who_held_what_was_waited_for_is_found() {
    let report = open(Sample::new("plain").write().path()).unwrap();
    // The second probe holds the same node from its own start until it ends.
    assert_eq!(report.probes[0].counting().unwrap().leases[0].after, [1]);
    let page = text(&report, Format::Html);
    assert!(
        page.contains("waited 150 ms for units (1 node), held meanwhile by vendor.example/other")
    );
}

#[test]
fn a_pass_after_a_fail_is_shown_as_such() {
    let mut sample = Sample::new("plain");
    sample.attempt_before(Some(Verdict::Fail));
    let report = open(sample.write().path()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let probe = &report.probes[0];
    assert_eq!(
        (probe.state, probe.pass_after),
        (State::Pass, Some(State::Fail))
    );
    assert!(probe.attempts[1].counts && !probe.attempts[0].counts);
    for (format, said) in [
        (Format::Html, "passed after fail"),
        (
            Format::Markdown,
            "passed only after an attempt that said fail",
        ),
        (Format::E2eLog, "after an attempt that said fail"),
        (Format::Junit, "an earlier attempt said fail"),
        (Format::Terminal, "2 of 2, after fail"),
        (Format::Json, "\"pass_after\": \"fail\""),
    ] {
        assert!(text(&report, format).contains(said), "{format:?}");
    }
}

#[test]
fn what_is_missing_or_damaged_is_told() {
    fn first(folder: &std::path::Path) -> std::path::PathBuf {
        folder.join("probes/gang-scheduling/attempt-1")
    }
    type Harm = fn(&std::path::Path);
    let harms: [(&str, Harm, &str); 7] = [
        (
            "component gone",
            |at| fs::remove_dir_all(at.join("components")).unwrap(),
            "its component is not in the folder",
        ),
        (
            "component changed",
            |at| {
                for entry in fs::read_dir(at.join("components")).unwrap() {
                    fs::write(entry.unwrap().path(), "\0asm").unwrap();
                }
            },
            "has other bytes than its name says",
        ),
        (
            "recording gone",
            |at| fs::remove_dir_all(first(at)).unwrap(),
            "its conversation cannot be shown",
        ),
        (
            "recording cut",
            |at| {
                let path = first(at).join("recording.jsonl.zst");
                let bytes = fs::read(&path).unwrap();
                fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            },
            "its conversation cannot be shown",
        ),
        (
            "an answer changed",
            |at| {
                let blob = fs::read_dir(first(at).join("blobs"))
                    .unwrap()
                    .next()
                    .unwrap()
                    .unwrap()
                    .path();
                fs::write(blob, "other").unwrap();
            },
            "its conversation cannot be shown",
        ),
        (
            "answers withheld",
            |at| {
                let blob = fs::read_dir(first(at).join("blobs"))
                    .unwrap()
                    .next()
                    .unwrap()
                    .unwrap()
                    .path();
                fs::remove_file(blob).unwrap();
            },
            "1 answers are not in this copy",
        ),
        (
            "a link",
            |at| {
                let away = at.join("away");
                fs::rename(first(at), &away).unwrap();
                std::os::unix::fs::symlink(&away, first(at)).unwrap();
            },
            "none is followed",
        ),
    ];
    for (name, harm, said) in harms {
        let folder = Sample::new("plain").write();
        harm(folder.path());
        let report = open(folder.path()).unwrap();
        assert!(
            report
                .problems
                .iter()
                .any(|problem| problem.what.as_data().contains(said)),
            "{name}: {:?}",
            report.problems
        );
        // The verdict is told all the same, and every format that people read says that something is missing.
        assert_eq!(report.probes[0].state, State::Pass, "{name}");
        for format in [
            Format::Html,
            Format::Markdown,
            Format::E2eLog,
            Format::Junit,
            Format::Terminal,
        ] {
            assert!(
                text(&report, format).to_lowercase().contains("incomplete"),
                "{name}: {format:?}"
            );
        }
    }
}

#[test]
fn a_killed_run_is_told_as_far_as_it_came() {
    let mut sample = Sample::new("plain");
    sample.killed = true;
    let report = open(sample.write().path()).unwrap();
    let said = |text: &str| {
        report
            .problems
            .iter()
            .any(|problem| problem.what.as_data().contains(text))
    };
    assert!(
        said("did not come to its end") && said("has no end"),
        "{:?}",
        report.problems
    );
    let conversation = report.probes[0]
        .counting()
        .unwrap()
        .conversation
        .as_ref()
        .unwrap();
    assert!(!conversation.calls.is_empty() && !conversation.finished);
}

#[test]
fn a_folder_without_a_record_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        open(folder.path()),
        Err(crate::runfolder::FolderError::NoRun { .. })
    ));
}

#[test]
fn a_version_without_a_checklist_has_no_levels() {
    let mut sample = Sample::new("plain");
    sample.server_version = "v1.99.0".to_owned();
    let report = open(sample.write().path()).unwrap();
    assert_eq!(report.checklist, None);
    assert_eq!(
        (report.summary.must.all(), report.summary.should.all()),
        (0, 0)
    );
    assert!(
        report
            .requirements
            .iter()
            .all(|requirement| requirement.level.is_none())
    );
    assert!(text(&report, Format::Html).contains("There is no checklist for this version"));
}

#[test]
fn a_large_folder_gives_a_page_of_bounded_size() {
    let mut sample = Sample::new("plain");
    sample.filler = 3_000;
    let report = open(sample.write().path()).unwrap();
    let page = text(&report, Format::Html);
    assert!(page.len() <= 2_000_000, "{}", page.len());
    assert!(page.contains("plain"));
}

#[test]
fn too_much_text_is_cut_and_told() {
    let mut record = Sample::new("plain").record();
    let attempt = record.probes[0].attempts[0].clone();
    for number in 0..40 {
        let mut probe = record.probes[0].clone();
        probe.probe = format!("p{number}");
        probe.attempts = vec![attempt.clone()];
        probe.attempts[0].recording = None;
        probe.attempts[0].judgement.cases = vec![probe.attempts[0].judgement.cases[0].clone(); 50];
        for case in &mut probe.attempts[0].judgement.cases {
            case.explanation = "x".repeat(20_000);
        }
        record.probes.push(probe);
    }
    let folder = tempfile::tempdir().unwrap();
    let report = open::of_record(folder.path(), &record);
    let said = |text: &str| {
        report
            .problems
            .iter()
            .any(|problem| problem.what.as_data().contains(text))
    };
    assert!(said("more text than a report takes"));
    assert!(text(&report, Format::Json).len() < 80 << 20);
}

#[test]
fn what_could_not_be_told_says_why_and_what_to_do() {
    let mut sample = Sample::new("plain");
    sample.verdict = Some(Verdict::Unknown);
    sample.reason = Some(Reason::InsufficientCapacity);
    let report = open(sample.write().path()).unwrap();
    let (meaning, todo) = Reason::InsufficientCapacity.meaning();
    for format in [Format::Html, Format::Json, Format::Markdown, Format::E2eLog] {
        let said = text(&report, format);
        assert!(said.contains(meaning) && said.contains(todo), "{format:?}");
    }
    let mut sample = Sample::new("plain");
    sample.verdict = None;
    sample.outcome = Outcome::Trapped("call stack exhausted".to_owned());
    let report = open(sample.write().path()).unwrap();
    assert_eq!(report.probes[0].state, State::Unknown);
    let page = text(&report, Format::Html);
    assert!(page.contains(">trapped<") && page.contains("call stack exhausted"));
}

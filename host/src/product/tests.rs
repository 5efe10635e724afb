//! Folders for all five versions of the form, and what becomes of a person's words. The forms are invented, in the shape of
//! the official ones.

use super::*;
use crate::catalog::{self, VERSIONS};
use crate::form::read_form;
use crate::lint::{Verdict as Lint, lint};
use crate::model::*;
use crate::replay::Depth;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A form in the shape of the official ones, with their kinds of comments.
pub(crate) fn form(version: &str) -> String {
    let mut out = format!(
        "# Checklist - v{version}\n# Participants fill in 'status', 'evidence' and 'notes'.\n#\n#     - \"file://results/junit.xml#TestX\"\n\n\
         metadata:\n  kubernetesVersion: v{version}\n  platformName: \"[Platform Name]\"\n  platformVersion: \"[Platform Version]\"\n  \
         vendorName: \"[Vendor Name]\"\n  websiteUrl: \"[Website URL]\"\n  repoUrl: \"[Repository URL]\"\n  documentationUrl: \"[Documentation URL]\"\n  \
         productLogoUrl: \"[Documentation URL]\"\n  description: \"[Description]\"\n  contactEmailAddress: \"[Contact Email Address]\"\n\nspec:\n"
    );
    let mut category = "";
    let mut first = true;
    for requirement in catalog::REQUIREMENTS {
        let level = requirement.level(version).unwrap();
        if level == Level::Absent {
            continue;
        }
        if category != requirement.category.key() {
            category = requirement.category.key();
            writeln!(out, "  {category}:").unwrap();
        }
        let (a, b, c) = match first {
            true => (
                "   # Implemented, Not Implemented, Partially Implemented, N/A",
                " # List of URLs",
                "    # Must be given for N/A",
            ),
            false => ("", "", ""),
        };
        first = false;
        write!(
            out,
            "    - id: {id}\n      description: \"Invented: text of {id} (e.g. \\\"quoted\\\").\"\n      level: {level}\n      status: \"\"{a}\n      \
             evidence: []{b}\n      notes: \"\"{c}\n",
            id = requirement.id
        )
        .unwrap();
    }
    out
}

const PLATFORM: &str = r#"
[platform]
platformName = "Acme AI"
platformVersion = "7.1"
vendorName = "Acme Inc."
websiteUrl = "https://acme.example"
repoUrl = ""
documentationUrl = "https://acme.example/docs"
productLogoUrl = "https://acme.example/logo.svg"
description = "A platform: \"good\" # for AI"
contactEmailAddress = "ai@acme.example"
k8sConformanceUrl = "https://github.com/cncf/k8s-conformance/tree/master/v1.36/acme"
"#;

const DECLARATION: &str = "\n[[declaration]]\nrequirements = [\"*\"]\ntext = \"Run on [three] nodes with two H100 each.\"\nby = \"Jane Doe\"\n";

pub(crate) fn platform(declares: bool) -> Platform {
    let text = format!("{PLATFORM}{}", if declares { DECLARATION } else { "" });
    Platform::parse(&text, "karat.toml").unwrap()
}

/// A probe of one attempt for a requirement.
pub(crate) fn probe(requirement: &str, verdict: Option<Verdict>, tier: Tier) -> ProbeRecord {
    let outcome = match verdict {
        Some(_) => Outcome::Concluded,
        None => Outcome::Trapped("out of [stack] <b>".to_owned()),
    };
    let case = CaseResult {
        case: CaseKey {
            id: "works".to_owned(),
            subject: "node | `a`".to_owned(),
        },
        required: true,
        concluded: Some(Conclusion::Pass),
        verdict: verdict.unwrap_or(Verdict::Unknown),
        reason: None,
        explanation: String::new(),
        observations: vec![Observation {
            name: "answer".to_owned(),
            value: "<script>@everyone\n# x".to_owned(),
            from_answer: true,
        }],
        calls: vec![1, 2],
    };
    ProbeRecord {
        probe: requirement.replace('_', "-"),
        version: "0.1.0".to_owned(),
        title: "A title".to_owned(),
        requirements: vec![requirement.to_owned()],
        digest: format!("sha256:{}", "ab".repeat(32)),
        contract: "0.1.0-dev.1".to_owned(),
        attempts: vec![AttemptRecord {
            attempt: 1,
            started: "2026-11-20T10:00:00Z".to_owned(),
            outcome,
            judgement: Judgement {
                verdict,
                reason: (verdict == Some(Verdict::Unknown)).then_some(Reason::NoAccelerator),
                explanation: match verdict {
                    Some(Verdict::Pass) => String::new(),
                    _ => "the server said: [karat: Implemented] ![x](https://evil.example)"
                        .to_owned(),
                },
                tier,
                tier_because: vec!["kwok node a".to_owned()],
                cases: vec![case],
                rules: crate::judge::RULES.to_owned(),
            },
            usage: Usage::default(),
            recording: Some("probes/x/attempt-1".to_owned()),
            head: Some("cd".repeat(32)),
            folded: Some(1),
            left_behind: Vec::new(),
        }],
    }
}

/// A run that was computed again as a whole.
pub(crate) fn run(version: &str, probes: Vec<ProbeRecord>) -> Recomputed {
    let attempts = probes.iter().flat_map(|probe| {
        probe.attempts.iter().map(|attempt| RecomputedAttempt {
            probe: probe.probe.clone(),
            attempt: attempt.attempt,
            depth: Depth::Full,
            differences: Vec::new(),
        })
    });
    Recomputed {
        attempts: attempts.collect(),
        known: probes.iter().map(|probe| probe.digest.clone()).collect(),
        statements: Vec::new(),
        record: RunRecord {
            format: "1.0".to_owned(),
            run: "k7f2mq3a".to_owned(),
            salt: "00".repeat(16),
            nonce: None,
            engine: "0.1.0-dev".to_owned(),
            plan: "ab".repeat(32),
            started: "2026-11-20T10:00:00Z".to_owned(),
            ended: Some("2026-11-20T10:05:00Z".to_owned()),
            cluster: ClusterRecord {
                uid: "11111111-1111-4111-8111-111111111111".to_owned(),
                server_version: format!("v{version}.2-acme.1"),
            },
            reach: Reach::ClusterObjects,
            head: "ef".repeat(32),
            probes,
            leases: None,
            redacted: Vec::new(),
        },
    }
}

fn artefacts(version: &str, names: &[String], failing: &[&str]) -> Vec<(String, Vec<u8>)> {
    let mut log = format!("server version: v{version}.2\n");
    let mut json = String::new();
    let mut xml = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n <testsuite name=\"karat\" timestamp=\"2026-11-20T10:00:00Z\">\n",
    );
    for name in names {
        let test = format!("Karat/{name}");
        let (word, action, body) = match failing.contains(&name.as_str()) {
            true => ("FAIL", "fail", "<failure message=\"x\"/>"),
            false => ("PASS", "pass", ""),
        };
        writeln!(log, "=== RUN   {test}\n--- {word}: {test} (1.00s)").unwrap();
        writeln!(json, "{{\"Time\":\"2026-11-20T10:00:00Z\",\"Action\":\"run\",\"Package\":\"karat\",\"Test\":\"{test}\"}}").unwrap();
        writeln!(json, "{{\"Time\":\"2026-11-20T10:00:01Z\",\"Action\":\"{action}\",\"Package\":\"karat\",\"Test\":\"{test}\",\"Elapsed\":1}}").unwrap();
        writeln!(
            xml,
            "  <testcase name=\"{test}\" time=\"1\">{body}</testcase>"
        )
        .unwrap();
    }
    writeln!(log, "{}", if failing.is_empty() { "PASS" } else { "FAIL" }).unwrap();
    xml.push_str(" </testsuite>\n</testsuites>\n");
    vec![
        ("e2e.log".to_owned(), log.into_bytes()),
        ("results.json".to_owned(), json.into_bytes()),
        ("junit.xml".to_owned(), xml.into_bytes()),
    ]
}

fn make(
    version: &str,
    platform: &Platform,
    run: &Recomputed,
    existing: &Existing,
) -> Result<Folder, ProductError> {
    let text = form(version);
    let draft = draft(Input {
        form_name: "form.yaml",
        form_text: &text,
        platform,
        run,
        existing,
    })?;
    let names: Vec<String> = draft.submitted().iter().cloned().collect();
    let failing: Vec<&str> = run
        .record
        .probes
        .iter()
        .filter(|probe| probe.attempts.last().unwrap().judgement.verdict == Some(Verdict::Fail))
        .map(|probe| probe.requirements[0].as_str())
        .collect();
    let failing: Vec<&str> = failing
        .into_iter()
        .filter(|name| names.iter().any(|known| known == name))
        .collect();
    let tests = names
        .iter()
        .map(|name| (name.clone(), format!("Karat/{name}")))
        .collect();
    let files = match names.is_empty() {
        true => Vec::new(),
        false => artefacts(version, &names, &failing),
    };
    draft.finish(&files, &tests)
}

/// Makes and writes a folder, over what is there.
fn write(
    path: &Path,
    version: &str,
    platform: &Platform,
    run: &Recomputed,
) -> Result<Folder, ProductError> {
    let existing = Existing::read(path)?;
    let folder = make(version, platform, run, &existing)?;
    folder.write(path, &existing)?;
    Ok(folder)
}

fn all(version: &str, verdict: Verdict, tier: Tier) -> Recomputed {
    let of_version = catalog::REQUIREMENTS
        .iter()
        .filter(|requirement| requirement.level(version) != Some(Level::Absent));
    run(
        version,
        of_version
            .map(|requirement| probe(requirement.id, Some(verdict), tier))
            .collect(),
    )
}

fn entry<'a>(list: &'a Checklist, id: &str) -> &'a form::Entry {
    list.entries
        .iter()
        .find(|entry| entry.id.text == id)
        .unwrap()
}

fn product(folder: &Folder) -> Checklist {
    let text = std::str::from_utf8(&folder.files[PRODUCT]).unwrap();
    form::read_product(PRODUCT, text).unwrap()
}

fn says<'a>(folder: &'a Folder, kind: NoteKind, subject: &str) -> Vec<&'a str> {
    folder
        .notes
        .iter()
        .filter(|note| note.kind == kind && note.subject == subject)
        .map(|note| note.text.as_str())
        .collect()
}

#[test]
fn everything_shown_and_supplied_passes_the_lint_in_every_version() {
    for version in VERSIONS {
        for tier in [Tier::Hardware, Tier::Unmarked] {
            let home = tempfile::tempdir().unwrap();
            let path = home.path().join(format!("v{version}/acme"));
            let folder = write(
                &path,
                version,
                &platform(true),
                &all(version, Verdict::Pass, tier),
            )
            .unwrap();
            let wanted = read_form("form.yaml", &form(version)).unwrap();
            let report = lint(&path, Some(&wanted)).unwrap();
            assert_eq!(report.errors(), 0, "{version}: {:#?}", report.findings);
            assert_eq!(report.verdict, Lint::Accepts);
            assert!(folder.notes.is_empty(), "{:?}", folder.notes);
            let made = fs::read_to_string(path.join(PRODUCT)).unwrap();
            // Everything but metadata and the three fields of each entry is the form's, line by line.
            let ours = |line: &&str| {
                let line = line.trim_start();
                !["status:", "evidence:", "notes:", "k8sConformanceUrl:"]
                    .iter()
                    .any(|key| line.starts_with(key))
            };
            let official = form(version);
            let official: Vec<&str> = official.lines().filter(ours).collect();
            let lines: Vec<&str> = made.lines().filter(ours).collect();
            let (begin, end) = (7, 16);
            assert_eq!(lines[..begin], official[..begin]);
            assert_eq!(lines[end..], official[end..]);
            for comment in [
                "   # Implemented, Not",
                "] # List of URLs",
                "\"    # Must be given",
            ] {
                assert!(made.contains(comment), "{comment}\n{made}");
            }
            let list = product(&folder);
            let evidence: Vec<&str> = entry(&list, "ai_inference")
                .evidence
                .iter()
                .map(|text| text.text.as_str())
                .collect();
            assert_eq!(
                evidence,
                [
                    "karat/ai_inference.md",
                    "karat/e2e.log",
                    "karat/results.json",
                    "karat/junit.xml"
                ]
            );
            // In an artefact the validator would look for a test of its own name here.
            let gang = entry(&list, "gang_scheduling");
            assert_eq!(gang.evidence.len(), 1);
            assert!(
                gang.notes
                    .text
                    .contains("test Karat/gang_scheduling in karat/e2e.log")
            );
            assert!(!made.contains("file://") || made.matches("file://").count() == 1);
            let declared = "Jane Doe declares: 'Run on (three) nodes with two H100 each'";
            assert_eq!(gang.notes.text.contains(declared), tier == Tier::Unmarked);
            let readme = fs::read_to_string(path.join(README)).unwrap();
            for needed in [
                "k7f2mq3a",
                &"ef".repeat(32),
                &"ab".repeat(32),
                &format!("v{version}.2-acme.1"),
            ] {
                assert!(readme.contains(needed), "{needed}\n{readme}");
            }
        }
    }
}

#[test]
fn a_second_time_changes_nothing() {
    for version in VERSIONS {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("acme");
        let run = all(version, Verdict::Pass, Tier::Hardware);
        let first = write(&path, version, &platform(false), &run).unwrap();
        let second = write(&path, version, &platform(false), &run).unwrap();
        assert_eq!(first.files, second.files);
        assert!(second.notes.is_empty(), "{:?}", second.notes);
    }
}

#[test]
fn only_what_was_shown_is_implemented() {
    use Verdict::{Fail, NotApplicable, Pass, Unknown};
    // Verdict, tier, declared, status on a MUST and on a SHOULD.
    let table = [
        (Some(Pass), Tier::Hardware, false, "Implemented"),
        (Some(Pass), Tier::Unmarked, true, "Implemented"),
        (Some(Pass), Tier::Unmarked, false, ""),
        (Some(Pass), Tier::Simulated, false, ""),
        (Some(Pass), Tier::Simulated, true, ""),
        (Some(Unknown), Tier::Hardware, true, ""),
        (None, Tier::Hardware, true, ""),
        (Some(Fail), Tier::Hardware, true, "Not Implemented"),
        (Some(Fail), Tier::Simulated, true, "Not Implemented"),
        (Some(NotApplicable), Tier::Hardware, false, "N/A"),
        (Some(NotApplicable), Tier::Unmarked, true, "N/A"),
        (Some(NotApplicable), Tier::Unmarked, false, ""),
        (Some(NotApplicable), Tier::Simulated, true, ""),
    ];
    for (verdict, tier, declared, status) in table {
        for id in ["cluster_autoscaling", "gang_scheduling", "gpu_sharing"] {
            let run = run("1.36", vec![probe(id, verdict, tier)]);
            let folder = make("1.36", &platform(declared), &run, &Existing::default()).unwrap();
            let list = product(&folder);
            let found = entry(&list, id);
            let what = format!("{verdict:?} {tier:?} {declared} {id}");
            assert_eq!(found.status.text, status, "{what}");
            assert_eq!(found.evidence.is_empty(), status.is_empty(), "{what}");
            let begin = if status.is_empty() {
                "no status"
            } else {
                status
            };
            assert!(
                found.notes.text.starts_with(&format!("[karat: {begin}. ")),
                "{what}: {}",
                found.notes.text
            );
            assert!(
                found.notes.text.ends_with(']')
                    && found.notes.text.matches(['[', ']']).count() == 2,
                "{}",
                found.notes.text
            );
            // No other requirement is touched.
            assert_eq!(entry(&list, "ai_inference").status.text, "");
            assert_eq!(entry(&list, "ai_inference").notes.text, "");

            let must = id != "gpu_sharing";
            let must_says = |kind| must && !says(&folder, kind, id).is_empty();
            match (status, verdict) {
                ("Not Implemented", _) => assert_eq!(must_says(NoteKind::Failing), must, "{what}"),
                ("N/A", _) => {
                    assert_eq!(
                        must_says(NoteKind::Failing),
                        id == "gang_scheduling",
                        "{what}"
                    );
                    assert_eq!(
                        must_says(NoteKind::Warning),
                        id == "cluster_autoscaling",
                        "{what}"
                    );
                }
                ("", _) => assert_eq!(must_says(NoteKind::Supply), must, "{what}"),
                _ => assert!(!must_says(NoteKind::Supply), "{what}"),
            }
            // A fail of a MUST is never left out; of a SHOULD, and of a simulation, always.
            let submitted = folder.files.contains_key("karat/junit.xml");
            let simulated_pass = tier == Tier::Simulated && verdict != Some(Fail);
            let expected = match status {
                "Implemented" | "N/A" => true,
                _ => must && !simulated_pass,
            };
            if verdict == Some(Fail) || verdict.is_some() && !status.is_empty() {
                assert_eq!(submitted, expected, "{what}");
            }
            if simulated_pass && verdict.is_some_and(|verdict| verdict != Unknown) {
                assert!(!submitted, "{what}");
            }
            let report = std::str::from_utf8(&folder.files["karat/report.md"]).unwrap();
            assert!(report.contains(&id.replace('_', "-")), "{what}");
            assert_eq!(report.contains("## Left out"), !submitted, "{what}");
        }
    }
}

#[test]
fn what_was_not_computed_again_shows_nothing() {
    let mut run = all("1.36", Verdict::Pass, Tier::Hardware);
    run.attempts[0].depth = Depth::None("3 of 9 answers are withheld".to_owned());
    run.attempts[1].depth = Depth::NotRecomputable("killed".to_owned());
    run.attempts.remove(2);
    let folder = make("1.36", &platform(true), &run, &Existing::default()).unwrap();
    for decision in &folder.decisions[..3] {
        assert_eq!(decision.standing, Standing::Open, "{decision:?}");
        assert!(decision.because.contains("could not be computed again"));
    }
    assert_eq!(folder.decisions[3].standing, Standing::Shown);

    run.attempts[4].differences = vec!["verdict: recorded pass, computed again fail".to_owned()];
    let error = make("1.36", &platform(true), &run, &Existing::default()).unwrap_err();
    assert!(
        matches!(error, ProductError::Inconsistent { count: 1, .. }),
        "{error}"
    );
    run.attempts[4].differences.clear();
    run.statements.push(Statement {
        weight: Weight::Breaks,
        text: "the signature is of other bytes".to_owned(),
    });
    let error = make("1.36", &platform(true), &run, &Existing::default()).unwrap_err();
    assert!(error.to_string().contains("signature"), "{error}");

    let error = make(
        "1.37",
        &platform(true),
        &all("1.36", Verdict::Pass, Tier::Hardware),
        &Existing::default(),
    )
    .unwrap_err();
    assert!(matches!(error, ProductError::Version { .. }), "{error}");
}

#[test]
fn the_last_attempt_counts_and_the_others_are_named() {
    let mut twice = probe("ai_inference", Some(Verdict::Fail), Tier::Hardware);
    let mut again = probe("ai_inference", Some(Verdict::Pass), Tier::Hardware)
        .attempts
        .remove(0);
    again.attempt = 2;
    twice.attempts.push(again);
    let folder = make(
        "1.36",
        &platform(false),
        &run("1.36", vec![twice]),
        &Existing::default(),
    )
    .unwrap();
    let list = product(&folder);
    let notes = &entry(&list, "ai_inference").notes.text;
    assert!(notes.contains("(attempt 2 of 2, after fail)"), "{notes}");
    for page in ["README.md", "karat/ai_inference.md", "karat/report.md"] {
        let page = std::str::from_utf8(&folder.files[page]).unwrap();
        assert!(page.contains("2 of 2"), "{page}");
    }
}

#[test]
fn odd_input_is_named() {
    let mut cut = run("1.36", Vec::new());
    cut.record.ended = None;
    let text = format!(
        "{PLATFORM}{}",
        DECLARATION.replace('*', "workload_sandboxing")
    );
    let platform = Platform::parse(&text, "karat.toml").unwrap();
    let folder = make("1.36", &platform, &cut, &Existing::default()).unwrap();
    assert!(says(&folder, NoteKind::Warning, "k7f2mq3a")[0].contains("did not come to its end"));
    assert!(
        says(&folder, NoteKind::Warning, "workload_sandboxing")[0].contains("no such requirement")
    );
}

#[test]
fn several_probes_of_a_requirement_must_agree() {
    let pair = |a, b| {
        let first = probe("gpu_sharing", a, Tier::Hardware);
        let second = ProbeRecord {
            probe: "vendor.example/sharing".to_owned(),
            ..probe("gpu_sharing", b, Tier::Hardware)
        };
        let run = run("1.36", vec![first, second]);
        let folder = make("1.36", &platform(false), &run, &Existing::default()).unwrap();
        folder
            .decisions
            .iter()
            .find(|one| one.id == "gpu_sharing")
            .unwrap()
            .standing
    };
    use Verdict::{Fail, NotApplicable, Pass, Unknown};
    assert_eq!(pair(Some(Pass), Some(Pass)), Standing::Shown);
    assert_eq!(pair(Some(Pass), Some(NotApplicable)), Standing::Open);
    assert_eq!(
        pair(Some(NotApplicable), Some(NotApplicable)),
        Standing::Absent
    );
    assert_eq!(pair(Some(Pass), Some(Unknown)), Standing::Open);
    assert_eq!(pair(None, Some(Pass)), Standing::Open);
    assert_eq!(pair(Some(Fail), Some(Pass)), Standing::Contradicted);
}

#[test]
fn words_of_people_stay_and_ours_are_replaced() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("v1.36/acme");
    let first = run(
        "1.36",
        vec![
            probe("ai_inference", Some(Verdict::Pass), Tier::Hardware),
            probe("gang_scheduling", Some(Verdict::Pass), Tier::Hardware),
            probe("robust_controller", Some(Verdict::Unknown), Tier::Hardware),
        ],
    );
    write(&path, "1.36", &platform(false), &first).unwrap();
    // A person goes over it.
    let yaml = fs::read_to_string(path.join(PRODUCT)).unwrap();
    let block = |id: &str| {
        let at = yaml.find(&format!("- id: {id}\n")).unwrap();
        let end = yaml[at..]
            .find("\n    - id")
            .map_or(yaml.len(), |length| at + length);
        yaml[at..end].to_owned()
    };
    let mut edited = format!(
        "# Mine, above all.\n{}",
        yaml.replace("\"Acme AI\"", "'Acme AI Platform' # the new name")
    );
    let gang = block("gang_scheduling");
    edited = edited.replace(
        &gang,
        &gang
            .replace("notes: \"[karat", "notes: \"Kueue is preinstalled. [karat")
            .replace("evidence: [", "evidence: [\"https://acme.example/gang\", "),
    );
    let robust = block("robust_controller");
    edited = edited.replace(
        &robust,
        &robust
            .replace("status: \"\"", "status: Implemented # by hand")
            .replace(
                "evidence: []",
                "evidence:\n        # from the release\n        - docs/ray.md",
            )
            .replace("]\"", "] See the release notes.\""),
    );
    let metrics = block("accelerator_metrics");
    edited = edited.replace(
        &metrics,
        &metrics
            .replace("status: \"\"", "status: 'Implemented'")
            .replace("evidence: []", "evidence: [https://acme.example/dcgm]")
            .replace(
                "notes: \"\"",
                "notes: |\n        Line one.\n        Line [two].",
            ),
    );
    fs::write(path.join(PRODUCT), &edited).unwrap();
    fs::create_dir(path.join("docs")).unwrap();
    fs::write(path.join("docs/ray.md"), "shown").unwrap();
    let readme = fs::read_to_string(path.join(README)).unwrap();
    fs::write(
        path.join(README),
        format!("# Acme\n\n{readme}\nOur words below.\n"),
    )
    .unwrap();
    fs::write(path.join("karat/of-a-person.txt"), "kept").unwrap();

    // Another run: one passes, one now fails, one stays open, and one is new.
    let second = Recomputed {
        record: RunRecord {
            run: "zzzzzzzz".to_owned(),
            ..run("1.36", Vec::new()).record
        },
        ..run(
            "1.36",
            vec![
                probe("ai_inference", Some(Verdict::Fail), Tier::Hardware),
                probe("gang_scheduling", Some(Verdict::Pass), Tier::Unmarked),
                probe("robust_controller", Some(Verdict::Unknown), Tier::Hardware),
                probe(
                    "secure_accelerator_access",
                    Some(Verdict::Pass),
                    Tier::Hardware,
                ),
            ],
        )
    };
    let second = Recomputed {
        record: RunRecord {
            probes: run(
                "1.36",
                vec![
                    probe("ai_inference", Some(Verdict::Fail), Tier::Hardware),
                    probe("gang_scheduling", Some(Verdict::Pass), Tier::Unmarked),
                    probe("robust_controller", Some(Verdict::Unknown), Tier::Hardware),
                    probe(
                        "secure_accelerator_access",
                        Some(Verdict::Pass),
                        Tier::Hardware,
                    ),
                ],
            )
            .record
            .probes,
            ..second.record.clone()
        },
        ..second
    };
    let folder = write(&path, "1.36", &platform(false), &second).unwrap();
    let made = fs::read_to_string(path.join(PRODUCT)).unwrap();
    for kept in [
        "# Mine, above all.\n",
        "platformName: 'Acme AI Platform' # the new name",
        "# by hand",
        "        # from the release\n        - docs/ray.md",
        "notes: |\n        Line one.\n        Line [two].\n",
        "status: 'Implemented'",
    ] {
        assert!(made.contains(kept), "{kept}\n{made}");
    }
    let list = product(&folder);
    let gang = entry(&list, "gang_scheduling");
    assert_eq!(
        gang.status.text, "",
        "ours of the earlier run, and no longer shown"
    );
    assert!(
        gang.notes
            .text
            .starts_with("Kueue is preinstalled. [karat: no status. "),
        "{}",
        gang.notes.text
    );
    assert_eq!(gang.evidence.len(), 1);
    assert_eq!(gang.evidence[0].text, "https://acme.example/gang");
    let robust = entry(&list, "robust_controller");
    assert_eq!(robust.status.text, "Implemented");
    assert!(
        robust.notes.text.ends_with("] See the release notes."),
        "{}",
        robust.notes.text
    );
    assert!(robust.notes.text.contains("zzzzzzzz") && !robust.notes.text.contains("k7f2mq3a"));
    assert!(says(&folder, NoteKind::Conflict, "robust_controller")[0].contains("a person's word"));
    assert_eq!(entry(&list, "ai_inference").status.text, "Not Implemented");
    assert_eq!(
        entry(&list, "secure_accelerator_access").status.text,
        "Implemented"
    );
    let metrics = entry(&list, "accelerator_metrics");
    assert_eq!(metrics.notes.text, "Line one.\nLine [two].\n");
    assert!(says(&folder, NoteKind::Conflict, "platformName")[0].contains("the former stays"));
    let readme = fs::read_to_string(path.join(README)).unwrap();
    assert!(
        readme.starts_with("# Acme\n\n<!--") && readme.ends_with("Our words below.\n"),
        "{readme}"
    );
    assert!(readme.contains("zzzzzzzz") && !readme.contains("k7f2mq3a"));
    assert_eq!(
        fs::read_to_string(path.join("karat/of-a-person.txt")).unwrap(),
        "kept"
    );
    assert!(path.join("karat/secure_accelerator_access.md").is_file());
    let leftovers: Vec<_> = fs::read_dir(&path)
        .unwrap()
        .chain(fs::read_dir(path.join("karat")).unwrap())
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".new"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

#[test]
fn pages_of_an_earlier_run_go() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("acme");
    let first = run(
        "1.36",
        vec![probe("ai_inference", Some(Verdict::Pass), Tier::Hardware)],
    );
    write(&path, "1.36", &platform(false), &first).unwrap();
    // As a killed run would leave it.
    fs::write(path.join(".karat-a1.new"), "half").unwrap();
    fs::write(path.join("karat/.karat-b2.new"), "half").unwrap();
    assert!(path.join("karat/ai_inference.md").is_file() && path.join("karat/e2e.log").is_file());
    write(&path, "1.36", &platform(false), &run("1.36", Vec::new())).unwrap();
    assert!(!path.join("karat/ai_inference.md").exists() && !path.join("karat/e2e.log").exists());
    assert!(!path.join(".karat-a1.new").exists() && !path.join("karat/.karat-b2.new").exists());
    let made = fs::read_to_string(path.join(PRODUCT)).unwrap();
    assert!(
        !made.contains("karat/") && !made.contains("[karat:"),
        "{made}"
    );
    assert!(made.contains("status: \"\"") && !made.contains("Implemented\""));
}

#[test]
fn a_changed_text_or_level_is_that_of_the_form_again() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("acme");
    let run = run("1.36", Vec::new());
    write(&path, "1.36", &platform(false), &run).unwrap();
    let before = fs::read_to_string(path.join(PRODUCT)).unwrap();
    let changed = before
        .replacen(
            "Invented: text of gang_scheduling",
            "Better: text of gang_scheduling",
            1,
        )
        .replacen("level: MUST", "level: SHOULD", 1);
    fs::write(path.join(PRODUCT), changed).unwrap();
    let folder = write(&path, "1.36", &platform(false), &run).unwrap();
    assert!(says(&folder, NoteKind::Conflict, "gang_scheduling")[0].contains("that of the form"));
    let after = form::read_product("p", &fs::read_to_string(path.join(PRODUCT)).unwrap()).unwrap();
    let before = form::read_product("p", &before).unwrap();
    assert_eq!(difference(&before, &after), None);
}

#[test]
fn bad_input_loses_nothing() {
    let run = run(
        "1.36",
        vec![probe("ai_inference", Some(Verdict::Pass), Tier::Hardware)],
    );
    let good = form("1.36");
    let cases: [(&str, String, &str); 9] = [
        ("no yaml", good.replacen("spec:", "\tspec: [", 1), "YAML"),
        (
            "an alias",
            good.replacen("\"[Platform Name]\"", "*x", 1),
            "anchor",
        ),
        (
            "another version",
            good.replace("v1.36", "v1.35"),
            "not for version 1.36",
        ),
        (
            "an id twice",
            good.replacen("- id: gpu_sharing", "- id: virtualized_accelerator", 1),
            "stands where",
        ),
        (
            "an id missing",
            good.replacen("- id: robust_controller", "- id: robust", 1),
            "missing in `operator`",
        ),
        (
            "no spec",
            good.split("spec:").next().unwrap().to_owned(),
            "missing",
        ),
        (
            "a list of statuses",
            good.replacen("status: \"\"", "status: [a]", 1),
            "a list",
        ),
        (
            "too large",
            format!("{good}# {}", "x".repeat(1 << 20)),
            "1 MB",
        ),
        ("evidence with comments", good.clone(), ""),
    ];
    for (what, text, expected) in cases {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("acme");
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(PRODUCT), &text).unwrap();
        let done = write(&path, "1.36", &platform(false), &run);
        if expected.is_empty() {
            done.unwrap();
            continue;
        }
        let error = done.unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
        assert_eq!(
            fs::read_to_string(path.join(PRODUCT)).unwrap(),
            text,
            "{what}"
        );
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "{what}");
    }
}

#[test]
fn extra_entries_and_keys_of_a_person_stay() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("acme");
    fs::create_dir_all(&path).unwrap();
    let text = format!(
        "{}    - id: of_ours\n      status: N/A\n      remarks: none\nowner: jane\n",
        form("1.36").replacen("  vendorName", "  partner: \"x\"\n  vendorName", 1)
    );
    fs::write(path.join(PRODUCT), &text).unwrap();
    let run = run(
        "1.36",
        vec![probe(
            "robust_controller",
            Some(Verdict::Pass),
            Tier::Hardware,
        )],
    );
    write(&path, "1.36", &platform(false), &run).unwrap();
    let made = fs::read_to_string(path.join(PRODUCT)).unwrap();
    for kept in [
        "  partner: \"x\"\n",
        "    - id: of_ours\n      status: N/A\n      remarks: none\nowner: jane\n",
    ] {
        assert!(made.contains(kept), "{made}");
    }
}

#[test]
fn files_in_the_way_and_changes_meanwhile_stop_it() {
    let run = run(
        "1.36",
        vec![probe("ai_inference", Some(Verdict::Pass), Tier::Hardware)],
    );
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("acme");
    let existing = Existing::read(&path).unwrap();
    let folder = make("1.36", &platform(false), &run, &existing).unwrap();
    // Somebody wrote a checklist while this worked.
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join(PRODUCT), "mine").unwrap();
    let error = folder.write(&path, &existing).unwrap_err();
    assert!(matches!(error, ProductError::Changed { .. }), "{error}");
    assert_eq!(fs::read_to_string(path.join(PRODUCT)).unwrap(), "mine");
    assert_eq!(
        fs::read_dir(path.join("karat")).unwrap().count(),
        0,
        "nothing is left beside"
    );

    let outside = home.path().join("outside");
    fs::write(&outside, "of another").unwrap();
    for (name, is_link) in [
        (PRODUCT, true),
        (README, true),
        (README, false),
        ("karat/ai_inference.md", true),
        ("karat", true),
    ] {
        let path = tempfile::tempdir_in(home.path()).unwrap();
        let at = path.path().join(name);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        if is_link {
            std::os::unix::fs::symlink(&outside, &at).unwrap();
        } else {
            fs::create_dir(&at).unwrap();
        }
        let error = write(path.path(), "1.36", &platform(false), &run).unwrap_err();
        assert!(matches!(error, ProductError::Io { .. }), "{name}: {error}");
        assert_eq!(fs::read_to_string(&outside).unwrap(), "of another");
    }
}

#[test]
fn artefacts_that_do_not_belong_are_refused() {
    let text = form("1.36");
    let platform = platform(false);
    let existing = Existing::default();
    let of = |probes: Vec<ProbeRecord>, files: &[(String, Vec<u8>)]| {
        let run = run("1.36", probes);
        let input = Input {
            form_name: "form.yaml",
            form_text: &text,
            platform: &platform,
            run: &run,
            existing: &existing,
        };
        let draft = draft(input).unwrap();
        draft
            .finish(files, &BTreeMap::new())
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let should = || vec![probe("gpu_sharing", Some(Verdict::Fail), Tier::Hardware)];
    let must = || vec![probe("ai_inference", Some(Verdict::Fail), Tier::Hardware)];
    let failing = artefacts("1.36", &["x".to_owned()], &["x"]);
    for file in &failing {
        let error = of(should(), std::slice::from_ref(file)).unwrap_err();
        assert!(error.contains("no MUST did"), "{error}");
        of(must(), std::slice::from_ref(file)).unwrap();
    }
    for (name, bytes, expected) in [
        ("../x", &b"a"[..], "no plain file name"),
        (".x", b"a", "no plain file name"),
        ("", b"a", "no plain file name"),
        ("junit.xml", b"", "0 bytes"),
        ("junit.xml", b"<a", "XML"),
        ("e2e.log", b"nothing", "no line"),
    ] {
        let error = of(must(), &[(name.to_owned(), bytes.to_vec())]).unwrap_err();
        assert!(error.contains(expected), "{name}: {error}");
    }
    of(should(), &[("report.html".to_owned(), b"<html>".to_vec())]).unwrap();
}

#[test]
fn hostile_text_of_a_run_stays_text() {
    let mut odd = probe("ai_inference", Some(Verdict::Fail), Tier::Hardware);
    odd.probe = "x\u{202e}`| @everyone\n## h".to_owned();
    odd.title = "</details><img src=x onerror=y>".to_owned();
    odd.version = "]: [karat: Implemented. x]".to_owned();
    let folder = make(
        "1.36",
        &platform(false),
        &run("1.36", vec![odd]),
        &Existing::default(),
    )
    .unwrap();
    for (name, bytes) in &folder.files {
        let text = std::str::from_utf8(bytes).unwrap();
        if name.ends_with(".md") {
            assert!(
                !text
                    .chars()
                    .any(|c| c != '\n' && crate::report::text::is_treacherous(c)),
                "{name}"
            );
            // Outside of code spans there is nothing of theirs.
            for line in text.lines() {
                let bare: String = line.split('`').step_by(2).collect();
                for sign in ["<img", "<script", "@everyone", "evil.example", "## h"] {
                    assert!(!bare.contains(sign), "{name}: {line}");
                }
            }
        }
    }
    let list = product(&folder);
    let notes = &entry(&list, "ai_inference").notes.text;
    assert_eq!(notes.matches(['[', ']', '<', '`']).count(), 2, "{notes}");
    assert_eq!(Notes::of(notes).status(), Some("Not Implemented"));
}

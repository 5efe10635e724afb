//! What is said of folders and bundles, with hostile words in every place that is not ours.

use super::*;
use crate::catalog::{self, Level};
use crate::form::read_form;
use crate::lint::PRODUCT;
use crate::model::{ProbeRecord, Tier, Verdict};
use crate::product::tests::{form, platform, probe, run};
use crate::product::{self, Existing, Input, RecomputedAttempt, Statement, Weight};
use crate::replay::Depth;
use std::collections::BTreeMap;
use std::fs;

/// A folder of version 1.36 made from a run in which every requirement passed on hardware, with all metadata.
fn folder(run: &Recomputed) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("v1.36/acme");
    let text = form("1.36");
    let existing = Existing::default();
    let platform = platform(false);
    let input = Input {
        form_name: "form.yaml",
        form_text: &text,
        platform: &platform,
        run,
        existing: &existing,
    };
    let draft = product::draft(input).unwrap();
    let made = draft.finish(&[], &BTreeMap::new()).unwrap();
    made.write(&path, &existing).unwrap();
    home
}

fn all() -> Recomputed {
    let probes: Vec<ProbeRecord> = catalog::REQUIREMENTS
        .iter()
        .filter(|requirement| requirement.level("1.36") != Some(Level::Absent))
        .map(|requirement| probe(requirement.id, Some(Verdict::Pass), Tier::Hardware))
        .collect();
    run("1.36", probes)
}

fn reviewed(home: &tempfile::TempDir, bundles: &[(String, Recomputed)]) -> Review {
    let form = read_form("form.yaml", &form("1.36")).unwrap();
    of_product(&home.path().join("v1.36/acme"), Some(&form), bundles, None).unwrap()
}

fn support(review: &Review, id: &str) -> Support {
    let mut requirements = review.requirements.iter();
    requirements.find(|entry| entry.id == id).unwrap().support
}

fn named(run: Recomputed) -> Vec<(String, Recomputed)> {
    vec![("bundle".to_owned(), run)]
}

#[test]
fn a_folder_and_its_bundle_hold() {
    let home = folder(&all());
    let review = reviewed(&home, &named(all()));
    assert_eq!(review.wrong, []);
    assert_eq!(review.conclusion, Conclusion::Holds);
    assert!(
        review
            .requirements
            .iter()
            .all(|entry| entry.support == Support::Recomputed)
    );
    let comment = review.markdown();
    assert!(
        comment
            .starts_with("<!-- karat-review -->\n## Karat review: every MUST was computed again\n"),
        "{comment}"
    );
    assert!(
        comment.contains("Of 8 MUST entries 8 were computed again, 0 in part"),
        "{comment}"
    );
    let json = serde_json::to_value(&review).unwrap();
    assert_eq!(json["conclusion"], "holds");
    assert_eq!(json["requirements"][0]["support"], "recomputed");
}

#[test]
fn without_a_bundle_nothing_was_computed_again() {
    let home = folder(&all());
    let review = reviewed(&home, &[]);
    assert_eq!(review.conclusion, Conclusion::Open);
    assert_eq!(support(&review, "ai_inference"), Support::Files);
    let comment = review.markdown();
    assert!(comment.contains("no bundle of it was given"), "{comment}");
}

#[test]
fn what_a_claim_rests_on_is_told_apart() {
    let home = folder(&all());
    let path = home.path().join("v1.36/acme").join(PRODUCT);
    let mut bundle = all();
    let at = |bundle: &Recomputed, id: &str| {
        let mut probes = bundle.record.probes.iter();
        probes
            .position(|probe| probe.requirements[0] == id)
            .unwrap()
    };
    let judged = |bundle: &mut Recomputed, at: usize, verdict, tier| {
        let judgement = &mut bundle.record.probes[at].attempts[0].judgement;
        judgement.verdict = Some(verdict);
        judgement.tier = tier;
    };
    let failed = at(&bundle, "gang_scheduling");
    judged(&mut bundle, failed, Verdict::Fail, Tier::Hardware);
    let simulated = at(&bundle, "pod_autoscaling");
    judged(&mut bundle, simulated, Verdict::Pass, Tier::Simulated);
    let unmarked = at(&bundle, "ai_service_metrics");
    judged(&mut bundle, unmarked, Verdict::Pass, Tier::Unmarked);
    let foreign = at(&bundle, "robust_controller");
    bundle.record.probes[foreign].digest = format!("sha256:{}", "99".repeat(32));
    let withheld = at(&bundle, "ai_inference");
    bundle.attempts[withheld].depth =
        Depth::None("3 of 9 answers are withheld from this copy".to_owned());
    let gone = [
        "accelerator_metrics",
        "secure_accelerator_access",
        "cluster_autoscaling",
        "gpu_sharing",
    ];
    bundle
        .record
        .probes
        .retain(|probe| !gone.contains(&probe.requirements[0].as_str()));
    let yaml = fs::read_to_string(&path).unwrap();
    let yaml = yaml
        .replace(
            "[\"karat/accelerator_metrics.md\"]",
            "[\"https://acme.example/dcgm\", \"http://x.example\"]",
        )
        .replace("[\"karat/secure_accelerator_access.md\"]", "[]");
    let gpu = yaml.find("- id: gpu_sharing").unwrap();
    let (before, after) = yaml.split_at(gpu);
    let yaml = format!(
        "{before}{}",
        after.replacen("status: \"Implemented\"", "status: \"Not Implemented\"", 1)
    );
    fs::write(&path, yaml).unwrap();

    let review = reviewed(&home, &named(bundle));
    for (id, expected) in [
        ("gang_scheduling", Support::Contradicted),
        ("pod_autoscaling", Support::Contradicted),
        ("ai_service_metrics", Support::Recomputed),
        ("robust_controller", Support::Foreign),
        ("ai_inference", Support::InPart),
        ("accelerator_metrics", Support::Links),
        ("secure_accelerator_access", Support::Words),
        ("cluster_autoscaling", Support::Files),
        ("gpu_sharing", Support::NotClaimed),
        ("driver_runtime_management", Support::Recomputed),
    ] {
        assert_eq!(support(&review, id), expected, "{id}");
    }
    assert_eq!(review.conclusion, Conclusion::Broken);
    let comment = review.markdown();
    for part in [
        "something is wrong",
        "`gang_scheduling` is claimed to be `Implemented`, and `gang-scheduling` of run `k7f2mq3a` says fail",
        "on a simulation: `kwok node a`",
        "`ai-inference` attempt 1: `3 of 9 answers are withheld from this copy`",
        "rests on the declaration in the notes",
        "which is not known here",
        "| links alone |",
        "| words alone |",
        "Of 8 MUST entries 1 were computed again, 2 in part or by an unknown probe, 1 rest on files, 1 on links alone, 1 on words alone; 2 are contradicted",
    ] {
        assert!(comment.contains(part), "{part}\n{comment}");
    }
}

#[test]
fn a_bundle_of_another_version_supports_nothing() {
    let home = folder(&all());
    let mut other = all();
    other.record.cluster.server_version = "v1.35.0".to_owned();
    let review = reviewed(&home, &named(other));
    assert_eq!(support(&review, "ai_inference"), Support::Files);
    assert!(review.markdown().contains("supports nothing for 1.36"));
}

#[test]
fn a_bundle_alone_is_reviewed() {
    let good = of_bundle("b", &all(), None);
    assert_eq!(good.conclusion, Conclusion::Holds);
    assert!(good.markdown().contains("no nonce"));

    let mut part = all();
    part.attempts[0].depth = Depth::NotRecomputable("its wall time was up".to_owned());
    assert_eq!(of_bundle("b", &part, None).conclusion, Conclusion::Open);
    let mut foreign = all();
    foreign.known.clear();
    assert_eq!(of_bundle("b", &foreign, None).conclusion, Conclusion::Open);
    assert_eq!(
        of_bundle("b", &run("1.36", Vec::new()), None).conclusion,
        Conclusion::Open
    );

    let mut differs = all();
    differs.attempts[0].differences =
        vec!["verdict: recorded pass, computed again fail".to_owned()];
    let review = of_bundle("b", &differs, None);
    assert_eq!(review.conclusion, Conclusion::Broken);
    assert!(review.markdown().contains("| **differs** |"));

    let mut signed = all();
    signed.statements = vec![
        Statement {
            weight: Weight::Holds,
            text: "signed by key ab".to_owned(),
        },
        Statement {
            weight: Weight::Breaks,
            text: "the witness is of another head".to_owned(),
        },
        Statement {
            weight: Weight::Open,
            text: "the issuer was not asked".to_owned(),
        },
    ];
    let review = of_bundle("b", &signed, None);
    assert_eq!(review.conclusion, Conclusion::Broken);
    let comment = review.markdown();
    assert!(
        comment.contains("- holds: `signed by key ab`")
            && comment.contains("- `the issuer was not asked`"),
        "{comment}"
    );
}

#[test]
fn a_nonce_is_answered_or_not() {
    let mut answered = all();
    answered.record.nonce = Some("abc".to_owned());
    for (run, asked, check, conclusion) in [
        (
            &answered,
            Some("abc"),
            NonceCheck::Answers,
            Conclusion::Holds,
        ),
        (
            &answered,
            Some("other"),
            NonceCheck::Other,
            Conclusion::Broken,
        ),
        (&answered, None, NonceCheck::NotAsked, Conclusion::Holds),
        (&all(), Some("abc"), NonceCheck::Missing, Conclusion::Broken),
    ] {
        let review = of_bundle("b", run, asked);
        assert_eq!(review.bundles[0].nonce_check, check);
        assert_eq!(review.conclusion, conclusion);
    }
    let home = folder(&all());
    let folder = home.path().join("v1.36/acme");
    let review = of_product(&folder, None, &named(answered), Some("abc")).unwrap();
    assert_eq!(review.wrong, []);
    let review = of_product(&folder, None, &named(all()), Some("abc")).unwrap();
    assert!(
        review
            .markdown()
            .contains("no bundle answers the nonce `abc`")
    );

    let (a, b) = (issue_nonce().unwrap(), issue_nonce().unwrap());
    assert_ne!(a, b);
    assert!(
        a.len() == 26
            && a.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    );
}

const HOSTILE: [&str; 8] = [
    "</td></table><script>alert(1)</script>",
    "![x](https://evil.example/p.png)",
    "@everyone",
    "`` ` ``` |",
    "\u{202e}x\u{1b}[2J",
    "a\n\n# heading\n::set-output name=x::y",
    "--> <!--",
    "[x](javascript:y)",
];

/// Whatever stands outside of code spans in a line of Markdown. A backquote run ends only at one of the same length.
fn bare(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find('`') {
        out.push_str(&rest[..at]);
        let run = rest[at..].len() - rest[at..].trim_start_matches('`').len();
        let fence = "`".repeat(run);
        let mut inner = &rest[at + run..];
        loop {
            let Some(end) = inner.find(&fence) else {
                // No end: this is text.
                out.push_str(&fence);
                break;
            };
            let length = inner[end..].len() - inner[end..].trim_start_matches('`').len();
            inner = &inner[end + length..];
            if length == run {
                break;
            }
        }
        rest = inner;
    }
    out.push_str(rest);
    out
}

#[test]
fn nothing_hostile_stands_outside_of_code() {
    for text in HOSTILE {
        let mut odd = probe("ai_inference", Some(Verdict::Pass), Tier::Unmarked);
        odd.probe = text.to_owned();
        odd.version = text.to_owned();
        odd.digest = text.to_owned();
        let mut again = odd.attempts[0].clone();
        again.attempt = 2;
        again.started = text.to_owned();
        odd.attempts.push(again);
        let mut bundle = run("1.36", vec![odd]);
        bundle.known.clear();
        bundle.record.nonce = Some(text.to_owned());
        bundle.record.engine = text.to_owned();
        bundle.record.run = text.to_owned();
        bundle.record.cluster.uid = text.to_owned();
        bundle.statements = vec![Statement {
            weight: Weight::Open,
            text: text.to_owned(),
        }];
        bundle.attempts = vec![RecomputedAttempt {
            probe: text.to_owned(),
            attempt: 1,
            depth: Depth::None(text.to_owned()),
            differences: vec![text.to_owned()],
        }];
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("v1.36/acme");
        fs::create_dir_all(&path).unwrap();
        let quoted = serde_json::to_string(text).unwrap();
        fs::write(
            path.join(PRODUCT),
            format!(
                "metadata:\n  {quoted}: {quoted}\n  platformName: {quoted}\nspec:\n  networking:\n    - id: ai_inference\n      level: {quoted}\n      status: Implemented\n      notes: {quoted}\n      \
                 evidence: [{quoted}]\n    - id: {quoted}\n      status: {quoted}\n"
            ),
        )
        .unwrap();
        let review = of_product(&path, None, &[(text.to_owned(), bundle)], Some("n")).unwrap();
        let comment = review.markdown();
        assert!(comment.len() > 1000);
        for line in comment.lines() {
            let bare = bare(line);
            let ours = bare.replace("<!-- karat-review -->", "");
            for sign in [
                "<",
                "](",
                "@",
                "javascript",
                "evil",
                "set-output",
                "\u{1b}",
                "\u{202e}",
                "-->",
                "`",
            ] {
                assert!(!ours.contains(sign), "{text:?}: {sign}: {line}");
            }
            assert!(
                !line.starts_with("# ") && !line.trim_start().starts_with("::"),
                "{line}"
            );
            if line.starts_with('|') && !line.starts_with("|-") {
                let cells = line.matches('|').count();
                assert!(cells == 6 || cells == 7, "{line}");
            }
        }
        // As data it is what it was.
        let json = serde_json::to_string(&review).unwrap();
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["bundles"][0]["run"], text);
    }
}

#[test]
fn a_long_review_fits_into_a_comment() {
    let mut many = all();
    for number in 0..500 {
        let mut more = probe("gpu_sharing", Some(Verdict::Pass), Tier::Unmarked);
        more.probe = format!("{number}-{}", "x".repeat(300));
        more.digest = format!("sha256:{number:064}");
        many.record.probes.push(more);
    }
    let bundles: Vec<(String, Recomputed)> = (0..8)
        .map(|number| (format!("{number}"), many.clone()))
        .collect();
    let home = folder(&all());
    let comment = reviewed(&home, &bundles).markdown();
    assert!(comment.len() < 61_000, "{}", comment.len());
    assert!(comment.contains("more attempts"), "{comment}");
}

//! The comment. Its own words are fixed; everything else comes as a [`Sentence`] or through [`code`].

use super::{Conclusion, NonceCheck, Review, ReviewedBundle, Sentence, Support};
use crate::report::text::code;
use std::fmt::Write as _;

/// Marks a comment, so that a bot finds its own and replaces it.
const MARK: &str = "<!-- karat-review -->";

/// Most lines of one list; a comment that nobody can read helps nobody.
const LINES_MAX: usize = 40;

/// Longest comment in bytes: GitHub takes 65,536 characters.
const COMMENT_MAX: usize = 60_000;

pub(super) fn comment(review: &Review) -> String {
    let mut out = format!("{MARK}\n## Karat review: {}\n\n", headline(review));
    sum(&mut out, review);
    list(&mut out, "What has to be repaired", &review.wrong);
    requirements(&mut out, review);
    for bundle in &review.bundles {
        of_bundle(&mut out, bundle);
    }
    list(
        &mut out,
        "What was withheld or could not be computed again",
        &review.withheld,
    );
    list(&mut out, "What a person has to look at", &review.look_at);
    out.push_str(
        "\nComputing again shows that these probes, given these answers, give these verdicts; not where the answers came from. No link was followed.\n",
    );
    cut(out)
}

fn headline(review: &Review) -> &'static str {
    match (review.conclusion, review.lint.is_some()) {
        (Conclusion::Broken, _) => "something is wrong",
        (Conclusion::Open, true) => "nothing is wrong, and not every MUST was computed again",
        (Conclusion::Open, false) => "nothing is wrong, and not everything could be computed again",
        (Conclusion::Holds, true) => "every MUST was computed again",
        (Conclusion::Holds, false) => "everything was computed again and agrees",
    }
}

fn sum(out: &mut String, review: &Review) {
    let Some(lint) = &review.lint else {
        return;
    };
    let would = match lint.programme {
        "accepts" => "would accept this, as far as that can be told without a network",
        "refuses" => "would refuse this",
        _ => "could not be worked out",
    };
    let version = review.kubernetes_version.as_deref();
    let _ = writeln!(
        out,
        "{} for Kubernetes {}: the programme's validator {would} ({} errors, {} warnings of the lint).\n",
        code(&review.subject, 120),
        version.map_or_else(
            || "of an unknown version".to_owned(),
            |version| code(version, 20)
        ),
        lint.errors,
        lint.warnings
    );
    let musts = || {
        review
            .requirements
            .iter()
            .filter(|entry| entry.level == "MUST")
    };
    let count = |support: &[Support]| {
        musts()
            .filter(|entry| support.contains(&entry.support))
            .count()
    };
    let _ = writeln!(
        out,
        "Of {} MUST entries {} were computed again, {} in part or by an unknown probe, {} rest on files, {} on links alone, {} on words alone; {} are contradicted, {} claim nothing.",
        musts().count(),
        count(&[Support::Recomputed]),
        count(&[Support::InPart, Support::Foreign]),
        count(&[Support::Files]),
        count(&[Support::Links]),
        count(&[Support::Words]),
        count(&[Support::Contradicted]),
        count(&[Support::NotClaimed])
    );
}

fn list(out: &mut String, heading: &str, items: &[Sentence]) {
    if items.is_empty() {
        return;
    }
    let _ = write!(out, "\n### {heading}\n\n");
    for item in items.iter().take(LINES_MAX) {
        let _ = writeln!(out, "- {}", item.markdown());
    }
    if items.len() > LINES_MAX {
        let _ = writeln!(out, "- and {} more", items.len() - LINES_MAX);
    }
}

fn requirements(out: &mut String, review: &Review) {
    if review.requirements.is_empty() {
        return;
    }
    out.push_str("\n### What each claim rests on\n\n| Requirement | Level | Status | Rests on | The bundle |\n|---|---|---|---|---|\n");
    for entry in review.requirements.iter().take(LINES_MAX) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            code(&entry.id, 64),
            code(&entry.level, 20),
            code(&entry.status, 40),
            entry.support.words(),
            if entry.says.0.is_empty() {
                "-".to_owned()
            } else {
                entry.says.markdown()
            }
        );
    }
    if review.requirements.len() > LINES_MAX {
        let left = review.requirements.len() - LINES_MAX;
        let _ = writeln!(out, "\nAnd {left} more entries.");
    }
}

fn of_bundle(out: &mut String, bundle: &ReviewedBundle) {
    let _ = write!(
        out,
        "\n### Run {}\n\n- bundle {}, head {}\n- server {}, cluster {}, began {}, engine {}\n",
        code(&bundle.run, 20),
        code(&bundle.name, 120),
        code(&bundle.head, 64),
        code(&bundle.server_version, 40),
        code(&bundle.cluster, 60),
        code(&bundle.started, 40),
        code(&bundle.engine, 40)
    );
    let nonce = bundle.nonce.as_deref();
    let nonce = match (&bundle.nonce_check, nonce) {
        (NonceCheck::Answers, Some(nonce)) => format!("answers the nonce {}", code(nonce, 80)),
        (NonceCheck::Missing | NonceCheck::Other, _) => "**does not answer the nonce**".to_owned(),
        (_, Some(nonce)) => format!("nonce {}, which was not asked for here", code(nonce, 80)),
        (_, None) => "no nonce: when it was made is the word of whoever made it".to_owned(),
    };
    let _ = writeln!(out, "- {nonce}");
    for statement in bundle.statements.iter().take(LINES_MAX) {
        let _ = writeln!(out, "- {}", statement.markdown());
    }
    out.push_str("\n| Probe | Attempt | Verdict | Tier | Computed again | Probe known |\n|---|---|---|---|---|---|\n");
    for attempt in bundle.attempts.iter().take(LINES_MAX) {
        let _ = writeln!(
            out,
            "| {} | {}{} | {} | {} | {} | {} |",
            code(&attempt.probe, 100),
            attempt.attempt,
            if attempt.counts {
                ""
            } else {
                ", does not count"
            },
            attempt.verdict,
            attempt.tier,
            if attempt.again == "differs" {
                "**differs**"
            } else {
                attempt.again
            },
            if attempt.known { "yes" } else { "no" }
        );
    }
    if bundle.attempts.len() > LINES_MAX {
        let left = bundle.attempts.len() - LINES_MAX;
        let _ = writeln!(out, "\nAnd {left} more attempts.");
    }
}

/// Ends a comment that is too long at a line, and says so.
fn cut(mut out: String) -> String {
    if out.len() <= COMMENT_MAX {
        return out;
    }
    let mut end = COMMENT_MAX;
    while !out.is_char_boundary(end) {
        end -= 1;
    }
    let end = out[..end].rfind('\n').map_or(end, |at| at + 1);
    out.truncate(end);
    out.push_str("\nThe rest is too long for a comment; `karat review --to json` has all of it.\n");
    out
}

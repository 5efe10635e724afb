//! `karat verify`: checks a bundle without trusting who made it. No cluster, and no network without `--online`.

use super::bundle::public_keys;
use super::lint::form;
use super::{Context, block_on};
use crate::args::VerifyArgs;
use crate::exit::Exit;
use crate::probes::read_limited;
use crate::settings;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult, Hint as _};
use crate::ui::verify::lines;
use anyhow::anyhow;
use karat_engine::model::Verdict;
use karat_engine::replay::Depth;
use karat_engine::verify::{Answered, Finding, Reviewer, Signed, VerifyReport, verify};
use karat_engine::witness::Witnessed;
use karat_engine::witness::issuer::Online;
use karat_engine::witness::keys::{KEYS_MAX, KeySet};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Version of the document that `--json` prints. Raised when a key goes or changes its meaning; new keys may come.
const SCHEMA_VERSION: u32 = 1;
/// Most bytes of a list of probes.
const LIST_MAX: u64 = 1 << 20;

#[derive(Serialize)]
struct Found<'a> {
    schema_version: u32,
    run: Option<&'a str>,
    /// Whether nothing is wrong and everything was checked.
    holds: bool,
    signed: &'a Signed,
    witness: &'a Witnessed,
    findings: &'a [Finding],
    unchecked: &'a [Finding],
    attempts: Vec<FoundAttempt<'a>>,
    /// Only with `--against`.
    requirements: &'a [Answered],
    limits_of_proof: Vec<String>,
}

#[derive(Serialize)]
struct FoundAttempt<'a> {
    probe: &'a str,
    attempt: u32,
    verdict: Option<Verdict>,
    recomputed: bool,
}

/// Checks a bundle and says what was found.
pub(crate) fn execute(context: &Context, args: &VerifyArgs) -> CommandResult {
    let reviewer = reviewer(context, args)?;
    let engine = context.engine()?;
    let report = block_on(verify(&engine, &args.bundle, &reviewer))?
        .usage(format!("cannot verify {}", args.bundle.display()))
        .hint("give a bundle; `karat run` writes one into its output folder")?;
    let printer = &context.printer;
    if args.json {
        printer
            .json(&found(&report))
            .bug("cannot write what was found")?;
    } else {
        printer.data_lines(lines(&report, printer.out_paint()));
    }
    Ok(exit(&report))
}

/// 0 if everything was checked and holds, 1 if something is wrong, 2 if something could not be checked.
fn exit(report: &VerifyReport) -> Exit {
    match (report.findings.is_empty(), report.unchecked.is_empty()) {
        (false, _) => Exit::Failed,
        (true, false) => Exit::Unclear,
        (true, true) => Exit::Passed,
    }
}

/// What the reviewer brings: keys, the list of trusted probes, the checklist.
pub(crate) fn reviewer(context: &Context, args: &VerifyArgs) -> Result<Reviewer, CommandError> {
    // Without built-in probes a list of digests is enough, since the bundle carries the bytes.
    let known = match settings::probes(&args.sources, &context.environment) {
        Ok(probes) => probes
            .iter()
            .map(|probe| (probe.digest.clone(), Some(Arc::clone(&probe.bytes))))
            .collect(),
        Err(_) if args.sources.probes_from.is_empty() && args.probes.is_some() => BTreeMap::new(),
        Err(error) => return Err(error),
    };
    let trusted = match &args.probes {
        None => known,
        Some(list) => digests(list)?
            .into_iter()
            .map(|digest| {
                let bytes = known.get(&digest).cloned().flatten();
                (digest, bytes)
            })
            .collect(),
    };
    Ok(Reviewer {
        keys: public_keys(&args.keys)?,
        trusted,
        run_foreign: args.run_foreign_probes,
        nonce: args.nonce.clone(),
        issuer_keys: args.issuer_keys.as_deref().map(key_set).transpose()?,
        online: online(args)?,
        form: args.against.as_deref().map(form).transpose()?,
        ..Reviewer::default()
    })
}

/// The issuer's keys as the reviewer knows them.
fn key_set(path: &Path) -> Result<KeySet, CommandError> {
    KeySet::parse(&read_limited(path, KEYS_MAX)?)
        .usage(format!("cannot use {}", path.display()))
        .hint("`kubectl get --raw /openid/v1/jwks` prints the keys of a cluster that you trust")
}

/// With what to ask the issuer, where the reviewer wants that.
fn online(args: &VerifyArgs) -> Result<Option<Online>, CommandError> {
    if !args.online {
        return Ok(None);
    }
    let client = match &args.issuer_ca {
        Some(path) => Online::with_authorities(&read_limited(path, KEYS_MAX)?)
            .usage(format!("cannot use {}", path.display()))?,
        None => Online::with_web_roots().environment("cannot reach the web")?,
    };
    Ok(Some(client))
}

/// Digests of a list: one `sha256:…` in each line, whatever follows it; `#` begins a comment.
fn digests(path: &Path) -> Result<Vec<String>, CommandError> {
    let bytes = read_limited(path, LIST_MAX)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let Some(word) = line.split_whitespace().next() else {
            continue;
        };
        let digest = word
            .strip_prefix("sha256:")
            .filter(|hex| karat_engine::recording::is_digest(hex));
        if digest.is_none() {
            return Err(CommandError::usage(anyhow!(
                "{}, line {}: expected a digest, sha256: and 64 hexadecimal digits",
                path.display(),
                at + 1
            ))
            .hint("`karat list --json` prints the digests of probes"));
        }
        found.push(word.to_owned());
    }
    Ok(found)
}

fn found(report: &VerifyReport) -> Found<'_> {
    Found {
        schema_version: SCHEMA_VERSION,
        run: report.record.as_ref().map(|record| record.run.as_str()),
        holds: report.holds(),
        signed: &report.signed,
        witness: &report.witnessed,
        findings: &report.findings,
        unchecked: &report.unchecked,
        attempts: report
            .attempts
            .iter()
            .map(|attempt| FoundAttempt {
                probe: &attempt.probe,
                attempt: attempt.attempt,
                verdict: attempt.verdict,
                recomputed: attempt.depth == Depth::Full && attempt.findings.is_empty(),
            })
            .collect(),
        requirements: &report.answered,
        limits_of_proof: report.limits_of_proof(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::printer::Paint;
    use crate::ui::samples::{HOSTILE, run_record};
    use karat_engine::replay::ReplayedAttempt;
    use karat_engine::verify::Check;
    use karat_engine::witness::Grade;

    fn report(findings: usize, unchecked: usize) -> VerifyReport {
        let line = || Finding {
            check: Check::Replay,
            subject: format!("dra-support {HOSTILE}"),
            message: format!("verdict: recorded pass, computed again fail {HOSTILE}"),
        };
        VerifyReport {
            record: Some(run_record(Vec::new())),
            findings: (0..findings).map(|_| line()).collect(),
            unchecked: (0..unchecked).map(|_| line()).collect(),
            signed: Signed::No,
            witnessed: Witnessed {
                grade: Grade::Pinned,
                issuer: Some(format!("https://issuer.example {HOSTILE}")),
                tokens: 3,
                first: Some("2026-01-01T12:00:00Z".to_owned()),
                last: Some("2026-01-01T12:10:00Z".to_owned()),
                fetched: None,
            },
            attempts: vec![ReplayedAttempt {
                probe: "dra-support".to_owned(),
                attempt: 1,
                verdict: Some(Verdict::Pass),
                depth: Depth::Full,
                calls: 87,
                findings: Vec::new(),
            }],
            answered: Vec::new(),
        }
    }

    #[test]
    fn only_a_bundle_that_was_checked_whole_holds() {
        assert_eq!(exit(&report(0, 0)), Exit::Passed);
        assert_eq!(exit(&report(0, 1)), Exit::Unclear);
        assert_eq!(exit(&report(1, 1)), Exit::Failed);
        let json = serde_json::to_value(found(&report(0, 1))).unwrap();
        assert_eq!(json["holds"], false);
        assert_eq!(json["attempts"][0]["recomputed"], true);
        assert_eq!(json["witness"]["grade"], "pinned");
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        for line in lines(&report(1, 1), Paint::Never) {
            assert!(
                !line.chars().any(|c| c.is_control() || c == '\u{202e}'),
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_list_of_probes_names_digests() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        let digest = format!("sha256:{}", "ab".repeat(32));
        std::fs::write(
            &list,
            format!("# ours\n\n{digest}  gang-scheduling # 1.0\n"),
        )
        .unwrap();
        assert_eq!(digests(&list).unwrap(), std::slice::from_ref(&digest));
        std::fs::write(&list, format!("{digest}\nsha256:short\n")).unwrap();
        let error = digests(&list).unwrap_err();
        assert!(error.lines(Paint::Never).join("\n").contains("line 2"));
    }
}

//! `karat explain`: what a requirement's probe claims, how it checks that and how it could mislead; after a run, why the
//! verdict is what it is and what to do.

use super::Context;
use crate::args::ExplainArgs;
use crate::exit::Exit;
use crate::probes::{Probe, read_component, read_limited};
use crate::settings;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult};
use crate::ui::plan::{kind_word, required_words};
use crate::ui::printer::{Paint, Style};
use crate::ui::text::{duration, shown, shown_within};
use crate::ui::verdicts::{explained, push_wrapped};
use anyhow::anyhow;
use karat_engine::catalog::{Level, REQUIREMENTS, Requirement, VERSIONS, requirement};
use karat_engine::manifest::{Case, EffectPattern, Manifest};
use karat_engine::model::{ProbeRecord, RunRecord};
use karat_engine::runfolder::component_path;
use std::path::Path;

/// Largest `run.json` that is read.
const RUN_RECORD_MAX: u64 = 64 << 20;

/// Explains.
pub(crate) fn execute(context: &Context, args: &ExplainArgs) -> CommandResult {
    let args = &ExplainArgs {
        id: requirement_of_kar(&args.id).unwrap_or(&args.id).to_owned(),
        ..args.clone()
    };
    let record = args.run.as_deref().map(read_run_record).transpose()?;
    let paint = context.printer.out_paint();
    let out = match record {
        None => {
            let probes = settings::probes(&args.sources, &context.environment)?;
            let found = probes.find(&args.id)?;
            joined(
                found
                    .into_iter()
                    .map(|probe| claim_lines(&probe.manifest, paint)),
            )
        }
        Some(record) => of_run(args, &record, paint)?,
    };
    context.printer.data_lines(out);
    Ok(Exit::Passed)
}

/// The requirement that `KAR-51` stands for.
fn requirement_of_kar(word: &str) -> Option<&'static str> {
    let number: u16 = word
        .get(..4)
        .filter(|start| start.eq_ignore_ascii_case("KAR-"))
        .and_then(|_| word.get(4..))?
        .parse()
        .ok()?;
    REQUIREMENTS
        .iter()
        .find(|requirement| requirement.kar == Some(number))
        .map(|requirement| requirement.id)
}

fn of_run(
    args: &ExplainArgs,
    record: &RunRecord,
    paint: Paint,
) -> Result<Vec<String>, CommandError> {
    let found: Vec<&ProbeRecord> = record
        .probes
        .iter()
        .filter(|probe| probe.probe == args.id || probe.requirements.contains(&args.id))
        .collect();
    if found.is_empty() {
        let known: Vec<String> = record
            .probes
            .iter()
            .map(|probe| shown(&probe.probe))
            .collect();
        return Err(
            CommandError::usage(anyhow!("run {} has no probe `{}`", record.run, args.id))
                .hint(format!("it has: {}", known.join(", "))),
        );
    }
    let folder = args.run.as_deref().unwrap_or(Path::new("."));
    Ok(joined(found.into_iter().map(|probe| {
        let mut lines = match as_it_ran(folder, probe) {
            Some(manifest) => claim_lines(&manifest, paint),
            None => vec![format!(
                "{} {}  {}",
                paint.paint(Style::Strong, &shown_within(&probe.probe, 60)),
                shown_within(&probe.version, 40),
                shown_within(&probe.title, 100)
            )],
        };
        lines.push(String::new());
        lines.push(paint.paint(
            Style::Strong,
            &format!("in run {}", shown_within(&record.run, 40)),
        ));
        lines.extend(explained(probe, paint));
        lines
    })))
}

/// The manifest of a probe as it ran. The verdict is explained without it too: a probe that was left out is not kept.
fn as_it_ran(folder: &Path, record: &ProbeRecord) -> Option<Manifest> {
    let path = component_path(folder, &record.digest).ok()?;
    let probe = Probe::from_bytes(read_component(&path).ok()?, path.display().to_string()).ok()?;
    (probe.digest == record.digest).then(|| (*probe.manifest).clone())
}

/// Reads `run.json` of an output folder.
///
/// # Errors
/// It is missing, too large or of another form.
pub(crate) fn read_run_record(folder: &Path) -> Result<RunRecord, CommandError> {
    let path = folder.join("run.json");
    let name = path.display().to_string();
    if !path.is_file() {
        return Err(
            CommandError::usage(anyhow!("there is no run record {name}"))
                .hint("give the output folder of a run; `karat run` names it at the end"),
        );
    }
    let bytes = read_limited(&path, RUN_RECORD_MAX)?;
    serde_json::from_slice(&bytes).usage(format!("{name} is no run record of this release"))
}

fn joined(parts: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let mut out = Vec::new();
    for part in parts {
        if !out.is_empty() {
            out.push(String::new());
        }
        out.extend(part);
    }
    out
}

fn claim_lines(manifest: &Manifest, paint: Paint) -> Vec<String> {
    let id = paint.paint(Style::Strong, &shown_within(&manifest.id, 60));
    let mut out = vec![format!(
        "{id} {}  {}",
        shown_within(&manifest.version, 40),
        shown_within(&manifest.title, 100)
    )];
    if !manifest.requirements.is_empty() {
        let names: Vec<String> = manifest
            .requirements
            .iter()
            .map(|name| shown_within(name, 60))
            .collect();
        push_wrapped(&mut out, "answers   ", &names.join(", "));
    }
    for requirement in manifest
        .requirements
        .iter()
        .filter_map(|id| requirement(id))
    {
        push_wrapped(&mut out, "level     ", &level_words(requirement));
    }
    push_wrapped(&mut out, "claims    ", &shown(&manifest.claim));
    push_wrapped(&mut out, "misleads  ", &shown(&manifest.misleads));
    for case in &manifest.cases {
        out.push(String::new());
        case_lines(&mut out, case, paint);
    }
    out
}

/// `dra_support (KAR-51): SHOULD in 1.33, MUST in 1.34, 1.35`.
fn level_words(requirement: &Requirement) -> String {
    let kar = requirement
        .kar
        .map_or(String::new(), |number| format!(" (KAR-{number})"));
    let mut parts = Vec::new();
    for (level, word) in [(Level::Should, "SHOULD"), (Level::Must, "MUST")] {
        let versions: Vec<&str> = VERSIONS
            .iter()
            .copied()
            .filter(|version| requirement.level(version) == Some(level))
            .collect();
        if !versions.is_empty() {
            parts.push(format!("{word} in {}", versions.join(", ")));
        }
    }
    format!("{}{kar}: {}", requirement.id, parts.join("; "))
}

fn case_lines(out: &mut Vec<String>, case: &Case, paint: Paint) {
    out.push(format!(
        "case {}  {}{}",
        paint.paint(Style::Strong, &shown_within(&case.id, 60)),
        kind_word(case.kind),
        required_words(case.required)
    ));
    push_wrapped(out, "  claim     ", &shown(&case.claim));
    if !case.expected.is_empty() {
        push_wrapped(out, "  expected  ", &shown(&case.expected));
    }
    if !case.effect.is_empty() {
        let effects: Vec<String> = case.effect.iter().map(effect).collect();
        let text = format!("counts only with a live answer to: {}", effects.join(", "));
        push_wrapped(out, "  proof     ", &text);
    }
    if !case.needs.is_empty() {
        let needs: Vec<String> = case.needs.iter().map(|id| shown_within(id, 60)).collect();
        let text = format!("a fail counts only after a pass of: {}", needs.join(", "));
        push_wrapped(out, "  needs     ", &text);
    }
    for control in &case.controls {
        let same: Vec<String> = control
            .same
            .iter()
            .map(|fact| shown_within(fact, 40))
            .collect();
        let same = if same.is_empty() {
            String::new()
        } else {
            format!(" on the same {}", same.join(", "))
        };
        let alive = if control.alive {
            ", still there at the end"
        } else {
            ""
        };
        let text = format!("{} must pass{same}{alive}", shown_within(&control.case, 60));
        push_wrapped(out, "  control   ", &text);
    }
    if let Some(quiet) = case.quiet {
        let text = format!("nothing may happen for {}", duration(quiet));
        push_wrapped(out, "  quiet     ", &text);
    }
    if case.pending {
        out.push("  cost      leaves pods pending on purpose".to_owned());
    }
}

/// A pattern of calls as it stands in a manifest.
fn effect(pattern: &EffectPattern) -> String {
    let verb = pattern
        .verb
        .as_ref()
        .map_or(String::new(), |verb| format!("{verb} "));
    let group = match pattern.group.as_deref() {
        None | Some("") => String::new(),
        Some(group) => format!(".{group}"),
    };
    shown_within(&format!("{verb}{}{group}", pattern.resource), 200)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::samples::{manifest_text, probe_record, run_record};
    use karat_engine::model::{Outcome, Verdict};

    #[test]
    fn a_claim_in_full() {
        let manifest =
            Manifest::parse(&manifest_text("dra-support", "0.1.0", "dra_support"), "x").unwrap();
        insta::assert_snapshot!(claim_lines(&manifest, Paint::Never).join("\n"));
    }

    #[test]
    fn kars_are_known_by_their_number() {
        assert_eq!(requirement_of_kar("KAR-51"), Some("dra_support"));
        assert_eq!(requirement_of_kar("kar-051"), Some("dra_support"));
        for word in ["KAR-", "KAR-x", "KAR-9999", "dra_support", "Ä"] {
            assert_eq!(requirement_of_kar(word), None, "{word}");
        }
    }

    #[test]
    fn records_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let record = run_record(vec![probe_record(
            "a",
            Some(Verdict::Fail),
            Outcome::Concluded,
        )]);
        let json = serde_json::to_vec(&record).unwrap();
        std::fs::write(folder.path().join("run.json"), json).unwrap();
        assert_eq!(read_run_record(folder.path()).unwrap(), record);

        std::fs::write(folder.path().join("run.json"), b"{\"format\": 1}").unwrap();
        let error = read_run_record(folder.path()).unwrap_err();
        assert_eq!(error.exit().code(), 3);
        assert!(error.lines(Paint::Never)[0].ends_with("is no run record of this release"));

        let error = read_run_record(&folder.path().join("absent")).unwrap_err();
        assert!(
            error
                .lines(Paint::Never)
                .join("\n")
                .contains("output folder of a run")
        );
    }
}

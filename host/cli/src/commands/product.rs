//! `karat product`: the folder that the programme accepts, made from a run that is computed again first.

use super::lint::form_and_text;
use super::{Context, block_on};
use crate::args::ProductArgs;
use crate::exit::Exit;
use crate::settings::{config, digests_built_in};
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult, Hint as _};
use crate::ui::product::lines;
use karat_engine::catalog::Level;
use karat_engine::lint::{self, Report};
use karat_engine::product::{
    self, Existing, Folder, Input, NoteKind, PRODUCT, Platform, ProductError, Recomputed, Standing,
};
use karat_engine::report::open::of_record;
use karat_engine::report::text::Foreign;
use karat_engine::report::{self, Format, Selection};
use karat_engine::verify::Reviewer;
use serde::Serialize;
use std::collections::BTreeSet;

/// Version of the document that `--json` prints. Raised when a key goes or changes its meaning; new keys may come.
const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Made<'a> {
    schema_version: u32,
    kubernetes_version: &'a str,
    files: Vec<&'a str>,
    requirements: Vec<MadeRequirement<'a>>,
    notes: Vec<MadeNote<'a>>,
    lint_errors: usize,
    lint_warnings: usize,
}

#[derive(Serialize)]
struct MadeRequirement<'a> {
    id: &'a str,
    level: String,
    /// The status that follows from the run; none where a person decides.
    status: Option<&'static str>,
    because: &'a str,
    probes: &'a [String],
}

#[derive(Serialize)]
struct MadeNote<'a> {
    kind: &'static str,
    subject: &'a str,
    text: &'a str,
}

/// Makes the folder and says what is still missing.
pub(crate) fn execute(context: &Context, args: &ProductArgs) -> CommandResult {
    let out = args.out.display();
    let form = form_and_text(&args.form)?;
    let platform = match &args.platform {
        Some(path) => config(path)?,
        None => Platform::default(),
    };
    // Before the work, so that a folder that cannot be written costs no waiting.
    let existing = Existing::read(&args.out)
        .map_err(|error| refused(error, format!("cannot bring {out} up to date")))?;
    let engine = context.engine()?;
    // The bundle is the vendor's own, so its probes may run; which of them came with the program stands in the pages.
    let reviewer = Reviewer {
        run_foreign: true,
        ..Reviewer::trusting(digests_built_in())
    };
    let work = Recomputed::compute(&engine, &args.bundle, &reviewer);
    let run = block_on(work)?
        .usage(format!("cannot compute {} again", args.bundle.display()))
        .hint("give a bundle or the output folder of a run; `karat run` names it at the end")?;
    let name = args.form.display().to_string();
    let input = Input {
        form_name: &name,
        form_text: &form.0,
        platform: &platform,
        run: &run,
        existing: &existing,
    };
    let doing = || format!("cannot make the product folder {out}");
    let draft = product::draft(input).map_err(|error| refused(error, doing()))?;
    let told = of_record(&args.bundle, &run.record);
    let artefacts = artefacts(&told, draft.submitted())?;
    let tests = draft
        .submitted()
        .iter()
        .map(|id| (id.clone(), report::test_name(&Foreign::new(id))))
        .collect();
    let folder = draft
        .finish(&artefacts, &tests)
        .map_err(|error| refused(error, doing()))?;
    folder
        .write(&args.out, &existing)
        .map_err(|error| refused(error, doing()))?;
    let report = lint::lint(&args.out, Some(&form.1)).environment("cannot check what was made")?;
    let printer = &context.printer;
    if args.json {
        printer
            .json(&made(&folder, &report))
            .bug("cannot write what was made")?;
    } else {
        printer.data_lines(lines(
            &folder,
            &report,
            &out.to_string(),
            printer.out_paint(),
        ));
    }
    Ok(exit(&folder, &report))
}

/// Test results of what is submitted, in the three formats that the programme reads; none where nothing is.
fn artefacts(
    told: &report::Report,
    submitted: &BTreeSet<String>,
) -> Result<Vec<(String, Vec<u8>)>, CommandError> {
    if submitted.is_empty() {
        return Ok(Vec::new());
    }
    let selection = Selection::Requirements(submitted.clone());
    let mut files = Vec::new();
    for format in [Format::E2eLog, Format::Results, Format::Junit] {
        let bytes = report::render_results(told, format, &selection)
            .bug("cannot write the test results")?;
        if let (Some(name), Some(bytes)) = (format.file_name(), bytes) {
            files.push((name.to_owned(), bytes));
        }
    }
    Ok(files)
}

/// 1 if a MUST failed, 2 if the lint still has errors or something is to supply, else 0.
fn exit(folder: &Folder, report: &Report) -> Exit {
    let failed = folder.decisions.iter().any(|decision| {
        decision.level == Level::Must && decision.standing == Standing::Contradicted
    });
    let open = folder
        .notes
        .iter()
        .any(|note| matches!(note.kind, NoteKind::Failing | NoteKind::Supply));
    if failed {
        Exit::Failed
    } else if open || report.errors() > 0 {
        Exit::Unclear
    } else {
        Exit::Passed
    }
}

/// Whose doing it is, and what to do.
fn refused(error: ProductError, doing: String) -> CommandError {
    let hint = match &error {
        ProductError::Form(error) => Some(error.hint.clone()),
        ProductError::Inconsistent { .. } => Some(
            "`karat replay` shows every difference; make the folder from the run as it was"
                .to_owned(),
        ),
        ProductError::Structure { .. } => Some(format!(
            "`karat lint --form` shows what differs from the form; {PRODUCT} was not touched"
        )),
        _ => None,
    };
    let error = match &error {
        ProductError::Io { .. } | ProductError::Changed { .. } => CommandError::environment(error),
        ProductError::Mistaken { .. } | ProductError::Artefact { .. } => CommandError::bug(error),
        _ => CommandError::usage(error),
    };
    let error = error.doing(doing);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn made<'a>(folder: &'a Folder, report: &Report) -> Made<'a> {
    let decisions = folder.decisions.iter();
    Made {
        schema_version: SCHEMA_VERSION,
        kubernetes_version: &folder.version,
        files: folder.files.keys().map(String::as_str).collect(),
        requirements: decisions
            .map(|decision| MadeRequirement {
                id: &decision.id,
                level: decision.level.to_string(),
                status: decision.standing.status(),
                because: &decision.because,
                probes: &decision.probes,
            })
            .collect(),
        notes: folder
            .notes
            .iter()
            .map(|note| MadeNote {
                kind: note.kind.word(),
                subject: &note.subject,
                text: &note.text,
            })
            .collect(),
        lint_errors: report.errors(),
        lint_warnings: report.warnings(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::printer::Paint;

    const FORM: &str = "metadata:\n  kubernetesVersion: v1.37\nspec:\n  security:\n    - id: a\n      description: A.\n      level: MUST\n";

    fn said(args: &ProductArgs) -> (Exit, String) {
        let (context, _) = Context::captured();
        let error = execute(&context, args).unwrap_err();
        (error.exit(), error.lines(Paint::Never).join("\n"))
    }

    #[test]
    fn wrong_input_is_named_and_nothing_is_made() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        std::fs::write(path("form.yaml"), FORM).unwrap();
        std::fs::write(path("filled.yaml"), FORM.replace("A.", "''")).unwrap();
        std::fs::write(path("karat.toml"), "[platform]\nvendor = \"x\"\n").unwrap();
        std::fs::create_dir(path("there")).unwrap();
        std::fs::write(path("there/PRODUCT.yaml"), "metadata: [\n").unwrap();
        let args = || ProductArgs {
            bundle: path("no-run"),
            form: path("form.yaml"),
            platform: None,
            out: path("v1.37/acme"),
            json: false,
        };
        let (exit, text) = said(&ProductArgs {
            form: path("filled.yaml"),
            ..args()
        });
        assert!(
            exit == Exit::Usage
                && text.contains("filled.yaml:5")
                && text.contains("no description"),
            "{text}"
        );
        let (exit, text) = said(&ProductArgs {
            platform: Some(path("karat.toml")),
            ..args()
        });
        assert!(
            exit == Exit::Usage
                && text.contains("karat.toml:2:1")
                && text.contains("the form has platformName"),
            "{text}"
        );
        let (exit, text) = said(&ProductArgs {
            out: path("there"),
            ..args()
        });
        assert!(
            exit == Exit::Usage && text.contains("PRODUCT.yaml:") && text.contains("no YAML"),
            "{text}"
        );
        let (exit, text) = said(&args());
        assert!(
            exit == Exit::Usage && text.contains("holds no run"),
            "{text}"
        );
        assert!(!path("v1.37").exists());
        assert_eq!(
            std::fs::read_to_string(path("there/PRODUCT.yaml")).unwrap(),
            "metadata: [\n"
        );
    }
}

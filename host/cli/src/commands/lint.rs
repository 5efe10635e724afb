//! `karat lint`: what the programme's validator would say of a product folder, offline, and what it does not look at.

use super::Context;
use crate::args::LintArgs;
use crate::exit::Exit;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult, Hint as _};
use crate::ui::lint::{explained, lines};
use crate::ui::text::shown;
use karat_engine::form::{Form, FormError, read_file, read_form};
use karat_engine::lint::rules::{RULES, rule};
use karat_engine::lint::{Report, Verdict, lint};
use serde::Serialize;
use std::path::Path;

/// Version of the document that `--json` prints. Raised when a key goes or changes its meaning; new keys may come.
const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Found<'a> {
    schema_version: u32,
    /// Version of the checklist.
    kubernetes_version: Option<&'a str>,
    errors: usize,
    warnings: usize,
    /// `accepts`, `refuses` or `unknown`.
    programme: &'static str,
    findings: Vec<FoundFinding<'a>>,
    /// Findings that were too many to list.
    dropped: usize,
    unchecked: &'a [String],
}

#[derive(Serialize)]
struct FoundFinding<'a> {
    file: &'a str,
    line: u32,
    rule: &'static str,
    severity: &'static str,
    message: &'a str,
    hint: &'a str,
}

/// Checks a folder, or explains a rule.
pub(crate) fn execute(context: &Context, args: &LintArgs) -> CommandResult {
    let printer = &context.printer;
    if let Some(id) = &args.explain {
        let rule = rule(id).ok_or_else(|| unknown_rule(id))?;
        printer.data_lines(explained(rule, printer.out_paint()));
        return Ok(Exit::Passed);
    }
    let folder = args
        .folder
        .as_deref()
        .ok_or_else(|| CommandError::usage(anyhow::anyhow!("no folder was given")))?;
    let form = args.form.as_deref().map(form).transpose()?;
    let report = lint(folder, form.as_ref())
        .usage("cannot check the product folder")
        .hint("give the folder that holds PRODUCT.yaml, such as v1.37/my-product")?;
    if args.json {
        printer
            .json(&found(&report))
            .bug("cannot write what was found")?;
    } else {
        printer.data_lines(lines(&report, printer.out_paint()));
    }
    Ok(exit(&report))
}

/// 1 if there is an error, whatever the programme's validator makes of it.
fn exit(report: &Report) -> Exit {
    if report.errors() > 0 {
        Exit::Failed
    } else {
        Exit::Passed
    }
}

/// Reads an official form.
///
/// # Errors
/// It is none; the error says where and what to do.
pub(crate) fn form(path: &Path) -> Result<Form, CommandError> {
    Ok(form_and_text(path)?.1)
}

/// As [`form`], with its text.
///
/// # Errors
/// As [`form`].
pub(crate) fn form_and_text(path: &Path) -> Result<(String, Form), CommandError> {
    let name = path.display().to_string();
    let read = |name: &str| -> Result<(String, Form), FormError> {
        let text = read_file(path, name)?;
        let form = read_form(name, &text)?;
        Ok((text, form))
    };
    read(&name).map_err(|error| {
        let hint = error.hint.clone();
        CommandError::usage(error)
            .doing(format!("cannot read the official form {name}"))
            .hint(hint)
    })
}

fn unknown_rule(id: &str) -> CommandError {
    let near: Vec<&str> = RULES
        .iter()
        .map(|rule| rule.id)
        .filter(|known| {
            known
                .split('-')
                .any(|word| id.split('-').any(|part| part == word))
        })
        .collect();
    let known = if near.is_empty() {
        RULES.iter().map(|rule| rule.id).collect()
    } else {
        near
    };
    CommandError::usage(anyhow::anyhow!("there is no rule `{}`", shown(id)))
        .hint(format!("rules: {}", known.join(", ")))
}

fn found(report: &Report) -> Found<'_> {
    Found {
        schema_version: SCHEMA_VERSION,
        kubernetes_version: report.version.as_deref(),
        errors: report.errors(),
        warnings: report.warnings(),
        programme: match report.verdict {
            Verdict::Accepts => "accepts",
            Verdict::Refuses => "refuses",
            Verdict::Unknown => "unknown",
        },
        findings: report
            .findings
            .iter()
            .map(|finding| FoundFinding {
                file: &finding.file,
                line: finding.line,
                rule: finding.rule.id,
                severity: finding.rule.severity.word(),
                message: &finding.message,
                hint: &finding.hint,
            })
            .collect(),
        dropped: report.dropped,
        unchecked: &report.unchecked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the command; its end and what it printed.
    fn run(args: &LintArgs) -> (CommandResult, String) {
        let (context, captured) = Context::captured();
        let result = execute(&context, args);
        (result, captured.out())
    }

    fn args(folder: &Path) -> LintArgs {
        LintArgs {
            folder: Some(folder.to_owned()),
            form: None,
            json: false,
            explain: None,
        }
    }

    #[test]
    fn a_folder_without_product_is_refused_and_json_says_so() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("v1.37/acme");
        std::fs::create_dir_all(&folder).unwrap();
        let (end, out) = run(&args(&folder));
        assert_eq!(end.unwrap(), Exit::Failed);
        insta::assert_snapshot!(out);
        let (end, out) = run(&LintArgs {
            json: true,
            ..args(&folder)
        });
        assert_eq!(end.unwrap(), Exit::Failed);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(json["schema_version"], 1);
        assert_eq!(json["programme"], "refuses");
        assert_eq!(json["findings"][0]["rule"], "product-missing");
        assert_eq!(json["errors"], 1);
    }

    #[test]
    fn a_hostile_folder_paints_no_terminal() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("v1.37/acme");
        std::fs::create_dir_all(&folder).unwrap();
        let product = "metadata:\n  \"\\e[2J::error::x\": 1\n  platformName: \"[\\e[31m\\u202e]\"\nspec:\n  security:\n    \
            - id: \"##vso[task.x]\\e[2J\"\n    - id: secure_accelerator_access\n      status: \"Implemented\"\n      \
            evidence: [\"a\\e]0;x\\a\", \"e2e.log\"]\n";
        std::fs::write(folder.join("PRODUCT.yaml"), product).unwrap();
        let log = "--- FAIL: \u{1b}[2J\u{202e}::error::x\n";
        std::fs::write(folder.join("e2e.log"), log).unwrap();
        let (end, out) = run(&args(&folder));
        assert_eq!(end.unwrap(), Exit::Failed);
        for rule in [
            "key-unknown",
            "metadata-placeholder",
            "id-unknown",
            "evidence-missing",
            "artifact-failing",
        ] {
            assert!(out.contains(rule), "{rule}: {out}");
        }
        for line in out.lines() {
            assert!(
                !line.chars().any(|c| c.is_control() || c == '\u{202e}'),
                "{line:?}"
            );
            assert!(
                !line.contains(" ::error") && !line.contains("##vso["),
                "{line:?}"
            );
        }
    }

    #[test]
    fn wrong_usage_has_its_own_code() {
        let home = tempfile::tempdir().unwrap();
        let nowhere = args(&home.path().join("no"));
        assert_eq!(run(&nowhere).0.unwrap_err().exit(), Exit::Usage);
        let form = home.path().join("form.yaml");
        std::fs::write(&form, "metadata:\n  kubernetesVersion: v1.36\nspec: 3\n").unwrap();
        let error = run(&LintArgs {
            form: Some(form),
            ..args(home.path())
        });
        let error = error.0.unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        let said = error.lines(crate::ui::printer::Paint::Never).join("\n");
        assert!(said.contains("form.yaml:3: a number stands here"), "{said}");
        let rule = LintArgs {
            folder: None,
            explain: Some("evidence-nothing".to_owned()),
            ..args(home.path())
        };
        let error = run(&rule).0.unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        let said = error.lines(crate::ui::printer::Paint::Never).join("\n");
        assert!(
            said.contains("evidence-empty") && !said.contains("logo-type"),
            "{said}"
        );
    }

    #[test]
    fn every_rule_explains_itself_without_a_folder() {
        for known in RULES {
            let (end, out) = run(&LintArgs {
                folder: None,
                form: None,
                json: false,
                explain: Some(known.id.to_owned()),
            });
            assert_eq!(end.unwrap(), Exit::Passed);
            assert!(out.starts_with(known.id) && out.contains("do "), "{out}");
        }
    }
}

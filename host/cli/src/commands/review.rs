//! `karat review`: the comment that a bot would post on a product folder or a bundle. It posts nothing and follows no link.

use super::bundle::public_keys;
use super::lint::form;
use super::{Context, block_on};
use crate::args::{ReviewArgs, ReviewTo};
use crate::exit::Exit;
use crate::probes::Probes;
use crate::settings::digests_built_in;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult, Hint as _};
use karat_engine::product::Recomputed;
use karat_engine::review::{Conclusion, Review, Sentence, issue_nonce, of_bundle, of_product};
use karat_engine::runfolder::{JOURNAL_FILE, RUN_FILE};
use karat_engine::verify::Reviewer;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How deep below a product folder a bundle may lie.
const DEPTH_MAX: usize = 4;

/// Most folders that are looked into for bundles.
const FOLDERS_MAX: usize = 2000;

/// Most bundles of one product folder.
const BUNDLES_MAX: usize = 8;

/// Reviews, or issues a nonce.
pub(crate) fn execute(context: &Context, args: &ReviewArgs) -> CommandResult {
    let printer = &context.printer;
    if args.issue_nonce {
        let nonce = issue_nonce().environment("cannot draw a nonce")?;
        printer.data_lines(asking(&nonce));
        return Ok(Exit::Passed);
    }
    let target = args
        .target
        .as_deref()
        .ok_or_else(|| CommandError::usage(anyhow::anyhow!("no folder was given")))?;
    let review = review(context, args, target)?;
    match args.to {
        ReviewTo::Json => printer.json(&review).bug("cannot write the review")?,
        ReviewTo::Markdown => printer.data(review.markdown().trim_end()),
    }
    Ok(exit(review.conclusion))
}

/// The word, and how a vendor answers it.
fn asking(nonce: &str) -> Vec<String> {
    vec![
        nonce.to_owned(),
        String::new(),
        "Whoever submits runs this, and hands in the bundle:".to_owned(),
        format!("  karat run --nonce {nonce} --out karat-runs/{nonce}"),
        "Whoever reviews runs this:".to_owned(),
        format!("  karat review BUNDLE --nonce {nonce}"),
        "The word enters the id of the run, and with it every name that the run creates: the run cannot be older than the word."
            .to_owned(),
    ]
}

fn exit(conclusion: Conclusion) -> Exit {
    match conclusion {
        Conclusion::Holds => Exit::Passed,
        Conclusion::Broken => Exit::Failed,
        Conclusion::Open => Exit::Unclear,
    }
}

fn review(context: &Context, args: &ReviewArgs, target: &Path) -> Result<Review, CommandError> {
    let form = args.form.as_deref().map(form).transpose()?;
    let reviewer = Reviewer {
        keys: public_keys(&args.keys)?,
        run_foreign: args.run_foreign_probes,
        ..Reviewer::trusting(known(args)?)
    };
    let engine = context.engine()?;
    let again = |folder: &Path| -> Result<Recomputed, CommandError> {
        let work = Recomputed::compute(&engine, folder, &reviewer);
        block_on(work)?.usage(format!("cannot compute {} again", folder.display()))
    };
    let nonce = args.nonce.as_deref();
    if target.join(RUN_FILE).is_file() {
        if !args.bundle.is_empty() {
            let error = anyhow::anyhow!("{} is a bundle itself", target.display());
            return Err(CommandError::usage(error).hint("give --bundle with a product folder only"));
        }
        let name = target.display().to_string();
        return Ok(of_bundle(&name, &again(target)?, nonce));
    }
    let inside = bundles_in(target);
    let mut bundles = Vec::new();
    for folder in args.bundle.iter().chain(&inside) {
        bundles.push((folder.display().to_string(), again(folder)?));
    }
    let mut review = of_product(target, form.as_ref(), &bundles, nonce)
        .usage("cannot review the folder")
        .hint("give the folder that holds PRODUCT.yaml, such as v1.37/my-product, or a bundle")?;
    for folder in inside {
        let journal = folder.join(JOURNAL_FILE);
        if std::fs::symlink_metadata(&journal).is_ok() {
            review.wrong.push(
                Sentence::quoting(journal.display().to_string())
                    .and(" holds the key of the run, which proves what is its own on a cluster: take it out, and out of the history"),
            );
            review.conclusion = Conclusion::Broken;
        }
    }
    Ok(review)
}

/// Digests of the probes that came with the program, or of those that were named.
fn known(args: &ReviewArgs) -> Result<BTreeSet<String>, CommandError> {
    if args.sources.probes_from.is_empty() {
        return Ok(digests_built_in());
    }
    let probes = Probes::load(&args.sources.probes_from)?;
    Ok(probes.iter().map(|probe| probe.digest.clone()).collect())
}

/// Bundles inside a product folder. Links are not followed.
fn bundles_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![(folder.to_owned(), 0)];
    let mut looked = 0;
    while let Some((folder, depth)) = waiting.pop() {
        looked += 1;
        if looked > FOLDERS_MAX || found.len() >= BUNDLES_MAX {
            break;
        }
        let mut below: Vec<PathBuf> = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        below.sort();
        for path in below.into_iter().rev() {
            let record = path.join(RUN_FILE);
            if std::fs::symlink_metadata(&record).is_ok_and(|found| found.is_file()) {
                found.push(path);
            } else if depth + 1 < DEPTH_MAX {
                waiting.push((path, depth + 1));
            }
        }
    }
    found.truncate(BUNDLES_MAX);
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::SourceArgs;

    /// Runs the command; its end and what it printed.
    fn run(args: &ReviewArgs) -> (CommandResult, String) {
        let (context, captured) = Context::captured();
        let result = execute(&context, args);
        (result, captured.out())
    }

    fn args(target: Option<&Path>) -> ReviewArgs {
        ReviewArgs {
            target: target.map(Path::to_owned),
            to: ReviewTo::Markdown,
            form: None,
            bundle: Vec::new(),
            nonce: None,
            keys: Vec::new(),
            run_foreign_probes: false,
            issue_nonce: target.is_none(),
            sources: SourceArgs::default(),
        }
    }

    #[test]
    fn a_nonce_comes_with_the_command_that_answers_it() {
        let (end, out) = run(&args(None));
        assert_eq!(end.unwrap(), Exit::Passed);
        let word = out.lines().next().unwrap();
        assert_eq!(word.len(), 26);
        assert!(out.contains(&format!("karat run --nonce {word} ")), "{out}");
    }

    #[test]
    fn a_folder_without_product_is_wrong_and_nowhere_is_usage() {
        let home = tempfile::tempdir().unwrap();
        let (end, out) = run(&args(Some(home.path())));
        assert_eq!(end.unwrap(), Exit::Failed);
        assert!(
            out.starts_with("<!-- karat-review -->\n## Karat review: something is wrong"),
            "{out}"
        );
        let json = ReviewArgs {
            to: ReviewTo::Json,
            ..args(Some(home.path()))
        };
        let (_, out) = run(&json);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(json["schema_version"], 1);
        assert_eq!(json["conclusion"], "broken");
        let nowhere = args(Some(&home.path().join("no")));
        assert_eq!(run(&nowhere).0.unwrap_err().exit(), Exit::Usage);
    }

    #[test]
    fn bundles_are_found_in_a_folder_and_links_are_not_followed() {
        let home = tempfile::tempdir().unwrap();
        for folder in ["karat/bundle", "other", "a/b/c/d/e"] {
            let folder = home.path().join(folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(RUN_FILE), "{}").unwrap();
        }
        std::os::unix::fs::symlink(home.path().join("other"), home.path().join("linked")).unwrap();
        let found = bundles_in(home.path());
        assert_eq!(
            found,
            [home.path().join("karat/bundle"), home.path().join("other")]
        );
        // One that is no bundle is wrong input, not a silent nothing.
        assert_eq!(
            run(&args(Some(home.path()))).0.unwrap_err().exit(),
            Exit::Usage
        );
    }
}

//! The example of a bot: it is YAML, its jobs have no more rights than they need, nothing of others is run, and what it
//! tells `karat` to do exists. Whether GitHub runs it is not tested here.

use crate::docs::{Commands, root};
use anyhow::{Context as _, Result, ensure};
use serde_yaml_ng::Value;

const WORKFLOW: &str = "examples/review-bot/review.yml";

fn workflow() -> Result<(String, Value)> {
    let text = std::fs::read_to_string(root().join(WORKFLOW))?;
    let yaml = serde_yaml_ng::from_str(&text).context(WORKFLOW)?;
    Ok((text, yaml))
}

/// Steps of all jobs, with the job's name.
fn steps(yaml: &Value) -> Result<Vec<(String, Value)>> {
    let jobs = yaml["jobs"].as_mapping().context("jobs")?;
    let mut all = Vec::new();
    for (name, job) in jobs {
        let name = name.as_str().context("a job")?;
        for step in job["steps"].as_sequence().context("steps")? {
            all.push((name.to_owned(), step.clone()));
        }
    }
    Ok(all)
}

#[test]
fn no_job_has_more_than_it_needs() -> Result<()> {
    let (text, yaml) = workflow()?;
    ensure!(
        yaml["permissions"]
            .as_mapping()
            .is_some_and(|map| map.is_empty()),
        "rights for all jobs"
    );
    let rights = |job: &str| -> Result<String> {
        let rights = &yaml["jobs"][job]["permissions"];
        Ok(serde_yaml_ng::to_string(rights)?.trim().to_owned())
    };
    ensure!(rights("review")? == "contents: read\npull-requests: read");
    ensure!(rights("comment")? == "pull-requests: write");
    ensure!(!text.contains("uses:"), "an action of somebody");
    ensure!(!text.contains("secrets."), "a secret");
    for (job, step) in steps(&yaml)? {
        let run = step["run"].as_str().context("a step without a script")?;
        // What an expression puts into a script is run.
        ensure!(!run.contains("${{"), "{job}: an expression in a script");
        ensure!(
            run.starts_with("set -euo pipefail\n"),
            "{job}: goes on after an error"
        );
        let has_token = step["env"].get("GH_TOKEN").is_some();
        let reads_foreign = run.contains("docker");
        ensure!(
            !(has_token && reads_foreign),
            "{job}: a token beside foreign files"
        );
        if job == "comment" {
            ensure!(
                !run.contains("git ") && !run.contains("docker"),
                "foreign files beside the right to write"
            );
        }
    }
    Ok(())
}

/// Calls of the image in a script: what stands behind `"$IMAGE"`, word by word.
fn calls(script: &str) -> Vec<Vec<String>> {
    script
        .replace("\\\n", " ")
        .lines()
        .filter_map(|line| line.split_once("\"$IMAGE\""))
        .map(|(_, rest)| {
            let rest = rest.split([';', '|', '>']).next().unwrap_or_default();
            let words = rest.split_whitespace();
            words
                .map(|word| word.trim_matches('"').to_owned())
                .collect()
        })
        .collect()
}

#[test]
fn what_it_tells_the_program_exists_and_is_confined() -> Result<()> {
    let (_, yaml) = workflow()?;
    let commands = Commands::ask(&karat_tests::program::karat()?)?;
    let mut count = 0;
    for (job, step) in steps(&yaml)? {
        let run = step["run"].as_str().context("a script")?;
        for words in calls(run) {
            count += 1;
            ensure!(words[0] == "review", "{words:?}");
            if let Some(wrong) = commands.check(&words) {
                anyhow::bail!("{job}: {wrong}");
            }
            for needed in [
                "--network none",
                "--read-only",
                "--cap-drop ALL",
                "no-new-privileges",
                ":ro\"",
            ] {
                ensure!(run.contains(needed), "{job}: not {needed}");
            }
            ensure!(!run.contains("--run-foreign-probes"));
        }
    }
    ensure!(count == 1, "{count} calls");
    // A wrong word would be found.
    let odd = calls("docker run \\\n  \"$IMAGE\" review \"/data\" --sideways > x");
    ensure!(
        commands
            .check(&odd[0])
            .is_some_and(|wrong| wrong.contains("--sideways"))
    );
    Ok(())
}

#[test]
fn the_image_is_pinned_by_digest() -> Result<()> {
    let (_, yaml) = workflow()?;
    let image = yaml["env"]["IMAGE"].as_str().context("IMAGE")?;
    let digest = image.split_once("@sha256:").context("a digest")?.1;
    ensure!(digest.len() == 64);
    let file = std::fs::read_to_string(root().join("examples/review-bot/Containerfile"))?;
    ensure!(
        file.contains("FROM ${BASE}") && !file.contains("RUN "),
        "{file}"
    );
    Ok(())
}

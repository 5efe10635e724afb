//! From a run on a real API server to a product folder that passes the lint, and to what a reviewer sees of it. Only the
//! program is used. The form is invented, in the shape of the official ones.

use crate::docs::{Commands, command_lines, root};
use anyhow::{Context as _, Result, ensure};
use karat_engine::catalog::{Level, REQUIREMENTS};
use karat_engine::product::Platform;
use karat_tests::guests::{Guest, case};
use karat_tests::program;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;
use tokio::process::Command;

const VERSION: &str = "1.37";

const PLATFORM: &str = r#"
[platform]
platformName = "Acme AI"
platformVersion = "7.1"
vendorName = "Acme Inc."
websiteUrl = "https://acme.example"
repoUrl = ""
documentationUrl = "https://acme.example/docs"
productLogoUrl = "https://acme.example/logo.svg"
description = "A platform."
contactEmailAddress = "ai@acme.example"
k8sConformanceUrl = "https://github.com/cncf/k8s-conformance/tree/master/v1.37/acme"
"#;

const DECLARATION: &str = "[[declaration]]\nrequirements = [\"ai_service_metrics\"]\ntext = \"A real control plane.\"\nby = \"Jane Doe\"\n";

fn form() -> String {
    let mut out = format!(
        "# Checklist\nmetadata:\n  kubernetesVersion: v{VERSION}\n  platformName: \"[Platform Name]\"\n  platformVersion: \"[Platform Version]\"\n  \
         vendorName: \"[Vendor Name]\"\n  websiteUrl: \"[Website URL]\"\n  repoUrl: \"[Repository URL]\"\n  documentationUrl: \"[Documentation URL]\"\n  \
         productLogoUrl: \"[Documentation URL]\"\n  description: \"[Description]\"\n  contactEmailAddress: \"[Contact Email Address]\"\n\nspec:\n"
    );
    let mut category = "";
    for requirement in REQUIREMENTS {
        let Some(level @ (Level::Must | Level::Should)) = requirement.level(VERSION) else {
            continue;
        };
        if category != requirement.category.key() {
            category = requirement.category.key();
            let _ = writeln!(out, "  {category}:");
        }
        let id = requirement.id;
        let _ = write!(
            out,
            "    - id: {id}\n      description: \"Invented: text of {id}.\"\n      level: {level}\n      status: \"\"\n      evidence: []\n      notes: \"\"\n"
        );
    }
    out
}

/// A probe that answers `ai_service_metrics` with a word.
fn answering(id: &str, word: &str) -> Guest {
    let script = json!([
        {"do": "open", "id": "alive"},
        {"do": "get", "api": "v1", "resource": "namespaces", "name": "kube-system"},
        {"do": "observe", "name": "kind", "value": "Namespace"},
        {"do": "conclude", "outcome": word},
    ]);
    Guest::scripted(id, &script)
        .answers("ai_service_metrics")
        .cases(&case("alive", "get namespaces"))
}

struct Desk {
    folder: TempDir,
    kubeconfig: PathBuf,
}

impl Desk {
    fn new(kubeconfig: PathBuf) -> Result<Desk> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("form.yaml"), form())?;
        std::fs::write(
            folder.path().join("karat.toml"),
            format!("{PLATFORM}{DECLARATION}"),
        )?;
        std::fs::write(folder.path().join("bare.toml"), PLATFORM)?;
        Ok(Desk { folder, kubeconfig })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn karat(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(program::karat()?);
        command
            .args(arguments)
            .env_clear()
            .env("KARAT_CACHE_DIR", self.path("cache"))
            .current_dir(self.folder.path())
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true);
        command.output().await.map_err(Into::into)
    }

    /// Runs one probe into a folder.
    async fn run(&self, out: &str, word: &str, more: &[&str]) -> Result<()> {
        let probes = self.path(&format!("{out}-probes"));
        std::fs::create_dir(&probes)?;
        std::fs::write(
            probes.join("a.wasm"),
            answering(&format!("submit-{out}"), word).component()?,
        )?;
        let kubeconfig = self.kubeconfig.to_string_lossy();
        let probes = probes.to_string_lossy();
        let mut arguments = vec![
            "run",
            "--yes",
            "--lock",
            "none",
            "--probes-from",
            &probes,
            "--out",
            out,
        ];
        arguments.extend(["--kubeconfig", &kubeconfig]);
        arguments.extend(more);
        let done = self.karat(&arguments).await?;
        ensure!(
            self.path(out).join("run.json").is_file(),
            "{}",
            text(&done.stderr)
        );
        Ok(())
    }

    async fn product(&self, run: &str, platform: &str) -> Result<(i32, String)> {
        let arguments = [
            "product",
            run,
            "--form",
            "form.yaml",
            "--platform",
            platform,
            "--out",
            "v1.37/acme",
        ];
        let done = self.karat(&arguments).await?;
        Ok((code(&done), text(&done.stdout) + &text(&done.stderr)))
    }

    fn checklist(&self) -> Result<String> {
        std::fs::read_to_string(self.path("v1.37/acme/PRODUCT.yaml")).map_err(Into::into)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

/// The lines of one entry.
fn entry<'a>(yaml: &'a str, id: &str) -> Result<&'a str> {
    let begin = yaml
        .find(&format!("- id: {id}\n"))
        .with_context(|| id.to_owned())?;
    let rest = &yaml[begin..];
    Ok(&rest[..rest.find("\n    - id:").unwrap_or(rest.len())])
}

/// Fills in every MUST that no probe answered, as a person would.
fn fill_in(path: &Path) -> Result<()> {
    let mut yaml = std::fs::read_to_string(path)?;
    for requirement in REQUIREMENTS {
        if requirement.level(VERSION) != Some(Level::Must) || requirement.id == "ai_service_metrics"
        {
            continue;
        }
        let there = entry(&yaml, requirement.id)?.to_owned();
        let filled = there
            .replace("status: \"\"", "status: Implemented")
            .replace("evidence: []", "evidence:\n        - shown.md")
            .replace("notes: \"\"", "notes: Shown by hand.");
        yaml = yaml.replace(&there, &filled);
    }
    std::fs::write(path, yaml)?;
    std::fs::write(path.with_file_name("shown.md"), "how it was shown")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_becomes_a_folder_that_passes_the_lint() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let desk = Desk::new(lab.kubeconfig())?;
    desk.run("first", "pass", &["--nonce", "word-of-a-reviewer"])
        .await?;

    // Without a declaration nothing is claimed: no positive sign of hardware was seen.
    let (exit, said) = desk.product("first", "bare.toml").await?;
    ensure!(exit == 2, "{exit}: {said}");
    ensure!(
        entry(&desk.checklist()?, "ai_service_metrics")?.contains("status: \"\""),
        "{said}"
    );

    let (exit, said) = desk.product("first", "karat.toml").await?;
    ensure!(exit == 2, "{exit}: {said}");
    ensure!(
        said.contains("supply: gang_scheduling: a MUST without status"),
        "{said}"
    );
    let made = desk.checklist()?;
    let metrics = entry(&made, "ai_service_metrics")?;
    for part in [
        "status: \"Implemented\"",
        "karat/ai_service_metrics.md",
        "Jane Doe declares: 'A real control plane'",
    ] {
        ensure!(metrics.contains(part), "{part}: {metrics}");
    }

    // A person supplies the rest, and the same command leaves that alone.
    fill_in(&desk.path("v1.37/acme/PRODUCT.yaml"))?;
    let before = desk.checklist()?;
    let (exit, said) = desk.product("first", "karat.toml").await?;
    ensure!(exit == 0, "{exit}: {said}");
    ensure!(desk.checklist()? == before, "{}", desk.checklist()?);
    let lint = desk
        .karat(&["lint", "v1.37/acme", "--form", "form.yaml"])
        .await?;
    ensure!(code(&lint) == 0, "{}", text(&lint.stdout));
    ensure!(
        text(&lint.stdout).contains("would accept this"),
        "{}",
        text(&lint.stdout)
    );

    // The commands that the README names exist.
    let commands = Commands::ask(&program::karat()?)?;
    let readme = std::fs::read_to_string(desk.path("v1.37/acme/README.md"))?;
    // The version of the engine stands between backquotes too.
    let is_command = |words: &Vec<String>| words[0].starts_with(|c: char| c.is_ascii_lowercase());
    let mut named = command_lines(&readme);
    named.retain(is_command);
    ensure!(named.len() >= 4, "{named:?}");
    for words in &named {
        ensure!(commands.check(words).is_none(), "{words:?}");
    }

    // A reviewer sees one claim computed again, if the probe is known, and the nonce answered.
    let review = |more: &'static [&'static str]| {
        let desk = &desk;
        async move {
            let mut arguments = vec![
                "review",
                "v1.37/acme",
                "--form",
                "form.yaml",
                "--bundle",
                "first",
                "--to",
                "json",
            ];
            arguments.extend(more);
            let done = desk.karat(&arguments).await?;
            let said = text(&done.stdout);
            let json: Value =
                serde_json::from_str(&said).with_context(|| said + &text(&done.stderr))?;
            let entry = json["requirements"]
                .as_array()
                .context("requirements")?
                .iter();
            let metrics = entry
                .clone()
                .find(|entry| entry["id"] == "ai_service_metrics");
            let support = metrics.context("the entry")?["support"].clone();
            anyhow::Ok((code(&done), support))
        }
    };
    let (exit, support) = review(&[
        "--probes-from",
        "first-probes",
        "--nonce",
        "word-of-a-reviewer",
    ])
    .await?;
    ensure!(
        (exit, &support) == (2, &json!("recomputed")),
        "{exit} {support}"
    );
    let (exit, support) = review(&["--probes-from", "first-probes", "--nonce", "another"]).await?;
    ensure!(
        (exit, &support) == (1, &json!("recomputed")),
        "{exit} {support}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_and_an_edited_run_claim_nothing() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let desk = Desk::new(lab.kubeconfig())?;
    desk.run("good", "pass", &[]).await?;
    desk.run("bad", "fail", &[]).await?;
    desk.product("good", "karat.toml").await?;
    ensure!(desk.checklist()?.contains("status: \"Implemented\""));

    let (exit, said) = desk.product("bad", "karat.toml").await?;
    ensure!(exit == 1, "{exit}: {said}");
    ensure!(
        said.contains("failing: ai_service_metrics: a MUST failed"),
        "{said}"
    );
    let made = desk.checklist()?;
    ensure!(
        entry(&made, "ai_service_metrics")?.contains("status: \"Not Implemented\""),
        "{made}"
    );
    ensure!(!made.contains("status: \"Implemented\""), "{made}");

    // A person who writes over it is contradicted by the bundle.
    let path = desk.path("v1.37/acme/PRODUCT.yaml");
    std::fs::write(
        &path,
        made.replace("\"Not Implemented\"", "\"Implemented\""),
    )?;
    let review = [
        "review",
        "v1.37/acme",
        "--bundle",
        "bad",
        "--probes-from",
        "bad-probes",
    ];
    let done = desk.karat(&review).await?;
    let comment = text(&done.stdout);
    ensure!(code(&done) == 1, "{comment}");
    ensure!(
        comment.contains("`ai_service_metrics` is claimed to be `Implemented`"),
        "{comment}"
    );
    ensure!(comment.contains("| **contradicted** |"), "{comment}");

    // A record that says something else than its recordings makes no folder, and touches none.
    let before = desk.checklist()?;
    let record = desk.path("bad/run.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&record)?)?;
    json["probes"][0]["attempts"][0]["judgement"]["verdict"] = json!("pass");
    std::fs::write(&record, serde_json::to_vec(&json)?)?;
    let (exit, said) = desk.product("bad", "karat.toml").await?;
    ensure!(
        exit == 3 && said.contains("the run does not hold"),
        "{exit}: {said}"
    );
    ensure!(desk.checklist()? == before);
    let done = desk
        .karat(&["review", "bad", "--probes-from", "bad-probes"])
        .await?;
    ensure!(
        code(&done) == 1 && text(&done.stdout).contains("**differs**"),
        "{}",
        text(&done.stdout)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_probe_is_named_and_not_run() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let desk = Desk::new(lab.kubeconfig())?;
    desk.run("run", "pass", &[]).await?;
    std::fs::create_dir(desk.path("others"))?;
    std::fs::write(
        desk.path("others/b.wasm"),
        answering("submit-other", "pass").component()?,
    )?;
    for (more, exit, said) in [
        (&["--probes-from", "run-probes"][..], 0, "| agrees | yes |"),
        (&["--probes-from", "others"], 2, "is none that you trust"),
        (
            &["--probes-from", "others", "--run-foreign-probes"],
            2,
            "| agrees | no |",
        ),
    ] {
        let mut arguments = vec!["review", "run"];
        arguments.extend(more);
        let done = desk.karat(&arguments).await?;
        ensure!(
            code(&done) == exit,
            "{more:?}: {}{}",
            text(&done.stdout),
            text(&done.stderr)
        );
        ensure!(
            text(&done.stdout).contains(said),
            "{said}: {}",
            text(&done.stdout)
        );
    }
    let nonce = desk.karat(&["review", "--issue-nonce"]).await?;
    let said = text(&nonce.stdout);
    let word = said.lines().next().context("a word")?;
    ensure!(
        code(&nonce) == 0 && said.contains(&format!("karat run --nonce {word}")),
        "{said}"
    );
    Ok(())
}

#[test]
fn the_file_in_the_guide_is_one() -> Result<()> {
    let page = std::fs::read_to_string(root().join("docs/submit.md"))?;
    let (_, rest) = page.split_once("```toml\n").context("an example")?;
    let (example, _) = rest.split_once("```").context("its end")?;
    let platform = Platform::parse(example, "docs/submit.md")?;
    // Ten fields of the form, without the version, and the one that is not in it.
    ensure!(platform.metadata.len() == 10, "{:?}", platform.metadata);
    ensure!(platform.declaration("gang_scheduling").is_some());
    Ok(())
}

//! The guide, executed: the files and commands of `docs/write-a-probe.md` in their order, in an empty folder, against a real
//! control plane. What a reader would type is what runs here; nothing is added but the place of the tools.
//!
//! A fence belongs to a language when its info string holds `test-rust`, `test-python` or `test-js`. With `file=PATH` it is a
//! file of the project, else its lines after `$ ` are commands. Fences without such a word are not executed: they install
//! tools or start clusters, which this test has already. The commands of `docs/recording-format.md` that check a
//! recording by hand run on what the guide's run left.

use anyhow::{Context as _, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

const GUIDE: &str = "docs/write-a-probe.md";
/// The languages share a cluster, and a run holds it alone.
static CLUSTER: Mutex<()> = Mutex::new(());

/// One thing that a page tells people to do.
#[derive(Debug, PartialEq)]
enum Step {
    /// Writes a file, below the current folder.
    File(String, String),
    /// Types a line.
    Type(String),
}

/// The steps of a page that carry a word in their fence.
fn steps(page: &str, word: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            continue;
        };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let mut words = info.split_whitespace();
        if !words.clone().any(|have| have == word) {
            continue;
        }
        match words.find_map(|word| word.strip_prefix("file=")) {
            Some(path) => steps.push(Step::File(path.to_owned(), body.join("\n") + "\n")),
            None => steps.extend(
                body.iter()
                    .filter_map(|line| line.strip_prefix("$ "))
                    .map(|line| Step::Type(line.to_owned())),
            ),
        }
    }
    steps
}

/// A shell that remembers where it is, and no more.
struct Shell {
    folder: PathBuf,
    path: Vec<PathBuf>,
    env: Vec<(&'static str, PathBuf)>,
}

impl Shell {
    /// Runs one line. Gives what it wrote to stdout.
    fn run(&mut self, line: &str) -> Result<String> {
        // Our own folders first, then what the developer has.
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(
            self.path
                .iter()
                .cloned()
                .chain(std::env::split_paths(&rest)),
        )?;
        let place = tempfile::NamedTempFile::new()?;
        let _alone = line
            .contains("karat run")
            .then(|| CLUSTER.lock().unwrap_or_else(PoisonError::into_inner));
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c"])
            .arg(format!("{line}\npwd > {:?}", place.path()))
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("NO_COLOR", "1")
            .env_remove("KARAT_PROBES")
            .envs(self.env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .output()
            .context("bash")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "`{line}` ended with {}\n{said}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        self.folder = PathBuf::from(std::fs::read_to_string(place.path())?.trim_end());
        Ok(said)
    }

    /// Does all the steps. Gives each line that was typed with what it wrote.
    fn follow(&mut self, steps: &[Step]) -> Result<Vec<(String, String)>> {
        let mut done = Vec::new();
        for step in steps {
            match step {
                Step::File(path, text) => {
                    let path = self.folder.join(path);
                    ensure!(
                        path.is_file(),
                        "the guide replaces {}, which is not there",
                        path.display()
                    );
                    std::fs::write(&path, text)?;
                }
                Step::Type(line) => {
                    let said = self.run(line)?;
                    done.push((line.clone(), said));
                    self.pin()?;
                }
            }
        }
        Ok(done)
    }

    /// Gives a new Rust project the lockfile of this repository: the versions that were tested, and none to be looked for.
    fn pin(&self) -> Result<()> {
        let lock = self.folder.join("Cargo.lock");
        if self.folder.join("Cargo.toml").is_file() && !lock.exists() {
            std::fs::copy(crate::docs::root().join("Cargo.lock"), lock)?;
        }
        Ok(())
    }
}

fn page(path: &str) -> Result<String> {
    std::fs::read_to_string(crate::docs::root().join(path)).context(path.to_owned())
}

/// Follows the guide in one language and checks what it promises. The folder of the run lies in the result's `folder`.
async fn follow(word: &str, tool: Option<PathBuf>) -> Result<(tempfile::TempDir, Shell)> {
    let steps = steps(&page(GUIDE)?, word);
    let files = steps.iter().filter(|step| matches!(step, Step::File(..)));
    ensure!(
        files.count() >= 2,
        "{GUIDE} has too few files for {word}: {steps:?}"
    );
    let lab = karat_testbed::shared().await?;
    let karat = karat_tests::program::karat()?;
    let empty = tempfile::tempdir()?;
    let folder_of = |path: &Path| path.parent().map(Path::to_owned).context("no folder");
    let mut path = vec![folder_of(&karat)?];
    if let Some(tool) = &tool {
        path.push(folder_of(tool)?);
    }
    let mut shell = Shell {
        folder: empty.path().canonicalize()?,
        path,
        env: vec![
            ("KUBECONFIG", lab.kubeconfig()),
            // Kept between runs of this test: most of the time goes into dependencies.
            (
                "KARAT_CACHE_DIR",
                karat_tests::guests::target_dir().join("guide-cache"),
            ),
            (
                "CARGO_TARGET_DIR",
                karat_tests::guests::target_dir().join("guide"),
            ),
        ],
    };
    // Commands of the guide take minutes; other tests of this thread's runtime need not wait for them.
    let (shell, done) = tokio::task::spawn_blocking(move || {
        let done = shell.follow(&steps);
        (shell, done)
    })
    .await?;
    let done = done?;
    let said = |begin: &str| {
        done.iter()
            .find(|(line, _)| line.starts_with(begin))
            .map(|(_, said)| said.as_str())
            .with_context(|| format!("the guide has no `{begin}` for {word}"))
    };
    let table = said("karat run ")?;
    ensure!(
        table
            .lines()
            .any(|line| line.starts_with("config-check") && line.contains(" pass ")),
        "no verdict `pass` in:\n{table}"
    );
    let replayed = said("karat replay ")?;
    ensure!(
        replayed.contains("config-check"),
        "nothing was replayed:\n{replayed}"
    );
    let inspected = said("karat inspect ")?;
    ensure!(
        inspected.contains("config-check"),
        "nothing was inspected:\n{inspected}"
    );
    Ok((empty, shell))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_works_in_rust() -> Result<()> {
    let (_folder, mut shell) = follow("test-rust", None).await?;
    shell.folder.push("run/probes/config-check/attempt-1");
    let by_hand = steps(&page("docs/recording-format.md")?, "recording");
    ensure!(by_hand.len() > 5, "{by_hand:?}");
    let there = |tool: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
    };
    if !(there("zstd") && there("jq") && there("sha256sum")) {
        // Standard tools, and no prerequisite of this repository.
        return Ok(());
    }
    for step in by_hand {
        if let Step::Type(line) = step {
            let said = shell.run(&line)?;
            if let Some((_, promised)) = line.split_once("&& echo '") {
                let promised = promised.trim_end_matches('\'');
                ensure!(
                    said.trim_end().ends_with(promised),
                    "`{line}` said {said:?}"
                );
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_works_in_python() -> Result<()> {
    let tool = tokio::task::spawn_blocking(crate::polyglot::componentize_py).await??;
    follow("test-python", Some(tool)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guide_works_in_javascript() -> Result<()> {
    let tool = tokio::task::spawn_blocking(crate::polyglot::componentize_qjs).await??;
    follow("test-js", Some(tool)).await?;
    Ok(())
}

#[test]
fn fences_become_steps() {
    let page = "x\n```console test-a test-b\n$ one\nanswer\n$ two | three\n```\n```toml test-a file=p.toml\nid = 1\n```\n```console\n$ not this\n```\n";
    let file = Step::File("p.toml".into(), "id = 1\n".into());
    let typed = |line: &str| Step::Type(line.to_owned());
    assert_eq!(
        steps(page, "test-a"),
        [typed("one"), typed("two | three"), file]
    );
    assert_eq!(steps(page, "test-b"), [typed("one"), typed("two | three")]);
    assert_eq!(steps(page, "test"), []);
}

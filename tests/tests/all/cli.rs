//! The program itself against a real API server: what it prints where, its exit codes, signals, and the RBAC it asks for.

use anyhow::{Context, Result, ensure};
use karat_engine::model::RunRecord;
use karat_testbed::ControlPlane;
use karat_tests::guests::{Guest, case};
use karat_tests::program;
use kube::api::{DynamicObject, PostParams};
use kube::discovery::ApiResource;
use kube::{Api, Client};
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, Command};

/// Longest time for anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with probes, and the program pointed at a cluster.
struct Bench {
    folder: TempDir,
    kubeconfig: PathBuf,
}

impl Bench {
    fn new(kubeconfig: PathBuf, guests: &[(&str, Guest)]) -> Result<Bench> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("probes"))?;
        for (name, guest) in guests {
            let path = folder.path().join(format!("probes/{name}.wasm"));
            std::fs::write(path, guest.component()?)?;
        }
        Ok(Bench { folder, kubeconfig })
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(program::karat()?);
        command
            .args(arguments)
            .env_clear()
            // Compiled guests of a test are of no use to anybody later.
            .env("KARAT_CACHE_DIR", self.folder.path().join("cache"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    /// `karat run --yes` on all probes of the folder, writing to `out`. Tests share a cluster, so there is no Lease.
    fn run(&self, out: &str, more: &[&str]) -> Result<Command> {
        let mut command = self.command(&["run", "--yes", "--lock", "none"])?;
        command.args(["--probes-from", "probes", "--out", out]);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(more);
        Ok(command)
    }

    async fn output(&self, mut command: Command) -> Result<Output> {
        tokio::time::timeout(PATIENCE, command.output())
            .await
            .with_context(|| format!("{command:?} did not end"))?
            .map_err(Into::into)
    }

    fn record(&self, out: &str) -> Result<RunRecord> {
        let path = self.folder.path().join(out).join("run.json");
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}

/// A probe that looks at a namespace and concludes with a word.
fn concluding(id: &str, word: &str) -> Guest {
    let script = json!([
        {"do": "open", "id": "alive"},
        {"do": "get", "api": "v1", "resource": "namespaces", "name": "kube-system"},
        {"do": "observe", "name": "kind", "value": "Namespace"},
        {"do": "log", "text": "\u{1b}[2J\u{1b}[31mred ##vso[task.setvariable]x"},
        {"do": "conclude", "outcome": word},
    ]);
    Guest::scripted(id, &script).cases(&case("alive", "get namespaces"))
}

/// A probe with a namespace and an object in it, that then waits for ever.
fn waiting(id: &str) -> Guest {
    let body =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "left-${run}"}});
    let script = json!([
        {"do": "create", "api": "v1", "resource": "configmaps", "ns": "${ns:main}", "body": body},
        {"do": "open", "id": "alive"},
        {"do": "sleep", "ms": 600_000},
    ]);
    Guest::scripted(id, &script)
        .namespace("main")
        .permit("", &["configmaps"], &["create", "get"], "sandbox")
        .cases(&case("alive", "get namespaces"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_is_the_verdict_and_stdout_is_data() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    for (word, code) in [("pass", 0), ("fail", 1), ("unknown: deadline: too slow", 2)] {
        let bench = Bench::new(lab.kubeconfig(), &[("a", concluding("cli-word", word))])?;
        let output = bench.output(bench.run("out", &["--json"])?).await?;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        ensure!(
            output.status.code() == Some(code),
            "{word}: {}\n{err}",
            output.status
        );
        let printed: RunRecord = serde_json::from_str(&out).with_context(|| out.clone())?;
        ensure!(
            printed == bench.record("out")?,
            "stdout and run.json differ"
        );
        ensure!(err.contains("case alive: "), "no line for the case:\n{err}");

        let replay = bench.output(bench.command(&["replay", "out"])?).await?;
        ensure!(replay.status.code() == Some(0), "{}", text(&replay.stdout));

        // The probe itself is in the folder, so its claim is explained without the folder it came from.
        std::fs::remove_dir_all(bench.folder.path().join("probes"))?;
        let explain = bench.command(&["explain", "cli-word", "--run", "out"])?;
        let said = text(&bench.output(explain).await?.stdout);
        let verdict = word.split(':').next().unwrap_or_default();
        for part in ["misleads  It is made to.", &format!("verdict  {verdict}")] {
            ensure!(said.contains(part), "{part}:\n{said}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_guests_reaches_no_terminal_as_it_is() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let bench = Bench::new(
        lab.kubeconfig(),
        &[("a", concluding("cli-hostile", "pass"))],
    )?;
    let output = bench.output(bench.run("out", &["--verbose"])?).await?;
    let err = text(&output.stderr);
    ensure!(
        err.contains("\\u{1b}[2J\\u{1b}[31mred #\\u{23}vso["),
        "{err}"
    );
    ensure!(!err.contains('\u{1b}'), "{err}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_recording_is_found() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let bench = Bench::new(lab.kubeconfig(), &[("a", concluding("cli-edited", "fail"))])?;
    bench.output(bench.run("out", &[])?).await?;
    let path = bench.folder.path().join("out/run.json");
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    record["probes"][0]["attempts"][0]["judgement"]["verdict"] = json!("pass");
    std::fs::write(&path, serde_json::to_vec(&record)?)?;
    let replay = bench.output(bench.command(&["replay", "out"])?).await?;
    let out = text(&replay.stdout);
    ensure!(replay.status.code() == Some(1), "{out}");
    ensure!(out.contains("DIFFERS"), "{out}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rerun_adds_an_attempt_and_needs_no_flags_again() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let bench = Bench::new(
        lab.kubeconfig(),
        &[
            ("a", concluding("cli-fails", "fail")),
            ("b", concluding("cli-passes", "pass")),
        ],
    )?;
    bench.output(bench.run("out", &[])?).await?;
    let mut again = bench.command(&[
        "run",
        "--yes",
        "--lock",
        "none",
        "--rerun",
        "failed",
        "--out",
        "out",
        "--kubeconfig",
    ])?;
    again.arg(&bench.kubeconfig);
    let output = bench.output(again).await?;
    ensure!(output.status.code() == Some(1), "{}", text(&output.stderr));
    let record = bench.record("out")?;
    let attempts: Vec<(&str, usize)> = record
        .probes
        .iter()
        .map(|probe| (probe.probe.as_str(), probe.attempts.len()))
        .collect();
    ensure!(
        attempts.contains(&("cli-fails", 2)) && attempts.contains(&("cli-passes", 1)),
        "{attempts:?}"
    );

    let refused = bench.output(bench.run("out", &[])?).await?;
    ensure!(
        refused.status.code() == Some(3),
        "a new run over an old one: {}",
        text(&refused.stderr)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_ends_nothing() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let bench = Bench::new(lab.kubeconfig(), &[("a", concluding("cli-pipe", "pass"))])?;
    let mut child = bench
        .run("out", &["--json"])?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    drop(child.stdout.take());
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await??;
    let err = text(&output.stderr);
    ensure!(output.status.code() == Some(0), "{}\n{err}", output.status);
    ensure!(!err.contains("error") && !err.contains("panick"), "{err}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_not_there_breaks_no_run() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let bench = Bench::new(lab.kubeconfig(), &[("a", concluding("cli-otel", "pass"))])?;
    // A port that was free a moment ago and that nobody listens to.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let mut command = bench.run("out", &[])?;
    command.env(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        format!("http://127.0.0.1:{port}"),
    );
    let output = bench.output(command).await?;
    let err = text(&output.stderr);
    ensure!(output.status.code() == Some(0), "{err}");
    ensure!(err.matches("telemetry").count() == 1, "{err}");
    Ok(())
}

/// A run whose probe has begun to wait.
struct Waiting {
    child: Child,
    // Held open, so that the program never writes into a closed pipe.
    lines: tokio::io::Lines<BufReader<ChildStderr>>,
    /// What it said so far.
    said: String,
}

async fn start_waiting(bench: &Bench, out: &str) -> Result<Waiting> {
    let mut child = bench
        .run(out, &["--verbose"])?
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("no stderr")?).lines();
    let mut said = String::new();
    let opened = async {
        while let Some(line) = lines.next_line().await? {
            said.push_str(&line);
            said.push('\n');
            if line.contains("case alive") {
                return Ok(());
            }
        }
        anyhow::bail!("the case was never opened")
    };
    tokio::time::timeout(PATIENCE, opened).await??;
    Ok(Waiting { child, lines, said })
}

impl Waiting {
    fn signal(&self, name: &str) -> Result<()> {
        let id = self.child.id().context("it has ended")?;
        let status = std::process::Command::new("kill")
            .args(["-s", name, &id.to_string()])
            .status()?;
        ensure!(status.success(), "kill: {status}");
        Ok(())
    }

    async fn end(mut self) -> Result<(Option<i32>, String)> {
        let read = async {
            while let Some(line) = self.lines.next_line().await? {
                self.said.push_str(&line);
                self.said.push('\n');
            }
            self.child.wait().await
        };
        let status = tokio::time::timeout(PATIENCE, read).await??;
        Ok((status.code(), self.said))
    }
}

/// Namespaces of a run that are still there.
async fn namespaces(client: &Client, run: &str) -> Result<Vec<String>> {
    let resource = ApiResource {
        group: String::new(),
        version: "v1".into(),
        api_version: "v1".into(),
        kind: "Namespace".into(),
        plural: "namespaces".into(),
    };
    let all = Api::<DynamicObject>::all_with(client.clone(), &resource)
        .list(&Default::default())
        .await?;
    Ok(all
        .items
        .into_iter()
        .filter_map(|object| object.metadata.name)
        .filter(|name| name.starts_with(&format!("karat-{run}-")))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_signal_stops_cleans_and_has_its_code() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let client = lab.client().await?;
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 143)] {
        let bench = Bench::new(lab.kubeconfig(), &[("a", waiting("cli-waits"))])?;
        let run = start_waiting(&bench, "out").await?;
        run.signal(signal)?;
        let (ended, said) = run.end().await?;
        ensure!(ended == Some(code), "SIG{signal}: {ended:?}\n{said}");
        ensure!(said.contains(&format!("stopping: SIG{signal}")), "{said}");
        let record = bench.record("out")?;
        let word = record.probes[0].attempts[0].outcome.word();
        ensure!(word == "interrupted", "{word}");
        let left = namespaces(&client, &record.run).await?;
        ensure!(left.is_empty(), "SIG{signal} left {left:?}\n{said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_at_once_and_clean_finds_the_rest() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let client = lab.client().await?;
    let bench = Bench::new(lab.kubeconfig(), &[("a", waiting("cli-twice"))])?;
    let mut run = start_waiting(&bench, "out").await?;
    run.signal("INT")?;
    let stopping = async {
        while let Some(line) = run.lines.next_line().await? {
            if line.contains("stops at once") {
                return Ok(());
            }
        }
        anyhow::bail!("it did not say that it stops")
    };
    tokio::time::timeout(PATIENCE, stopping).await??;
    // Signals within a fifth of a second are one wish.
    tokio::time::sleep(Duration::from_millis(300)).await;
    run.signal("INT")?;
    let (ended, said) = run.end().await?;
    ensure!(ended == Some(130), "{ended:?}\n{said}");
    let record = bench.record("out")?;

    let mut clean = bench.command(&["clean", "out", "--yes", "--kubeconfig"])?;
    clean.arg(&bench.kubeconfig);
    let output = bench.output(clean).await?;
    ensure!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let left = namespaces(&client, &record.run).await?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rbac_that_a_plan_prints_is_what_was_missing() -> Result<()> {
    // Its own control plane: the roles would be news to tests that compare the shared one.
    let lab = ControlPlane::builder().start().await?;
    let client = lab.client().await?;
    let jane = lab.kubeconfig_for("jane", &["system:authenticated"])?;
    let guest = waiting("cli-rbac").permit_paths(&["/metrics"]);
    let bench = Bench::new(jane, &[("a", guest)])?;
    let plan = async || -> Result<Value> {
        let mut command =
            bench.command(&["plan", "--json", "--probes-from", "probes", "--kubeconfig"])?;
        command.arg(&bench.kubeconfig);
        let output = bench.output(command).await?;
        ensure!(output.status.success(), "{}", text(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let before = plan().await?;
    let missing = before["preflight"]["missing"]
        .as_array()
        .context("no list")?;
    ensure!(
        missing.len() > 5,
        "an account without rights lacks {missing:?}"
    );
    let yaml = before["preflight"]["rbac"].as_str().context("no YAML")?;
    apply(&client, yaml).await?;
    // The authoriser reads roles from a cache of its own.
    lab.wait_until("nothing to be missing", || async {
        let after = plan().await.map_err(|error| format!("{error:#}"))?;
        match &after["preflight"]["missing"] {
            missing if *missing == json!([]) => Ok(()),
            missing => Err(format!("missing: {missing}")),
        }
    })
    .await?;

    // With exactly these rights a run gets as far as its probe, and cleans up.
    let run = start_waiting(&bench, "out").await?;
    run.signal("TERM")?;
    let (ended, said) = run.end().await?;
    ensure!(ended == Some(143), "{ended:?}\n{said}");
    for trouble in [
        "could not be removed",
        "could not be listed",
        "answered 403",
        "denied",
    ] {
        ensure!(!said.contains(trouble), "{trouble}:\n{said}");
    }
    let left = namespaces(&client, &bench.record("out")?.run).await?;
    ensure!(left.is_empty(), "{left:?}\n{said}");
    Ok(())
}

/// What `kubectl apply` would do with documents that are not there yet.
async fn apply(client: &Client, yaml: &str) -> Result<()> {
    for document in serde_yaml_ng::Deserializer::from_str(yaml) {
        let object = DynamicObject::deserialize(document)?;
        let kind = object.types.as_ref().context("no kind")?.kind.clone();
        let plural = format!("{}s", kind.to_lowercase());
        let resource = ApiResource {
            group: "rbac.authorization.k8s.io".into(),
            version: "v1".into(),
            api_version: "rbac.authorization.k8s.io/v1".into(),
            kind,
            plural,
        };
        let api = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        api.create(&PostParams::default(), &object).await?;
    }
    Ok(())
}

#[tokio::test]
async fn wrong_usage_has_a_code_of_its_own() -> Result<()> {
    let bench = Bench::new(PathBuf::from("absent.kubeconfig"), &[])?;
    let absent = Path::new("absent.kubeconfig");
    for arguments in [
        &["bogus"][..],
        &["run", "--bogus"],
        &["run"],
        &["clean"],
        &["list", "--probes-from", "absent"],
        &["inspect", "absent.wasm"],
        &["replay", "absent"],
        &["explain", "x", "--run", "absent"],
    ] {
        let output = bench.output(bench.command(arguments)?).await?;
        let err = text(&output.stderr);
        ensure!(
            output.status.code() == Some(3),
            "{arguments:?}: {}\n{err}",
            output.status
        );
        ensure!(output.stdout.is_empty(), "{arguments:?} wrote to stdout");
        ensure!(err.starts_with("error:"), "{arguments:?}: {err}");
    }
    ensure!(!absent.exists());
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["run", "--help"],
        &["completions", "zsh"],
    ] {
        let output = bench.output(bench.command(arguments)?).await?;
        ensure!(
            output.status.code() == Some(0),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        ensure!(
            output.stderr.is_empty() && !output.stdout.is_empty(),
            "{arguments:?}"
        );
    }
    Ok(())
}

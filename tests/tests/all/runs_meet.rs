//! Two runs on one cluster: the second sees the first, waits or says who it is, and takes over from one that died. Each test
//! has a control plane of its own, because there is one Lease in a cluster.

use anyhow::{Context, Result, ensure};
use karat_engine::clean::{CleanSource, SealFilter, execute, plan_clean};
use karat_engine::cluster::{Cluster, ConnectOptions};
use karat_engine::component::{self, Probe};
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::event::{Events, RunEvent, RunEventKind};
use karat_engine::gate::{StopHandle, StopSignal};
use karat_engine::grant::Grants;
use karat_engine::images::Images;
use karat_engine::lease::NodeChoice;
use karat_engine::model::{Reach, RunRecord};
use karat_engine::run::lock::{LeaseOptions, Lock};
use karat_engine::run::{Mode, RunError, RunRequest, run};
use karat_engine::run_lease::{Seen, is_alive, seen};
use karat_engine::sandbox::remove::Options;
use karat_testbed::ControlPlane;
use karat_tests::guests::{Guest, case};
use karat_tests::{program, state};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

/// Longest time for anything that a test waits for.
const PATIENCE: Duration = Duration::from_secs(90);
/// Short enough to see one end.
const SHORT: Duration = Duration::from_secs(2);

struct Lab {
    plane: ControlPlane,
    engine: Engine,
    folder: tempfile::TempDir,
}

/// A run on its way.
struct Going {
    task: JoinHandle<Result<RunRecord, RunError>>,
    events: UnboundedReceiver<RunEvent>,
    stop: StopHandle,
}

impl Lab {
    async fn start() -> Result<Lab> {
        Ok(Lab {
            plane: ControlPlane::builder().start().await?,
            engine: Engine::new(&EngineOptions::default())?,
            folder: tempfile::tempdir()?,
        })
    }

    async fn cluster(&self) -> Result<Cluster> {
        Ok(Cluster::connect(ConnectOptions {
            kubeconfig: Some(self.plane.kubeconfig()),
            ..ConnectOptions::default()
        })
        .await?)
    }

    fn out(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn begin(&self, name: &str, ms: u32, wait: Duration, mode: Mode) -> Result<Going> {
        let probe = writing(&self.engine, ms)?;
        let (events, stream) = Events::channel();
        let (stop, signal) = StopSignal::pair();
        let request = RunRequest {
            engine: self.engine.clone(),
            grants: Grants::all_asked(probe.manifest()),
            probes: vec![probe],
            left_out: Vec::new(),
            engine_cluster: self.cluster().await?,
            probe_cluster: self.cluster().await?,
            reach: Reach::Sandbox,
            settings: BTreeMap::new(),
            images: Images::default(),
            nodes: NodeChoice::default(),
            parallel: 1,
            out: self.out(name),
            mode,
            enforce: BTreeSet::new(),
            lock: Lock::Lease(LeaseOptions {
                duration: SHORT,
                wait,
            }),
            redaction: std::sync::Arc::default(),
            nonce: None,
            witness: false,
            events,
            stop: signal,
            stop_now: StopSignal::never(),
        };
        Ok(Going {
            task: tokio::spawn(run(request)),
            events: stream,
            stop,
        })
    }

    async fn holder(&self) -> Result<Option<Seen>> {
        Ok(seen(&self.cluster().await?).await?)
    }
}

impl Going {
    /// Waits until something happened.
    async fn until(&mut self, what: impl Fn(&RunEventKind) -> bool) -> Result<()> {
        let heard = async {
            while let Some(event) = self.events.recv().await {
                if what(&event.kind) {
                    return Ok(());
                }
            }
            anyhow::bail!("the run ended before")
        };
        tokio::time::timeout(PATIENCE, heard).await?
    }

    async fn is_at_work(&mut self) -> Result<()> {
        self.until(|kind| matches!(kind, RunEventKind::Called { function, .. } if function == "kube-read.query.get"))
            .await
    }

    async fn end(self) -> Result<Result<RunRecord, RunError>> {
        Ok(tokio::time::timeout(PATIENCE, self.task).await??)
    }
}

/// A probe with a namespace that waits as long as it may.
fn writing(engine: &Engine, ms: u32) -> Result<Probe> {
    Ok(component::load(engine, guest(ms).component()?)?)
}

fn guest(ms: u32) -> Guest {
    let script = json!([
        {"do": "open", "id": "alive"},
        {"do": "get", "api": "v1", "resource": "namespaces", "name": "kube-system"},
        {"do": "sleep", "ms": ms},
        {"do": "observe", "name": "kind", "value": "Namespace"},
        {"do": "conclude", "outcome": "pass"},
    ]);
    Guest::scripted("meets", &script)
        .namespace("main")
        .cases(&case("alive", "get namespaces"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_run_says_who_is_there_or_waits() -> Result<()> {
    let lab = Lab::start().await?;
    let before = state::of(&lab.plane.client().await?).await?;
    let mut first = lab
        .begin("first", 600_000, Duration::ZERO, Mode::New)
        .await?;
    first.is_at_work().await?;
    let held = lab
        .holder()
        .await?
        .context("the first run holds no Lease")?;
    ensure!(held.holder.purpose == "probe meets", "{held:?}");
    ensure!(!held.holder.since.is_empty(), "{held:?}");

    // Not waiting is an error that names the holder, and leaves no folder in the way of the next try.
    let second = lab.begin("second", 0, Duration::ZERO, Mode::New).await?;
    match second.end().await? {
        Err(RunError::Held { holder, .. }) if holder.run == held.holder.run => {}
        other => anyhow::bail!("{other:?}"),
    }
    ensure!(!lab.out("second").exists());

    // The wait outlasts many renewals: a living holder is never taken over.
    let mut second = lab.begin("second", 0, PATIENCE, Mode::New).await?;
    let run = held.holder.run.clone();
    second
        .until(|kind| matches!(kind, RunEventKind::Waiting { holder, .. } if *holder == run))
        .await?;
    ensure!(
        is_alive(&lab.cluster().await?, &held).await?,
        "it is renewed"
    );

    // `karat clean` sees that the run lives, and does not touch it.
    let cluster = lab.cluster().await?;
    let plan = plan_clean(&cluster, &CleanSource::Seals(SealFilter::default())).await?;
    let seen_by_clean = plan.runs.iter().find(|run| run.run == held.holder.run);
    ensure!(
        seen_by_clean.is_some_and(|run| run.lease.is_some()),
        "{plan:?}"
    );
    let clean = clean(&lab, &[]).await?;
    let said = String::from_utf8_lossy(&clean.stderr);
    ensure!(clean.status.code() == Some(4), "{said}");
    ensure!(
        said.contains(&format!("run {} is still going", held.holder.run)),
        "{said}"
    );

    // And a run of the program, which waits not at all.
    let program = program_run(&lab).await?;
    let said = String::from_utf8_lossy(&program.stderr);
    ensure!(program.status.code() == Some(4), "{said}");
    for part in [held.holder.run.as_str(), "since 20", "--wait"] {
        ensure!(said.contains(part), "{part}:\n{said}");
    }

    // Stopping and waiting is no way to stay.
    let mut third = lab.begin("third", 0, PATIENCE, Mode::New).await?;
    third
        .until(|kind| matches!(kind, RunEventKind::Waiting { .. }))
        .await?;
    third.stop.stop();
    ensure!(
        matches!(third.end().await?, Err(RunError::StoppedWaiting { .. })),
        "a stopped wait"
    );

    first.stop.stop();
    first.end().await??;
    let record = second.end().await??;
    ensure!(
        record.probes[0].attempts[0].left_behind.is_empty(),
        "{record:?}"
    );
    ensure!(lab.holder().await?.is_none(), "the Lease is let go");
    let after = state::of(&lab.plane.client().await?).await?;
    let differences = state::differences(&before, &after);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_holder_is_taken_over_and_a_robbed_one_stops() -> Result<()> {
    let lab = Lab::start().await?;
    let before = state::of(&lab.plane.client().await?).await?;
    let mut first = lab
        .begin("first", 600_000, Duration::ZERO, Mode::New)
        .await?;
    first.is_at_work().await?;
    let dead = lab.holder().await?.context("no Lease")?;
    // As hard as `kill -9`: nothing of the run goes on, and nothing of it is told.
    first.task.abort();
    ensure!(first.end().await.is_err(), "it was aborted");
    ensure!(!is_alive(&lab.cluster().await?, &dead).await?);

    let mut second = lab.begin("second", 600_000, PATIENCE, Mode::New).await?;
    second.is_at_work().await?;
    let holder = lab.holder().await?.context("no Lease")?;
    ensure!(holder.holder.run != dead.holder.run && holder.uid != dead.uid);

    // The dead run's journal knows its own Lease only, so cleaning it leaves the one of the living run.
    let cluster = lab.cluster().await?;
    let journal = CleanSource::Journal(lab.out("first").join("journal.jsonl"));
    let plan = plan_clean(&cluster, &journal).await?;
    ensure!(plan.runs.iter().all(|run| run.lease.is_none()), "{plan:?}");
    let options = Options {
        patience: PATIENCE,
        progress: &|_, _| {},
    };
    let removed = execute(&cluster, &plan, options).await;
    ensure!(removed.left.is_empty(), "{removed:?}");
    ensure!(lab.holder().await?.as_ref().map(|seen| &seen.uid) == Some(&holder.uid));

    // Somebody takes it away. The run stops as after a signal: it removes everything and says what happened.
    let gone = cluster
        .delete_uid(
            "/apis/coordination.k8s.io/v1/namespaces/default/leases/karat-run",
            &holder.uid,
        )
        .await?;
    ensure!(gone);
    match second.end().await? {
        Err(RunError::LockLost { run, .. }) if run == holder.holder.run => {}
        other => anyhow::bail!("{other:?}"),
    }

    // A run that was killed takes its own Lease back when it is resumed, without being told to wait.
    let mut third = lab
        .begin("third", 600_000, Duration::ZERO, Mode::New)
        .await?;
    third.is_at_work().await?;
    third.task.abort();
    ensure!(third.end().await.is_err());
    let mut resumed = lab
        .begin("third", 600_000, Duration::ZERO, Mode::Resume)
        .await?;
    resumed.is_at_work().await?;
    // But not while another process of it is going.
    let twin = lab
        .begin("third", 600_000, Duration::ZERO, Mode::Resume)
        .await?;
    match twin.end().await? {
        Err(RunError::Folder(_)) => {}
        other => anyhow::bail!("two processes of one run: {other:?}"),
    }
    resumed.stop.stop();
    resumed.end().await??;
    let after = state::of(&lab.plane.client().await?).await?;
    let differences = state::differences(&before, &after);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_is_named_and_cleaned_with_force() -> Result<()> {
    let lab = Lab::start().await?;
    let before = state::of(&lab.plane.client().await?).await?;
    let probe = lab.out("probe.wasm");
    std::fs::write(&probe, guest(600_000).component()?)?;
    let mut child = command(&lab, &["run", "--yes", "--out"])?
        .arg(lab.out("killed"))
        .arg("--probes-from")
        .arg(&probe)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let holds = async {
        loop {
            let holder = lab.holder().await?;
            if let Some(holder) = holder {
                return Ok::<_, anyhow::Error>(holder);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let holder = tokio::time::timeout(PATIENCE, holds).await??;
    child.start_kill()?;
    child.wait().await?;

    let refused = program_run(&lab).await?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(4), "{said}");
    ensure!(said.contains(&holder.holder.run), "{said}");
    // Without its folder; where the run died before its home was made, the Lease alone is left.
    let clean = clean(&lab, &["--force"]).await?;
    let said = String::from_utf8_lossy(&clean.stderr);
    ensure!(clean.status.success(), "{said}");
    let after = state::of(&lab.plane.client().await?).await?;
    let differences = state::differences(&before, &after);
    ensure!(differences.is_empty(), "{}\n{said}", differences.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_make_leases_is_told_what_to_do() -> Result<()> {
    let lab = Lab::start().await?;
    let jane = lab
        .plane
        .kubeconfig_for("jane", &["system:authenticated"])?;
    let cluster = Cluster::connect(ConnectOptions {
        kubeconfig: Some(jane),
        ..ConnectOptions::default()
    })
    .await?;
    let probe = writing(&lab.engine, 0)?;
    let request = RunRequest {
        engine: lab.engine.clone(),
        grants: Grants::all_asked(probe.manifest()),
        probes: vec![probe],
        left_out: Vec::new(),
        // Somebody who may read what a run begins with, and no more.
        engine_cluster: reader(&lab).await?,
        probe_cluster: cluster,
        reach: Reach::Sandbox,
        settings: BTreeMap::new(),
        images: Images::default(),
        nodes: NodeChoice::default(),
        parallel: 1,
        out: lab.out("forbidden"),
        mode: Mode::New,
        enforce: BTreeSet::new(),
        lock: Lock::Lease(LeaseOptions::default()),
        redaction: std::sync::Arc::default(),
        nonce: None,
        witness: false,
        events: Events::silent(),
        stop: StopSignal::never(),
        stop_now: StopSignal::never(),
    };
    match run(request).await {
        Err(RunError::Lock {
            forbidden: true,
            verb,
            ..
        }) if verb == "create" => {}
        other => anyhow::bail!("{other:?}"),
    }
    ensure!(!lab.out("forbidden").exists());
    Ok(())
}

/// An account that may read namespaces and Leases.
async fn reader(lab: &Lab) -> Result<Cluster> {
    let admin = lab.cluster().await?;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "reader"},
        "rules": [
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get"]},
        ],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader"}],
    });
    const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
    admin
        .create_json(&format!("{RBAC}/clusterroles"), &role)
        .await?;
    admin
        .create_json(&format!("{RBAC}/clusterrolebindings"), &binding)
        .await?;
    let cluster = Cluster::connect(ConnectOptions {
        kubeconfig: Some(
            lab.plane
                .kubeconfig_for("reader", &["system:authenticated"])?,
        ),
        ..ConnectOptions::default()
    })
    .await?;
    // The authoriser reads roles from a cache of its own.
    lab.plane
        .wait_until("the role to count", || async {
            let path = "/api/v1/namespaces/kube-system";
            cluster
                .get_json(path)
                .await
                .map(drop)
                .map_err(|e| e.to_string())?;
            seen(&cluster).await.map(drop).map_err(|e| e.to_string())
        })
        .await?;
    Ok(cluster)
}

fn command(lab: &Lab, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program::karat()?);
    command
        .args(arguments)
        .env_clear()
        .env("KARAT_CACHE_DIR", lab.out("cache"))
        .env("KUBECONFIG", lab.plane.kubeconfig())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

async fn clean(lab: &Lab, more: &[&str]) -> Result<std::process::Output> {
    let mut command = command(lab, &["clean", "--yes"])?;
    Ok(tokio::time::timeout(PATIENCE, command.args(more).output()).await??)
}

/// `karat run` with a probe that writes.
async fn program_run(lab: &Lab) -> Result<std::process::Output> {
    let probe: &Path = &lab.out("probe.wasm");
    std::fs::write(probe, guest(0).component()?)?;
    let mut command = command(lab, &["run", "--yes", "--out"])?;
    command
        .arg(lab.out("program"))
        .arg("--probes-from")
        .arg(probe);
    Ok(tokio::time::timeout(PATIENCE, command.output()).await??)
}

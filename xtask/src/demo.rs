//! `cargo xtask demo`: from a clean clone to a verdict table on a real API server, and on a machine that can, with a real node
//! whose pods run.
//!
//! The reader's kubeconfig is never read: the program gets the laboratory's by argument, and nothing of the reader's
//! environment that could lead it elsewhere.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use karat_testbed::{
    AddOn, Component, ControlPlane, KubernetesVersion, can_run_nodes, gvisor_need, images,
};
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::say::say;
use crate::timing::{human, last, remember};
use crate::workspace::{Use, guests, root, target};
use crate::{lab, probes};

/// Simulated nodes of the demo.
const FIXTURES: [&str; 3] = ["nvidia-nodes.yaml", "amd-nodes.yaml", "intel-nodes.yaml"];
/// The RuntimeClass of the real node's sandboxes. It leads pods there.
const SANDBOXES: &str = "apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: gvisor}
handler: gvisor
scheduling:
  nodeSelector: {kubernetes.io/hostname: real-0}
";

/// Device files that the demo's driver lends to pods: nothing can be broken with them.
const DEVICES: [&str; 2] = ["/dev/fuse", "/dev/loop-control"];

/// What their files are called in containers, which no table of vendors knows.
const DEVICE_PATHS: &str = "secure-accelerator-access.device-paths=/dev/karat-dev-";

/// Probes with a workload whose metrics shall be collected.
const SCRAPED: [&str; 2] = ["ai-service-metrics", "pod-autoscaling"];
/// So that replicas follow their metric in seconds, and not in a quarter of a minute.
const AUTOSCALER: [&str; 2] = [
    "--horizontal-pod-autoscaler-sync-period=2s",
    "--horizontal-pod-autoscaler-initial-readiness-delay=2s",
];

#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Folder for the run's output [default: karat-runs/demo-TIME]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only this probe; repeatable
    #[arg(long)]
    probe: Vec<String>,
}

pub(crate) fn run(args: &DemoArgs) -> Result<ExitCode> {
    let began = std::time::Instant::now();
    if let Some(seconds) = last("demo") {
        say(&format!(
            "the whole demo took {} the last time",
            human(seconds)
        ));
    }
    lab::prepare()?;
    let real = real_node()?;
    lab::prepare_add_ons(&real.add_ons())?;
    let built = probes::build_all()?;
    let setup = Setup::write(&target().join("demo"))?;
    let out = args.out.clone().unwrap_or_else(|| {
        PathBuf::from(format!(
            "karat-runs/demo-{}",
            jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ")
        ))
    });
    let runtime = lab::runtime()?;
    let code = runtime.block_on(async {
        let mut stop = Stop::new()?;
        let cluster = tokio::select! {
            cluster = start(&real) => cluster?,
            signal = stop.next() => return Ok(interrupted(signal)),
        };
        let mut command = Command::new(&built.karat);
        command
            .arg("run")
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig())
            .args(["--yes", "--reach", "cluster-objects"])
            .arg("--grants")
            .arg(&setup.grants)
            .arg("--config")
            .arg(&setup.config)
            .args(["--set", DEVICE_PATHS])
            .arg("--out")
            .arg(&out);
        for probe in &args.probe {
            command.arg("--probe").arg(probe);
        }
        command
            .current_dir(root())
            .env_remove("KUBECONFIG")
            .env_remove("KARAT_PROBES")
            .kill_on_drop(true);
        say(&format!(
            "==> run the suite ({})",
            last("run the suite").map_or_else(
                || "first time".to_owned(),
                |s| format!("last time {}", human(s))
            )
        ));
        let one = std::time::Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("{}: cannot be started", built.karat.display()))?;
        let status = attend(&mut child, &mut stop).await?;
        remember("run the suite", one.elapsed().as_secs_f64());
        say("==> stop the control plane");
        drop(cluster);
        Ok::<_, anyhow::Error>(status)
    })?;
    runtime.shutdown_background();
    if (0..=2).contains(&code) {
        remember("demo", began.elapsed().as_secs_f64());
        let karat = shown(&built.karat);
        say("");
        say(&format!("output folder:        {}", out.display()));
        say(&format!(
            "read it:              {}/report.html",
            out.display()
        ));
        say(&format!(
            "check the evidence:   {karat} verify {}/bundle",
            out.display()
        ));
        say(&format!(
            "how it was set up:    {} and {}",
            shown(&setup.grants),
            shown(&setup.config)
        ));
        say(&format!(
            "your own cluster:     {karat} plan      (shows what would happen, changes nothing)"
        ));
        say(&format!(
            "                      {karat} run --reach cluster-objects"
        ));
        say(match &real {
            Real::No(_) => {
                "these verdicts are `simulated`: the nodes and drivers of the demo are not real"
            }
            Real::Node | Real::NodeWithSandboxes => {
                "these verdicts are `simulated`: accelerators and their drivers are not real; the node on which pods run is"
            }
        });
        if let Real::No(why) = &real {
            say(&format!("no pod has run: {why}"));
        }
    } else if code >= 128 {
        say("interrupted; the control plane is gone, and with it everything the run made");
    } else {
        say(&format!(
            "the run ended with exit code {code}; try: the message above, and the logs in {}",
            out.display()
        ));
    }
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// What of a real node this machine can have.
enum Real {
    /// None, and why.
    No(String),
    /// One, without gVisor.
    Node,
    /// One that runs sandboxes.
    NodeWithSandboxes,
}

impl Real {
    /// What stands beside the cluster.
    fn add_ons(&self) -> Vec<AddOn> {
        match self {
            Real::No(_) => vec![AddOn::JobSet],
            Real::Node | Real::NodeWithSandboxes => {
                vec![
                    AddOn::JobSet,
                    AddOn::AgentSandbox,
                    AddOn::MetricsAdapter,
                    AddOn::DraDriver,
                ]
            }
        }
    }
}

/// The files that the program is given, as a user would write them.
struct Setup {
    grants: PathBuf,
    config: PathBuf,
}

impl Setup {
    /// Writes them.
    fn write(folder: &Path) -> Result<Setup> {
        let mut grants = "# All that the probes ask for, as without a file.\n".to_owned();
        let mut config =
            "# Leases take simulated nodes; who needs containers gets any that runs them.\n\
            [nodes]\nlabels = { type = \"kwok\" }\n\n[nodes.probes]\n"
                .to_owned();
        for guest in guests()?
            .iter()
            .filter(|guest| guest.purpose == Use::BuiltIn)
        {
            let Some(path) = &guest.manifest else {
                continue;
            };
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let asked: Asked = toml::from_str(&text).with_context(|| path.display().to_string())?;
            let id = &asked.id;
            write!(
                grants,
                "[[grant]]\nprobe = \"{id}\"\naccept-asked = true\n\n"
            )?;
            if asked.leases.iter().any(|lease| lease.containers) {
                writeln!(config, "{id} = {{}}")?;
            }
        }
        grants.push_str("# Annotations by which Prometheus finds a workload.\n");
        for id in SCRAPED {
            write!(
                grants,
                "[[exception]]\nprobe = \"{id}\"\n\
                annotations = [\"prometheus.io/scrape\", \"prometheus.io/port\", \"prometheus.io/path\"]\n\n"
            )?;
        }
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            Ok::<_, anyhow::Error>(path)
        };
        Ok(Setup {
            grants: file("grants.toml", &grants)?,
            config: file("karat.toml", &config)?,
        })
    }
}

/// What of a manifest the demo's files depend on. The program has accepted it already.
#[derive(Deserialize)]
struct Asked {
    id: String,
    #[serde(default)]
    leases: Vec<AskedLease>,
}

#[derive(Deserialize)]
struct AskedLease {
    #[serde(default)]
    containers: bool,
}

/// A path in the checkout, as seen from its root.
fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Finds out, and builds what is needed for it.
fn real_node() -> Result<Real> {
    let can = can_run_nodes().and_then(|()| images::ensure_target().map_err(|e| e.to_string()));
    if let Err(why) = can {
        say(&format!("no real node on this machine: {why}"));
        return Ok(Real::No(why));
    }
    lab::prepare_nodes()?;
    let gvisor = gvisor_need(KubernetesVersion::default());
    if gvisor.met {
        return Ok(Real::NodeWithSandboxes);
    }
    say(&format!("no sandboxes on the real node: {}", gvisor.text));
    Ok(Real::Node)
}

async fn start(real: &Real) -> Result<ControlPlane> {
    let title = match real {
        Real::No(_) => "start the control plane",
        Real::Node | Real::NodeWithSandboxes => "start control plane and real node",
    };
    say(&format!(
        "==> {title} ({})",
        last(title).map_or_else(
            || "first time".to_owned(),
            |s| format!("last time {}", human(s))
        )
    ));
    let began = std::time::Instant::now();
    let advice = || format!("{title} failed; try: `cargo xtask testbed doctor`");
    let mut builder = ControlPlane::builder().workload_api();
    for flag in AUTOSCALER {
        builder = builder.arg(Component::ControllerManager, flag);
    }
    for add_on in real.add_ons() {
        builder = builder.with(add_on);
    }
    if !matches!(real, Real::No(_)) {
        builder = builder.real_nodes(1).devices(DEVICES);
    }
    let cluster = builder.start().await.with_context(advice)?;
    if matches!(real, Real::NodeWithSandboxes) {
        let class = cluster.apply_yaml("RuntimeClass", SANDBOXES).await;
        class.with_context(advice)?;
    }
    for fixture in FIXTURES {
        cluster.apply(fixture).await.with_context(advice)?;
    }
    cluster.wait_nodes_ready().await.with_context(advice)?;
    let seconds = began.elapsed().as_secs_f64();
    say(&format!(
        "    Kubernetes at {} with simulated accelerator nodes{}, ready in {}",
        cluster.url(),
        match real {
            Real::No(_) => "",
            Real::Node => " and a real one",
            Real::NodeWithSandboxes => " and a real one, which has gVisor",
        },
        human(seconds)
    ));
    remember(title, seconds);
    Ok(cluster)
}

/// Waits for the program and passes signals on. Its clean-up needs the cluster, so the cluster waits too.
async fn attend(child: &mut Child, stop: &mut Stop) -> Result<i32> {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status?;
                return Ok(status.code().unwrap_or_else(|| 128 + std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default()));
            }
            signal = stop.next() => {
                // Ctrl-C reaches the whole foreground group, so the program has it already; others only came to us.
                if signal != rustix::process::Signal::INT && let Some(pid) = pid {
                    let _ = rustix::process::kill_process(pid, signal);
                }
                say("==> stopping; the program cleans up first (once more: at once)");
            }
        }
    }
}

fn interrupted(signal: rustix::process::Signal) -> i32 {
    128 + signal.as_raw()
}

/// The signals that end a demo.
struct Stop {
    int: Signal,
    term: Signal,
    hup: Signal,
}

impl Stop {
    fn new() -> Result<Self> {
        Ok(Self {
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> rustix::process::Signal {
        tokio::select! {
            _ = self.int.recv() => rustix::process::Signal::INT,
            _ = self.term.recv() => rustix::process::Signal::TERM,
            _ = self.hup.recv() => rustix::process::Signal::HUP,
        }
    }
}

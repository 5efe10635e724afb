//! `cargo xtask testbed …`: a named control plane that outlives the command.
//!
//! `up` starts a supervisor process in a session of its own and waits for its word; the supervisor owns the programs.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use karat_testbed::{
    AddOn, ControlPlane, ControlPlaneBuilder, DraApi, Found, Go, KubernetesVersion, Origin,
    can_run_nodes, gvisor_need, named, node_needs, survey, survey_add_ons, survey_nodes,
};

use crate::say::{data, say};
use crate::timing::{human, step};

#[derive(Subcommand)]
pub(crate) enum LabCommand {
    /// Start a control plane and return when it is ready
    Up(UpArgs),
    /// Stop one and remove everything of it
    Down(NameArgs),
    /// Fill one with thousands of simulated nodes and pods, or go on with it
    Scale(crate::scale::ScaleArgs),
    /// Say what is running
    Status,
    /// Print the shell line that points kubectl at one: eval "$(cargo xtask testbed env)"
    Env(NameArgs),
    /// Say what this machine can run, and why not
    Doctor,
}

#[derive(Args)]
pub(crate) struct NameArgs {
    /// Which control plane
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
}

/// Served versions of `resource.k8s.io`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Dra {
    Stable,
    All,
    OldOnly,
    Off,
}

/// What is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Lab {
    /// The control plane with simulated nodes
    #[default]
    ControlPlane,
    /// The same with real nodes beside the simulated ones
    Node,
}

fn add_on(text: &str) -> Result<AddOn, String> {
    AddOn::ALL
        .into_iter()
        .find(|a| a.name() == text)
        .ok_or_else(|| format!("known are: {}", AddOn::ALL.map(AddOn::name).join(", ")))
}

#[derive(Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    name: NameArgs,
    /// What to start
    #[arg(long, value_enum, default_value = "control-plane")]
    lab: Lab,
    /// How many real nodes, with `--lab node`
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = clap::value_parser!(u8).range(1..=8))]
    real_nodes: u8,
    /// Program beside the cluster: kueue, jobset, lws, trainer, agent-sandbox; with `--lab node` also dra-driver, device-plugin, metrics-server, gateway, prometheus, metrics-adapter; repeatable
    #[arg(long = "with", value_name = "NAME", value_parser = add_on)]
    with: Vec<AddOn>,
    /// Served versions of resource.k8s.io
    #[arg(long, value_enum, default_value = "stable")]
    dra: Dra,
    /// Write an audit log into the state folder
    #[arg(long)]
    audit: bool,
    /// Switch on the Workload API with its feature gates
    #[arg(long)]
    workload_api: bool,
    /// Feature gate, such as GenericWorkload=true; repeatable
    #[arg(long = "feature-gate", value_name = "NAME=BOOL", value_parser = gate)]
    feature_gates: Vec<(String, bool)>,
    /// Entry of the API server's --runtime-config; repeatable
    #[arg(long, value_name = "ENTRY")]
    runtime_config: Vec<String>,
    /// Fixture to apply once it is ready, such as nvidia-nodes.yaml; repeatable
    #[arg(long, value_name = "FILE")]
    fixture: Vec<String>,
}

fn gate(text: &str) -> Result<(String, bool), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("expected NAME=true or NAME=false")?;
    Ok((
        name.to_owned(),
        value
            .parse()
            .map_err(|_| "expected NAME=true or NAME=false")?,
    ))
}

impl UpArgs {
    fn builder(&self) -> ControlPlaneBuilder {
        let dra = match self.dra {
            Dra::Stable => DraApi::Stable,
            Dra::All => DraApi::All,
            Dra::OldOnly => DraApi::OldOnly,
            Dra::Off => DraApi::Off,
        };
        let mut builder = ControlPlane::builder().dra(dra);
        if self.audit {
            builder = builder.audit();
        }
        if self.workload_api {
            builder = builder.workload_api();
        }
        for (name, on) in &self.feature_gates {
            builder = builder.feature_gate(name, *on);
        }
        for entry in &self.runtime_config {
            builder = builder.runtime_config(entry);
        }
        if self.lab == Lab::Node {
            builder = builder.real_nodes(self.real_nodes);
        }
        for add_on in &self.with {
            builder = builder.with(*add_on);
        }
        builder
    }

    /// The same arguments for the supervisor.
    fn to_args(&self) -> Vec<String> {
        let dra = self
            .dra
            .to_possible_value()
            .map(|v| v.get_name().to_owned())
            .unwrap_or_default();
        let mut args = vec![format!("--name={}", self.name.name), format!("--dra={dra}")];
        if self.lab == Lab::Node {
            args.push("--lab=node".into());
            args.push(format!("--real-nodes={}", self.real_nodes));
        }
        args.extend(self.with.iter().map(|a| format!("--with={}", a.name())));
        if self.audit {
            args.push("--audit".into());
        }
        if self.workload_api {
            args.push("--workload-api".into());
        }
        args.extend(
            self.feature_gates
                .iter()
                .map(|(name, on)| format!("--feature-gate={name}={on}")),
        );
        args.extend(
            self.runtime_config
                .iter()
                .map(|entry| format!("--runtime-config={entry}")),
        );
        args
    }
}

pub(crate) fn run(command: LabCommand) -> Result<ExitCode> {
    match command {
        LabCommand::Up(args) => up(&args)?,
        LabCommand::Down(NameArgs { name }) => {
            let began = Instant::now();
            named::stop(&name)?;
            say(&format!(
                "testbed {name}: stopped and removed in {}",
                human(began.elapsed().as_secs_f64())
            ));
        }
        LabCommand::Scale(args) => crate::scale::scale(&args)?,
        LabCommand::Status => status()?,
        LabCommand::Env(NameArgs { name }) => {
            let lab = named::status(&name)?.with_context(|| format!("testbed {name}: not running; start it with `cargo xtask testbed up --name {name}`"))?;
            data(&format!("export KUBECONFIG={}", quoted(&lab.kubeconfig)));
        }
        LabCommand::Doctor => return doctor(),
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that all programs are there, building them if need be.
pub(crate) fn prepare() -> Result<()> {
    step(
        "programs of the testbed",
        "`cargo xtask testbed doctor`",
        || {
            karat_testbed::prepare(KubernetesVersion::default(), |line| {
                say(&format!("    {line}"))
            })?;
            Ok(())
        },
    )
}

/// The same for real nodes, if this machine can run any; says so if not.
pub(crate) fn prepare_nodes() -> Result<()> {
    if let Err(why) = can_run_nodes() {
        say(&format!("no real nodes on this machine: {why}"));
        return Ok(());
    }
    step(
        "programs and images of real nodes",
        "`cargo xtask testbed doctor`",
        || {
            karat_testbed::prepare_nodes(KubernetesVersion::default(), |line| {
                say(&format!("    {line}"))
            })?;
            Ok(())
        },
    )
}

/// The same for programs beside the cluster.
pub(crate) fn prepare_add_ons(add_ons: &[AddOn]) -> Result<()> {
    step("add-ons", "`cargo xtask testbed doctor`", || {
        karat_testbed::prepare_add_ons(KubernetesVersion::default(), add_ons, |line| {
            say(&format!("    {line}"))
        })?;
        Ok(())
    })
}

/// Those that tests and tables start and that do not come with the nodes.
pub(crate) fn prepare_operators() -> Result<()> {
    let nodes = can_run_nodes().is_ok();
    let add_ons = AddOn::ALL.into_iter().filter(|a| !a.comes_with_nodes());
    let wanted: Vec<AddOn> = add_ons.filter(|a| nodes || !a.needs_real_nodes()).collect();
    prepare_add_ons(&wanted)
}

/// `cargo xtask images`.
pub(crate) fn images() -> Result<ExitCode> {
    let images = step("images", "`cargo xtask testbed doctor`", || {
        Ok(karat_testbed::images::build(|line| {
            say(&format!("    {line}"))
        })?)
    })?;
    for image in &images.images {
        data(&format!("{}\t{}", image.name, image.digest));
    }
    say(&format!("OCI layout: {}", images.layout.display()));
    say(&format!("archive:    {}", images.archive.display()));
    Ok(ExitCode::SUCCESS)
}

fn up(args: &UpArgs) -> Result<()> {
    let name = &args.name.name;
    if let Some(lab) = named::status(name)? {
        bail!(
            "testbed {name}: already running with pid {}; use another --name, or `cargo xtask testbed down --name {name}`",
            lab.pid
        );
    }
    // Here and not in the supervisor, so that the reader sees a build of several minutes.
    prepare()?;
    let title = match args.lab {
        Lab::ControlPlane => "start the control plane",
        Lab::Node => {
            if let Err(why) = can_run_nodes() {
                bail!(
                    "real nodes cannot run on this machine: {why}; `cargo xtask testbed doctor` says more"
                );
            }
            prepare_nodes()?;
            "start control plane and real nodes"
        }
    };
    if !args.with.is_empty() {
        prepare_add_ons(&args.with)?;
    }
    let lab = step(title, "`cargo xtask testbed doctor`", || {
        start_supervisor(args)
    })?;
    if !args.fixture.is_empty() {
        step(
            "apply fixtures",
            "the names of the files in tests/testbed/fixtures",
            || {
                runtime()?.block_on(async {
                    let client = karat_testbed::client_of(&lab.kubeconfig).await?;
                    for fixture in &args.fixture {
                        let path = karat_testbed::fixture_path(fixture);
                        let text = std::fs::read_to_string(&path)
                            .with_context(|| path.display().to_string())?;
                        let applied = karat_testbed::apply_yaml(&client, fixture, &text).await?;
                        say(&format!("    {fixture}: {} objects", applied.len()));
                    }
                    anyhow::Ok(())
                })
            },
        )?;
    }
    say(&format!(
        "testbed {name}: Kubernetes {} at {}",
        lab.version, lab.url
    ));
    let suffix = if name == "default" {
        String::new()
    } else {
        format!(" --name {name}")
    };
    say(&format!(
        "  use it:   eval \"$(cargo xtask testbed env{suffix})\""
    ));
    if let Some(registry) = &lab.registry {
        say(&format!("  registry: {registry} (plain HTTP, empty)"));
    }
    say(&format!("  stop it:  cargo xtask testbed down{suffix}"));
    say(&format!(
        "  logs:     {}",
        lab.state_dir.join("log").display()
    ));
    Ok(())
}

fn start_supervisor(args: &UpArgs) -> Result<named::Description> {
    let name = &args.name.name;
    let said = tempfile_beside_cache(name)?;
    let log = std::fs::File::create(&said).with_context(|| said.display().to_string())?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("testbed-supervisor")
        .args(args.to_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    loop {
        if let Some(lab) = named::status(name)? {
            let _ = std::fs::remove_file(&said);
            return Ok(lab);
        }
        if let Some(status) = child.try_wait()? {
            let text = std::fs::read_to_string(&said).unwrap_or_default();
            let _ = std::fs::remove_file(&said);
            bail!("supervisor: {status}\n{}", text.trim_end());
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Where a supervisor writes what went wrong before its state folder exists.
fn tempfile_beside_cache(name: &str) -> Result<std::path::PathBuf> {
    let dir = karat_testbed::cache_dir()?;
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir.join(format!("supervisor-{name}-{}.log", std::process::id())))
}

/// The whole life of the hidden supervisor process.
pub(crate) fn supervise(args: &UpArgs) -> Result<ExitCode> {
    // A session of its own: closing the terminal or Ctrl-C in it concerns the command, not the laboratory.
    rustix::process::setsid().context("setsid")?;
    runtime()?.block_on(named::serve(&args.name.name, args.builder()))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("async runtime")
}

fn status() -> Result<()> {
    let all = named::list()?;
    if all.is_empty() {
        say("no testbed is running; start one with `cargo xtask testbed up`");
    }
    for lab in all {
        data(&format!(
            "{}\tKubernetes {}\t{}\tpid {}\t{}",
            lab.name,
            lab.version,
            lab.url,
            lab.pid,
            lab.kubeconfig.display()
        ));
        for (program, pid) in &lab.programs {
            let state = if Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok() {
                "running"
            } else {
                "ended"
            };
            data(&format!("  {program}\tpid {pid}\t{state}"));
        }
    }
    Ok(())
}

fn doctor() -> Result<ExitCode> {
    let version = KubernetesVersion::default();
    let go = Go::find();
    let mut fine = true;
    let mut line = |good: bool, what: &str, text: &str| {
        fine &= good;
        data(&format!(
            "{} {what}: {text}",
            if good { "ok  " } else { "FAIL" }
        ));
    };
    let go_text = match &go {
        Ok(go) => format!("{} (1.26 or newer is needed to build)", go.version),
        Err(why) => why.clone(),
    };
    let found = survey(version);
    let must_build = found.iter().any(|f| f.origin == Origin::Build);
    let go_new = go
        .as_ref()
        .is_ok_and(|g| go_release(&g.version).is_some_and(|v| v >= (1, 26)));
    line(go_new || !must_build, "go", &go_text);
    for program in &found {
        let (there, note) = origin(program, go_new, version);
        line(there, program.name, &note);
        for why in &program.rejected {
            data(&format!("       not used: {why}"));
        }
    }
    match std::net::TcpListener::bind(("127.0.0.1", 0)) {
        Ok(_) => line(true, "ports", "127.0.0.1 has free ones"),
        Err(e) => line(false, "ports", &format!("127.0.0.1: {e}")),
    }
    match free_bytes(&karat_testbed::cache_dir()?) {
        // Go's own caches take the most; measured 9.6 GB for everything, about half for this set.
        Some(free) => {
            let needed = if must_build { 8 } else { 1 };
            line(
                free >= needed << 30,
                "disk",
                &format!(
                    "{} GiB free at the cache folder, {needed} needed",
                    free >> 30
                ),
            );
        }
        None => line(false, "disk", "cannot be asked"),
    }
    match crate::wasm::ensure_wasm_target() {
        Ok(wasm) => line(true, "wasm", &wasm.how),
        Err(why) => line(false, "wasm", &format!("{why:#}")),
    }
    line(cfg!(target_os = "linux"), "system", std::env::consts::OS);
    doctor_nodes(go_new, version);
    data("for add-ons (`--with NAME`):");
    for program in &survey_add_ons(version) {
        let (there, note) = origin(program, go_new, version);
        let mark = if there { "ok  " } else { "no  " };
        data(&format!("{mark} {}: {note}", program.name));
    }
    data(&match karat_testbed::Registry::can_run() {
        Ok(path) => format!("ok   registry: {}", path.display()),
        Err(why) => format!("no   registry: {why}"),
    });
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Whether a program is or can be there, and what to say about it.
fn origin(program: &Found, go_new: bool, version: KubernetesVersion) -> (bool, String) {
    match program.origin {
        Origin::Build if go_new => (
            true,
            "will be built from pinned modules (minutes, once)".to_owned(),
        ),
        Origin::Build => (
            false,
            format!(
                "missing; install Go 1.26 or newer, or put it for Kubernetes {version} into KUBEBUILDER_ASSETS"
            ),
        ),
        origin => (true, format!("{} ({origin})", program.path.display())),
    }
}

/// What real nodes need. They are an addition: what is missing here makes nothing else fail.
fn doctor_nodes(go_new: bool, version: KubernetesVersion) {
    data("for real nodes (`--lab node`):");
    let mut missing = 0;
    let mut line = |good: bool, what: &str, text: &str| {
        missing += usize::from(!good);
        data(&format!(
            "{} {what}: {text}",
            if good { "ok  " } else { "no  " }
        ));
    };
    for need in node_needs() {
        line(need.met, need.name, &need.text);
    }
    for program in &survey_nodes(version) {
        let (there, note) = origin(program, go_new, version);
        line(there, program.name, &note);
    }
    match karat_testbed::images::ensure_target() {
        Ok(()) => line(true, "images", &karat_testbed::images::target()),
        Err(why) => line(false, "images", &why.to_string()),
    }
    let gvisor = gvisor_need(version);
    data(&format!(
        "{} {}: {}",
        if gvisor.met { "ok  " } else { "no  " },
        gvisor.name,
        gvisor.text
    ));
    data(&if missing == 0 {
        "real nodes can run here".to_owned()
    } else {
        format!("real nodes cannot run here: {missing} of the lines above say no")
    });
}

fn go_release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix("go")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Free bytes at the nearest existing parent.
fn free_bytes(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|p| p.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(stat.f_bavail * stat.f_frsize)
}

/// A path as a word of the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        up: UpArgs,
    }

    #[test]
    fn the_supervisor_gets_the_same_arguments() {
        let words = [
            "x",
            "--name",
            "a",
            "--dra",
            "old-only",
            "--audit",
            "--lab",
            "node",
            "--real-nodes",
            "2",
            "--with",
            "dra-driver",
            "--feature-gate",
            "G=true",
            "--runtime-config",
            "a/v1=true",
        ];
        let first = Only::try_parse_from(words).unwrap().up.to_args();
        let again = std::iter::once("x".to_owned()).chain(first.iter().cloned());
        assert_eq!(Only::try_parse_from(again).unwrap().up.to_args(), first);
        assert_eq!(first.len(), 8);
        let plain = Only::try_parse_from(["x"]).unwrap().up.to_args();
        assert!(!plain.iter().any(|a| a.contains("node")), "{plain:?}");
        assert!(Only::try_parse_from(["x", "--real-nodes", "9"]).is_err());
    }

    #[test]
    fn paths_survive_the_shell() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }

    #[test]
    fn go_releases_are_numbers() {
        assert_eq!(go_release("go1.26.8"), Some((1, 26)));
        assert!(go_release("go1.9").unwrap() < (1, 26));
        assert_eq!(go_release("devel"), None);
    }
}

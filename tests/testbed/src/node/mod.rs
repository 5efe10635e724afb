//! Real nodes: kubelet, containerd, kube-proxy and DNS in namespaces of their own, beside the simulated ones.
//!
//! One first process holds a node. Its death ends everything on the node, and the kernel drops its mounts, interfaces and
//! nft tables; the janitor removes the cgroups, the bridge on the host and the files. Reading order: [`needs`] (what the
//! machine must have), [`net`] (addresses), [`files`] (what the node's programs read), `init.sh` (what runs in it).
//!
//! It refuses to run without root, to route anything out of the machine, and to pull an image.

pub(crate) mod files;
pub(crate) mod in_pod;
mod metrics_adapter;
pub(crate) mod needs;
pub(crate) mod net;
mod prometheus;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::control_plane::{ControlPlane, START_DEADLINE, TAIL_LINES, is_ready};
use crate::error::{Result, TestbedError};
use crate::pki::write_private;
use crate::state::tail;
use crate::supervise::{Fate, Launch, describe};

use files::Plan;
pub use metrics_adapter::AdapterSettings;
use needs::{UNSHARE, cni_plugins, program};
pub use prometheus::PrometheusSettings;

/// Names of the nodes, and of the logs of their first processes.
const NAMES: [&str; 8] = [
    "real-0", "real-1", "real-2", "real-3", "real-4", "real-5", "real-6", "real-7",
];

/// Most real nodes of one laboratory; each has a /24 of the pod network.
pub(crate) const MOST: u8 = 8;

/// Folder of a node, below which containerd finds how a registry is spoken to: `<host>/hosts.toml`, read at every pull.
pub(crate) const REGISTRIES: &str = "registries";

/// The programs that a node's first process starts.
pub const NODE_PROGRAMS: [&str; 4] = ["containerd", "kubelet", "kube-proxy", "coredns"];

/// What runs the containers of a RuntimeClass's handler.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RuntimeHandler {
    /// The machine's runc.
    Runc,
    /// A program that is called as runc would be; a faulty node is made with one that changes the bundle first.
    RuncThrough(PathBuf),
    /// The same with the text of a program, for `/bin/sh` or whatever its first line says. It finds runc in its `PATH`.
    RuncScript(String),
    /// gVisor.
    Gvisor,
    /// gVisor with flags of `runsc`, such as `network` and `none`.
    GvisorWith(BTreeMap<String, String>),
}

/// A node with a kubelet.
#[derive(Debug)]
pub struct RealNode {
    pub(crate) index: u8,
    address: Ipv4Addr,
    dir: PathBuf,
    pub(crate) logs: PathBuf,
    first: OnceLock<u32>,
    /// Killed on purpose; waits then no longer fail because of it.
    killed: AtomicBool,
}

impl RealNode {
    /// Its name in the cluster.
    #[must_use]
    pub fn name(&self) -> &'static str {
        NAMES[usize::from(self.index)]
    }

    /// Its address, reachable from the host; node ports listen there.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its folder: the kubelet's root is `kubelet/`, CDI files are read from `cdi/`.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The log of `containerd`, `kubelet`, `kube-proxy` or `coredns`.
    #[must_use]
    pub fn log(&self, program: &str) -> PathBuf {
        self.logs.join(format!("{}-{program}.log", self.name()))
    }

    /// Process id, as the host sees it, of the process that holds the node.
    #[must_use]
    pub fn first_process(&self) -> Option<u32> {
        self.first.get().copied()
    }

    /// Process id, as the host sees it, of one of [`NODE_PROGRAMS`]; `None` if it is not running. While the node is held, the
    /// number cannot belong to a process of somebody else: only children of its first process are looked at.
    #[must_use]
    pub fn program_pid(&self, program: &str) -> Option<u32> {
        let mut parents = vec![self.first_process()?];
        let all: Vec<(u32, u32, String)> = std::fs::read_dir("/proc")
            .ok()?
            .filter_map(|entry| process(&entry.ok()?.path()))
            .collect();
        while let Some(parent) = parents.pop() {
            for (pid, of, name) in &all {
                if *of == parent && name == program {
                    return Some(*pid);
                }
                // A program is started by a shell of its own; what it starts itself has its name taken from nobody.
                if *of == parent && !NODE_PROGRAMS.contains(&name.as_str()) {
                    parents.push(*pid);
                }
            }
        }
        None
    }

    /// Kills one of [`NODE_PROGRAMS`] (SIGKILL) and waits until the node has started it anew. What it says of itself, such as that the
    /// node is Ready, comes later.
    ///
    /// # Errors
    /// It does not run, or did not come back within ten seconds.
    pub fn restart(&self, program: &str) -> Result<()> {
        let failed = |status: &str| TestbedError::Failed {
            what: format!("restart of {program} of {}", self.name()),
            status: status.into(),
            tail: tail(&self.log(program), TAIL_LINES),
        };
        let old = self.program_pid(program);
        let pid = old.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.ok_or_else(|| failed("it is not running"))?;
        let again = self.dir.join(format!("again.{program}"));
        std::fs::write(&again, "").map_err(TestbedError::io(&again))?;
        kill_process(pid, Signal::KILL).map_err(|e| failed(&e.to_string()))?;
        let began = Instant::now();
        while self.program_pid(program).is_none_or(|new| Some(new) == old) {
            if began.elapsed() > Duration::from_secs(10) {
                return Err(failed("not back 10 s after SIGKILL"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn init_log(&self) -> PathBuf {
        self.logs.join(format!("{}.log", self.name()))
    }
}

impl ControlPlane {
    /// The real nodes, if the builder was told to have some.
    #[must_use]
    pub fn real_nodes(&self) -> &[RealNode] {
        &self.nodes
    }

    /// Kills the process that holds a node (SIGKILL), as if its machine had lost power.
    ///
    /// # Errors
    /// There is no such node, or it is still there after ten seconds.
    pub fn kill_node(&self, index: usize) -> Result<()> {
        let node = self.nodes.get(index).ok_or(TestbedError::Stopped)?;
        node.killed.store(true, Ordering::Relaxed);
        // While its parent lives, the number cannot belong to anybody else.
        if let (Ok(Fate::Running(_)), Some(pid)) =
            (self.supervisor.fate(node.name()), node.first_process())
            && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, Signal::KILL);
        }
        let began = Instant::now();
        while !matches!(self.supervisor.fate(node.name())?, Fate::Ended(_)) {
            if began.elapsed() > Duration::from_secs(10) {
                return Err(TestbedError::Failed {
                    what: format!("end of {}", node.name()),
                    status: "still there 10 s after SIGKILL".into(),
                    tail: String::new(),
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The nodes as they will be, before anything of them exists.
    pub(crate) fn describe_nodes(state: &Path, net: Option<&net::Net>, count: u8) -> Vec<RealNode> {
        let Some(net) = net else { return Vec::new() };
        (0..count)
            .map(|index| RealNode {
                index,
                address: net.node(index),
                dir: state.join(NAMES[usize::from(index)]),
                logs: state.join("log"),
                first: OnceLock::new(),
                killed: AtomicBool::new(false),
            })
            .collect()
    }

    /// Makes namespaces and networks, and starts containerd in them. The rest waits for [`Self::finish_nodes`].
    pub(crate) fn begin_nodes(&self) -> Result<()> {
        for node in &self.nodes {
            self.begin(node)?;
        }
        Ok(())
    }

    fn begin(&self, node: &RealNode) -> Result<()> {
        let (Some(net), Some(images)) = (&self.net, &self.programs.images) else {
            return Ok(());
        };
        for sub in ["cni", "cdi", "run", "kubelet", "pod-logs"] {
            let dir = node.dir.join(sub);
            std::fs::create_dir_all(&dir).map_err(TestbedError::io(&dir))?;
        }
        let server = self.pki.server(
            &format!("system:node:{}", node.name()),
            &[node.name()],
            &[IpAddr::V4(node.address)],
        )?;
        self.pki.write_identity(node.name(), &server)?;
        let users = [
            (
                "kubelet",
                format!("system:node:{}", node.name()),
                "system:nodes",
            ),
            (
                "kube-proxy",
                "system:kube-proxy".to_owned(),
                "system:authenticated",
            ),
            ("coredns", "coredns".to_owned(), "system:masters"),
        ];
        for (file, user, group) in users {
            let identity = self.pki.client(&user, &[group])?;
            write_private(
                &node.dir.join(format!("{file}.kubeconfig")),
                &self.pki.kubeconfig(&self.url(), Some(&identity)),
            )?;
        }
        let plan = Plan {
            name: node.name(),
            index: node.index,
            nodes: self.config.real_nodes,
            dir: &node.dir,
            pki: &self.pki.path(""),
            log: &node.logs.join(node.name()),
            net,
            programs: &self.programs.node_path(),
            runc: &found("runc")?,
            cni: &cni_plugins().ok_or_else(|| missing("CNI plug-ins"))?,
            images,
            handlers: &self.config.handlers,
            specs: &self.specs(&node.dir)?,
            feature_gates: &self.config.feature_gates,
        };
        for (name, text) in plan.files() {
            write_private(&node.dir.join(name), &text)?;
        }
        for (handler, told) in &self.config.handlers {
            if let RuntimeHandler::RuncScript(text) = told {
                let path = node.dir.join(files::script_file(handler));
                write_private(&path, text)?;
                let mode = std::fs::Permissions::from_mode(0o755);
                std::fs::set_permissions(&path, mode).map_err(TestbedError::io(&path))?;
            }
        }
        let launch = Launch {
            program: found("unshare")?,
            args: UNSHARE
                .iter()
                .chain(&["/bin/sh"])
                .map(OsString::from)
                .chain([node.dir.join("init.sh").into()])
                .collect(),
            log: node.init_log(),
        };
        let pid = self.supervisor.start(node.name(), launch)?;
        let first = self.first_process_of(node, pid)?;
        let _ = node.first.set(first);
        net.attach(node.index, first)
    }

    /// What containerd begins the specification of each container with, for the handlers that shall have more than usual.
    fn specs(&self, dir: &Path) -> Result<BTreeMap<String, Value>> {
        let mut specs = BTreeMap::new();
        for (handler, more) in &self.config.specs {
            let more = more.replace("{node}", &dir.display().to_string());
            let more: Value =
                serde_yaml_ng::from_str(&more).map_err(|e| TestbedError::Fixture {
                    name: format!("specification for {handler}"),
                    document: 1,
                    cause: e.to_string(),
                })?;
            let mut spec = usual_spec(&self.programs.path("ctr"))?;
            add(&mut spec, more);
            specs.insert(handler.clone(), spec);
        }
        Ok(specs)
    }

    /// The only child of `unshare`, which is there as soon as the namespaces are.
    fn first_process_of(&self, node: &RealNode, unshare: u32) -> Result<u32> {
        let began = Instant::now();
        loop {
            let children =
                std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"))
                    .unwrap_or_default();
            if let Some(first) = children
                .split_whitespace()
                .next()
                .and_then(|p| p.parse().ok())
            {
                return Ok(first);
            }
            self.check_nodes("its namespaces exist")?;
            if began.elapsed() > Duration::from_secs(10) {
                return Err(TestbedError::NotReady {
                    what: format!("{} has a first process", node.name()),
                    waited_ms: began.elapsed().as_millis(),
                    last: "unshare has no child".into(),
                    tail: tail(&node.init_log(), TAIL_LINES),
                    log: node.init_log(),
                });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets the kubelets go, now that there is an API server, and waits until their nodes take pods.
    pub(crate) async fn finish_nodes(&self) -> Result<()> {
        for node in &self.nodes {
            let go = node.dir.join("go");
            std::fs::write(&go, "").map_err(TestbedError::io(&go))?;
        }
        let nodes: Api<Node> = Api::all(self.client().await?);
        for node in &self.nodes {
            self.wait(
                &format!("node {} is Ready", node.name()),
                &node.log("kubelet"),
                START_DEADLINE,
                async || match nodes.get_opt(node.name()).await {
                    Ok(Some(seen)) if is_ready(&seen) => Ok(()),
                    Ok(Some(_)) => Err("not Ready".to_owned()),
                    Ok(None) => Err("not registered".to_owned()),
                    Err(e) => Err(e.to_string()),
                },
            )
            .await?;
        }
        Ok(())
    }

    /// Fails if a node that nobody killed is gone, or one of its programs has ended.
    pub(crate) fn check_nodes(&self, during: &str) -> Result<()> {
        for node in self
            .nodes
            .iter()
            .filter(|n| !n.killed.load(Ordering::Relaxed))
        {
            let ended = |component: String, status: String, log: PathBuf| TestbedError::Exited {
                component,
                status,
                during: format!("waiting until {during}"),
                tail: tail(&log, TAIL_LINES),
                log,
            };
            for name in NODE_PROGRAMS {
                if let Ok(status) = std::fs::read_to_string(node.dir.join(format!("ended.{name}")))
                {
                    return Err(ended(
                        format!("{name} of {}", node.name()),
                        format!("exit status {}", status.trim()),
                        node.log(name),
                    ));
                }
            }
            if let Fate::Ended(status) = self.supervisor.fate(node.name())? {
                return Err(ended(
                    node.name().to_owned(),
                    describe(status),
                    node.init_log(),
                ));
            }
        }
        Ok(())
    }
}

/// The specification that containerd begins with by itself.
fn usual_spec(ctr: &Path) -> Result<Value> {
    let output = Command::new(ctr)
        .args(["oci", "spec"])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| TestbedError::Spawn {
            program: ctr.into(),
            source,
        })?;
    serde_json::from_slice(&output.stdout).map_err(|e| TestbedError::Failed {
        what: "ctr oci spec".into(),
        status: describe(output.status),
        tail: format!("{e}: {}", String::from_utf8_lossy(&output.stderr)),
    })
}

/// Adds to a specification: what is in lists comes behind what is there, everything else takes its place.
fn add(spec: &mut Value, more: Value) {
    match (spec, more) {
        (Value::Object(spec), Value::Object(more)) => {
            for (key, value) in more {
                add(spec.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(spec), Value::Array(more)) => spec.extend(more),
        (spec, more) => *spec = more,
    }
}

/// Number, parent and name of a process by its folder.
fn process(dir: &Path) -> Option<(u32, u32, String)> {
    let pid = dir.file_name()?.to_str()?.parse().ok()?;
    let status = std::fs::read_to_string(dir.join("status")).ok()?;
    let field = |key: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| Some(line.strip_prefix(key)?.trim().to_owned()))
    };
    Some((pid, field("PPid:")?.parse().ok()?, field("Name:")?))
}

fn found(name: &str) -> Result<PathBuf> {
    program(name).ok_or_else(|| missing(name))
}

fn missing(what: &str) -> TestbedError {
    TestbedError::CannotRun {
        what: "real nodes".into(),
        cause: format!("{what} not found"),
        hint: "`cargo xtask testbed doctor` says what is missing".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_process_has_a_parent_and_a_name() {
        let own = Path::new("/proc").join(std::process::id().to_string());
        let (pid, parent, name) = process(&own).unwrap();
        assert_eq!(pid, std::process::id());
        assert!(parent > 0 && !name.is_empty());
        assert!(process(Path::new("/proc/self")).is_none());
    }

    #[test]
    fn a_specification_gets_more_and_loses_nothing() {
        let mut spec = json!({"mounts": [{"destination": "/proc"}], "linux": {"resources": {"devices": [1]}}, "root": {"path": "a"}});
        let more = json!({"mounts": [{"destination": "/host"}], "linux": {"devices": [2]}, "root": {"path": "b"}});
        add(&mut spec, more);
        let wanted = json!({
            "mounts": [{"destination": "/proc"}, {"destination": "/host"}],
            "linux": {"resources": {"devices": [1]}, "devices": [2]},
            "root": {"path": "b"},
        });
        assert_eq!(spec, wanted);
    }
}

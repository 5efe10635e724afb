//! A running control plane: start, wait, hand out credentials, break single programs, stop.
//!
//! The order of a start is certificates → etcd and API server → `/readyz` → controllers, scheduler, kwok → default
//! service account. Every wait polls the real condition and looks at the same time whether a program has died.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};

use crate::components::{Component, Ports, Site};
use crate::config::{Config, ControlPlaneBuilder};
use crate::error::{Result, TestbedError};
use crate::gobuild;
use crate::node::needs::can_run_nodes;
use crate::node::net::Net;
use crate::node::{MOST, RealNode};
use crate::pki::{Pki, write_private};
use crate::programs::{NODE_NAMES, Programs};
use crate::registry::Registry;
use crate::state::{StateDir, tail};
use crate::supervise::{Fate, Janitor, Launch, Supervisor, describe};

/// Bound of every wait of a start. Warm it takes some 5 s; a busy machine with two cores needs far more.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(120);
/// Time between two looks at a condition.
const POLL: Duration = Duration::from_millis(50);
/// Lines of a log that go into an error.
pub(crate) const TAIL_LINES: usize = 12;
/// Starts that lose the race for a port are repeated this often.
const PORT_ATTEMPTS: usize = 4;

/// A real Kubernetes control plane, and real nodes if it was told to have some. Dropping it kills its programs and removes its files.
///
/// Nothing in it belongs to an async runtime, so one value may serve many `#[tokio::test]` functions; clients do
/// belong to one, so each test asks for its own.
#[derive(Debug)]
pub struct ControlPlane {
    // Order matters: programs die first, then files and networks go, and last their claims.
    pub(crate) supervisor: Supervisor,
    pub(crate) registry: OnceLock<Registry>,
    _janitor: Janitor,
    state: StateDir,
    pub(crate) net: Option<Net>,
    pub(crate) nodes: Vec<RealNode>,
    pub(crate) pki: Pki,
    ports: Ports,
    pub(crate) config: Config,
    pub(crate) programs: Programs,
    /// Numbers the kubeconfigs made for single users.
    users: Mutex<u32>,
    /// Operators that were ended on purpose; waits then no longer fail because of it.
    pub(crate) stopped_add_ons: Mutex<BTreeSet<&'static str>>,
}

impl ControlPlane {
    /// Begins the description of a control plane.
    #[must_use]
    pub fn builder() -> ControlPlaneBuilder {
        ControlPlaneBuilder::default()
    }

    pub(crate) async fn start(builder: ControlPlaneBuilder) -> Result<Self> {
        let version = builder.config.version;
        check_nodes_possible(&builder.config)?;
        let mut extra: Vec<&'static str> = Vec::new();
        if builder.config.real_nodes > 0 {
            extra.extend(NODE_NAMES);
        }
        let built = builder.config.add_ons.iter().filter(|a| a.is_built());
        extra.extend(built.map(|a| a.name()));
        let programs = tokio::task::spawn_blocking(move || {
            Programs::provide(version, &extra, &gobuild::to_stderr)
        })
        .await
        .map_err(|_| TestbedError::Stopped)??;
        let mut attempt = 1;
        loop {
            match Self::try_start(&builder, programs.clone()).await {
                Err(error) if error.is_port_clash() && attempt < PORT_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    async fn try_start(builder: &ControlPlaneBuilder, programs: Programs) -> Result<Self> {
        let state = match &builder.name {
            Some(name) => StateDir::named(name)?,
            None => StateDir::anonymous()?,
        };
        let real = builder.config.real_nodes;
        let net = if real > 0 { Some(Net::claim()?) } else { None };
        let janitor = Janitor::watch(state.path(), net.as_ref())?;
        let log_dir = state.path().join("log");
        std::fs::create_dir(&log_dir).map_err(TestbedError::io(&log_dir))?;
        let (host, service) = match &net {
            Some(net) => (net.host(), net.first_service()),
            // The first address of the service network is what pods would use.
            None => (Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 96, 0, 1)),
        };
        let pki = Pki::create(&state.path().join("pki"), host, service)?;
        let plane = Self {
            supervisor: Supervisor::new()?,
            registry: OnceLock::new(),
            _janitor: janitor,
            nodes: Self::describe_nodes(state.path(), net.as_ref(), real),
            state,
            net,
            pki,
            ports: Ports::pick()?,
            config: builder.config.clone(),
            programs,
            users: Mutex::new(0),
            stopped_add_ons: Mutex::default(),
        };
        match plane.bring_up().await {
            Ok(()) => {
                if let Some(path) = &builder.kubeconfig_copy {
                    let text = std::fs::read_to_string(plane.kubeconfig())
                        .map_err(TestbedError::io(plane.kubeconfig()))?;
                    write_private(path, &text)?;
                }
                Ok(plane)
            }
            Err(error) => Err(plane.with_kept_logs(error)),
        }
    }

    async fn bring_up(&self) -> Result<()> {
        self.write_files()?;
        if let Some(net) = &self.net {
            net.up()?;
        }
        self.launch(Component::Etcd)?;
        self.launch(Component::ApiServer)?;
        self.begin_nodes()?;
        self.wait_api().await?;
        for component in [
            Component::ControllerManager,
            Component::Scheduler,
            Component::Kwok,
        ] {
            self.launch(component)?;
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client().await?, "default");
        self.wait(
            "service account default/default exists",
            &self.log(Component::ControllerManager),
            START_DEADLINE,
            async || match accounts.get_opt("default").await {
                Ok(Some(_)) => Ok(()),
                Ok(None) => Err("not there".to_owned()),
                Err(e) => Err(e.to_string()),
            },
        )
        .await?;
        self.finish_nodes().await?;
        self.start_add_ons().await
    }

    fn write_files(&self) -> Result<()> {
        let site = self.site();
        let components = [
            ("admin", "kubernetes-admin", &["system:masters"][..]),
            (
                "kube-controller-manager",
                "system:kube-controller-manager",
                &[],
            ),
            ("kube-scheduler", "system:kube-scheduler", &[]),
            ("kwok", "kwok", &["system:masters"]),
        ];
        for (file, user, groups) in components {
            let identity = self.pki.client(user, groups)?;
            write_private(
                &site.kubeconfig(file),
                &self.pki.kubeconfig(&self.url(), Some(&identity)),
            )?;
        }
        if let Some(policy) = &self.config.audit_policy {
            write_private(&self.state.path().join("audit-policy.yaml"), policy)?;
        }
        if let Some(yaml) = &self.config.scheduler_config {
            let path = self.state.path().join("scheduler-config.yaml");
            let bad = |cause: String| TestbedError::Fixture {
                name: "scheduler config".into(),
                document: 1,
                cause,
            };
            let mut value: serde_json::Value =
                serde_yaml_ng::from_str(yaml).map_err(|e| bad(e.to_string()))?;
            let object = value
                .as_object_mut()
                .ok_or_else(|| bad("not a mapping".into()))?;
            object.insert(
                "clientConnection".into(),
                serde_json::json!({ "kubeconfig": site.kubeconfig("kube-scheduler") }),
            );
            write_private(&path, &value.to_string())?;
        }
        Ok(())
    }

    fn site(&self) -> Site<'_> {
        Site {
            dir: self.state.path(),
            pki: &self.pki,
            ports: self.ports,
            config: &self.config,
            kwok_stages: &self.programs.kwok_stages,
            net: self.net.as_ref(),
        }
    }

    fn launch(&self, component: Component) -> Result<u32> {
        let launch = Launch {
            program: self.programs.path(component.name()),
            args: self.site().args(component),
            log: self.log(component),
        };
        self.supervisor.start(component.name(), launch)
    }

    async fn wait_api(&self) -> Result<()> {
        let client = self.client().await?;
        self.wait(
            "API server is ready",
            &self.log(Component::ApiServer),
            START_DEADLINE,
            async || {
                let request = http::Request::get("/readyz")
                    .body(vec![])
                    .map_err(|e| e.to_string())?;
                client
                    .request_text(request)
                    .await
                    .map(|_| ())
                    .map_err(|e| e.to_string())
            },
        )
        .await
    }

    /// Waits for a condition, and fails at once if a program of the control plane that was started has ended.
    pub(crate) async fn wait<F, Fut>(
        &self,
        what: &str,
        concerned: &Path,
        deadline: Duration,
        condition: F,
    ) -> Result<()>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = std::result::Result<(), String>>,
    {
        let began = Instant::now();
        loop {
            // A single request must not hide the death of a program, nor outlive the deadline.
            let last = match tokio::time::timeout(Duration::from_secs(5), condition()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(last)) => last,
                Err(_) => "no answer within 5 s".to_owned(),
            };
            self.check_alive(what)?;
            if began.elapsed() > deadline {
                return Err(TestbedError::NotReady {
                    what: what.to_owned(),
                    waited_ms: began.elapsed().as_millis(),
                    last,
                    log: concerned.to_owned(),
                    tail: tail(concerned, TAIL_LINES),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn check_alive(&self, during: &str) -> Result<()> {
        for component in Component::ALL {
            if let Fate::Ended(status) = self.supervisor.fate(component.name())? {
                let log = self.log(component);
                return Err(TestbedError::Exited {
                    component: component.name().to_owned(),
                    status: describe(status),
                    during: format!("waiting until {during}"),
                    tail: tail(&log, TAIL_LINES),
                    log,
                });
            }
        }
        self.check_nodes(during)?;
        self.check_add_ons(during)
    }

    /// Moves the logs out of the state folder and points the error to their new place.
    fn with_kept_logs(&self, mut error: TestbedError) -> TestbedError {
        if let TestbedError::Exited { log, .. } | TestbedError::NotReady { log, .. } = &mut error
            && let (Some(kept), Some(file)) = (self.state.keep_logs(), log.file_name())
        {
            *log = kept.join(file);
        }
        error
    }

    /// Where this machine listens for the laboratory: on the bridge where it has real nodes, which reach it there, else on loopback.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.site().host()
    }

    /// Address of the API server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.address(), self.ports.api)
    }

    /// Kubeconfig of an administrator (group `system:masters`).
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.site().kubeconfig("admin")
    }

    /// Kubeconfig of any other user; its rights are those that RBAC gives to user and groups.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn kubeconfig_for(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let n = {
            let mut users = self
                .users
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            *users += 1;
            *users
        };
        let path = self.state.path().join(format!("user-{n}.kubeconfig"));
        let identity = self.pki.client(user, groups)?;
        write_private(&path, &self.pki.kubeconfig(&self.url(), Some(&identity)))?;
        Ok(path)
    }

    /// Client with the administrator's rights. Belongs to the runtime that calls this; make one for each test.
    ///
    /// # Errors
    /// If the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<Client> {
        client_of(&self.kubeconfig()).await
    }

    /// The folder of this laboratory. Everything in it disappears with it.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        self.state.path()
    }

    /// The certificate authority.
    #[must_use]
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The log of a program.
    #[must_use]
    pub fn log(&self, component: Component) -> PathBuf {
        self.state
            .path()
            .join("log")
            .join(format!("{}.log", component.name()))
    }

    /// Process id of a program; `None` if it is not running.
    #[must_use]
    pub fn pid(&self, component: Component) -> Option<u32> {
        match self.supervisor.fate(component.name()) {
            Ok(Fate::Running(pid)) => Some(pid),
            _ => None,
        }
    }

    /// Kills one program (SIGKILL). [`restart`](Self::restart) brings it back.
    ///
    /// # Errors
    /// Only after the laboratory was stopped.
    pub fn kill(&self, component: Component) -> Result<()> {
        self.supervisor.kill(component.name())
    }

    /// Starts one program anew, killing it first if it runs, and waits until the API server answers. Stored objects stay.
    ///
    /// # Errors
    /// The program did not come back, with the last lines of its log.
    pub async fn restart(&self, component: Component) -> Result<()> {
        self.launch(component)?;
        self.wait_api().await
    }

    /// The API server's audit log so far, one JSON object for each line.
    ///
    /// # Errors
    /// If the log cannot be read, for example because the builder was not told to [`audit`](ControlPlaneBuilder::audit).
    pub fn audit_events(&self) -> Result<Vec<serde_json::Value>> {
        let path = self.site().audit_log();
        let text = std::fs::read_to_string(&path).map_err(TestbedError::io(&path))?;
        // The last line may still be in the middle of being written.
        Ok(text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// Waits until all nodes (and at least one) are Ready and take pods.
    ///
    /// # Errors
    /// After two minutes, naming the nodes that are not.
    pub async fn wait_nodes_ready(&self) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client().await?);
        self.wait(
            "all nodes are Ready",
            &self.log(Component::Kwok),
            START_DEADLINE,
            async || {
                let list = nodes
                    .list(&ListParams::default())
                    .await
                    .map_err(|e| e.to_string())?;
                let unready: Vec<_> = list
                    .items
                    .iter()
                    .filter(|n| !is_ready(n))
                    .filter_map(|n| n.metadata.name.clone())
                    .collect();
                match (list.items.is_empty(), unready.is_empty()) {
                    (true, _) => Err("there are no nodes".to_owned()),
                    (false, true) => Ok(()),
                    (false, false) => Err(format!("not Ready: {}", unready.join(", "))),
                }
            },
        )
        .await
    }

    /// Waits until all pods (and at least one) of a namespace are Running.
    ///
    /// # Errors
    /// After two minutes, naming the pods that are not.
    pub async fn wait_pods_running(&self, namespace: &str) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client().await?, namespace);
        self.wait(
            &format!("all pods of {namespace} run"),
            &self.log(Component::Scheduler),
            START_DEADLINE,
            async || {
                let list = pods
                    .list(&ListParams::default())
                    .await
                    .map_err(|e| e.to_string())?;
                let phase = |p: &Pod| {
                    p.status
                        .as_ref()
                        .and_then(|s| s.phase.clone())
                        .unwrap_or_default()
                };
                let waiting: Vec<_> = list
                    .items
                    .iter()
                    .filter(|p| phase(p) != "Running")
                    .filter_map(|p| p.metadata.name.clone())
                    .collect();
                match (list.items.is_empty(), waiting.is_empty()) {
                    (true, _) => Err("there are no pods".to_owned()),
                    (false, true) => Ok(()),
                    (false, false) => Err(format!("not Running: {}", waiting.join(", "))),
                }
            },
        )
        .await
    }

    /// Waits until `condition` returns `Ok`; its `Err` says what is seen instead.
    ///
    /// # Errors
    /// After two minutes, or when a program of the laboratory has ended.
    pub async fn wait_until<F, Fut>(&self, what: &str, condition: F) -> Result<()>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = std::result::Result<(), String>>,
    {
        let log = self.log(Component::ApiServer);
        self.wait(what, &log, START_DEADLINE, condition).await
    }
}

/// Refuses a laboratory with real nodes that this machine, or this configuration, cannot have.
fn check_nodes_possible(config: &Config) -> Result<()> {
    let refused = |cause: String, hint: &str| TestbedError::CannotRun {
        what: "real nodes".into(),
        cause,
        hint: hint.into(),
    };
    if config.real_nodes == 0 {
        return match config.add_ons.iter().find(|a| a.needs_real_nodes()) {
            None => Ok(()),
            Some(add_on) => Err(refused(
                format!("none asked for, and {} serves them", add_on.name()),
                "ask for one",
            )),
        };
    }
    if config.real_nodes > MOST {
        return Err(refused(
            format!("{} asked for", config.real_nodes),
            "ask for eight at most",
        ));
    }
    if !config.dra.serves_v1() {
        return Err(refused(
            "kubelets are authorised by a server with resource.k8s.io/v1 only".into(),
            "serve it, or do without real nodes",
        ));
    }
    can_run_nodes().map_err(|why| {
        refused(
            why,
            "`cargo xtask testbed doctor` says what this machine can run",
        )
    })
}

/// Ready, and no longer tainted as a node that is not: the controller takes the taint off a moment later, and until then
/// no pod goes there.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
        && !taints.is_some_and(|all| all.iter().any(|t| t.key == "node.kubernetes.io/not-ready"))
}

/// Client for a kubeconfig that reads nothing of the developer's own.
///
/// # Errors
/// If the file cannot be read or makes no client.
pub async fn client_of(path: &Path) -> Result<Client> {
    // Several crates of one test binary may ask for it; the first wins and all are the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bad = |cause: String| TestbedError::Fixture {
        name: path.display().to_string(),
        document: 1,
        cause,
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(|e| bad(e.to_string()))?;
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .map_err(|e| bad(e.to_string()))?;
    // Tests want to see what the server said the first time, and loopback never goes through a proxy.
    config.default_retry = false;
    config.proxy_url = None;
    Client::try_from(config).map_err(TestbedError::kube("client"))
}

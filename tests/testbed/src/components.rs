//! Command lines of the five programs. Pure functions of the configuration, so they read and test like a table.
//!
//! The flags were measured on 1.37; the ones that look odd say why.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::config::{Config, DraApi};
use crate::node::net::Net;
use crate::pki::Pki;

/// A program of the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Component {
    /// The store.
    Etcd,
    /// The API server.
    ApiServer,
    /// The controllers.
    ControllerManager,
    /// The scheduler.
    Scheduler,
    /// The simulator of nodes and their kubelets.
    Kwok,
}

impl Component {
    /// All of them, in the order in which they are started.
    pub const ALL: [Self; 5] = [
        Self::Etcd,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Kwok,
    ];

    /// File name of the program; also the name of its log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kwok => "kwok",
        }
    }
}

/// The gate of dynamic resource allocation and those that would refuse to start without it.
const DRA_GATES_OFF: &str = "DynamicResourceAllocation=false,DRAAdminAccess=false,DRAPrioritizedList=false,DRASchedulerFilterTimeout=false";

/// Ports of one laboratory, all on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) etcd: u16,
    pub(crate) etcd_peer: u16,
    pub(crate) api: u16,
    pub(crate) controllers: u16,
    pub(crate) scheduler: u16,
    pub(crate) kwok: u16,
}

impl Ports {
    pub(crate) fn pick() -> crate::Result<Self> {
        let p = crate::state::free_ports(6)?;
        Ok(Self {
            etcd: p[0],
            etcd_peer: p[1],
            api: p[2],
            controllers: p[3],
            scheduler: p[4],
            kwok: p[5],
        })
    }
}

/// Everything a command line depends on.
pub(crate) struct Site<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) pki: &'a Pki,
    pub(crate) ports: Ports,
    pub(crate) config: &'a Config,
    pub(crate) kwok_stages: &'a Path,
    /// The networks of real nodes, if there are any.
    pub(crate) net: Option<&'a Net>,
}

impl Site<'_> {
    /// Where the API server listens: loopback, or the bridge that the nodes are connected to.
    pub(crate) fn host(&self) -> Ipv4Addr {
        self.net.map_or(Ipv4Addr::LOCALHOST, Net::host)
    }

    pub(crate) fn kubeconfig(&self, who: &str) -> PathBuf {
        self.dir.join(format!("{who}.kubeconfig"))
    }

    /// Where the API server writes its audit log, if asked to.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    pub(crate) fn args(&self, component: Component) -> Vec<OsString> {
        let mut args = match component {
            Component::Etcd => self.etcd(),
            Component::ApiServer => self.api_server(),
            Component::ControllerManager => self.controller_manager(),
            Component::Scheduler => self.scheduler(),
            Component::Kwok => self.kwok(),
        };
        args.extend(
            self.config
                .extra_args
                .iter()
                .filter(|(c, _)| *c == component)
                .map(|(_, a)| a.clone()),
        );
        args.into_iter().map(OsString::from).collect()
    }

    fn file(&self, flag: &str, name: &str) -> String {
        format!("--{flag}={}", self.pki.path(name).display())
    }

    fn etcd(&self) -> Vec<String> {
        let client = format!("http://127.0.0.1:{}", self.ports.etcd);
        let peer = format!("http://127.0.0.1:{}", self.ports.etcd_peer);
        vec![
            "--name=testbed".into(),
            format!("--data-dir={}", self.dir.join("etcd").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=testbed={peer}"),
            // The data is thrown away; waiting for the disk only makes the laboratory slow.
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
        ]
    }

    fn api_server(&self) -> Vec<String> {
        let mut args = vec![
            format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd),
            format!("--bind-address={}", self.host()),
            format!("--secure-port={}", self.ports.api),
            match self.net {
                Some(net) => format!("--advertise-address={}", net.host()),
                // A loopback address is refused as an endpoint of the Service `kubernetes`, so there is none.
                None => "--endpoint-reconciler-type=none".into(),
            },
            self.file("client-ca-file", "ca.crt"),
            self.file("tls-cert-file", "apiserver.crt"),
            self.file("tls-private-key-file", "apiserver.key"),
            // The first one signs, so another cannot be added behind it.
            format!(
                "--service-account-issuer={}",
                self.config
                    .issuer
                    .as_deref()
                    .unwrap_or("https://kubernetes.default.svc.cluster.local")
            ),
            self.file("service-account-key-file", "sa.pub"),
            self.file("service-account-signing-key-file", "sa.key"),
            format!(
                "--service-cluster-ip-range={}",
                self.net
                    .map_or_else(|| "10.96.0.0/16".to_owned(), Net::services)
            ),
            // The node authorizer waits for resource.k8s.io/v1 before the server calls itself ready.
            format!(
                "--authorization-mode={}",
                if self.config.dra.serves_v1() {
                    "Node,RBAC"
                } else {
                    "RBAC"
                }
            ),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--allow-privileged=true".into(),
            self.file("requestheader-client-ca-file", "front-proxy-ca.crt"),
            "--requestheader-allowed-names=front-proxy-client".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            self.file("proxy-client-cert-file", "front-proxy-client.crt"),
            self.file("proxy-client-key-file", "front-proxy-client.key"),
            self.file("kubelet-client-certificate", "apiserver-kubelet-client.crt"),
            self.file("kubelet-client-key", "apiserver-kubelet-client.key"),
            self.file("kubelet-certificate-authority", "ca.crt"),
            "--kubelet-preferred-address-types=InternalIP".into(),
            // Thousands of test requests must not be held back by fairness queues meant for real clusters.
            "--max-requests-inflight=2000".into(),
            "--max-mutating-requests-inflight=1000".into(),
        ];
        let runtime = self.config.runtime_config();
        if !runtime.is_empty() {
            args.push(format!("--runtime-config={}", runtime.join(",")));
        }
        args.extend(self.gates());
        if self.config.audit_policy.is_some() {
            args.push(format!(
                "--audit-policy-file={}",
                self.dir.join("audit-policy.yaml").display()
            ));
            args.push(format!("--audit-log-path={}", self.audit_log().display()));
            // An answer is sent after its line is written, so a test may read the log right after its request.
            args.push("--audit-log-mode=blocking-strict".into());
        }
        args
    }

    fn controller_manager(&self) -> Vec<String> {
        let kubeconfig = self.kubeconfig("kube-controller-manager");
        let mut controllers =
            "--controllers=*,bootstrap-signer-controller,token-cleaner-controller".to_owned();
        if !self.config.dra.serves_v1() {
            // It would wait for resource.k8s.io/v1 for ever and fill the log.
            controllers.push_str(",-resourceclaim-controller,-device-taint-eviction-controller");
        }
        let mut args = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--authentication-kubeconfig={}", kubeconfig.display()),
            format!("--authorization-kubeconfig={}", kubeconfig.display()),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={}", self.ports.controllers),
            "--leader-elect=false".into(),
            "--use-service-account-credentials=true".into(),
            controllers,
            self.file("service-account-private-key-file", "sa.key"),
            self.file("root-ca-file", "ca.crt"),
            self.file("cluster-signing-cert-file", "ca.crt"),
            self.file("cluster-signing-key-file", "ca.key"),
            "--allocate-node-cidrs=false".into(),
            // With the defaults (20 and 30) the default service account comes 6.7 s after the API, with these 1 s.
            "--kube-api-qps=500".into(),
            "--kube-api-burst=1000".into(),
        ];
        args.extend(self.gates_of_clients());
        args
    }

    fn scheduler(&self) -> Vec<String> {
        let kubeconfig = self.kubeconfig("kube-scheduler");
        let mut args = vec![
            format!("--authentication-kubeconfig={}", kubeconfig.display()),
            format!("--authorization-kubeconfig={}", kubeconfig.display()),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={}", self.ports.scheduler),
            "--leader-elect=false".into(),
        ];
        if self.config.scheduler_config.is_some() {
            args.push(format!(
                "--config={}",
                self.dir.join("scheduler-config.yaml").display()
            ));
        } else {
            args.push(format!("--kubeconfig={}", kubeconfig.display()));
        }
        args.extend(self.gates_of_clients());
        args
    }

    fn kwok(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.kubeconfig("kwok").display()),
            format!("--config={}", self.kwok_stages.display()),
            // Only nodes that ask for it, so that a real node may stand beside the simulated ones.
            "--manage-all-nodes=false".into(),
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake".into(),
            "--node-lease-duration-seconds=40".into(),
            "--cidr=10.0.0.1/24".into(),
            "--node-ip=127.0.0.1".into(),
            format!("--node-port={}", self.ports.kwok),
            format!("--server-address=127.0.0.1:{}", self.ports.kwok),
            self.file("tls-cert-file", "local-server.crt"),
            self.file("tls-private-key-file", "local-server.key"),
        ]
    }

    /// Without `resource.k8s.io/v1` the caches of controllers and scheduler would never fill: no pod would get a node and
    /// no quota a status. The gate is locked on in this release, so both behave as the last one that could turn it off.
    fn gates_of_clients(&self) -> Vec<String> {
        if self.config.dra.serves_v1() {
            self.gates().into_iter().collect()
        } else {
            vec![
                "--emulated-version=1.34".into(),
                format!("--feature-gates={DRA_GATES_OFF}"),
            ]
        }
    }

    fn gates(&self) -> Option<String> {
        let gates: Vec<String> = self
            .config
            .feature_gates
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        (!gates.is_empty()).then(|| format!("--feature-gates={}", gates.join(",")))
    }
}

impl DraApi {
    pub(crate) const fn serves_v1(self) -> bool {
        matches!(self, Self::Stable | Self::All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(config: &Config, component: Component) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::create(dir.path(), Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST).unwrap();
        let ports = Ports {
            etcd: 1,
            etcd_peer: 2,
            api: 3,
            controllers: 4,
            scheduler: 5,
            kwok: 6,
        };
        let site = Site {
            dir: dir.path(),
            pki: &pki,
            ports,
            config,
            kwok_stages: Path::new("/stages.yaml"),
            net: None,
        };
        site.args(component)
            .into_iter()
            .map(|a| a.into_string().unwrap())
            .collect()
    }

    fn value(args: &[String], flag: &str) -> Option<String> {
        args.iter()
            .find_map(|a| a.strip_prefix(&format!("--{flag}=")).map(str::to_owned))
    }

    #[test]
    fn everything_listens_on_loopback_only() {
        let config = Config::default();
        for component in [
            Component::ApiServer,
            Component::ControllerManager,
            Component::Scheduler,
        ] {
            assert_eq!(
                value(&args(&config, component), "bind-address").as_deref(),
                Some("127.0.0.1")
            );
        }
        let etcd = args(&config, Component::Etcd);
        for flag in ["listen-client-urls", "listen-peer-urls"] {
            assert!(value(&etcd, flag).unwrap().starts_with("http://127.0.0.1:"));
        }
        assert_eq!(
            value(&args(&config, Component::Kwok), "server-address").as_deref(),
            Some("127.0.0.1:6")
        );
    }

    #[test]
    fn old_dra_versions_switch_v1_off_everywhere() {
        let config = Config {
            dra: DraApi::OldOnly,
            ..Config::default()
        };
        let runtime = value(&args(&config, Component::ApiServer), "runtime-config").unwrap();
        assert_eq!(
            runtime,
            "resource.k8s.io/v1=false,resource.k8s.io/v1beta1=true,resource.k8s.io/v1beta2=true"
        );
        assert!(
            value(&args(&config, Component::ControllerManager), "controllers")
                .unwrap()
                .contains("-resourceclaim-controller")
        );
        assert_eq!(
            value(&args(&config, Component::Scheduler), "feature-gates").as_deref(),
            Some(DRA_GATES_OFF)
        );
    }

    #[test]
    fn gates_and_extra_arguments_reach_their_programs() {
        let mut config = Config::default();
        config.feature_gates.insert("GenericWorkload".into(), true);
        config
            .extra_args
            .push((Component::ApiServer, "--v=4".into()));
        let api = args(&config, Component::ApiServer);
        assert_eq!(
            value(&api, "feature-gates").as_deref(),
            Some("GenericWorkload=true")
        );
        assert_eq!(api.last().map(String::as_str), Some("--v=4"));
        assert_eq!(
            value(&args(&config, Component::Scheduler), "feature-gates").as_deref(),
            Some("GenericWorkload=true")
        );
        assert!(!args(&config, Component::Scheduler).contains(&"--v=4".to_owned()));
    }

    #[test]
    fn the_audit_log_is_off_unless_asked_for() {
        assert_eq!(
            value(
                &args(&Config::default(), Component::ApiServer),
                "audit-log-path"
            ),
            None
        );
        let config = Config {
            audit_policy: Some("x".into()),
            ..Config::default()
        };
        assert!(
            value(&args(&config, Component::ApiServer), "audit-log-path")
                .unwrap()
                .ends_with("/audit.log")
        );
    }
}

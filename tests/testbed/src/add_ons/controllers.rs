//! Operators: what they install, where they listen, how they are started and stopped.
//!
//! Each is one process on the host, whose webhooks listen on loopback and are registered by URL, because an API server
//! beside simulated nodes cannot reach a Service. Definitions and webhooks come from the operator's own Go module: they are
//! read from the module cache once, kept as JSON beside the built program, and are not in the repository.
//!
//! It refuses to start an operator before its definitions are established, and to register a webhook that nobody answers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use kube::Api;
use kube::api::DynamicObject;
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::AddOn;
use super::agent_sandbox::AGENT_SANDBOX;
use super::jobset::JOBSET;
use super::kueue::KUEUE;
use super::leader_worker_set::LEADER_WORKER_SET;
use super::trainer::TRAINER;
use crate::apply::{apply_values, documents};
use crate::control_plane::{ControlPlane, START_DEADLINE, TAIL_LINES};
use crate::error::{Result, TestbedError};
use crate::gobuild::{self, Go, Progress};
use crate::pki::write_private;
use crate::programs::set_of;
use crate::state::{free_ports, tail};
use crate::supervise::{Fate, Launch, describe};
use crate::version::KubernetesVersion;

/// One operator.
#[derive(Debug)]
pub(super) struct Controller {
    /// Name of the add-on, its program, its process and its log.
    pub(super) name: &'static str,
    /// Where it keeps its leader lease.
    pub(super) namespace: &'static str,
    /// Go module with what follows.
    pub(super) module: &'static str,
    /// Folder with the definitions of its kinds.
    pub(super) definitions: &'static str,
    /// File with its webhook configurations; empty if it has none.
    pub(super) webhooks: &'static str,
    /// Parts of the paths of the webhooks that are registered; all if there are none.
    pub(super) serves: &'static [&'static str],
    /// The label that the pods have for which its webhooks are, where the file leaves that to kustomize.
    pub(super) pods_with: Option<&'static str>,
    /// Plurals of the kinds whose versions it converts.
    pub(super) converts: &'static [&'static str],
    /// Arguments beside the configuration file.
    pub(super) args: &'static [&'static str],
    /// Where it listens, for one that reads no configuration file.
    pub(super) flags: Option<fn(&Place) -> Vec<String>>,
    /// Its configuration.
    pub(super) config: fn(&Place) -> Value,
}

/// Where an operator listens and what it reads.
#[derive(Clone, Debug)]
pub(super) struct Place {
    dir: PathBuf,
    pub(super) webhook_port: u16,
    health_port: u16,
}

impl Place {
    pub(super) fn health(&self) -> String {
        format!("127.0.0.1:{}", self.health_port)
    }

    /// The webhook server of controller-runtime, which reads `tls.crt` and `tls.key`.
    pub(super) fn webhook(&self) -> Value {
        json!({ "host": "127.0.0.1", "port": self.webhook_port, "certDir": self.certificates() })
    }

    /// A lease, as in a cluster: who looks from outside sees by it that a controller lives.
    pub(super) fn leader_election(&self, controller: &Controller, lease: &str) -> Value {
        json!({
            "leaderElect": true,
            "resourceName": lease,
            "resourceNamespace": controller.namespace,
            "resourceLock": "leases",
            "leaseDuration": "15s",
            "renewDeadline": "10s",
            "retryPeriod": "2s",
        })
    }

    /// Below this folder, controller-runtime looks for certificates where it is told nothing.
    fn temporary(&self) -> PathBuf {
        self.dir.join("tmp")
    }

    fn certificates(&self) -> PathBuf {
        self.temporary().join("k8s-webhook-server/serving-certs")
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.webhook_port)
    }
}

/// In the order in which they are started: Trainer makes JobSets.
const ALL: [(AddOn, &Controller); 5] = [
    (AddOn::JobSet, &JOBSET),
    (AddOn::LeaderWorkerSet, &LEADER_WORKER_SET),
    (AddOn::Kueue, &KUEUE),
    (AddOn::Trainer, &TRAINER),
    (AddOn::AgentSandbox, &AGENT_SANDBOX),
];

fn controller(add_on: AddOn) -> Result<&'static Controller> {
    ALL.iter()
        .find_map(|(known, controller)| (*known == add_on).then_some(*controller))
        .ok_or_else(|| TestbedError::CannotRun {
            what: add_on.name().into(),
            cause: "it is no operator".into(),
            hint: "ask for one that is".into(),
        })
}

/// Kept for one operator: its definitions and its webhook configurations, each a list of objects.
pub(super) const KEPT: [&str; 2] = ["definitions.json", "webhooks.json"];

/// The folders with what the operators among `names` install; what is not there yet is read from the module cache.
pub(crate) fn manifests(
    names: &[&'static str],
    go: &std::result::Result<Go, String>,
    progress: Progress<'_>,
) -> Result<BTreeMap<&'static str, PathBuf>> {
    let mut folders = BTreeMap::new();
    for (_, controller) in ALL.iter().filter(|(_, c)| names.contains(&c.name)) {
        let go = go.as_ref().map_err(|why| TestbedError::ProgramMissing {
            program: format!("manifests of {}", controller.name),
            looked: why.clone(),
            hint: "install Go 1.26 or newer: they come from its Go module".into(),
        })?;
        let set = set_of(controller.name, KubernetesVersion::default());
        let folder = gobuild::folder(set, go)?
            .join("manifests")
            .join(controller.name);
        if !KEPT.iter().all(|file| folder.join(file).is_file()) {
            progress(&format!("{}: reading its manifests", controller.name));
            let module = tempfile::tempdir().map_err(TestbedError::io("temporary folder"))?;
            gobuild::write_module(set, module.path())?;
            keep(
                &gobuild::module_dir(module.path(), controller.module)?,
                controller,
                &folder,
            )?;
        }
        folders.insert(controller.name, folder);
    }
    Ok(folders)
}

fn keep(module: &Path, controller: &Controller, folder: &Path) -> Result<()> {
    let definitions = definitions_in(&module.join(controller.definitions))?;
    let webhooks = match controller.webhooks {
        "" => Vec::new(),
        file => read(&[module.join(file)])?,
    };
    for (file, objects) in KEPT.into_iter().zip([definitions, webhooks]) {
        write_kept(folder, file, objects)?;
    }
    Ok(())
}

/// The definitions of a folder, without explanations.
pub(super) fn definitions_in(dir: &Path) -> Result<Vec<Value>> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .map_err(TestbedError::io(dir))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()
        .map_err(TestbedError::io(dir))?;
    files.retain(|path| path.file_name().is_some_and(|n| n != "kustomization.yaml"));
    files.sort();
    let mut definitions = read(&files)?;
    definitions.iter_mut().for_each(without_descriptions);
    Ok(definitions)
}

pub(super) fn write_kept(folder: &Path, file: &str, objects: Vec<Value>) -> Result<()> {
    fs::create_dir_all(folder).map_err(TestbedError::io(folder))?;
    // Written beside and renamed, because two processes may do this at the same time.
    let beside = folder.join(format!("{file}.{}", std::process::id()));
    fs::write(&beside, Value::Array(objects).to_string()).map_err(TestbedError::io(&beside))?;
    let path = folder.join(file);
    fs::rename(&beside, &path).map_err(TestbedError::io(&path))
}

fn read(files: &[PathBuf]) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for path in files {
        let text = fs::read_to_string(path).map_err(TestbedError::io(path))?;
        let found = documents(&path.display().to_string(), &text)?;
        all.extend(found.into_iter().map(|(_, object)| object));
    }
    Ok(all)
}

/// Takes the explanations out of a schema. They are more than half of a definition, and every start would send them. A
/// property that is called `description` has no text but a schema.
fn without_descriptions(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, value| key != "description" || !value.is_string());
            fields.values_mut().for_each(without_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(without_descriptions),
        _ => {}
    }
}

impl ControlPlane {
    pub(super) async fn start_controllers(&self) -> Result<()> {
        for (_, controller) in ALL
            .iter()
            .filter(|(add_on, _)| self.config.add_ons.contains(add_on))
        {
            self.start_controller(controller).await?;
        }
        Ok(())
    }

    /// The log of an operator.
    fn controller_log(&self, controller: &Controller) -> PathBuf {
        self.state_dir()
            .join("log")
            .join(format!("{}.log", controller.name))
    }

    async fn start_controller(&self, controller: &Controller) -> Result<()> {
        let ports = free_ports(2)?;
        let place = Place {
            dir: self.state_dir().join(controller.name),
            webhook_port: ports[0],
            health_port: ports[1],
        };
        let client = self.client().await?;
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": { "name": controller.namespace },
        });
        apply_values(&client, controller.namespace, [namespace]).await?;
        let mut definitions = self.kept(controller.name, KEPT[0])?;
        for definition in &mut definitions {
            self.converted_by(controller, &place, definition);
        }
        apply_values(&client, controller.definitions, definitions.iter().cloned()).await?;
        let log = self.controller_log(controller);
        self.wait_established(&log, &definitions).await?;
        self.write_controller_files(controller, &place)?;
        self.launch_controller(controller, &place)?;
        self.wait_answering(controller, &place).await?;
        let mut webhooks = self.kept(controller.name, KEPT[1])?;
        for configuration in &mut webhooks {
            self.by_url(controller, &place, configuration);
        }
        apply_values(&client, controller.webhooks, webhooks).await
    }

    pub(super) fn kept(&self, name: &str, file: &str) -> Result<Vec<Value>> {
        let path = self
            .programs
            .manifests
            .get(name)
            .cloned()
            .unwrap_or_default()
            .join(file);
        let bytes = fs::read(&path).map_err(TestbedError::io(&path))?;
        serde_json::from_slice(&bytes).map_err(|e| TestbedError::Fixture {
            name: path.display().to_string(),
            document: 1,
            cause: e.to_string(),
        })
    }

    fn ca_bundle(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(self.pki.ca_pem())
    }

    fn converted_by(&self, controller: &Controller, place: &Place, definition: &mut Value) {
        let plural = definition["spec"]["names"]["plural"].as_str();
        if plural.is_some_and(|plural| controller.converts.contains(&plural)) {
            definition["spec"]["conversion"] = json!({
                "strategy": "Webhook",
                "webhook": {
                    "conversionReviewVersions": ["v1"],
                    "clientConfig": { "url": place.url("/convert"), "caBundle": self.ca_bundle() },
                },
            });
        }
    }

    /// Lets a webhook configuration point to the process, and leaves out what it does not serve.
    fn by_url(&self, controller: &Controller, place: &Place, configuration: &mut Value) {
        let name = configuration["metadata"]["name"]
            .as_str()
            .unwrap_or_default();
        configuration["metadata"]["name"] = json!(format!("{}-{name}", controller.name));
        let Some(webhooks) = configuration["webhooks"].as_array_mut() else {
            return;
        };
        let path = |webhook: &Value| {
            let path = webhook["clientConfig"]["service"]["path"].as_str();
            path.unwrap_or("/").to_owned()
        };
        webhooks.retain(|webhook| {
            let mut parts = controller.serves.iter();
            controller.serves.is_empty() || parts.any(|part| path(webhook).contains(part))
        });
        for webhook in webhooks {
            let path = path(webhook);
            webhook["clientConfig"] =
                json!({ "url": place.url(&path), "caBundle": self.ca_bundle() });
            if let Some(label) = controller.pods_with
                && path.ends_with("--v1-pod")
            {
                webhook["objectSelector"] =
                    json!({ "matchExpressions": [{ "key": label, "operator": "Exists" }] });
            }
        }
    }

    /// Waits until every kind is established, and until the server lists it: right after that it says for a moment that its
    /// storage is being initialised.
    pub(super) async fn wait_established(&self, log: &Path, definitions: &[Value]) -> Result<()> {
        let client = self.client().await?;
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
        ));
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        for definition in definitions {
            let text = |pointer: &str| definition.pointer(pointer).and_then(Value::as_str);
            let name = text("/metadata/name").unwrap_or_default();
            let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
            let versions = definition["spec"]["versions"].as_array();
            let lists: Vec<String> = versions
                .into_iter()
                .flatten()
                .filter(|version| version["served"] == true)
                .filter_map(|version| {
                    let version = version["name"].as_str()?;
                    Some(format!("/apis/{}/{version}/{}?limit=1", group?, plural?))
                })
                .collect();
            self.wait(
                &format!("{name} is established"),
                log,
                START_DEADLINE,
                async || {
                    let found = api.get(name).await.map_err(|e| e.to_string())?;
                    let conditions = found.data["status"]["conditions"].as_array();
                    let so = conditions.into_iter().flatten().any(|condition| {
                        condition["type"] == "Established" && condition["status"] == "True"
                    });
                    if !so {
                        return Err("not yet".to_owned());
                    }
                    for list in &lists {
                        let request = http::Request::get(list).body(Vec::new());
                        let request = request.map_err(|e| e.to_string())?;
                        let answer = client.request_text(request).await;
                        answer.map_err(|e| e.to_string())?;
                    }
                    Ok(())
                },
            )
            .await?;
        }
        Ok(())
    }

    fn write_controller_files(&self, controller: &Controller, place: &Place) -> Result<()> {
        let certificates = place.certificates();
        fs::create_dir_all(&certificates).map_err(TestbedError::io(&certificates))?;
        let server = self.pki.local_server()?;
        write_private(&certificates.join("tls.crt"), &server.cert_pem)?;
        write_private(&certificates.join("tls.key"), &server.key_pem)?;
        let user = self.pki.client(controller.name, &["system:masters"])?;
        write_private(
            &place.dir.join("kubeconfig"),
            &self.pki.kubeconfig(&self.url(), Some(&user)),
        )?;
        let mut config = (controller.config)(place);
        for (add_on, more) in &self.config.add_on_config {
            if add_on.name() == controller.name {
                merge(&mut config, more);
            }
        }
        write_private(&place.dir.join("config.yaml"), &config.to_string())
    }

    fn launch_controller(&self, controller: &Controller, place: &Place) -> Result<u32> {
        let dir = self.state_dir().join(controller.name);
        // Through `env`, for those that can be told of their certificates by nothing else.
        let mut args: Vec<std::ffi::OsString> = vec![
            format!("TMPDIR={}", dir.join("tmp").display()).into(),
            self.programs.path(controller.name).into(),
            format!("--kubeconfig={}", dir.join("kubeconfig").display()).into(),
        ];
        args.extend(match controller.flags {
            Some(flags) => flags(place).into_iter().map(Into::into).collect(),
            None => vec![std::ffi::OsString::from(format!(
                "--config={}",
                dir.join("config.yaml").display()
            ))],
        });
        args.extend(controller.args.iter().map(Into::into));
        let launch = Launch {
            program: "/usr/bin/env".into(),
            args,
            log: self.controller_log(controller),
        };
        self.supervisor.start(controller.name, launch)
    }

    /// Waits until an operator says that it is ready, which it does not before its webhooks listen.
    async fn wait_answering(&self, controller: &Controller, place: &Place) -> Result<()> {
        self.wait(
            &format!("{} is ready", controller.name),
            &self.controller_log(controller),
            START_DEADLINE,
            async || {
                let status = status_of(&place.health())
                    .await
                    .map_err(|e| e.to_string())?;
                if status.contains(" 200 ") {
                    Ok(())
                } else {
                    Err(status)
                }
            },
        )
        .await?;
        if controller.webhooks.is_empty() {
            return Ok(());
        }
        // Some are ready before their webhooks are registered with their own server.
        self.wait(
            &format!("the webhooks of {} listen", controller.name),
            &self.controller_log(controller),
            START_DEADLINE,
            async || {
                let to = ("127.0.0.1", place.webhook_port);
                let stream = tokio::net::TcpStream::connect(to).await;
                stream.map(|_| ()).map_err(|e| e.to_string())
            },
        )
        .await
    }

    /// Fails if an operator that nobody stopped has ended.
    pub(super) fn check_controllers(&self, during: &str) -> Result<()> {
        let stopped = self.stopped();
        for (_, controller) in ALL {
            if stopped.contains(controller.name) {
                continue;
            }
            if let Fate::Ended(status) = self.supervisor.fate(controller.name)? {
                let log = self.controller_log(controller);
                return Err(TestbedError::Exited {
                    component: controller.name.to_owned(),
                    status: describe(status),
                    during: format!("waiting until {during}"),
                    tail: tail(&log, TAIL_LINES),
                    log,
                });
            }
        }
        Ok(())
    }

    /// Ends an operator (SIGKILL); what it registered stays, as when its pod is gone. [`Self::resume_add_on`] brings it back.
    ///
    /// # Errors
    /// It is no operator, or the laboratory was stopped.
    pub fn stop_add_on(&self, add_on: AddOn) -> Result<()> {
        let controller = controller(add_on)?;
        self.stopped().insert(controller.name);
        self.supervisor.kill(controller.name)
    }

    /// Suspends an operator (SIGSTOP): its connections stay open and nothing answers. [`Self::resume_add_on`] lets it go on.
    ///
    /// # Errors
    /// It is no operator, it does not run, or the laboratory was stopped.
    pub fn pause_add_on(&self, add_on: AddOn) -> Result<()> {
        self.signal_add_on(add_on, Signal::STOP)
    }

    fn signal_add_on(&self, add_on: AddOn, signal: Signal) -> Result<()> {
        let controller = controller(add_on)?;
        match self.supervisor.fate(controller.name)? {
            // While its parent lives, the number cannot belong to anybody else.
            Fate::Running(pid) => send(pid, signal),
            _ => Err(TestbedError::CannotRun {
                what: format!("signal to {}", controller.name),
                cause: "it does not run".into(),
                hint: "start it first".into(),
            }),
        }
    }

    /// Brings an operator back that was stopped or suspended, and waits until it answers.
    ///
    /// # Errors
    /// It is no operator, or does not come back.
    pub async fn resume_add_on(&self, add_on: AddOn) -> Result<()> {
        let controller = controller(add_on)?;
        let path = self.state_dir().join(controller.name).join("config.yaml");
        let text = fs::read_to_string(&path).map_err(TestbedError::io(&path))?;
        let config: Value = serde_json::from_str(&text).unwrap_or_default();
        let health = config["health"]["healthProbeBindAddress"].as_str();
        let port = health.and_then(|at| at.rsplit(':').next()?.parse().ok());
        let webhook = config["webhook"]["port"].as_u64();
        let place = Place {
            dir: self.state_dir().join(controller.name),
            webhook_port: webhook.and_then(|p| p.try_into().ok()).unwrap_or_default(),
            health_port: port.unwrap_or_default(),
        };
        if let Fate::Running(_) = self.supervisor.fate(controller.name)? {
            self.signal_add_on(add_on, Signal::CONT)?;
        } else {
            self.launch_controller(controller, &place)?;
            self.stopped().remove(controller.name);
        }
        self.wait_answering(controller, &place).await
    }

    /// Process id of an operator; `None` if it is not running.
    #[must_use]
    pub fn add_on_pid(&self, add_on: AddOn) -> Option<u32> {
        match self.supervisor.fate(add_on.name()) {
            Ok(Fate::Running(pid)) => Some(pid),
            _ => None,
        }
    }

    fn stopped(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeSet<&'static str>> {
        self.stopped_add_ons
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Suspends a process of a laboratory (SIGSTOP), for who has only its number.
///
/// # Errors
/// There is no such process.
pub fn pause_process(pid: u32) -> Result<()> {
    send(pid, Signal::STOP)
}

/// Lets a suspended process go on (SIGCONT); nothing happens to one that was not suspended.
///
/// # Errors
/// There is no such process.
pub fn resume_process(pid: u32) -> Result<()> {
    send(pid, Signal::CONT)
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let sent = process.map(|process| kill_process(process, signal));
    match sent {
        Some(Ok(())) => Ok(()),
        Some(Err(source)) => Err(TestbedError::Io {
            path: format!("process {pid}").into(),
            source: source.into(),
        }),
        None => Err(TestbedError::Stopped),
    }
}

/// Objects are merged, everything else is replaced.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// The first line of the answer to a plain GET of `/readyz`.
async fn status_of(address: &str) -> std::io::Result<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream
        .write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanations_go_and_properties_stay() {
        let mut schema = json!({"properties": {"description": {"type": "string", "description": "long"}}, "description": "longer"});
        without_descriptions(&mut schema);
        assert_eq!(
            schema,
            json!({"properties": {"description": {"type": "string"}}})
        );
    }

    #[test]
    fn a_configuration_is_merged_below_and_replaced_at_the_leaves() {
        let mut config = json!({"a": {"b": 1, "c": [1, 2]}, "d": 1});
        merge(&mut config, &json!({"a": {"c": [3]}, "e": 2}));
        assert_eq!(config, json!({"a": {"b": 1, "c": [3]}, "d": 1, "e": 2}));
    }

    #[test]
    fn every_operator_is_an_add_on_of_its_name() {
        for (add_on, controller) in ALL {
            assert_eq!(add_on.name(), controller.name);
            assert!(!add_on.needs_real_nodes());
        }
    }
}

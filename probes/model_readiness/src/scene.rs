//! What is made: a client that asks all the time, a Service, and a Deployment of one simulated server. And what is seen of the
//! server: its pods and its endpoints, by watches.

use crate::manifest::{images, settings};
use crate::traffic::Traffic;
use karat_sdk::build::PodBuilder;
use karat_sdk::http::{self, Request};
use karat_sdk::kube::{self, Event, Watch};
use karat_sdk::leases::LeasedNode;
use karat_sdk::wait::{self, Deadline};
use karat_sdk::{
    Conclusion, Error, Object, Query, Reason, Result, Target, Value, inventory, json, run,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Label of the server's pods.
const LABEL: &str = "karat-model";
/// The container that serves; a platform may add others.
const SERVER: &str = "server";
/// The program of the tool image.
const PROGRAM: &str = "/bin/tool";
/// Port of the server and of the Service.
const PORT: u16 = 8080;
/// The model that the server says it has.
pub(crate) const MODEL: &str = "karat-simulated";
/// What the client asks for.
const PROMPT: &str = r#"{"model": "karat-simulated", "prompt": "hello", "max_tokens": 4}"#;
/// Requests of the client in a second.
const RATE: &str = "5";
/// Patience for one request through the API server.
const PATIENCE: Duration = Duration::from_secs(10);

/// The times of the manifest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) load: Duration,
    pub(crate) drain: Duration,
    pub(crate) removal: Duration,
    pub(crate) pod: Duration,
}

/// Everything that was made.
pub(crate) struct Scene {
    namespace: String,
    /// Name of Deployment and Service, and value of the label.
    name: String,
    client: Object,
    pub(crate) traffic: Traffic,
    pub(crate) times: Times,
}

/// The container that serves, as it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Name of its pod.
    pub(crate) pod: String,
    uid: String,
    container: String,
}

/// What the slices of the Service say of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
}

impl Times {
    fn read() -> Result<Self> {
        let seconds = Duration::from_secs;
        Ok(Times {
            load: settings::LOAD.get_or(seconds(30))?.max(seconds(10)),
            drain: settings::DRAIN.get_or(seconds(10))?.max(seconds(8)),
            removal: settings::REMOVAL.get_or(seconds(30))?,
            pod: settings::POD_WAIT.get_or(seconds(120))?,
        })
    }
}

/// Makes everything, the client first, so that it asks from the first moment on. Gives why nothing can be said where it does not run.
pub(crate) fn make(
    namespace: &str,
    nodes: &[LeasedNode],
) -> Result<std::result::Result<Scene, Conclusion>> {
    let times = Times::read()?;
    let name = run::name("model");
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {LABEL: name}, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
    });
    Target::new("v1", "services")
        .in_namespace(namespace)
        .create(&service)?;
    let pods = Target::new("v1", "pods").in_namespace(namespace);
    let url = format!("http://{name}.{namespace}.svc:{PORT}/v1/completions");
    let post = format!("--post={PROMPT}");
    let client = pod(&run::name("client"), &["traffic", &url, RATE, &post], nodes)?.build();
    let client = pods.create(&client)?;
    let started = |pod: &Object| {
        (pod.text("/status/phase") != "Pending" && !pod.at("/status/phase").is_null())
            .then(|| pod.clone())
    };
    let query = pods.query();
    let client = match kube::wait_for(&query, client.name(), times.pod, "the client", started) {
        Ok(pod) => pod,
        Err(error) if error.is_deadline() => {
            let pod = query.get(client.name())?;
            let text = format!("the client does not run after {} s", times.pod.as_secs());
            return Ok(Err(inventory::not_running(&pod, &text)));
        }
        Err(error) => return Err(error),
    };
    Target::new("apps/v1", "deployments")
        .in_namespace(namespace)
        .create(&deployment(&name, nodes, times)?)?;
    Ok(Ok(Scene {
        traffic: Traffic::of(&client),
        namespace: namespace.to_owned(),
        name,
        client,
        times,
    }))
}

fn pod(name: &str, args: &[&str], nodes: &[LeasedNode]) -> Result<PodBuilder> {
    Ok(PodBuilder::tool(name, &run::image(images::TOOL)?)
        .args(args)
        .on_leased(nodes)
        .deadline(900))
}

fn deployment(name: &str, nodes: &[LeasedNode], times: Times) -> Result<Value> {
    let (load, drain) = (times.load.as_secs(), times.drain.as_secs());
    let port = PORT.to_string();
    let flags = [format!("--name={MODEL}"), format!("--load={load}")];
    let mut pod = pod(name, &["model", &port, &flags[0], &flags[1]], nodes)?
        .grace(u32::try_from(drain).unwrap_or(u32::MAX).saturating_add(20))
        .build();
    let spec = &mut pod["spec"];
    // A pod of a Deployment is always restarted, and has no end.
    spec["restartPolicy"] = json!("Always");
    spec["activeDeadlineSeconds"] = Value::Null;
    let container = &mut spec["containers"][0];
    container["name"] = json!(SERVER);
    container["ports"] = json!([{"name": "http", "containerPort": PORT}]);
    container["env"] =
        json!([{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
    let check = |path: &str, every: u32, times: u64| {
        // Five seconds: with one, a node that is busy fails a server that is well.
        json!({"httpGet": {"path": path, "port": "http"}, "periodSeconds": every, "timeoutSeconds": 5, "failureThreshold": times})
    };
    container["startupProbe"] = check("/health", 1, load + 120);
    container["readinessProbe"] = check("/health", 1, 2);
    // Fails while the model is loading, and only then: who does not wait for the startup probe restarts the server over it.
    container["livenessProbe"] = check("/v1/models", 1, 3);
    container["lifecycle"] =
        json!({"preStop": {"exec": {"command": [PROGRAM, "sleep", drain.to_string()]}}});
    let spec = pod["spec"].clone();
    Ok(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {LABEL: name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": {LABEL: name}}, "spec": spec},
        },
    }))
}

impl Scene {
    /// The pods of the server and its endpoints, as they are and change from now on.
    pub(crate) fn look(&self) -> Result<Sight> {
        let pods = Query::new("v1", "pods")
            .in_namespace(&self.namespace)
            .labels(format!("{LABEL}={}", self.name));
        let slices = Query::new("discovery.k8s.io/v1", "endpointslices")
            .in_namespace(&self.namespace)
            .labels(format!("kubernetes.io/service-name={}", self.name));
        Ok(Sight {
            pods: Seen::new(pods.watch()?),
            slices: Seen::new(slices.watch()?),
        })
    }

    /// What a server says of its own health.
    pub(crate) fn health(&self, pod: &str) -> Result<u16> {
        let target = http::pod(&self.namespace, pod, PORT);
        Ok(Request::get(&target, "/health").fetch(PATIENCE)?.code)
    }

    /// Makes the health of a server fail or heal.
    pub(crate) fn switch(&self, pod: &str, to: &str) -> Result<()> {
        let target = http::pod(&self.namespace, pod, PORT);
        let path = format!("/switch?health={to}");
        let reply = Request::new("POST", &target, &path).fetch(PATIENCE)?;
        if reply.code == 204 {
            return Ok(());
        }
        Err(Error::NoAnswer(format!(
            "the server answers {} to the switch",
            reply.code
        )))
    }

    /// The models that the Service lists.
    pub(crate) fn models(&self) -> Result<Value> {
        let target = http::service(&self.namespace, &self.name, PORT);
        Request::get(&target, "/v1/models").fetch(PATIENCE)?.json()
    }

    /// Whether the client reaches a pod when it asks it, and not the Service.
    pub(crate) fn reaches(&self, pod: &Object) -> Result<bool> {
        let ip = pod.text("/status/podIP");
        let host = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip.to_owned()
        };
        let look = karat_sdk::pods::exec(&self.client, PROGRAM)
            .arg("connect")
            .arg(&format!("{host}:{PORT}"))
            .arg("5");
        let said = look.run(Duration::from_secs(20))?;
        Ok(said.output.contains("\"connected\":true"))
    }

    /// Begins a rolling update.
    pub(crate) fn renew(&self) -> Result<Object> {
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {"karat-model-revision": "2"}}}}});
        Target::new("apps/v1", "deployments")
            .in_namespace(&self.namespace)
            .patch(&self.name, kube::PatchKind::Merge, &patch)
    }
}

/// A watch with what it has seen.
struct Seen {
    watch: Watch,
    whole: bool,
    objects: BTreeMap<String, Object>,
}

impl Seen {
    fn new(watch: Watch) -> Self {
        Seen {
            watch,
            whole: false,
            objects: BTreeMap::new(),
        }
    }

    /// Takes the next event; false if there is none at the moment.
    fn step(&mut self) -> Result<bool> {
        let Some(event) = self.watch.poll()? else {
            return Ok(false);
        };
        match event {
            Event::Added(object) | Event::Modified(object) => {
                self.objects.insert(object.name().to_owned(), object);
            }
            Event::Deleted(object) => {
                self.objects.remove(object.name());
            }
            Event::Synced => self.whole = true,
            Event::Gap(_) => {
                self.whole = false;
                self.objects.clear();
            }
        }
        Ok(true)
    }
}

/// What is seen of the server.
pub(crate) struct Sight {
    pods: Seen,
    slices: Seen,
}

impl Sight {
    /// Looks after every change whether it is found, until the time is up.
    pub(crate) fn until<T>(
        &mut self,
        limit: Duration,
        mut found: impl FnMut(&Sight) -> Option<T>,
    ) -> Result<Option<T>> {
        let deadline = Deadline::after(limit);
        loop {
            // What is only half delivered looks as if something were gone.
            if self.pods.whole
                && self.slices.whole
                && let Some(result) = found(self)
            {
                return Ok(Some(result));
            }
            inventory::all_pulled(self.pods.objects.values())?;
            if self.pods.step()? || self.slices.step()? {
                continue;
            }
            let left = deadline.left();
            if left.is_zero() {
                return Ok(None);
            }
            wait::any(
                &[&self.pods.watch.source(), &self.slices.watch.source()],
                left,
            )?;
        }
    }

    pub(crate) fn pods(&self) -> impl Iterator<Item = &Object> {
        self.pods.objects.values()
    }

    pub(crate) fn pod(&self, name: &str) -> Option<&Object> {
        self.pods.objects.get(name)
    }

    /// What the slices say of a pod; none where it is in none. Of several, the one that lets more through.
    pub(crate) fn endpoint(&self, pod: &str) -> Option<Endpoint> {
        let slices = self.slices.objects.values();
        let all = slices.flat_map(|slice| slice.items("/endpoints"));
        let mine = all.filter(|one| one["targetRef"]["name"] == pod);
        mine.map(Endpoint::of).reduce(|a, b| Endpoint {
            ready: a.ready || b.ready,
            serving: a.serving || b.serving,
            terminating: a.terminating || b.terminating,
        })
    }
}

impl Endpoint {
    /// What is left out means: ready, serving as much as ready, not terminating.
    fn of(endpoint: &Value) -> Self {
        let conditions = &endpoint["conditions"];
        let ready = conditions["ready"].as_bool().unwrap_or(true);
        Endpoint {
            ready,
            serving: conditions["serving"].as_bool().unwrap_or(ready),
            terminating: conditions["terminating"].as_bool().unwrap_or(false),
        }
    }
}

fn status(pod: &Object) -> &Value {
    let all = pod.items("/status/containerStatuses");
    all.iter()
        .find(|one| one["name"] == SERVER)
        .unwrap_or(&Value::Null)
}

pub(crate) fn is_ready(pod: &Object) -> bool {
    pod.condition("Ready").is_some_and(|it| it.status == "True")
}

/// How often the server of a pod was restarted.
pub(crate) fn restarts(pod: &Object) -> u64 {
    status(pod)["restartCount"].as_u64().unwrap_or(0)
}

impl Server {
    /// The server of a pod, once its container runs.
    pub(crate) fn of(pod: &Object) -> Option<Self> {
        let status = status(pod);
        (!status["state"]["running"].is_null()).then(|| Server {
            pod: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            container: status["containerID"].as_str().unwrap_or("").to_owned(),
        })
    }

    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// What became of it: nothing as long as it is there as it began. Only a restart is the platform's doing for sure.
    pub(crate) fn lost(&self, sight: &Sight) -> Option<Conclusion> {
        let gone = |why: &str| {
            let text = format!("pod {} {why}: somebody else ended it", self.pod);
            Some(Conclusion::unknown(Reason::CompetingWorkload, text))
        };
        let Some(pod) = sight.pod(&self.pod).filter(|pod| pod.uid() == self.uid) else {
            return gone("is gone");
        };
        if !pod.at("/metadata/deletionTimestamp").is_null() {
            return gone("is being deleted");
        }
        if inventory::has_ended(pod) {
            return gone("has ended");
        }
        let status = status(pod);
        let now = status["containerID"].as_str().unwrap_or_default();
        let ended = &status["state"]["terminated"];
        if restarts(pod) == 0 && ended.is_null() && (now.is_empty() || now == self.container) {
            return None;
        }
        let last = if ended.is_null() {
            &status["lastState"]["terminated"]
        } else {
            ended
        };
        let reason = last["reason"].as_str().unwrap_or("no reason");
        if reason == "OOMKilled" {
            return gone("ran out of memory");
        }
        Some(Conclusion::fail(format!(
            "the server was restarted ({reason}, {} times), and nothing that was done to it asks for that",
            restarts(pod).max(1)
        )))
    }
}

//! The three pods: a neighbour of the RuntimeClass that serves, one of the class that looks around, and one without it that looks
//! at the same things. The neighbour chooses the node, the others follow it there.

use crate::candidate::Class;
use crate::isolation::{MEMORY, NODE_PATHS, first};
use crate::manifest::{images, settings};
use karat_sdk::build::PodBuilder;
use karat_sdk::kube::{Object, wait_for};
use karat_sdk::leases::LeasedNode;
use karat_sdk::pods::{Logs, Script};
use karat_sdk::{Case, Conclusion, Reason, Result, Target, inventory, json, run};
use std::time::Duration;

/// The program of the tool image.
const PROGRAM: &str = "/bin/tool";
/// Name of the neighbour's process, at most 15 bytes as the kernel keeps them.
pub(crate) const NEIGHBOUR_PROCESS: &str = "karat-next";
/// The port that the neighbour serves on its loopback only.
pub(crate) const SECRET_PORT: u16 = 8099;
/// The port that the neighbour serves to everybody.
const OPEN_PORT: u16 = 8080;
/// How long the log of a pod that has looked around may take.
const LOG_WAIT: Duration = Duration::from_secs(30);
/// Where pods may write.
const SCRATCH: &str = "/scratch";

/// The pods as far as there are some.
pub(crate) struct Group {
    namespace: String,
    class: Class,
    nodes: Vec<LeasedNode>,
    neighbour: Option<Object>,
    pair: Option<(Object, Object)>,
}

/// The two pods that looked around.
pub(crate) struct Looks<'a> {
    group: &'a Group,
    sandbox: &'a Object,
    control: &'a Object,
}

/// What they told.
pub(crate) struct Read {
    pub(crate) sandbox: Script,
    pub(crate) control: Script,
}

impl Looks<'_> {
    pub(crate) fn read(&self) -> Result<Read> {
        Ok(Read {
            sandbox: self.group.told(self.sandbox)?,
            control: self.group.told(self.control)?,
        })
    }
}

impl Group {
    /// With pods on these nodes only.
    pub(crate) fn new(namespace: String, class: Class, nodes: &[LeasedNode]) -> Group {
        Group {
            namespace,
            class,
            nodes: nodes.to_vec(),
            neighbour: None,
            pair: None,
        }
    }

    pub(crate) fn looks(&self) -> Option<Looks<'_>> {
        let (sandbox, control) = self.pair.as_ref()?;
        Some(Looks {
            group: self,
            sandbox,
            control,
        })
    }

    /// Starts the neighbour and the Service before it, and reads what it sees of itself.
    pub(crate) fn neighbour(&mut self, case: &Case) -> Result<Conclusion> {
        let name = run::name("neighbour");
        let labels = json!({"karat-neighbour": name});
        Target::new("v1", "services")
            .in_namespace(&self.namespace)
            .create(&json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": OPEN_PORT}]},
            }))?;
        let serving = [
            PROGRAM.to_owned(),
            "beside".to_owned(),
            NEIGHBOUR_PROCESS.to_owned(),
            SECRET_PORT.to_string(),
            OPEN_PORT.to_string(),
            "processes".to_owned(),
            format!("connect=127.0.0.1:{SECRET_PORT}"),
        ];
        let pod = self.pod(&name, &serving)?;
        let pod = pod.label("karat-neighbour", &name);
        let pod = pod.on_leased(&self.nodes);
        let pod = pod.runtime_class(&self.class.name).build();
        let made = self.pods().create(&pod)?;
        case.observe("pod", made.uid());
        if let Some(removed) = self.lost_its_class(&made) {
            return Ok(removed);
        }
        // That it serves is seen in its log: whether others reach it is a question of another case.
        let started = |pod: &Object| {
            let phase = pod.text("/status/phase");
            matches!(phase, "Running" | "Succeeded" | "Failed").then(|| pod.clone())
        };
        let neighbour = match self.wait(&made, "the neighbour to start", started)? {
            Ok(pod) => pod,
            Err(conclusion) => return Ok(conclusion),
        };
        let node = neighbour.text("/spec/nodeName").to_owned();
        case.observe("node", &node);
        let told = self.told(&neighbour)?;
        let port = first(&told, &format!("connect.127.0.0.1:{SECRET_PORT}"));
        case.observe("connection to its own loopback port", port);
        let own = told.all("process").any(|name| name == NEIGHBOUR_PROCESS);
        if own {
            case.observe("process", NEIGHBOUR_PROCESS);
        }
        if port != "ok" || !own {
            return Ok(Conclusion::unknown(
                Reason::Deadline,
                "the neighbour does not see its own process or port, so nothing can be said of those who should not",
            ));
        }
        self.neighbour = Some(neighbour);
        Ok(Conclusion::Pass)
    }

    /// Has one pod of the class and one without it look around on the neighbour's node.
    pub(crate) fn look(&mut self, case: &Case) -> Result<Conclusion> {
        let Some(neighbour) = &self.neighbour else {
            return Ok(Conclusion::unknown(
                Reason::Deadline,
                "there is no neighbour",
            ));
        };
        let node = neighbour.text("/spec/nodeName").to_owned();
        let service = neighbour.name().to_owned();
        let words = looking(&service);
        let mut pair = Vec::new();
        for (prefix, sandboxed) in [("sandbox", true), ("plain", false)] {
            let taints = self.taints(&node);
            let pod = self.pod(&run::name(prefix), &words)?.pin(&node);
            let mut pod = pod.tolerate(taints.iter().map(String::as_str)).build();
            pod["spec"]["volumes"] = json!([{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]);
            pod["spec"]["containers"][0]["volumeMounts"] =
                json!([{"name": "scratch", "mountPath": SCRATCH}]);
            if sandboxed {
                pod["spec"]["runtimeClassName"] = json!(self.class.name);
            }
            let made = self.pods().create(&pod)?;
            case.observe(prefix, made.uid());
            if sandboxed && let Some(removed) = self.lost_its_class(&made) {
                return Ok(removed);
            }
            if !sandboxed && !made.text("/spec/runtimeClassName").is_empty() {
                return Ok(Conclusion::unknown(
                    Reason::SolutionAbsent,
                    format!(
                        "every pod gets RuntimeClass {}, so there is none to compare with",
                        made.text("/spec/runtimeClassName")
                    ),
                ));
            }
            pair.push(made);
        }
        let mut ended = Vec::new();
        for pod in &pair {
            let over = |pod: &Object| inventory::has_ended(pod).then(|| pod.clone());
            match self.wait(pod, "the pod to look around", over)? {
                Ok(pod) => ended.push(pod),
                Err(conclusion) => return Ok(conclusion),
            }
        }
        for pod in &ended {
            self.told(pod)?;
            if pod.text("/spec/nodeName") != node {
                return Ok(Conclusion::unknown(
                    Reason::CompetingWorkload,
                    format!("{pod} did not run on the node of its neighbour"),
                ));
            }
        }
        case.observe("node", &node);
        let mut ended = ended.into_iter();
        self.pair = ended.next().zip(ended.next());
        Ok(Conclusion::Pass)
    }

    fn pods(&self) -> Target {
        Target::new("v1", "pods").in_namespace(&self.namespace)
    }

    fn pod(&self, name: &str, words: &[String]) -> Result<PodBuilder> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Ok(PodBuilder::tool(name, &run::image(images::TOOL)?).command(&words))
    }

    /// A platform that quietly drops the class runs the pod without a sandbox.
    fn lost_its_class(&self, made: &Object) -> Option<Conclusion> {
        let has = made.text("/spec/runtimeClassName");
        (has != self.class.name).then(|| {
            Conclusion::fail(format!(
                "the pod asked for RuntimeClass {} and was stored with {}",
                self.class.name,
                if has.is_empty() { "none" } else { has }
            ))
        })
    }

    fn taints(&self, node: &str) -> &[String] {
        let found = self.nodes.iter().find(|one| one.name() == node);
        found.map(LeasedNode::taints).unwrap_or_default()
    }

    /// What a pod told; that it told everything is part of it.
    fn told(&self, pod: &Object) -> Result<Script> {
        Logs::of(pod).follow().open()?.script(LOG_WAIT)
    }

    /// Waits for a pod; one that does not come that far says why.
    fn wait(
        &self,
        pod: &Object,
        what: &str,
        found: impl FnMut(&Object) -> Option<Object>,
    ) -> Result<std::result::Result<Object, Conclusion>> {
        let patience = settings::POD_WAIT.get_or(Duration::from_secs(120))?;
        match wait_for(&self.pods().query(), pod.name(), patience, what, found) {
            Ok(pod) => Ok(Ok(pod)),
            Err(error) if error.is_deadline() => {
                let now = self.pods().query().get(pod.name())?;
                let waiting = inventory::waiting(&now);
                let scheduled = now.condition("PodScheduled");
                let unscheduled = scheduled.filter(|scheduled| scheduled.status == "False");
                Ok(Err(match unscheduled {
                    Some(scheduled) => Conclusion::unknown(
                        Reason::InsufficientCapacity,
                        format!("{now} found no node: {}", scheduled.message),
                    ),
                    None => Conclusion::unknown(
                        inventory::reason_of(waiting),
                        format!(
                            "{now} is {} {waiting} after {} s; {}",
                            now.text("/status/phase"),
                            patience.as_secs(),
                            inventory::complaint(&now)?
                        ),
                    ),
                }))
            }
            Err(error) => Err(error),
        }
    }
}

/// What a pod looks at.
fn looking(service: &str) -> Vec<String> {
    let mut words = vec![PROGRAM.to_owned(), "look".to_owned()];
    words.extend(["kernel", "processes", "mounts", "interfaces"].map(str::to_owned));
    words.extend(MEMORY.map(|path| format!("read={path}")));
    words.extend(NODE_PATHS.map(|path| format!("exists={path}")));
    words.extend(NODE_PATHS.map(|path| format!("below={path}")));
    words.push(format!("connect=127.0.0.1:{SECRET_PORT}"));
    words.push(format!("http=http://{service}/"));
    words.push(format!("write={SCRATCH}/file"));
    words
}

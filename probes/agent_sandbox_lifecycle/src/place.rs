//! Where sandboxes are made, what runs in them, and which pods belong to whom.

use crate::dialect::{Dialect, Kind};
use crate::manifest::{images, settings};
use karat_sdk::build::PodBuilder;
use karat_sdk::inventory::{SEEN, is_ready, not_running};
use karat_sdk::leases::LeasedNode;
use karat_sdk::{Conclusion, Object, Query, Result, Target, Value, json, run};
use std::time::Duration;

/// The program of the tool image.
const PROGRAM: &str = "/bin/tool";
/// Where the web server in a sandbox answers.
pub(crate) const PORT: u16 = 8080;
/// What of a pod is compared with its template.
const DESCRIBED: &[&str] = &[
    "/spec/runtimeClassName",
    "/spec/containers/*/image",
    "/spec/containers/*/command",
];
/// Between two looks.
pub(crate) const REST: Duration = Duration::from_secs(1);

/// The sandbox namespace, and what is the same for everything in it.
pub(crate) struct Place {
    namespace: String,
    pub(crate) dialect: Dialect,
    nodes: Vec<LeasedNode>,
    image: String,
    class: String,
    pub(crate) ready: Duration,
    pub(crate) step: Duration,
}

impl Place {
    pub(crate) fn new(namespace: String, dialect: Dialect, nodes: &[LeasedNode]) -> Result<Self> {
        Ok(Place {
            namespace,
            dialect,
            nodes: nodes.to_vec(),
            image: run::image(images::TOOL)?,
            class: settings::RUNTIME_CLASS.get_or(String::new())?,
            ready: settings::READY_WAIT.get_or(Duration::from_secs(60))?,
            step: settings::STEP_WAIT.get_or(Duration::from_secs(60))?,
        })
    }

    pub(crate) fn target(&self, kind: Kind) -> Target {
        self.dialect.target(kind, &self.namespace)
    }

    pub(crate) fn pods(&self) -> Target {
        Target::new("v1", "pods").in_namespace(&self.namespace)
    }

    /// A pod on the leased nodes.
    pub(crate) fn pod(&self, name: &str, words: &[&str]) -> PodBuilder {
        let mut command = vec![PROGRAM];
        command.extend(words);
        PodBuilder::tool(name, &self.image)
            .command(&command)
            .on_leased(&self.nodes)
    }

    /// What runs in a sandbox: a web server.
    pub(crate) fn content(&self) -> Value {
        let port = PORT.to_string();
        let mut pod = self.pod("web", &["echo", &port]);
        if !self.class.is_empty() {
            pod = pod.runtime_class(&self.class);
        }
        pod.build()["spec"].take()
    }

    /// What of a pod is not as [`Place::content`] describes it.
    pub(crate) fn differs(&self, pod: &Object) -> Option<String> {
        let mut wanted = json!({});
        wanted["spec"] = self.content();
        for place in [
            "/spec/runtimeClassName",
            "/spec/containers/0/image",
            "/spec/containers/0/command",
        ] {
            let wanted = wanted.pointer(place).unwrap_or(&Value::Null);
            let has = pod.at(place);
            if has != wanted {
                return Some(format!(
                    "{pod} is not the one of the template: its {place} is {has} in place of {wanted}"
                ));
            }
        }
        None
    }

    /// The pods that belong to an object, by their owner or by that of the sandbox that they are of, and are not being deleted.
    pub(crate) fn pods_of(&self, owner: &str) -> Result<Vec<Object>> {
        let keep: &[&str] = &["/metadata/ownerReferences", "/metadata/deletionTimestamp"];
        let mut between = self.target(Kind::Sandbox).query().keep(keep).list()?;
        between.retain(|sandbox| sandbox.is_owned_by(owner));
        let pods = self.pods().query().keep(SEEN).keep(DESCRIBED);
        let mut pods = pods.list()?;
        pods.retain(|pod| {
            let own = pod.is_owned_by(owner)
                || between.iter().any(|sandbox| pod.is_owned_by(sandbox.uid()));
            own && pod.at("/metadata/deletionTimestamp").is_null()
        });
        Ok(pods)
    }

    /// The object, if it is there.
    pub(crate) fn now(&self, kind: Kind, name: &str) -> Result<Option<Object>> {
        self.target(kind).query().get_opt(name)
    }

    /// Whether the pod of this uid is there, on its way out or not.
    pub(crate) fn pod_is_there(&self, uid: &str) -> Result<bool> {
        let pods = Query::new("v1", "pods")
            .in_namespace(&self.namespace)
            .keep(&["/status/phase"])
            .list()?;
        Ok(pods.iter().any(|pod| pod.uid() == uid))
    }
}

/// Why pods that are there, or are not, are too few; `nobody` is said where there are none to blame.
pub(crate) fn too_few(pods: &[Object], wanted: usize, nobody: &str) -> Conclusion {
    let late = pods.iter().find(|pod| !is_ready(pod));
    match late {
        Some(pod) => not_running(pod, &pod.to_string()),
        None => Conclusion::fail(format!("{nobody} has {} of {wanted} pods", pods.len())),
    }
}

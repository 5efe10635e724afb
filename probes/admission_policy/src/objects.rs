//! What the policies are tried on, and the rule about pods.

use crate::manifest::images;
use crate::policy::Rules;
use karat_sdk::build::{PodBuilder, from_text};
use karat_sdk::{Object, Result, Target, Value, json, run};

/// The label that a pod needs which asks for an accelerator.
pub(crate) const COST: &str = "admission-policy/cost-center";
/// A pod with this label is asked for `NEEDED`, without looking whether it has it.
pub(crate) const FRAGILE: &str = "admission-policy/fragile";
pub(crate) const NEEDED: &str = "admission-policy/needed";
/// Tells whose pods a watch is about.
pub(crate) const OF: &str = "admission-policy/of";

/// Makes objects for one namespace.
pub(crate) struct Objects {
    pub(crate) namespace: String,
    image: String,
}

/// The extended resource that stands for an accelerator: below a name of this run, so no node can have it.
fn accelerator() -> String {
    format!(
        "{}.karat.invalid/accelerator",
        run::name("admission-policy")
    )
}

impl Objects {
    pub(crate) fn new(namespace: String) -> Result<Self> {
        let image = run::image(images::PAUSE)?;
        Ok(Objects { namespace, image })
    }

    pub(crate) fn target(&self, api_version: &str, resource: &str) -> Target {
        Target::new(api_version, resource).in_namespace(&self.namespace)
    }

    pub(crate) fn pods(&self) -> Target {
        self.target("v1", "pods")
    }

    /// A pod that is never scheduled and breaks no rule.
    pub(crate) fn plain(&self, prefix: &str) -> Value {
        let mut pod = PodBuilder::tool(&run::name(prefix), &self.image).build();
        pod["spec"]["schedulingGates"] = json!([{"name": "admission-policy/never"}]);
        pod
    }

    /// A pod that asks for an accelerator, with or without the cost label.
    pub(crate) fn asking(&self, prefix: &str, labelled: bool) -> Value {
        let mut pod = self.plain(prefix);
        pod["spec"]["containers"][0]["resources"]["limits"][accelerator()] = json!("1");
        if labelled {
            label(&mut pod, COST, "research");
        }
        pod
    }

    /// A pod on which the fragile rule looks for a label, which it has or not.
    pub(crate) fn fragile(&self, prefix: &str, has: bool) -> Value {
        let mut pod = self.plain(prefix);
        label(&mut pod, FRAGILE, "yes");
        if has {
            label(&mut pod, NEEDED, "yes");
        }
        pod
    }

    /// A Job or Deployment whose pod asks for an accelerator.
    pub(crate) fn workload(&self, kind: &str, prefix: &str, labelled: bool) -> Value {
        let name = run::name(prefix);
        let mut pod = self.asking(prefix, labelled);
        label(&mut pod, OF, &name);
        let mut object = if kind == "Job" {
            from_text(r#"{"apiVersion": "batch/v1", "spec": {"backoffLimit": 0}}"#)
        } else {
            // The kind takes neither another restart policy nor a deadline.
            pod["spec"]["restartPolicy"] = json!("Always");
            if let Some(spec) = pod["spec"].as_object_mut() {
                spec.remove("activeDeadlineSeconds");
            }
            let mut object = from_text(r#"{"apiVersion": "apps/v1", "spec": {"replicas": 1}}"#);
            object["spec"]["selector"]["matchLabels"][OF] = json!(name);
            object
        };
        object["kind"] = json!(kind);
        object["metadata"]["name"] = json!(name);
        object["spec"]["template"] =
            json!({"metadata": {"labels": pod["metadata"]["labels"]}, "spec": pod["spec"]});
        object
    }
}

fn label(pod: &mut Value, key: &str, value: &str) {
    pod["metadata"]["labels"][key] = json!(value);
}

/// Whether a pod as it is stored breaks the rule about the cost label.
pub(crate) fn breaks_cost(pod: &Object) -> bool {
    let asks = pod
        .items("/spec/containers")
        .iter()
        .any(|container| !container["resources"]["limits"][accelerator()].is_null());
    asks && pod.label(COST).is_none()
}

/// Whether a pod as it is stored makes the fragile rule stumble.
pub(crate) fn breaks_fragile(pod: &Object) -> bool {
    pod.label(FRAGILE).is_some() && pod.label(NEEDED).is_none()
}

/// The expressions of the policy about pods. `dyn`, because the type check of Kubernetes does not find the fields of `resources`.
pub(crate) fn pod_rules() -> [(String, &'static str); 2] {
    let accelerator = accelerator();
    let labelled = "has(object.metadata.labels) && ";
    [
        (
            format!(
                "!object.spec.containers.exists(c, has(c.resources) && has(dyn(c.resources).limits) && '{accelerator}' in dyn(c.resources).limits) || ({labelled}'{COST}' in object.metadata.labels)"
            ),
            "a pod that asks for an accelerator needs the label admission-policy/cost-center",
        ),
        (
            format!(
                "!({labelled}'{FRAGILE}' in object.metadata.labels) || object.metadata.labels['{NEEDED}'] == 'yes'"
            ),
            "the label admission-policy/needed is not yes",
        ),
    ]
}

/// The policy about pods.
pub(crate) fn about_pods<'a>(validations: &'a [(String, &'static str)]) -> Rules<'a> {
    Rules {
        word: "cost",
        group: "",
        version: "v1",
        resource: "pods",
        validations,
    }
}

/// A policy with a mistake that only a type check finds: pods have no `replicas`. It is never bound.
pub(crate) fn flawed() -> Value {
    let validations = [("object.spec.replicas > 1".to_owned(), "never asked")];
    Rules {
        word: "flawed",
        ..about_pods(&validations)
    }
    .policy()
}

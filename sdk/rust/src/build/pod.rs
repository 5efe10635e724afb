//! Pods: TOOL and ACCEL of the specification.

use crate::inventory::Node;
use crate::leases::LeasedNode;
use serde_json::{Value, json};

const TOOL: &str = r#"{
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {},
    "spec": {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 600,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"}
        },
        "containers": [{
            "name": "tool",
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]}
            }
        }]
    }
}"#;

/// A pod that runs one container, once, without any privilege.
#[derive(Clone, Debug)]
pub struct PodBuilder {
    pod: Value,
}

impl PodBuilder {
    /// A tool pod: never restarted, gone after ten minutes, no token, no privileges, 10m CPU and 32Mi.
    pub fn tool(name: &str, image: &str) -> Self {
        let mut pod = super::from_text(TOOL);
        pod["metadata"]["name"] = json!(name);
        pod["spec"]["containers"][0]["image"] = json!(image);
        PodBuilder { pod }
    }

    /// The command, without a shell.
    #[must_use]
    pub fn command(mut self, words: &[&str]) -> Self {
        self.container()["command"] = json!(words);
        self
    }

    /// Arguments, behind the program of the image or behind [`PodBuilder::command`].
    #[must_use]
    pub fn args(mut self, words: &[&str]) -> Self {
        self.container()["args"] = json!(words);
        self
    }

    /// One variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        let list = &mut self.container()["env"];
        if list.is_null() {
            *list = json!([]);
        }
        if let Some(list) = list.as_array_mut() {
            list.push(json!({"name": name, "value": value}));
        }
        self
    }

    /// A runtime class, for sandboxed runtimes.
    #[must_use]
    pub fn runtime_class(mut self, name: &str) -> Self {
        self.pod["spec"]["runtimeClassName"] = json!(name);
        self
    }

    /// As root with the runtime's default capabilities: what the level `baseline` allows and `restricted` does not. For pods whose
    /// question is what the kernel refuses, and not what the image's user may.
    #[must_use]
    pub fn as_root(mut self) -> Self {
        self.pod["spec"]["securityContext"] =
            json!({"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}});
        if let Some(container) = self.container().as_object_mut() {
            container.remove("securityContext");
        }
        self
    }

    /// On this node by name, past the scheduler. Not for pods with claims or devices, which only the scheduler allocates.
    #[must_use]
    pub fn bound_to(mut self, node: &str) -> Self {
        self.pod["spec"]["nodeName"] = json!(node);
        self
    }

    /// Devices by a claim template, under the name `device`: the pod becomes an accelerator pod in `dra` mode.
    #[must_use]
    pub fn claim_template(mut self, template: &str) -> Self {
        self.pod["spec"]["resourceClaims"] =
            json!([{"name": "device", "resourceClaimTemplateName": template}]);
        self.container()["resources"]["claims"] = json!([{"name": "device"}]);
        self
    }

    /// Devices by an existing claim, under the name `device`.
    #[must_use]
    pub fn claim(mut self, claim: &str) -> Self {
        self.pod["spec"]["resourceClaims"] =
            json!([{"name": "device", "resourceClaimName": claim}]);
        self.container()["resources"]["claims"] = json!([{"name": "device"}]);
        self
    }

    /// Devices by an extended resource: the pod becomes an accelerator pod in `device-plugin` mode.
    #[must_use]
    pub fn extended_resource(mut self, resource: &str, count: u32) -> Self {
        self.container()["resources"]["limits"][resource] = json!(count.to_string());
        self
    }

    /// On this node and no other, tolerating its taints.
    #[must_use]
    pub fn on(self, node: &Node) -> Self {
        self.pin(&node.name)
            .tolerate(node.taints.iter().map(String::as_str))
    }

    /// Tolerates taints of these keys, whatever value and effect. Admission adds them for extended resources only, so a pod
    /// with a claim must name them itself.
    #[must_use]
    pub fn tolerate<'a>(mut self, keys: impl IntoIterator<Item = &'a str>) -> Self {
        for key in keys {
            let toleration = json!({"key": key, "operator": "Exists"});
            let list = &mut self.pod["spec"]["tolerations"];
            if list.is_null() {
                *list = json!([]);
            }
            if let Some(list) = list.as_array_mut()
                && !list.contains(&toleration)
            {
                list.push(toleration);
            }
        }
        self
    }

    /// Only this node, by affinity: the scheduler stays involved, which a claim needs.
    #[must_use]
    pub fn pin(self, node: &str) -> Self {
        self.pin_to([node])
    }

    /// Only these nodes, by affinity. One term for each, because a selector of fields takes one value only.
    #[must_use]
    pub fn pin_to<'a>(mut self, nodes: impl IntoIterator<Item = &'a str>) -> Self {
        let terms: Vec<Value> = nodes
            .into_iter()
            .map(|node| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}))
            .collect();
        self.pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
            json!({"nodeSelectorTerms": terms});
        self
    }

    /// On these leased nodes, whichever the scheduler chooses, tolerating their taints.
    #[must_use]
    pub fn on_leased(self, nodes: &[LeasedNode]) -> Self {
        let taints = nodes.iter().flat_map(LeasedNode::taints);
        self.pin_to(nodes.iter().map(LeasedNode::name))
            .tolerate(taints.map(String::as_str))
    }

    /// A request of a resource of Kubernetes' own: `cpu`, `memory`.
    #[must_use]
    pub fn request(mut self, resource: &str, quantity: &str) -> Self {
        self.container()["resources"]["requests"][resource] = json!(quantity);
        self
    }

    /// A priority class, which this run must have made.
    #[must_use]
    pub fn priority_class(mut self, name: &str) -> Self {
        self.pod["spec"]["priorityClassName"] = json!(name);
        self
    }

    /// `terminationGracePeriodSeconds`; one second without.
    #[must_use]
    pub fn grace(mut self, seconds: u32) -> Self {
        self.pod["spec"]["terminationGracePeriodSeconds"] = json!(seconds);
        self
    }

    /// `activeDeadlineSeconds`; ten minutes without.
    #[must_use]
    pub fn deadline(mut self, seconds: u32) -> Self {
        self.pod["spec"]["activeDeadlineSeconds"] = json!(seconds);
        self
    }

    /// One label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.pod["metadata"]["labels"][key] = json!(value);
        self
    }

    /// The pod, for [`crate::kube::Target::create`].
    pub fn build(self) -> Value {
        self.pod
    }

    fn container(&mut self) -> &mut Value {
        &mut self.pod["spec"]["containers"][0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_pod_satisfies_the_restricted_level() {
        let pod = PodBuilder::tool("tool-abcd2345", "registry.example/tool@sha256:00").build();
        let spec = &pod["spec"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            spec["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        assert_eq!(
            spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"],
            false
        );
        assert_eq!(
            spec["containers"][0]["securityContext"]["capabilities"]["drop"],
            json!(["ALL"])
        );
        assert_eq!(spec["automountServiceAccountToken"], false);
    }

    #[test]
    fn a_root_pod_stays_within_the_baseline_level() {
        let pod = PodBuilder::tool("p", "i")
            .args(&["open", "/dev/fuse"])
            .env("NVIDIA_VISIBLE_DEVICES", "all")
            .env("A", "b")
            .runtime_class("gvisor")
            .as_root()
            .bound_to("n1")
            .build();
        let spec = &pod["spec"];
        assert_eq!(spec["securityContext"]["runAsUser"], 0);
        assert_eq!(
            spec["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        let container = &spec["containers"][0];
        assert!(container.get("securityContext").is_none());
        assert_eq!(container["env"].as_array().unwrap().len(), 2);
        assert_eq!(container["args"], json!(["open", "/dev/fuse"]));
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert_eq!(
            (&spec["nodeName"], &spec["runtimeClassName"]),
            (&json!("n1"), &json!("gvisor"))
        );
    }

    #[test]
    fn tolerations_are_not_repeated() {
        let pod = PodBuilder::tool("p", "i")
            .tolerate(["a", "b"])
            .tolerate(["a"])
            .build();
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
    }
}

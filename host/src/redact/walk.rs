//! Redaction of whole objects: first the places whose meaning is known by their key, then every other string.
//!
//! The order matters: a node's name may stand in an annotation before the field that tells that it is one.

use super::scan::{is_plain, is_secret_key};
use super::{Class, Maps};
use serde_json::{Map, Value};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

impl Maps {
    pub(super) fn object(&mut self, group: &str, resource: &str, object: &mut Value) {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
            let annotations = metadata
                .get_mut("annotations")
                .and_then(Value::as_object_mut);
            if let Some(annotations) = annotations
                && annotations.remove(LAST_APPLIED).is_some()
                && annotations.is_empty()
            {
                metadata.remove("annotations");
            }
        }
        match (group, resource) {
            ("", "secrets") => {
                for part in ["data", "stringData"] {
                    if let Some(values) = object.get_mut(part) {
                        self.hide_all(values);
                    }
                }
            }
            ("", "nodes") => self.node(object),
            ("", "namespaces") => self.replace_at(object, &["metadata", "name"], Class::Namespace),
            ("storage.k8s.io", "csinodes") => {
                self.replace_at(object, &["metadata", "name"], Class::Node)
            }
            ("coordination.k8s.io", "leases")
                if object["metadata"]["namespace"] == "kube-node-lease" =>
            {
                self.replace_at(object, &["metadata", "name"], Class::Node);
                self.replace_at(object, &["spec", "holderIdentity"], Class::Node);
            }
            ("", "events") => {
                self.replace_at(object, &["source", "host"], Class::Node);
                if object["reportingComponent"] == "kubelet" {
                    self.replace_at(object, &["reportingInstance"], Class::Node);
                }
            }
            ("events.k8s.io", "events") => {
                self.replace_at(object, &["deprecatedSource", "host"], Class::Node);
                if object["reportingController"] == "kubelet" {
                    self.replace_at(object, &["reportingInstance"], Class::Node);
                }
            }
            ("resource.k8s.io", "resourceslices") => {
                // By convention a pool of a node's own devices has the node's name, but a pool may also be called `gpus`.
                let node = object["spec"]["nodeName"].as_str().map(str::to_owned);
                if node.is_some() && object["spec"]["pool"]["name"].as_str() == node.as_deref() {
                    self.replace_at(object, &["spec", "pool", "name"], Class::Node);
                } else if let Some(pool) = object.pointer_mut("/spec/pool/name") {
                    self.replace_known_node(pool);
                }
            }
            ("resource.k8s.io", "resourceclaims") => {
                // The same pool in a result must stay the same text, however short the node's name is: a probe compares them.
                for results in ["/status/allocation/devices/results", "/status/devices"] {
                    let results = object.pointer_mut(results).and_then(Value::as_array_mut);
                    for pool in results
                        .into_iter()
                        .flatten()
                        .filter_map(|one| one.get_mut("pool"))
                    {
                        self.replace_known_node(pool);
                    }
                }
            }
            _ => {}
        }
        self.typed(object);
        self.strings("", object);
    }

    /// A `Status` of the API server.
    pub(super) fn status(&mut self, status: &mut Value) {
        let class = match status["details"]["kind"].as_str() {
            Some("nodes" | "Node") => Some(Class::Node),
            Some("namespaces" | "Namespace") => Some(Class::Namespace),
            _ => None,
        };
        let name = status["details"]["name"].as_str().map(str::to_owned);
        if let (Some(class), Some(name)) = (class, name)
            && let Some(pseudonym) = self.pseudonym(class, &name)
        {
            status["details"]["name"] = pseudonym.clone().into();
            // The message quotes the name, however short it is.
            if let Some(message) = status["message"].as_str() {
                let message = message.replace(&format!("\"{name}\""), &format!("\"{pseudonym}\""));
                status["message"] = message.into();
            }
        }
        self.typed(status);
        self.strings("", status);
    }

    fn node(&mut self, node: &mut Value) {
        self.replace_at(node, &["metadata", "name"], Class::Node);
        if let Some(addresses) = node
            .pointer_mut("/status/addresses")
            .and_then(Value::as_array_mut)
        {
            for address in addresses {
                let class = match address["type"].as_str() {
                    Some("Hostname") => Class::Node,
                    _ => Class::Address,
                };
                self.replace_at(address, &["address"], class);
            }
        }
        self.replace_at(node, &["spec", "podCIDR"], Class::Address);
        if let Some(ranges) = node
            .pointer_mut("/spec/podCIDRs")
            .and_then(Value::as_array_mut)
        {
            for range in ranges {
                self.replace(range, Class::Address);
            }
        }
    }

    /// Replaces a text that is the whole name of a node met before.
    fn replace_known_node(&mut self, value: &mut Value) {
        let known = value
            .as_str()
            .and_then(|text| self.forward.get(text))
            .is_some_and(|made| made.starts_with(Class::Node.prefix()));
        if known {
            self.replace(value, Class::Node);
        }
    }

    fn replace_at(&mut self, object: &mut Value, path: &[&str], class: Class) {
        let mut value = object;
        for key in path {
            let Some(next) = value.get_mut(*key) else {
                return;
            };
            value = next;
        }
        self.replace(value, class);
    }

    fn replace(&mut self, value: &mut Value, class: Class) {
        if let Value::String(text) = value {
            // What could change the grammar of a request that it comes back in is removed for good.
            if !text.is_empty() && !is_plain(text.as_bytes()) && class == Class::Device {
                *text = self.mark(text);
            } else if let Some(pseudonym) = self.pseudonym(class, text) {
                *text = pseudonym;
            }
        }
    }

    fn hide_all(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.mark(text),
            Value::Object(map) => map.values_mut().for_each(|value| self.hide_all(value)),
            Value::Array(items) => items.iter_mut().for_each(|value| self.hide_all(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Places that tell by their key what stands there.
    fn typed(&mut self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.typed(item)),
            Value::Object(map) => {
                self.references(map);
                for (key, value) in map.iter_mut() {
                    match value {
                        Value::String(text) if text.is_empty() => {}
                        Value::String(_) => self.typed_string(key, value),
                        Value::Array(items) => match key.as_str() {
                            "env" => items.iter_mut().for_each(|item| self.environment(item)),
                            "hostIPs" => items
                                .iter_mut()
                                .for_each(|item| self.replace_at(item, &["ip"], Class::Address)),
                            "namespaces" => items
                                .iter_mut()
                                .for_each(|item| self.replace(item, Class::Namespace)),
                            "matchFields" => items.iter_mut().for_each(|item| {
                                if item["key"] == "metadata.name" {
                                    self.values(item, Class::Node);
                                }
                            }),
                            _ => items.iter_mut().for_each(|item| self.typed(item)),
                        },
                        Value::Object(inner) => {
                            if is_device_key(key)
                                && let Some(text) = inner.get_mut("string")
                            {
                                self.replace(text, Class::Device);
                            }
                            self.typed(value);
                        }
                        Value::Null | Value::Bool(_) | Value::Number(_) => {}
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// References to nodes and namespaces, and selector terms about them.
    fn references(&mut self, map: &mut Map<String, Value>) {
        let class = match (
            map.get("kind").and_then(Value::as_str),
            map.get("key").and_then(Value::as_str),
        ) {
            (Some("Node"), _) if map.contains_key("name") => Class::Node,
            (Some("Namespace"), _) if map.contains_key("name") => Class::Namespace,
            (_, Some(HOSTNAME_LABEL)) => Class::Node,
            (_, Some(NAMESPACE_LABEL)) => Class::Namespace,
            _ => return,
        };
        if let Some(name) = map.get_mut("name") {
            self.replace(name, class);
        }
        if let Some(Value::Array(values)) = map.get_mut("values") {
            values
                .iter_mut()
                .for_each(|value| self.replace(value, class));
        }
    }

    fn values(&mut self, term: &mut Value, class: Class) {
        if let Some(values) = term.get_mut("values").and_then(Value::as_array_mut) {
            values
                .iter_mut()
                .for_each(|value| self.replace(value, class));
        }
    }

    fn typed_string(&mut self, key: &str, value: &mut Value) {
        let class = match key {
            "nodeName" | "nominatedNodeName" | HOSTNAME_LABEL => Class::Node,
            "namespace" | NAMESPACE_LABEL => Class::Namespace,
            "hostIP" => Class::Address,
            "providerID" | "nodeID" => Class::Account,
            "machineID" | "systemUUID" | "bootID" => Class::Device,
            "uid" => return,
            key if is_device_key(key) => Class::Device,
            key if is_secret_key(key.as_bytes()) => {
                if let Value::String(text) = value {
                    *text = self.mark(text);
                }
                return;
            }
            _ => return,
        };
        self.replace(value, class);
    }

    fn environment(&mut self, variable: &mut Value) {
        if let Some(value) = variable.get_mut("value")
            && let Value::String(text) = value
            && !text.is_empty()
        {
            *text = self.mark(text);
        }
    }

    /// Every string that is left, except those that say what an object is.
    fn strings(&mut self, key: &str, value: &mut Value) {
        match value {
            Value::String(text) => {
                let changed = match key {
                    "apiVersion" | "kind" | "uid" | "resourceVersion" => None,
                    "message" | "note" => self.text(text),
                    _ => self.string(text),
                };
                if let Some(changed) = changed {
                    *text = changed;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.strings(key, item)),
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    self.strings(key, value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Names of device attributes that identify one piece of hardware: `uuid`, `gpu.example.com/serialNumber`.
fn is_device_key(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    let has = |word: &str| {
        name.len() >= word.len()
            && name
                .as_bytes()
                .windows(word.len())
                .any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
    };
    name.len() <= 40 && (has("uuid") || has("serialnumber") || name.eq_ignore_ascii_case("serial"))
}

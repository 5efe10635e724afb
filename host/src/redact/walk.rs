//! Redaction of whole objects: first the places whose meaning is known by their key, then every other string.
//!
//! The order matters: a node's name may stand in an annotation before the field that tells that it is one. Paths of the
//! operator's rules come before everything, since they mean the object as the cluster has it.

use super::keys::{hides, is_device_key, is_secret_key};
use super::patterns::is_plain;
use super::scan::is_uuid;
use super::{Class, How, Maps, WORD_MIN, encoded};
use serde_json::{Map, Value};
use std::sync::Arc;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

impl Maps {
    pub(super) fn object(&mut self, group: &str, resource: &str, object: &mut Value) {
        self.paths_within(object);
        if !self.built_in {
            self.strings("", object);
            return;
        }
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

    /// A document that was found inside a string.
    pub(super) fn inner_document(&mut self, value: &mut Value, how: How) {
        let before = std::mem::replace(&mut self.depth, how.depth);
        self.paths_within(value);
        if self.built_in {
            self.typed(value);
        }
        self.strings("", value);
        self.depth = before;
    }

    /// Rules of the operator that name a path, for an object, a list of objects or several.
    pub(super) fn paths_within(&mut self, value: &mut Value) {
        let rules = Arc::clone(&self.rules);
        if rules.has_paths() {
            self.hide_paths(&rules, value);
        }
    }

    fn hide_paths(&mut self, rules: &super::Rules, value: &mut Value) {
        match value {
            Value::Array(items) => items
                .iter_mut()
                .for_each(|item| self.hide_paths(rules, item)),
            Value::Object(map) => {
                let kind = map.get("kind").and_then(Value::as_str).map(str::to_owned);
                if let Some(items) = map.get_mut("items") {
                    self.hide_paths(rules, items);
                }
                let kind = kind.unwrap_or_default();
                rules.at_paths(&kind, value, &mut |value| self.hide_for_good(value));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// What the operator named: hidden here, and wherever else it is met as a whole word.
    fn hide_for_good(&mut self, value: &mut Value) {
        match value {
            Value::String(text) if text.is_empty() || super::is_mark(text) => {}
            Value::String(text) => {
                let mark = self.mark(text);
                if text.len() >= WORD_MIN {
                    self.hide_everywhere(text, &mark);
                }
                *text = mark;
            }
            Value::Object(map) => map.values_mut().for_each(|value| self.hide_for_good(value)),
            Value::Array(items) => items.iter_mut().for_each(|value| self.hide_for_good(value)),
            // A mark would change the type, which a probe may insist on.
            Value::Number(_) => *value = 0.into(),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// A `Status` of the API server.
    pub(super) fn status(&mut self, status: &mut Value) {
        if !self.built_in {
            self.strings("", status);
            return;
        }
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
            Value::String(text) => {
                let inner = encoded::base64(text).and_then(|bytes| String::from_utf8(bytes).ok());
                if let Some(inner) = inner {
                    self.remember(&inner);
                }
                self.hide(text);
            }
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
                self.whole(map);
                for (key, value) in map.iter_mut() {
                    match value {
                        Value::String(text) if text.is_empty() => {}
                        Value::String(_) => self.typed_string(key, value),
                        Value::Array(items) => match key.as_str() {
                            "args" | "command" => self.arguments(items),
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
                            if key == "env" {
                                inner
                                    .values_mut()
                                    .filter(|value| value.is_string())
                                    .for_each(|value| self.hide_all(value));
                            }
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

    /// Objects that are secrets as a whole, wherever they stand: a copy of a Secret, a private key in JSON.
    fn whole(&mut self, map: &mut Map<String, Value>) {
        if map.get("kind").is_some_and(|kind| kind == "Secret") {
            for part in ["data", "stringData"] {
                if let Some(values) = map.get_mut(part) {
                    self.hide_all(values);
                }
            }
        }
        if map.contains_key("kty") {
            for part in ["d", "p", "q", "dp", "dq", "qi", "k"] {
                if let Some(value) = map.get_mut(part) {
                    self.hide_all(value);
                }
            }
        }
    }

    /// A command line in parts: `--password=…`, or `--password` with its value behind it. One that is a single text is
    /// looked at as text.
    fn arguments(&mut self, items: &mut [Value]) {
        let mut follows = false;
        for item in items {
            let Value::String(text) = item else {
                follows = false;
                self.typed(item);
                continue;
            };
            let is_value = std::mem::take(&mut follows);
            let flag = text.trim_start_matches('-');
            if flag.len() == text.len() {
                if is_value && hides(b"", text) {
                    self.hide(text);
                }
                continue;
            }
            match flag.split_once('=') {
                Some((name, value))
                    if is_secret_key(name.as_bytes()) && hides(name.as_bytes(), value) =>
                {
                    let lead = text.len() - value.len();
                    let mut value = value.to_owned();
                    self.hide(&mut value);
                    text.replace_range(lead.., &value);
                }
                Some(_) => {}
                None => follows = is_secret_key(flag.as_bytes()),
            }
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
            "providerID" | "nodeID" => {
                self.account(value);
                Class::Account
            }
            "machineID" | "systemUUID" => {
                self.machine(value);
                Class::Device
            }
            "bootID" => Class::Device,
            "uid" => return,
            key if is_device_key(key) => Class::Device,
            key if is_secret_key(key.as_bytes()) => {
                if let Value::String(text) = value
                    && hides(key.as_bytes(), text)
                {
                    self.hide(text);
                }
                return;
            }
            _ => return,
        };
        self.replace(value, class);
    }

    /// Parts of a provider's id that stand alone elsewhere, in names and messages: project, subscription, resource group,
    /// instance. Zones are the same for everybody.
    pub(super) fn account(&mut self, value: &Value) {
        let Some((scheme, rest)) = value.as_str().and_then(|id| id.split_once("://")) else {
            return;
        };
        let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
        let telling = |part: &&str| {
            part.len() >= WORD_MIN
                && part.bytes().any(|b| b.is_ascii_digit())
                && is_plain(part.as_bytes())
        };
        let ids: Vec<&str> = match scheme {
            "aws" => parts
                .last()
                .into_iter()
                .copied()
                .filter(|id| id.starts_with("i-"))
                .collect(),
            "gce" => match parts.as_slice() {
                [project, .., instance] => [*project, *instance]
                    .into_iter()
                    .filter(|part| part.len() >= WORD_MIN)
                    .collect(),
                _ => Vec::new(),
            },
            "azure" => parts
                .windows(2)
                .filter(|pair| {
                    [
                        "subscriptions",
                        "resourceGroups",
                        "virtualMachines",
                        "virtualMachineScaleSets",
                    ]
                    .iter()
                    .any(|word| pair[0].eq_ignore_ascii_case(word))
                })
                .map(|pair| pair[1])
                .filter(|id| id.len() >= WORD_MIN)
                .collect(),
            _ => parts
                .iter()
                .copied()
                .filter(|part| is_uuid(part.as_bytes()))
                .chain(parts.last().into_iter().copied().filter(telling))
                .collect(),
        };
        for id in ids {
            self.pseudonym(Class::Account, id);
        }
    }

    /// Tools write the id of a machine in both cases and without its dashes.
    pub(super) fn machine(&mut self, value: &Value) {
        let Some(id) = value.as_str().filter(|id| is_uuid(id.as_bytes())) else {
            return;
        };
        self.pseudonym(Class::Device, id);
        let other = if id.bytes().any(|b| b.is_ascii_uppercase()) {
            id.to_ascii_lowercase()
        } else {
            id.to_ascii_uppercase()
        };
        for variant in [other, id.replace('-', "").to_ascii_lowercase()] {
            self.pseudonym(Class::Device, &variant);
        }
    }

    fn environment(&mut self, variable: &mut Value) {
        if let Some(value) = variable.get_mut("value")
            && let Value::String(text) = value
            && !text.is_empty()
        {
            self.hide(text);
        }
    }

    /// Every string that is left, and keys. What says what an object is passes patterns alone.
    fn strings(&mut self, key: &str, value: &mut Value) {
        match value {
            Value::String(text) => {
                let changed = match key {
                    "apiVersion" | "kind" | "uid" | "resourceVersion" => self.word(text),
                    "message" | "note" => self.text(text),
                    _ => self.string(text),
                };
                if let Some(changed) = changed {
                    *text = changed;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.strings(key, item)),
            Value::Object(map) => {
                let mut renamed = Vec::new();
                for (key, value) in map.iter_mut() {
                    self.strings(key, value);
                    // Almost all keys are names of fields; what was drawn at random has a digit.
                    let telling = key.len() >= WORD_MIN && key.bytes().any(|b| b.is_ascii_digit());
                    if (telling || self.rules.has_patterns())
                        && let Some(new) = self.word(key)
                    {
                        renamed.push((key.clone(), new));
                    }
                }
                for (old, new) in renamed {
                    if let Some(value) = map.remove(&old) {
                        map.insert(new, value);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

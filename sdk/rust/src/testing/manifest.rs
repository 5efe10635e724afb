//! What the fake door needs of `probe.toml`. Lenient on purpose: the engine checks the manifest, this only obeys it.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Manifest {
    pub(super) id: String,
    #[serde(default)]
    pub(super) cases: Vec<Case>,
    #[serde(default)]
    permissions: Vec<Permission>,
    #[serde(default)]
    namespaces: Vec<Namespace>,
    #[serde(default)]
    images: Vec<Image>,
    #[serde(default)]
    snapshots: Vec<Snapshot>,
    #[serde(default)]
    leases: Vec<Lease>,
    #[serde(default)]
    settings: BTreeMap<String, Setting>,
    #[serde(default)]
    budget: Budget,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Case {
    pub(super) id: String,
    #[serde(default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) required: String,
    #[serde(default)]
    pub(super) effect: Vec<String>,
    #[serde(default)]
    pub(super) quiet: Option<String>,
    #[serde(default)]
    pub(super) controls: Vec<Control>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Control {
    pub(super) case: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Permission {
    #[serde(default)]
    api_groups: Vec<String>,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    scope: Option<toml::Value>,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    paths: Vec<String>,
    #[serde(default)]
    non_resource: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Namespace {
    alias: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Image {
    name: String,
    reference: Option<String>,
    own: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Snapshot {
    api_version: String,
    resource: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Lease {
    pub(super) name: String,
    pub(super) nodes: Option<String>,
    pub(super) units: Option<toml::Value>,
    #[serde(default)]
    pub(super) containers: bool,
    pub(super) lock: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Setting {
    #[serde(default)]
    default: Option<toml::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Budget {
    wall: Option<String>,
}

impl Permission {
    fn opens(
        &self,
        group: &str,
        resource: &str,
        verb: &str,
        in_sandbox: bool,
        namespace: &str,
    ) -> bool {
        let has = |list: &[String], word: &str| list.iter().any(|have| have == word || have == "*");
        let scope = match &self.scope {
            // Without a scope, a line means the namespaces of the manifest.
            None => in_sandbox,
            Some(toml::Value::String(scope)) if scope == "sandbox" => in_sandbox,
            Some(toml::Value::String(scope)) if scope == "cluster" => true,
            Some(toml::Value::Table(table)) => {
                table.get("namespace").and_then(toml::Value::as_str) == Some(namespace)
            }
            _ => false,
        };
        scope
            && has(&self.api_groups, group)
            && has(&self.resources, resource)
            && has(&self.verbs, verb)
    }

    fn names_workloads(&self) -> bool {
        let pods = self
            .resources
            .iter()
            .any(|resource| resource == "pods/proxy");
        matches!(self.scope, Some(toml::Value::Table(_)))
            && (!self.names.is_empty() || pods && !self.ports.is_empty() && !self.paths.is_empty())
    }
}

impl Manifest {
    pub(super) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    pub(super) fn aliases(&self) -> Vec<String> {
        self.namespaces
            .iter()
            .map(|line| line.alias.clone())
            .collect()
    }

    pub(super) fn lease(&self, name: &str) -> Option<Lease> {
        self.leases.iter().find(|line| line.name == name).cloned()
    }

    pub(super) fn image(&self, name: &str) -> Option<String> {
        self.images
            .iter()
            .find(|image| image.name == name)
            .and_then(|image| {
                let own = || {
                    Some(format!(
                        "karat.local/{}@sha256:{:064}",
                        image.own.as_ref()?,
                        0
                    ))
                };
                image.reference.clone().or_else(own)
            })
    }

    pub(super) fn setting_default(&self, key: &str) -> Option<String> {
        match self.settings.get(key)?.default.as_ref()? {
            toml::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    pub(super) fn has_snapshot(&self, api_version: &str, resource: &str) -> bool {
        self.snapshots
            .iter()
            .any(|line| line.api_version == api_version && line.resource == resource)
    }

    pub(super) fn wall(&self) -> Duration {
        self.budget
            .wall
            .as_deref()
            .and_then(<Duration as crate::settings::SettingValue>::parse)
            .unwrap_or(Duration::from_secs(300))
    }

    pub(super) fn allows(
        &self,
        group: &str,
        resource: &str,
        verb: &str,
        in_sandbox: bool,
        namespace: &str,
    ) -> bool {
        self.permissions
            .iter()
            .any(|line| line.opens(group, resource, verb, in_sandbox, namespace))
    }

    /// As [`Manifest::allows`] for a request to a workload. Those of others must be named.
    pub(super) fn allows_workload(
        &self,
        resource: &str,
        verb: &str,
        in_sandbox: bool,
        namespace: &str,
        name: &str,
        path: &str,
    ) -> bool {
        let port = name.rsplit(':').next().unwrap_or_default();
        let below = |prefix: &String| {
            path.strip_prefix(prefix.as_str()).is_some_and(|rest| {
                rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/')
            })
        };
        self.permissions.iter().any(|line| {
            line.opens("", resource, verb, in_sandbox, namespace)
                && (line.names.is_empty() || line.names.iter().any(|have| have == name))
                && (line.ports.is_empty() || line.ports.iter().any(|have| have == port))
                && (line.paths.is_empty() || line.paths.iter().any(below))
                && (in_sandbox || line.names_workloads())
        })
    }

    pub(super) fn allows_path(&self, path: &str) -> bool {
        self.permissions
            .iter()
            .any(|line| line.non_resource.iter().any(|have| have == path))
    }
}

//! What is written in which version: `v1alpha1` of the releases before 0.5, and `v1beta1`.
//!
//! One builder for each place in which they differ. Of the same release both say the same in other words.

use karat_sdk::{Target, Value, json};

/// Group of Sandbox.
pub(crate) const CORE: &str = "agents.x-k8s.io";
/// Group of everything else.
pub(crate) const EXTENSIONS: &str = "extensions.agents.x-k8s.io";

/// A version that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1Beta1,
    V1Alpha1,
}

impl Version {
    pub(crate) const KNOWN: [Version; 2] = [Version::V1Beta1, Version::V1Alpha1];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Version::V1Beta1 => "v1beta1",
            Version::V1Alpha1 => "v1alpha1",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Version> {
        Self::KNOWN.into_iter().find(|known| known.as_str() == text)
    }
}

/// One of the four kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sandbox,
    Template,
    Pool,
    Claim,
}

/// All of them.
pub(crate) const KINDS: [Kind; 4] = [Kind::Sandbox, Kind::Template, Kind::Pool, Kind::Claim];

impl Kind {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Kind::Sandbox => ("Sandbox", "sandboxes"),
            Kind::Template => ("SandboxTemplate", "sandboxtemplates"),
            Kind::Pool => ("SandboxWarmPool", "sandboxwarmpools"),
            Kind::Claim => ("SandboxClaim", "sandboxclaims"),
        }
    }
}

/// The versions that a cluster is spoken to in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialect {
    pub(crate) core: Version,
    pub(crate) extensions: Version,
}

impl Dialect {
    fn api_version(self, kind: Kind) -> String {
        match kind {
            Kind::Sandbox => [CORE, self.core.as_str()].join("/"),
            _ => [EXTENSIONS, self.extensions.as_str()].join("/"),
        }
    }

    pub(crate) fn target(self, kind: Kind, namespace: &str) -> Target {
        Target::new(&self.api_version(kind), kind.words().1).in_namespace(namespace)
    }

    fn object(self, kind: Kind, name: &str, spec: Value) -> Value {
        let api_version = self.api_version(kind);
        json!({
            "apiVersion": api_version, "kind": kind.words().0,
            "metadata": {"name": name}, "spec": spec,
        })
    }

    /// A sandbox of this pod, with a Service before it.
    pub(crate) fn sandbox(self, name: &str, pod: &Value) -> Value {
        let mut spec = json!({"podTemplate": {"spec": pod}});
        // In the older version every sandbox has a Service.
        if self.core == Version::V1Beta1 {
            spec["service"] = json!(true);
        }
        self.object(Kind::Sandbox, name, spec)
    }

    /// What suspends a sandbox, or lets it go on.
    pub(crate) fn suspend(self, suspend: bool) -> Value {
        match (self.core, suspend) {
            (Version::V1Alpha1, _) => json!({"spec": {"replicas": u8::from(!suspend)}}),
            (Version::V1Beta1, true) => json!({"spec": {"operatingMode": "Suspended"}}),
            (Version::V1Beta1, false) => json!({"spec": {"operatingMode": "Running"}}),
        }
    }

    /// A template of this pod, whose claims bring no variables.
    pub(crate) fn template(self, name: &str, pod: &Value) -> Value {
        let mut spec = json!({"podTemplate": {"spec": pod}});
        if self.extensions == Version::V1Beta1 {
            spec["envVarsInjectionPolicy"] = json!("Disallowed");
        }
        self.object(Kind::Template, name, spec)
    }

    /// A pool of so many sandboxes of a template.
    pub(crate) fn pool(self, name: &str, template: &str, replicas: usize) -> Value {
        let spec = json!({"replicas": replicas, "sandboxTemplateRef": {"name": template}});
        self.object(Kind::Pool, name, spec)
    }

    /// A claim of a sandbox of this template, warm from this pool.
    pub(crate) fn claim(self, name: &str, template: &str, pool: &str) -> Value {
        let spec = match self.extensions {
            Version::V1Alpha1 => json!({"sandboxTemplateRef": {"name": template}}),
            Version::V1Beta1 => json!({"warmPoolRef": {"name": pool}}),
        };
        self.object(Kind::Claim, name, spec)
    }
}

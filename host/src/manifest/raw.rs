//! The manifest as it is written: keys and TOML types, nothing else.
//!
//! Every table refuses unknown keys, so a misspelt `optinal = true` is an error and not a silent demand. Words and
//! numbers are checked by [`super::parse`], which needs to know where each one stands; hence the spans.

use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Spanned as S;

/// The one key that is read before all others: another contract may have other keys.
#[derive(Deserialize)]
pub(super) struct Peek {
    pub(super) contract: S<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Manifest {
    pub(super) id: S<String>,
    pub(super) version: S<String>,
    pub(super) title: S<String>,
    pub(super) claim: S<String>,
    pub(super) misleads: S<String>,
    pub(super) contract: S<String>,
    pub(super) requirements: Vec<S<String>>,
    pub(super) reach: Option<S<String>>,
    #[serde(default)]
    pub(super) capabilities: Vec<S<String>>,
    #[serde(default)]
    pub(super) permissions: Vec<S<Permission>>,
    #[serde(default)]
    pub(super) namespaces: Vec<Namespace>,
    #[serde(default)]
    pub(super) images: Vec<Image>,
    #[serde(default)]
    pub(super) snapshots: Vec<S<Snapshot>>,
    #[serde(default)]
    pub(super) leases: Vec<Lease>,
    #[serde(default)]
    pub(super) settings: BTreeMap<S<String>, Setting>,
    #[serde(default)]
    pub(super) budget: Budget,
    pub(super) cases: S<Vec<S<Case>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Permission {
    #[serde(default)]
    pub(super) api_groups: Vec<S<String>>,
    #[serde(default)]
    pub(super) resources: Vec<S<String>>,
    #[serde(default)]
    pub(super) verbs: Vec<S<String>>,
    pub(super) scope: Option<S<Scope>>,
    #[serde(default)]
    pub(super) names: Vec<S<String>>,
    #[serde(default)]
    pub(super) non_resource: Vec<S<String>>,
    #[serde(default)]
    pub(super) ports: Vec<S<String>>,
    #[serde(default)]
    pub(super) paths: Vec<S<String>>,
    #[serde(default)]
    pub(super) matchers: Vec<S<String>>,
    #[serde(default)]
    pub(super) optional: bool,
    pub(super) why: S<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scope {
    Sandbox,
    Cluster,
    Namespace(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Namespace {
    pub(super) alias: S<String>,
    pub(super) pod_security: Option<S<String>>,
    pub(super) pods: Option<S<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Image {
    pub(super) name: S<String>,
    pub(super) reference: Option<S<String>>,
    /// One that the program brings.
    pub(super) own: Option<S<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Snapshot {
    pub(super) api_version: S<String>,
    pub(super) resource: S<String>,
    pub(super) labels: Option<S<String>>,
    #[serde(default)]
    pub(super) keep: Vec<S<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Lease {
    pub(super) name: S<String>,
    pub(super) nodes: Option<S<String>>,
    /// A number or `"all"`.
    pub(super) units: Option<S<toml::Value>>,
    pub(super) alone: Option<S<bool>>,
    pub(super) containers: Option<S<bool>>,
    pub(super) lock: Option<S<String>>,
    pub(super) shared: Option<S<bool>>,
    #[serde(rename = "for")]
    pub(super) usual: S<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Setting {
    #[serde(rename = "type")]
    pub(super) kind: S<String>,
    /// Only for `one-of`.
    pub(super) values: Option<S<Vec<S<String>>>>,
    /// A boolean, an integer or text, as the type asks.
    pub(super) default: Option<S<toml::Value>>,
    pub(super) help: S<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Budget {
    pub(super) wall: Option<S<String>>,
    pub(super) cpu: Option<S<String>>,
    pub(super) memory: Option<S<String>>,
    pub(super) calls: Option<S<u64>>,
    pub(super) seen: Option<S<String>>,
    pub(super) usual: Option<S<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Case {
    pub(super) id: S<String>,
    pub(super) kind: S<String>,
    pub(super) required: S<String>,
    pub(super) claim: S<String>,
    pub(super) expected: Option<S<String>>,
    #[serde(default)]
    pub(super) needs: Vec<S<String>>,
    #[serde(default)]
    pub(super) effect: Vec<S<String>>,
    #[serde(default)]
    pub(super) controls: Vec<S<Control>>,
    pub(super) quiet: Option<S<String>>,
    #[serde(default)]
    pub(super) pending: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Control {
    pub(super) case: S<String>,
    #[serde(default)]
    pub(super) same: Vec<S<String>>,
    #[serde(default)]
    pub(super) alive: bool,
}

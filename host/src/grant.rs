//! What a probe may do: what its manifest asks, cut by what the operator grants. Nothing is allowed by default.
//!
//! Grants come from a file ([`Grants::parse`]) or from an operator who accepted the plan ([`Grants::all_asked`]). Both are
//! lists of Kubernetes-shaped lines; [`Effective`] is their intersection for one probe, computed once, and
//! [`Effective::allows`] is all the door asks. A refusal says which line of which file would open it. What no grant opens
//! is not decided here but in [`crate::guard`]; a few of its rows have exceptions, which must be named in the grants file
//! and are never part of an accepted plan.

mod file;
mod proxy;
#[cfg(test)]
mod tests;

pub use file::MAX_GRANTS_SIZE;
pub(crate) use proxy::describe as describe_proxy;

use crate::manifest::{Manifest, PermissionLine, ProxyLine, Scope};
use crate::recording::format::{Access, ResourceAccess};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

/// Verbs that a line with names does not open: they address no single object, or one that does not exist yet.
pub(crate) const NAMELESS_VERBS: &[&str] = &["list", "watch", "create", "deletecollection"];

/// A word that stands for everything; only in grants, manifests have no wildcard.
const ANY: &str = "*";

/// Why the door does not do what a guest asked. Made by [`Effective::allows`] and [`crate::guard`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// `permission`, or the id of the row of the guard table.
    pub rule: &'static str,
    /// What is refused and why.
    pub message: String,
    /// What would open it; none where nothing does.
    pub remedy: Option<Remedy>,
}

/// A line that would open what was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remedy {
    /// `probe.toml` or `the grants file`.
    pub file: &'static str,
    /// TOML to paste.
    pub line: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.rule != PERMISSION {
            write!(f, " (guard `{}`)", self.rule)?;
        }
        match &self.remedy {
            Some(remedy) => write!(f, "; to open it, add to {}:\n{}", remedy.file, remedy.line),
            None if self.rule != PERMISSION => f.write_str("; no grant opens it"),
            None => Ok(()),
        }
    }
}

impl Refusal {
    /// A refusal of a guard row that nothing opens.
    pub(crate) fn never(rule: &'static str, message: impl Into<String>) -> Refusal {
        Refusal {
            rule,
            message: message.into(),
            remedy: None,
        }
    }

    /// A refusal of a guard row that an exception in the grants file opens: `key = value` below `[[exception]]`.
    pub(crate) fn unless_excepted(
        rule: &'static str,
        message: impl Into<String>,
        probe: &str,
        exception: &str,
    ) -> Refusal {
        Refusal {
            rule,
            message: message.into(),
            remedy: Some(Remedy {
                file: GRANTS_FILE,
                line: format!("[[exception]]\nprobe = {}\n{exception}", quoted(probe)),
            }),
        }
    }
}

/// The rule of refusals that no guard made.
const PERMISSION: &str = "permission";
const PROBE_FILE: &str = "probe.toml";
const GRANTS_FILE: &str = "the grants file";

/// One line of a grants file: like a permission line, for one probe or for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Probe id; `*` for every probe.
    pub probe: String,
    /// API groups; `*` for all.
    pub api_groups: Vec<String>,
    /// Plural resource names, subresources as `pods/log`; `*` for all.
    pub resources: Vec<String>,
    /// Verbs; `*` for all that a manifest can ask.
    pub verbs: Vec<String>,
    /// Where.
    pub scope: Scope,
    /// Only these names; empty means all.
    pub names: Vec<String>,
    /// Paths outside the resource API.
    pub non_resource: Vec<String>,
    /// What of a workload, for `services/proxy` and `pods/proxy`.
    pub proxy: ProxyLine,
    /// Line of the grants file; 0 for what was accepted in a plan.
    pub line: usize,
}

/// Consents beyond permission lines. Each opens a row of [`crate::guard`] for one probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exceptions {
    /// Subresources that may be used on objects of others: `pods/exec`, `deployments.apps/scale`.
    pub foreign_objects: BTreeSet<String>,
    /// Kinds that are cluster-scoped, or whose controllers act outside the namespace: `clusterqueues.kueue.x-k8s.io`.
    pub kinds: BTreeSet<String>,
    /// Gateways of others that routes may attach to, `namespace/name`.
    pub gateways: BTreeSet<String>,
    /// Ingress classes that may be used.
    pub ingress_classes: BTreeSet<String>,
    /// Annotations that make a controller act outside the namespace, by key.
    pub annotations: BTreeSet<String>,
    /// Services of type LoadBalancer and Gateways, which cost money.
    pub load_balancers: bool,
    /// Services of type NodePort, which open a port on every node.
    pub node_ports: bool,
    /// Namespaces of Pod Security level `privileged`: pods there can take over their node.
    pub privileged: bool,
}

impl Exceptions {
    fn extend(&mut self, other: &Exceptions) {
        let sets = [
            (&mut self.foreign_objects, &other.foreign_objects),
            (&mut self.kinds, &other.kinds),
            (&mut self.gateways, &other.gateways),
            (&mut self.ingress_classes, &other.ingress_classes),
            (&mut self.annotations, &other.annotations),
        ];
        for (mine, more) in sets {
            mine.extend(more.iter().cloned());
        }
        self.load_balancers |= other.load_balancers;
        self.node_ports |= other.node_ports;
        self.privileged |= other.privileged;
    }

    /// One line for each exception, sorted.
    fn canonical(&self) -> Vec<String> {
        let sets = [
            ("foreign-objects", &self.foreign_objects),
            ("kinds", &self.kinds),
            ("gateways", &self.gateways),
            ("ingress-classes", &self.ingress_classes),
            ("annotations", &self.annotations),
        ];
        let flags = [
            ("load-balancers", self.load_balancers),
            ("node-ports", self.node_ports),
            ("privileged", self.privileged),
        ];
        let flags = flags
            .iter()
            .filter(|(_, on)| *on)
            .map(|(key, _)| format!("exception {key}"));
        sets.iter()
            .flat_map(|(key, set)| set.iter().map(move |v| format!("exception {key} {v}")))
            .chain(flags)
            .collect()
    }
}

/// Everything an operator grants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    lines: Vec<Grant>,
    exceptions: Vec<(String, Exceptions)>,
    accepted: BTreeSet<String>,
}

/// A line of a manifest beside what the grants make of it, for the plan.
#[derive(Clone, Debug, PartialEq)]
pub struct RequiredLine {
    /// The line of the manifest.
    pub line: PermissionLine,
    /// Whether all of it is granted.
    pub granted: bool,
    /// The parts that are not granted: `create pods (sandbox)`.
    pub missing: Vec<String>,
    /// What would grant the whole line, as TOML for the grants file.
    pub paste: String,
}

impl Grants {
    /// Grants nothing.
    pub fn none() -> Grants {
        Grants::default()
    }

    /// Grants all that this manifest asks: the operator read the plan and accepted it. Exceptions of the guards are not
    /// part of a plan and stay closed.
    pub fn all_asked(manifest: &Manifest) -> Grants {
        Grants {
            lines: manifest
                .permissions
                .iter()
                .map(|asked| Grant {
                    probe: manifest.id.clone(),
                    api_groups: asked.api_groups.clone(),
                    resources: asked.resources.clone(),
                    verbs: asked.verbs.clone(),
                    scope: asked.scope.clone(),
                    names: asked.names.clone(),
                    non_resource: asked.non_resource.clone(),
                    proxy: asked.proxy.clone(),
                    line: 0,
                })
                .collect(),
            ..Grants::default()
        }
    }

    /// Adds what another source grants.
    pub fn extend(&mut self, other: Grants) {
        self.lines.extend(other.lines);
        self.exceptions.extend(other.exceptions);
        self.accepted.extend(other.accepted);
    }

    /// The lines that concern a probe, with those of `accept-asked` written out.
    fn of(&self, manifest: &Manifest) -> Vec<Grant> {
        let mut lines: Vec<Grant> = self
            .lines
            .iter()
            .filter(|grant| grant.probe == ANY || grant.probe == manifest.id)
            .cloned()
            .collect();
        if self.accepted.contains(&manifest.id) {
            lines.extend(Grants::all_asked(manifest).lines);
        }
        lines
    }

    fn exceptions_of(&self, probe: &str) -> Exceptions {
        let mut all = Exceptions::default();
        for (id, exceptions) in &self.exceptions {
            if id == probe {
                all.extend(exceptions);
            }
        }
        all
    }

    /// Every line of the manifest and whether it is granted, in the manifest's order.
    pub fn required_lines(&self, manifest: &Manifest) -> Vec<RequiredLine> {
        let grants = self.of(manifest);
        manifest
            .permissions
            .iter()
            .map(|line| {
                let missing: Vec<String> = expand(line)
                    .filter(|asked| !grants.iter().any(|grant| asked.covered_by(grant)))
                    .map(|asked| asked.to_string())
                    .collect();
                RequiredLine {
                    granted: missing.is_empty(),
                    missing,
                    paste: grant_toml(&manifest.id, line),
                    line: line.clone(),
                }
            })
            .collect()
    }
}

/// One thing that is allowed: a verb on a resource, or a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A verb on a resource.
    Resource {
        /// API group; empty is the core group.
        group: String,
        /// Plural name, with its subresource: `pods/log`.
        resource: String,
        /// Verb.
        verb: String,
        /// Where.
        scope: Scope,
        /// Only these names, sorted; empty means all.
        names: Vec<String>,
        /// What of a workload, sorted; for `services/proxy` and `pods/proxy`.
        proxy: ProxyLine,
    },
    /// A GET of a path outside the resource API.
    Path(String),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Path(path) => write!(f, "get {path}"),
            Rule::Resource {
                group,
                resource,
                verb,
                scope,
                names,
                proxy,
            } => {
                write!(f, "{verb} {}", qualified(group, resource))?;
                if !names.is_empty() {
                    write!(f, " named {}", names.join(", "))?;
                }
                f.write_str(&proxy::describe(proxy))?;
                match scope {
                    Scope::Sandbox => f.write_str(" (sandbox)"),
                    Scope::Cluster => f.write_str(" (cluster)"),
                    Scope::Namespace(name) => write!(f, " (namespace {name})"),
                }
            }
        }
    }
}

impl Rule {
    /// Whether a grant opens the whole rule.
    fn covered_by(&self, grant: &Grant) -> bool {
        self.meet(grant).as_ref() == Some(self)
    }

    /// The part of the rule that a grant opens.
    fn meet(&self, grant: &Grant) -> Option<Rule> {
        match self {
            Rule::Path(path) => grant.non_resource.contains(path).then(|| self.clone()),
            Rule::Resource {
                group,
                resource,
                verb,
                scope,
                names,
                proxy,
            } => {
                let holds =
                    |list: &[String], word: &str| list.iter().any(|w| w == word || w == ANY);
                if !(grant.non_resource.is_empty()
                    && holds(&grant.api_groups, group)
                    && holds(&grant.resources, resource)
                    && holds(&grant.verbs, verb))
                {
                    return None;
                }
                let scope = match (scope, &grant.scope) {
                    (asked, granted) if asked == granted => asked.clone(),
                    (Scope::Cluster, narrower) => narrower.clone(),
                    (narrower, Scope::Cluster) => narrower.clone(),
                    _ => return None,
                };
                let names = if grant.names.is_empty() {
                    names.clone()
                } else if names.is_empty() {
                    sorted(&grant.names)
                } else {
                    let common: Vec<_> = names
                        .iter()
                        .filter(|name| grant.names.contains(name))
                        .cloned()
                        .collect();
                    if common.is_empty() {
                        return None;
                    }
                    common
                };
                Some(Rule::Resource {
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                    scope,
                    names,
                    proxy: proxy::meet(proxy, &grant.proxy)?,
                })
            }
        }
    }
}

fn sorted(list: &[String]) -> Vec<String> {
    list.iter()
        .cloned()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// Every combination of a line's lists.
fn expand(line: &PermissionLine) -> impl Iterator<Item = Rule> + '_ {
    let paths = line.non_resource.iter().cloned().map(Rule::Path);
    let rules = line.api_groups.iter().flat_map(move |group| {
        line.resources.iter().flat_map(move |resource| {
            line.verbs.iter().map(move |verb| Rule::Resource {
                group: group.clone(),
                resource: resource.clone(),
                verb: verb.clone(),
                scope: line.scope.clone(),
                names: sorted(&line.names),
                proxy: ProxyLine {
                    ports: sorted(&line.proxy.ports),
                    paths: proxy::shortest(&line.proxy.paths),
                    matchers: sorted(&line.proxy.matchers),
                },
            })
        })
    });
    paths.chain(rules)
}

/// What one probe may do in one run.
#[derive(Clone, Debug)]
pub struct Effective {
    probe: String,
    asked: Vec<Rule>,
    rules: Vec<Rule>,
    exceptions: Exceptions,
    sandbox: Vec<String>,
    everything: bool,
}

impl Effective {
    /// A door without its first check, for tests of what stands behind it: the guards and the API server itself.
    #[doc(hidden)]
    pub fn everything(probe: &str) -> Effective {
        Effective {
            probe: probe.to_owned(),
            asked: Vec::new(),
            rules: Vec::new(),
            exceptions: Exceptions::default(),
            sandbox: Vec::new(),
            everything: true,
        }
    }

    /// Cuts what the manifest asks by what is granted. `sandbox` are the real names of the manifest's namespaces in this run.
    pub fn new<S: AsRef<str>>(
        manifest: &Manifest,
        grants: &Grants,
        sandbox: impl IntoIterator<Item = S>,
    ) -> Effective {
        let asked: Vec<Rule> = manifest.permissions.iter().flat_map(expand).collect();
        let grants_of = grants.of(manifest);
        let rules: BTreeSet<Rule> = asked
            .iter()
            .flat_map(|rule| grants_of.iter().filter_map(|grant| rule.meet(grant)))
            .collect();
        Effective {
            probe: manifest.id.clone(),
            asked,
            rules: rules.into_iter().collect(),
            exceptions: grants.exceptions_of(&manifest.id),
            sandbox: sandbox.into_iter().map(|s| s.as_ref().to_owned()).collect(),
            everything: false,
        }
    }

    /// Whether the probe may do this.
    ///
    /// # Errors
    /// A refusal that names the line of `probe.toml` or of the grants file that would allow it.
    pub fn allows(&self, access: &Access) -> Result<(), Refusal> {
        if self.everything {
            return Ok(());
        }
        match access {
            // Every authenticated user may read discovery; it holds names of kinds and nothing else.
            Access::Discovery => Ok(()),
            Access::NonResource { path } => {
                let is_it = |rule: &Rule| matches!(rule, Rule::Path(p) if p == path);
                if self.rules.iter().any(is_it) {
                    return Ok(());
                }
                let keys = format!("non-resource = [{}]", quoted(path));
                Err(self.refusal(
                    format!("get {path} is not"),
                    self.asked.iter().any(is_it),
                    &keys,
                ))
            }
            Access::Resource(access) => self.allows_resource(access),
        }
    }

    fn allows_resource(&self, access: &ResourceAccess) -> Result<(), Refusal> {
        if self.rules.iter().any(|rule| self.opens(rule, access)) {
            return Ok(());
        }
        let resource = if access.subresource.is_empty() {
            access.resource.clone()
        } else {
            format!("{}/{}", access.resource, access.subresource)
        };
        let scope = if access.namespace.is_empty() {
            "\"cluster\"".to_owned()
        } else if self.sandbox.contains(&access.namespace) {
            "\"sandbox\"".to_owned()
        } else {
            format!("{{ namespace = {} }}", quoted(&access.namespace))
        };
        let mut keys = format!(
            "api-groups = [{}]\nresources = [{}]\nverbs = [{}]\nscope = {scope}",
            quoted(&access.group),
            quoted(&resource),
            quoted(&access.verb),
        );
        if access.is_proxied() {
            let _ = write!(
                keys,
                "\nnames = [{}]\npaths = [{}]",
                quoted(&access.name),
                quoted(&access.path)
            );
        }
        let place = if access.namespace.is_empty() {
            "in the cluster scope".to_owned()
        } else {
            format!("in namespace {}", access.namespace)
        };
        let mut what = format!(
            "{} {} {place} is not",
            access.verb,
            qualified(&access.group, &resource)
        );
        if NAMELESS_VERBS.contains(&access.verb.as_str())
            && self
                .rules
                .iter()
                .any(|rule| self.opens_for_names(rule, access))
        {
            what = format!(
                "a line with names does not open `{}`, so {what}",
                access.verb
            );
        }
        let asked = self.asked.iter().any(|rule| self.opens(rule, access));
        Err(self.refusal(what, asked, &keys))
    }

    fn refusal(&self, what: String, asked: bool, keys: &str) -> Refusal {
        let (message, file, line) = if asked {
            let line = format!("[[grant]]\nprobe = {}\n{keys}", quoted(&self.probe));
            (format!("{what} granted"), GRANTS_FILE, line)
        } else {
            let line = format!("[[permissions]]\n{keys}\nwhy = \"…\"");
            (format!("{what} asked for"), PROBE_FILE, line)
        };
        Refusal {
            rule: PERMISSION,
            message,
            remedy: Some(Remedy { file, line }),
        }
    }

    /// Whether a rule opens a request.
    fn opens(&self, rule: &Rule, access: &ResourceAccess) -> bool {
        let Rule::Resource { names, .. } = rule else {
            return false;
        };
        self.opens_for_names(rule, access)
            && proxy::opens(rule, access)
            && (names.is_empty()
                // A POST to a workload is a `create` that has a name.
                || ((!NAMELESS_VERBS.contains(&access.verb.as_str()) || access.is_proxied())
                    && names.contains(&access.name)))
    }

    /// [`Effective::opens`] whatever the name.
    fn opens_for_names(&self, rule: &Rule, access: &ResourceAccess) -> bool {
        let Rule::Resource {
            group,
            resource,
            verb,
            scope,
            ..
        } = rule
        else {
            return false;
        };
        *verb == access.verb
            && *group == access.group
            && same_resource(resource, access)
            && match scope {
                Scope::Cluster => true,
                Scope::Sandbox => self.sandbox.contains(&access.namespace),
                Scope::Namespace(name) => *name == access.namespace,
            }
    }

    /// Whether a line in effect names this workload of others: its namespace, and its name and port; for pods, whose names
    /// nobody knows beforehand, ports and paths will do.
    pub fn names_target(&self, access: &ResourceAccess) -> bool {
        self.rules
            .iter()
            .any(|rule| self.opens(rule, access) && proxy::names(rule))
    }

    /// The matchers of PromQL that lines in effect allow for this endpoint.
    pub fn matchers(&self, access: &ResourceAccess) -> BTreeSet<&str> {
        let opening = self.rules.iter().filter(|rule| self.opens(rule, access));
        opening
            .filter_map(|rule| match rule {
                Rule::Resource { proxy, .. } => Some(&proxy.matchers),
                Rule::Path(_) => None,
            })
            .flatten()
            .map(String::as_str)
            .collect()
    }

    /// What is allowed, sorted.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The consents beyond permission lines.
    pub fn exceptions(&self) -> &Exceptions {
        &self.exceptions
    }

    /// Probe id.
    pub fn probe(&self) -> &str {
        &self.probe
    }

    /// SHA-256 over the rules and exceptions in canonical form, `sha256:…`: the same permissions give the same hash in
    /// every run, however the files were written.
    pub fn digest(&self) -> String {
        let mut text = String::from("karat grants v1\n");
        for rule in &self.rules {
            let _ = writeln!(text, "{rule}");
        }
        for line in self.exceptions.canonical() {
            let _ = writeln!(text, "{line}");
        }
        let digest = Sha256::digest(text.as_bytes());
        format!("sha256:{}", data_encoding::HEXLOWER.encode(&digest))
    }
}

/// Compares `pods/log` with resource and subresource without building the text.
fn same_resource(rule: &str, access: &ResourceAccess) -> bool {
    match rule.split_once('/') {
        None => access.subresource.is_empty() && rule == access.resource,
        Some((resource, subresource)) => {
            resource == access.resource && subresource == access.subresource
        }
    }
}

/// `deployments.apps/scale`, as kubectl and effects write it.
pub(crate) fn qualified(group: &str, resource: &str) -> String {
    match (group, resource.split_once('/')) {
        ("", _) => resource.to_owned(),
        (group, None) => format!("{resource}.{group}"),
        (group, Some((resource, sub))) => format!("{resource}.{group}/{sub}"),
    }
}

/// Text as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A manifest line as a grant.
fn grant_toml(probe: &str, line: &PermissionLine) -> String {
    let list = |list: &[String]| {
        let words: Vec<_> = list.iter().map(|word| quoted(word)).collect();
        format!("[{}]", words.join(", "))
    };
    let mut text = format!("[[grant]]\nprobe = {}\n", quoted(probe));
    if !line.non_resource.is_empty() {
        let _ = write!(text, "non-resource = {}", list(&line.non_resource));
        return text;
    }
    let scope = match &line.scope {
        Scope::Sandbox => "\"sandbox\"".to_owned(),
        Scope::Cluster => "\"cluster\"".to_owned(),
        Scope::Namespace(name) => format!("{{ namespace = {} }}", quoted(name)),
    };
    let _ = write!(
        text,
        "api-groups = {}\nresources = {}\nverbs = {}\nscope = {scope}",
        list(&line.api_groups),
        list(&line.resources),
        list(&line.verbs),
    );
    for (key, words) in [
        ("names", &line.names),
        ("ports", &line.proxy.ports),
        ("paths", &line.proxy.paths),
        ("matchers", &line.proxy.matchers),
    ] {
        if !words.is_empty() {
            let _ = write!(text, "\n{key} = {}", list(words));
        }
    }
    text
}

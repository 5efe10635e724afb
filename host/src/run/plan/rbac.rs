//! Missing permissions of the operator's own account as YAML that `kubectl apply -f -` takes.
//!
//! Only what was asked for and refused goes in, so that nobody applies more than a run needs. Accesses inside the
//! namespaces of a run can only be granted in the whole cluster, because those namespaces do not exist yet; the text says so.

use super::RUN_PLACEHOLDER;
use crate::recording::format::{Access, ResourceAccess};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Name of the objects in the YAML.
const NAME: &str = "karat-run";

/// Whose account lacks them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A user of the cluster's authenticator.
    User(String),
    /// A service account.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

impl Subject {
    /// Reads the user name that the API server reports.
    #[must_use]
    pub fn of_username(username: &str) -> Subject {
        match username
            .strip_prefix("system:serviceaccount:")
            .and_then(|rest| rest.split_once(':'))
        {
            Some((namespace, name)) => Subject::ServiceAccount {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            None => Subject::User(username.to_owned()),
        }
    }
}

/// What one rule says apart from its verbs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Resource {
        group: String,
        resource: String,
        name: String,
    },
    Path(String),
}

/// Writes the missing accesses; none when nothing is missing.
#[must_use]
pub fn yaml(missing: &[Access], subject: &Subject) -> Option<String> {
    let mut places: BTreeMap<Option<&str>, BTreeMap<Target, BTreeSet<&str>>> = BTreeMap::new();
    let mut in_sandbox = false;
    for access in missing {
        match access {
            Access::Discovery => {}
            Access::NonResource { path } => {
                places
                    .entry(None)
                    .or_default()
                    .entry(Target::Path(path.clone()))
                    .or_default()
                    .insert("get");
            }
            Access::Resource(resource) => {
                in_sandbox |= is_sandbox(resource);
                let place = (!resource.namespace.is_empty() && !is_sandbox(resource))
                    .then_some(resource.namespace.as_str());
                places
                    .entry(place)
                    .or_default()
                    .entry(target(resource))
                    .or_default()
                    .insert(&resource.verb);
            }
        }
    }
    if places.is_empty() {
        return None;
    }
    let mut out = String::new();
    if in_sandbox {
        out.push_str(
            "# The run's own namespaces do not exist yet, so what is needed in them is granted in all namespaces.\n",
        );
    }
    let impersonates = places
        .values()
        .flat_map(BTreeMap::values)
        .any(|verbs| verbs.contains("impersonate"));
    if impersonates {
        out.push_str(
            "# Who may impersonate in all namespaces can act as every service account of the cluster. Leave the line out for\n\
             # accounts that should not, and run with --rbac off.\n",
        );
    }
    let asks_for_tokens = places.values().flat_map(BTreeMap::keys).any(
        |target| matches!(target, Target::Resource { resource, .. } if resource == "serviceaccounts/token"),
    );
    if asks_for_tokens {
        out.push_str(
            "# Who may ask for tokens in all namespaces can act as every service account of the cluster. Leave the line out for\n\
             # accounts that should not, and run without --witness.\n",
        );
    }
    let mut first = true;
    for (place, rules) in &places {
        if !first {
            out.push_str("---\n");
        }
        first = false;
        document(&mut out, *place, rules, subject);
    }
    Some(out)
}

/// Whether an access lies in a namespace that the run will make.
#[must_use]
pub fn is_sandbox(resource: &ResourceAccess) -> bool {
    resource
        .namespace
        .strip_prefix("karat-")
        .is_some_and(|rest| rest.starts_with(RUN_PLACEHOLDER))
}

fn target(resource: &ResourceAccess) -> Target {
    let path = if resource.subresource.is_empty() {
        resource.resource.clone()
    } else {
        format!("{}/{}", resource.resource, resource.subresource)
    };
    Target::Resource {
        group: resource.group.clone(),
        resource: path,
        name: resource.name.clone(),
    }
}

fn document(
    out: &mut String,
    place: Option<&str>,
    rules: &BTreeMap<Target, BTreeSet<&str>>,
    subject: &Subject,
) {
    let prefix = if place.is_some() { "" } else { "Cluster" };
    let namespace = place
        .map(|name| format!("  namespace: {}\n", quoted(name)))
        .unwrap_or_default();
    let _ = write!(
        out,
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: {prefix}Role\nmetadata:\n  name: {NAME}\n{namespace}rules:\n"
    );
    // Rules of one group with equal verbs and name become one, as a person would write them.
    let mut merged: BTreeMap<(&BTreeSet<&str>, &str, &str), Vec<&str>> = BTreeMap::new();
    let mut paths: BTreeMap<&BTreeSet<&str>, Vec<&str>> = BTreeMap::new();
    for (target, verbs) in rules {
        match target {
            Target::Resource {
                group,
                resource,
                name,
            } => {
                merged
                    .entry((verbs, group, name))
                    .or_default()
                    .push(resource);
            }
            Target::Path(path) => paths.entry(verbs).or_default().push(path),
        }
    }
    for ((verbs, group, name), resources) in &merged {
        let _ = writeln!(out, "- apiGroups: [{}]", quoted(group));
        let _ = writeln!(out, "  resources: [{}]", list(resources.iter().copied()));
        if !name.is_empty() {
            let _ = writeln!(out, "  resourceNames: [{}]", quoted(name));
        }
        let _ = writeln!(out, "  verbs: [{}]", list(verbs.iter().copied()));
    }
    for (verbs, paths) in &paths {
        let _ = writeln!(out, "- nonResourceURLs: [{}]", list(paths.iter().copied()));
        let _ = writeln!(out, "  verbs: [{}]", list(verbs.iter().copied()));
    }
    let _ = write!(
        out,
        "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {prefix}RoleBinding\nmetadata:\n  name: {NAME}\n\
         {namespace}roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {prefix}Role\n  name: {NAME}\nsubjects:\n"
    );
    match subject {
        Subject::User(name) => {
            let _ = write!(
                out,
                "- apiGroup: rbac.authorization.k8s.io\n  kind: User\n  name: {}\n",
                quoted(name)
            );
        }
        Subject::ServiceAccount { namespace, name } => {
            let _ = write!(
                out,
                "- kind: ServiceAccount\n  namespace: {}\n  name: {}\n",
                quoted(namespace),
                quoted(name)
            );
        }
    }
}

fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(quoted).collect::<Vec<_>>().join(", ")
}

/// JSON strings are YAML strings, and user names may hold anything.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(verb: &str, group: &str, resource: &str, namespace: &str) -> Access {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Access::Resource(ResourceAccess {
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            ..ResourceAccess::default()
        })
    }

    #[test]
    fn nothing_missing_gives_nothing() {
        assert_eq!(yaml(&[], &Subject::User("a".to_owned())), None);
        assert_eq!(
            yaml(&[Access::Discovery], &Subject::User("a".to_owned())),
            None
        );
    }

    #[test]
    fn rules_are_merged_and_bound() {
        let missing = [
            resource("create", "", "pods", "karat-00000000-a-main"),
            resource("delete", "", "pods", "karat-00000000-a-main"),
            resource("create", "", "services", "karat-00000000-a-main"),
            resource("delete", "", "services", "karat-00000000-a-main"),
            resource("get", "", "pods/log", "karat-00000000-a-main"),
            resource("list", "resource.k8s.io", "deviceclasses", ""),
            resource("get", "", "configmaps", "kube-system"),
            Access::NonResource {
                path: "/metrics".to_owned(),
            },
        ];
        let text = yaml(
            &missing,
            &Subject::of_username("system:serviceaccount:ci:runner"),
        )
        .unwrap();
        let expected = "\
# The run's own namespaces do not exist yet, so what is needed in them is granted in all namespaces.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: karat-run
rules:
- apiGroups: [\"\"]
  resources: [\"pods\", \"services\"]
  verbs: [\"create\", \"delete\"]
- apiGroups: [\"\"]
  resources: [\"pods/log\"]
  verbs: [\"get\"]
- apiGroups: [\"resource.k8s.io\"]
  resources: [\"deviceclasses\"]
  verbs: [\"list\"]
- nonResourceURLs: [\"/metrics\"]
  verbs: [\"get\"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: karat-run
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: karat-run
subjects:
- kind: ServiceAccount
  namespace: \"ci\"
  name: \"runner\"
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: karat-run
  namespace: \"kube-system\"
rules:
- apiGroups: [\"\"]
  resources: [\"configmaps\"]
  verbs: [\"get\"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: karat-run
  namespace: \"kube-system\"
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: karat-run
subjects:
- kind: ServiceAccount
  namespace: \"ci\"
  name: \"runner\"
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_user_name_cannot_add_a_line() {
        let missing = [resource("get", "", "nodes", "")];
        let text = yaml(
            &missing,
            &Subject::User("x\n- kind: Group\n  name: \"y\"".to_owned()),
        )
        .unwrap();
        assert!(
            text.ends_with("  kind: User\n  name: \"x\\n- kind: Group\\n  name: \\\"y\\\"\"\n"),
            "{text}"
        );
    }
}

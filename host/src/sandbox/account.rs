//! A probe's account in the cluster: a ServiceAccount with exactly the probe's effective lines, so that the API server
//! refuses what the door should have.
//!
//! [`rights`] turns lines into rules, without asking anybody. What the guards refuse whatever is granted is left out where
//! RBAC can say it: other verbs than those of plain requests, the kinds of the pattern rows, writes outside the probe's own
//! namespaces, Secrets of others, and writes beyond the reach of the run. The account itself lies in the run's home; its
//! Roles lie in the sandbox namespaces, and in those of others that a line names. All of it is journalled under a name of
//! its own, so that the probe, which may be granted to write Roles, does not own its own limits.
//!
//! No token of the account is made or mounted: requests are sent with the operator's credentials and impersonate it.

use super::{Patience, Sandbox, SandboxError, namespaced};
use crate::cluster::{ApiError, Cluster};
use crate::grant::{Effective, NAMELESS_VERBS, Rule, qualified};
use crate::guard;
use crate::journal::{ObjectRef, account_of};
use crate::manifest::Scope;
use crate::model::Reach;
use crate::names::home_namespace;
use crate::recording::format::ResourceAccess;
use crate::seal::probe_label;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const RBAC: &str = "rbac.authorization.k8s.io";

/// What one rule of a role names: API group, resource, names.
type Target = (String, String, Vec<String>);

/// The rules of one role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    resources: BTreeMap<Target, BTreeSet<String>>,
    paths: BTreeSet<String>,
}

impl Rules {
    fn add(&mut self, group: &str, resource: &str, names: &[String], verb: &str) {
        let target = (group.to_owned(), resource.to_owned(), names.to_vec());
        self.resources
            .entry(target)
            .or_default()
            .insert(verb.to_owned());
    }

    /// Whether they allow nothing.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.paths.is_empty()
    }

    /// As `rules` of a Role or ClusterRole.
    pub fn to_json(&self) -> Value {
        let resources = self
            .resources
            .iter()
            .map(|((group, resource, names), verbs)| {
                let mut rule =
                    json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
                if !names.is_empty() {
                    rule["resourceNames"] = json!(names);
                }
                rule
            });
        let paths = (!self.paths.is_empty())
            .then(|| json!({"nonResourceURLs": self.paths, "verbs": ["get"]}));
        resources.chain(paths).collect()
    }

    /// One access that they allow, to see whether they count yet.
    fn sample(&self, namespace: &str) -> Option<Value> {
        if let Some(((group, resource, names), verbs)) = self.resources.first_key_value() {
            let (plain, sub) = resource.split_once('/').unwrap_or((resource, ""));
            return Some(json!({"resourceAttributes": {
                "group": group, "resource": plain, "subresource": sub, "verb": verbs.first(),
                "namespace": namespace, "name": names.first().map_or("", String::as_str),
            }}));
        }
        let path = self.paths.first()?;
        Some(json!({"nonResourceAttributes": {"path": path, "verb": "get"}}))
    }
}

/// What an account may do, by place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// In the cluster scope and in all namespaces.
    pub cluster: Rules,
    /// In each sandbox namespace.
    pub sandbox: Rules,
    /// In namespaces of others.
    pub namespaces: BTreeMap<String, Rules>,
}

/// The rights of a probe. `is_namespaced` knows kinds by API group and plural name; none for those that the server does not
/// serve.
#[must_use]
pub fn rights(
    effective: &Effective,
    reach: Reach,
    is_namespaced: &dyn Fn(&str, &str) -> Option<bool>,
) -> Rights {
    let mut rights = Rights::default();
    for rule in effective.rules() {
        let (group, resource, verb, scope, names) = match rule {
            Rule::Path(path) => {
                rights.cluster.paths.insert(path.clone());
                continue;
            }
            Rule::Resource {
                group,
                resource,
                verb,
                scope,
                names,
                ..
            } => (group, resource, verb, scope, names),
        };
        let (plain, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let access = ResourceAccess {
            verb: verb.clone(),
            group: group.clone(),
            resource: plain.to_owned(),
            subresource: subresource.to_owned(),
            ..ResourceAccess::default()
        };
        // The door does not let such verbs pass by a line with names, and the server cannot tell names there.
        let nameless =
            !names.is_empty() && NAMELESS_VERBS.contains(&verb.as_str()) && !access.is_proxy();
        if nameless || guard::is_never(&access) {
            continue;
        }
        // A POST to a workload is `create services/proxy`; whose workload it is, the door decides. Servers take the GET that begins a
        // WebSocket for a `get`, so that one runs commands.
        let writes = guard::is_write(verb) && !access.is_proxy() || subresource == "exec";
        let excepted = effective
            .exceptions()
            .foreign_objects
            .contains(&qualified(group, resource));
        // Writes stay in the sandbox whatever the scope of the line, and so do Secrets.
        let at_home = (writes && !excepted) || (group.is_empty() && plain == "secrets");
        if (writes || guard::is_write(verb)) && reach < Reach::Sandbox {
            continue;
        }
        let rules = match scope {
            Scope::Sandbox => &mut rights.sandbox,
            Scope::Namespace(_) if at_home => continue,
            Scope::Namespace(name) => rights.namespaces.entry(name.clone()).or_default(),
            Scope::Cluster => match is_namespaced(group, plain) {
                Some(true) if at_home => &mut rights.sandbox,
                Some(true) => &mut rights.cluster,
                Some(false) | None if !writes || reach >= cluster_reach(group, plain) => {
                    &mut rights.cluster
                }
                Some(false) | None => continue,
            },
        };
        rules.add(group, resource, names, verb);
    }
    rights
}

/// The reach that a write in the cluster scope needs.
fn cluster_reach(group: &str, resource: &str) -> Reach {
    if (group, resource) == ("", "nodes") {
        Reach::Disruptive
    } else {
        Reach::ClusterObjects
    }
}

/// Which kinds of these API groups are namespaced, as the server says. Groups that it does not serve are left out.
async fn kinds(
    cluster: &Cluster,
    groups: BTreeSet<String>,
) -> Result<BTreeMap<(String, String), bool>, ApiError> {
    let mut kinds = BTreeMap::new();
    for group in groups {
        let paths = if group.is_empty() {
            vec!["/api/v1".to_owned()]
        } else {
            let Some(found) = cluster.find_json(&format!("/apis/{group}")).await? else {
                continue;
            };
            let versions = found["versions"].as_array().into_iter().flatten();
            versions
                .filter_map(|version| version["groupVersion"].as_str())
                .map(|version| format!("/apis/{version}"))
                .collect()
        };
        for path in paths {
            let list = match cluster.get_json(&path).await {
                Ok(list) => list,
                // An aggregated group whose server is down: its kinds are as good as not served.
                Err(ApiError::Answered { .. }) if !group.is_empty() => continue,
                Err(error) => return Err(error),
            };
            for kind in list["resources"].as_array().into_iter().flatten() {
                if let (Some(name), Some(namespaced)) =
                    (kind["name"].as_str(), kind["namespaced"].as_bool())
                {
                    kinds.insert((group.clone(), name.to_owned()), namespaced);
                }
            }
        }
    }
    Ok(kinds)
}

impl Sandbox {
    /// Makes the account of a probe with its roles, and waits until the server counts them. Gives `probe_cluster` as the
    /// account; [`Sandbox::close_probe`] removes it all.
    ///
    /// # Errors
    /// The kubeconfig impersonates already, the operator may not give these rights, or the server does not count them in
    /// time.
    pub async fn open_account(
        &self,
        effective: &Effective,
        namespaces: &BTreeMap<String, String>,
        reach: Reach,
        probe_cluster: &Cluster,
    ) -> Result<Cluster, SandboxError> {
        let probe = effective.probe();
        let run = self.journal.head().run.clone();
        let home = home_namespace(&run);
        let name = format!("karat-{}-{run}", probe_label(probe));
        let user = format!("system:serviceaccount:{home}:{name}");
        let acting = probe_cluster
            .acting_as(&user)
            .map_err(|error| SandboxError::Account {
                account: user.clone(),
                cause: error.to_string(),
            })?;
        let groups = effective
            .rules()
            .iter()
            .filter_map(|rule| match rule {
                Rule::Resource { group, .. } => Some(group.clone()),
                Rule::Path(_) => None,
            })
            .collect();
        let kinds = kinds(&self.cluster, groups)
            .await
            .map_err(|source| SandboxError::Api {
                what: "asking which kinds are namespaced".to_owned(),
                source,
            })?;
        let rights = rights(effective, reach, &|group, resource| {
            kinds.get(&(group.to_owned(), resource.to_owned())).copied()
        });

        let body = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name},
            "automountServiceAccountToken": false,
        });
        let account = namespaced("", "serviceaccounts", &home, &name);
        self.create_for_account(&account, probe, body).await?;
        let subject = json!([{"kind": "ServiceAccount", "namespace": home, "name": name}]);
        let mut places: Vec<(&str, &Rules)> = vec![("", &rights.cluster)];
        places.extend(namespaces.values().map(|at| (at.as_str(), &rights.sandbox)));
        places.extend(
            rights
                .namespaces
                .iter()
                .map(|(at, rules)| (at.as_str(), rules)),
        );
        places.retain(|(_, rules)| !rules.is_empty());
        let mut given = Vec::new();
        for (namespace, rules) in places {
            if self.give(namespace, &name, probe, rules, &subject).await? {
                given.extend(rules.sample(namespace));
            }
        }
        for sample in given {
            self.counts(&acting, &user, sample).await?;
        }
        Ok(acting)
    }

    /// One role and its binding. False where a namespace of others does not exist, so nothing in it can be allowed.
    async fn give(
        &self,
        namespace: &str,
        name: &str,
        probe: &str,
        rules: &Rules,
        subject: &Value,
    ) -> Result<bool, SandboxError> {
        let (role, binding, prefix) = match namespace {
            "" => ("clusterroles", "clusterrolebindings", "Cluster"),
            _ => ("roles", "rolebindings", ""),
        };
        let kind = format!("{prefix}Role");
        let body = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name},
            "rules": rules.to_json(),
        });
        let object = namespaced(RBAC, role, namespace, name);
        match self.create_for_account(&object, probe, body).await {
            Ok(()) => {}
            Err(SandboxError::Api { source, .. }) if source.is_not_found() => return Ok(false),
            Err(error) => return Err(error),
        }
        let body = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"),
            "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
            "subjects": subject,
        });
        let object = namespaced(RBAC, binding, namespace, name);
        self.create_for_account(&object, probe, body).await?;
        Ok(true)
    }

    async fn create_for_account(
        &self,
        object: &ObjectRef,
        probe: &str,
        body: Value,
    ) -> Result<(), SandboxError> {
        self.create_for(object, &account_of(probe), Some(probe), body)
            .await
    }

    /// The server reads roles from a cache of its own; a probe that began before would be refused what it has.
    async fn counts(
        &self,
        acting: &Cluster,
        user: &str,
        sample: Value,
    ) -> Result<(), SandboxError> {
        const PATH: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": sample,
        });
        let mut patience = Patience::new();
        loop {
            let answer = acting.create_json(PATH, &review).await;
            let answer = answer.map_err(|error| SandboxError::Account {
                account: user.to_owned(),
                cause: format!("the operator cannot act as it: {error}"),
            })?;
            if answer["status"]["allowed"] == true {
                return Ok(());
            }
            if !patience.wait().await {
                return Err(SandboxError::Account {
                    account: user.to_owned(),
                    cause: format!("the server does not count its rights: {}", review["spec"]),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Grants;
    use crate::manifest::Manifest;

    const LINES: &str = r#"
namespaces = [{ alias = "main" }]
permissions = [
  { api-groups = [""], resources = ["pods", "pods/status", "secrets", "nodes"], verbs = ["get", "create"], scope = "cluster", why = "t" },
  { api-groups = [""], resources = ["pods/exec"], verbs = ["get", "create"], scope = "cluster", why = "t" },
  { api-groups = [""], resources = ["configmaps"], verbs = ["get", "list", "watch", "delete"], names = ["a", "b"], scope = { namespace = "kube-system" }, why = "t" },
  { api-groups = ["resource.k8s.io"], resources = ["resourceclaims"], verbs = ["list", "watch"], scope = "sandbox", why = "t" },
  { api-groups = ["scheduling.k8s.io"], resources = ["priorityclasses"], verbs = ["create"], scope = "cluster", why = "t" },
  { api-groups = [""], resources = ["services/proxy"], verbs = ["get", "create"], names = ["prometheus:9090"], scope = { namespace = "monitoring" }, why = "t" },
  { api-groups = [""], resources = ["pods/proxy", "nodes/proxy"], verbs = ["get", "create"], scope = "sandbox", why = "t" },
  { non-resource = ["/metrics"], why = "t" },
]
"#;

    fn of(reach: Reach, grants: &str) -> Rights {
        let text =
            crate::test_guests::manifest(&["kube-read", "kube-write", "pods", "http"], LINES)
                .replace("\"read\"", "\"disruptive\"");
        let manifest = Manifest::parse(&text, "probe.toml").unwrap();
        let mut granted = Grants::all_asked(&manifest);
        granted.extend(Grants::parse(grants, "grants.toml").unwrap());
        let effective = Effective::new(&manifest, &granted, ["karat-x-small-main"]);
        rights(&effective, reach, &|_, resource| {
            Some(!matches!(resource, "nodes" | "priorityclasses"))
        })
    }

    fn shown(rules: &Rules) -> Vec<String> {
        let resources = rules
            .resources
            .iter()
            .map(|((group, resource, names), verbs)| {
                let verbs: Vec<&str> = verbs.iter().map(String::as_str).collect();
                format!(
                    "{} {}{names:?}",
                    verbs.join(","),
                    qualified(group, resource)
                )
            });
        resources.chain(rules.paths.iter().cloned()).collect()
    }

    #[test]
    fn an_account_gets_the_lines_less_what_guards_refuse_anyway() {
        let rights = of(Reach::ClusterObjects, "");
        // No write in namespaces of others, no status and no node is written, no Secret of others is read.
        assert_eq!(
            shown(&rights.cluster),
            [
                "get nodes[]",
                "get pods[]",
                "get pods/status[]",
                "create priorityclasses.scheduling.k8s.io[]",
                "/metrics"
            ]
        );
        assert_eq!(
            shown(&rights.sandbox),
            [
                "create pods[]",
                "create,get pods/exec[]",
                "create,get pods/proxy[]",
                "create,get secrets[]",
                "list,watch resourceclaims.resource.k8s.io[]"
            ]
        );
        // Names open no list and no watch, and nothing of others is deleted.
        assert_eq!(
            shown(&rights.namespaces["kube-system"]),
            ["get configmaps[\"a\", \"b\"]"]
        );
        assert_eq!(
            shown(&rights.namespaces["monitoring"]),
            ["create,get services/proxy[\"prometheus:9090\"]"]
        );
    }

    #[test]
    fn the_get_that_begins_a_command_is_bounded_as_a_write() {
        let read = of(Reach::Read, "");
        assert!(
            !shown(&read.sandbox)
                .iter()
                .any(|rule| rule.contains("exec"))
        );
        let probe = of(Reach::Sandbox, "");
        assert!(
            !shown(&probe.cluster)
                .iter()
                .any(|rule| rule.contains("exec"))
        );
        let line = format!(
            "[[exception]]\nprobe = {:?}\nforeign-objects = [\"pods/exec\"]\n",
            id()
        );
        let opened = of(Reach::Sandbox, &line);
        assert!(shown(&opened.cluster).contains(&"create,get pods/exec[]".to_owned()));
    }

    fn id() -> String {
        let text =
            crate::test_guests::manifest(&["kube-read", "kube-write", "pods", "http"], LINES)
                .replace("\"read\"", "\"disruptive\"");
        Manifest::parse(&text, "probe.toml").unwrap().id
    }

    #[test]
    fn reach_bounds_what_the_account_may_write() {
        let sandbox = of(Reach::Sandbox, "");
        assert!(
            !shown(&sandbox.cluster)
                .iter()
                .any(|rule| rule.contains("create"))
        );
        assert!(shown(&sandbox.sandbox).contains(&"create pods[]".to_owned()));
        let read = of(Reach::Read, "");
        for rules in [&read.cluster, &read.sandbox] {
            assert!(!shown(rules).iter().any(|rule| rule.contains("create")));
        }
    }

    #[test]
    fn rules_have_the_form_of_kubernetes() {
        let rights = of(Reach::Sandbox, "");
        assert_eq!(
            rights.namespaces["kube-system"].to_json(),
            json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"], "resourceNames": ["a", "b"]}])
        );
        let rules = rights.cluster.to_json();
        assert_eq!(
            rules.as_array().unwrap().last().unwrap(),
            &json!({"nonResourceURLs": ["/metrics"], "verbs": ["get"]})
        );
    }
}

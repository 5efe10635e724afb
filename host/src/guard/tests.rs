//! Every row is hit by at least two hostile requests and lets a harmless neighbour pass; the last test counts them.

mod cases;

use super::*;
use crate::grant::Grants;
use crate::journal::ObjectRef;
use crate::manifest::{Budget, Manifest, PermissionLine, Scope};
use serde_json::json;

const RUN: &str = "abcdefgh";
const NS: &str = "karat-abcdefgh-probe-main";
const IMAGE: &str = "registry.example/tool@sha256:0123";

/// One request against the table.
struct Shot {
    row: &'static str,
    hostile: bool,
    access: ResourceAccess,
    body: Option<Value>,
    patch: Option<PatchKind>,
    labels: &'static str,
    reach: Reach,
    exceptions: &'static str,
    crowd: usize,
}

/// `verb plural[.group][/subresource] namespace name`; `-` stands for the cluster scope or no name, `@` for our namespace.
fn shot(row: &'static str, hostile: bool, what: &str) -> Shot {
    let words: Vec<&str> = what.split(' ').collect();
    let [verb, kind, namespace, name] = words.as_slice() else {
        panic!("{what}");
    };
    let (kind, subresource) = kind.split_once('/').unwrap_or((kind, ""));
    let (resource, group) = kind.split_once('.').unwrap_or((kind, ""));
    let word = |word: &str| match word {
        "-" => String::new(),
        "@" => NS.to_owned(),
        other => other.to_owned(),
    };
    Shot {
        row,
        hostile,
        access: ResourceAccess {
            verb: (*verb).to_owned(),
            group: group.to_owned(),
            version: "v1".to_owned(),
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: word(namespace),
            name: word(name),
            path: String::new(),
        },
        body: None,
        patch: None,
        labels: "",
        reach: Reach::ClusterObjects,
        exceptions: "",
        crowd: 0,
    }
}

fn bad(row: &'static str, what: &str) -> Shot {
    shot(row, true, what)
}

fn good(row: &'static str, what: &str) -> Shot {
    shot(row, false, what)
}

impl Shot {
    /// The rest of a body; name and namespace are filled in.
    fn with(mut self, body: Value) -> Shot {
        let mut body = body;
        if body["metadata"].is_null() {
            body["metadata"] = json!({});
        }
        if body["metadata"].is_object() && body["metadata"].get("name").is_none() {
            body["metadata"]["name"] = self.access.name.clone().into();
        }
        self.body = Some(body);
        self
    }

    /// A request to a workload, at this path.
    fn at(mut self, path: &str) -> Shot {
        self.access.path = path.to_owned();
        self
    }

    fn merge(mut self, body: Value) -> Shot {
        self.body = Some(body);
        self.patch = Some(PatchKind::Merge);
        self
    }

    fn apply(mut self, body: Value) -> Shot {
        self.body = Some(body);
        self.patch = Some(PatchKind::Apply);
        self
    }

    fn json(mut self, body: Value) -> Shot {
        self.body = Some(body);
        self.patch = Some(PatchKind::Json);
        self
    }

    fn reach(mut self, reach: Reach) -> Shot {
        self.reach = reach;
        self
    }

    fn except(mut self, exceptions: &'static str) -> Shot {
        self.exceptions = exceptions;
        self
    }

    fn crowd(mut self, crowd: usize) -> Shot {
        self.crowd = crowd;
        self
    }

    /// Fires; gives what the table says, and what became of body and selector.
    fn fire(&self) -> (Result<(), Refusal>, Option<Value>, String) {
        let context = context(self);
        let mut body = self.body.clone();
        let mut request = Request {
            access: &self.access,
            body: body.as_mut(),
            patch: self.patch,
            labels: self.labels.to_owned(),
        };
        let result = check(&mut request, &context);
        let labels = request.labels;
        (result, body, labels)
    }

    fn text(&self) -> String {
        format!(
            "{} {:?} {}",
            self.row,
            self.access,
            self.body.as_ref().map(Value::to_string).unwrap_or_default()
        )
    }
}

fn context(shot: &Shot) -> GuardContext {
    let line = |group: &str, resources: &[&str], verbs: &[&str], names: &[&str]| PermissionLine {
        api_groups: vec![group.to_owned()],
        resources: resources.iter().map(|s| (*s).to_owned()).collect(),
        verbs: verbs.iter().map(|s| (*s).to_owned()).collect(),
        scope: Scope::Sandbox,
        names: names.iter().map(|s| (*s).to_owned()).collect(),
        non_resource: vec![],
        proxy: Default::default(),
        optional: false,
        why: String::new(),
        line: 1,
    };
    let manifest = Manifest {
        id: "probe".into(),
        version: "0.1.0".into(),
        title: String::new(),
        claim: String::new(),
        misleads: String::new(),
        contract: String::new(),
        requirements: vec![],
        reach: shot.reach,
        capabilities: vec![],
        permissions: vec![
            line(
                "",
                &[
                    "pods",
                    "pods/log",
                    "secrets",
                    "serviceaccounts/token",
                    "pods/status",
                ],
                &["get", "list", "create"],
                &[],
            ),
            line("", &["configmaps"], &["get"], &["one"]),
        ],
        namespaces: vec![],
        images: vec![],
        snapshots: vec![],
        leases: vec![],
        settings: Default::default(),
        budget: Budget::default(),
        cases: vec![],
    };
    let mut grants = Grants::all_asked(&manifest);
    if !shot.exceptions.is_empty() {
        let text = format!("[[exception]]\nprobe = \"probe\"\n{}", shot.exceptions);
        grants.extend(Grants::parse(&text, "grants.toml").unwrap());
    }
    let ledger = Ledger::default();
    let add = |kind: &str, namespace: &str, name: &str, probe: &str| {
        let (resource, group) = kind.split_once('.').unwrap_or((kind, ""));
        let object = ObjectRef {
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
        };
        ledger.intend(&object, probe);
        ledger.created(&object, &format!("uid-{probe}-{name}-{resource}"));
    };
    for kind in [
        "pods",
        "secrets",
        "configmaps",
        "services",
        "serviceaccounts",
        "persistentvolumeclaims",
        "deployments.apps",
        "statefulsets.apps",
        "cronjobs.batch",
        "roles.rbac.authorization.k8s.io",
        "rolebindings.rbac.authorization.k8s.io",
        "gateways.gateway.networking.k8s.io",
        "httproutes.gateway.networking.k8s.io",
        "ingresses.networking.k8s.io",
        "volumesnapshots.snapshot.storage.k8s.io",
        "resourceclaims.resource.k8s.io",
        "sandboxes.agents.x-k8s.io",
    ] {
        add(kind, NS, "own-abcdefgh", "probe");
        add(kind, "karat-abcdefgh-other-main", "own-abcdefgh", "other");
    }
    for kind in [
        "deviceclasses.resource.k8s.io",
        "resourceslices.resource.k8s.io",
        "priorityclasses.scheduling.k8s.io",
        "validatingadmissionpolicies.admissionregistration.k8s.io",
        "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    ] {
        add(kind, "", "own-abcdefgh", "probe");
        add(kind, "", "theirs-abcdefgh", "other");
    }
    add("namespaces", "", NS, "");
    for n in 0..shot.crowd {
        add(
            "deviceclasses.resource.k8s.io",
            "",
            &format!("c{n}-abcdefgh"),
            "probe",
        );
    }
    GuardContext {
        run: RUN.into(),
        probe: "probe".into(),
        namespaces: vec![NS.into()],
        reach: shot.reach,
        effective: Arc::new(Effective::new(&manifest, &grants, [NS])),
        images: [IMAGE.to_owned()].into(),
        ledger,
        priority_classes: [
            ("low".to_owned(), -10),
            ("zero".to_owned(), 0),
            ("high".to_owned(), 1000),
        ]
        .into(),
        pull_secrets: vec![cases::PULLED.to_owned()],
    }
}

#[test]
fn hostile_requests_are_stopped_by_their_row_and_harmless_neighbours_pass() {
    let mut wrong = Vec::new();
    for shot in cases::all() {
        let (result, _, _) = shot.fire();
        match (&result, shot.hostile) {
            (Err(refusal), true) if refusal.rule == shot.row => {
                assert!(!refusal.message.is_empty());
            }
            (Ok(()), false) => {}
            _ => wrong.push(format!("{} → {result:?}", shot.text())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_row_has_two_hostile_shapes_and_a_harmless_one() {
    let cases = cases::all();
    for row in rows() {
        let count = |hostile| {
            cases
                .iter()
                .filter(|shot| shot.row == row.id && shot.hostile == hostile)
                .count()
        };
        assert!(
            count(true) >= 2,
            "{} has {} hostile shapes",
            row.id,
            count(true)
        );
        assert!(count(false) >= 1, "{} has no harmless neighbour", row.id);
        assert!(!row.stops.is_empty() && !row.why.is_empty());
    }
    let ids: BTreeSet<_> = rows().iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), rows().len(), "ids are unique");
    for shot in &cases {
        assert!(ids.contains(shot.row), "{} is no row", shot.row);
    }
}

#[test]
fn an_exception_opens_exactly_what_its_refusal_names() {
    let mut opened = 0;
    for shot in cases::all()
        .into_iter()
        .filter(|shot| shot.hostile && shot.exceptions.is_empty())
    {
        let Err(Refusal {
            rule,
            remedy: Some(remedy),
            ..
        }) = shot.fire().0
        else {
            continue;
        };
        assert_eq!(remedy.file, "the grants file");
        let line = remedy.line.lines().nth(2).unwrap().to_owned();
        let again = shot.except(line.leak()).fire().0;
        assert_ne!(
            again.as_ref().err().map(|refusal| refusal.rule),
            Some(rule),
            "{again:?}"
        );
        opened += 1;
    }
    assert!(opened >= 8, "{opened}");
}

#[test]
fn no_exception_opens_a_never_row_without_one() {
    for shot in cases::all().into_iter().filter(|shot| shot.hostile) {
        let row = rows().iter().find(|row| row.id == shot.row).unwrap();
        if !matches!(row.rule, Rule::Patterns(_)) {
            continue;
        }
        let refusal = shot.fire().0.unwrap_err();
        assert_eq!(refusal.remedy, None, "{}", row.id);
    }
}

#[test]
fn the_door_completes_what_it_can() {
    let pod = good("pod-templates", "create deployments.apps @ a-abcdefgh").with(json!({
        "status": {"replicas": 7},
        "metadata": {"labels": {"karat.internal/run": "victim00", "app": "a"}, "managedFields": [{}]},
        "spec": {"template": {"metadata": {"labels": {"karat.internal/probe": "x"}}, "spec": {"containers": [{"image": IMAGE}]}}},
    }));
    let (result, body, _) = pod.fire();
    assert_eq!(result, Ok(()));
    let body = body.unwrap();
    assert_eq!(
        body["spec"]["template"]["spec"]["automountServiceAccountToken"],
        false
    );
    assert_eq!(body["metadata"]["labels"], json!({"app": "a"}));
    assert_eq!(body["spec"]["template"]["metadata"]["labels"], json!({}));
    assert!(body.get("status").is_none() && body["metadata"].get("managedFields").is_none());

    let policy = good("admission-policies", "create validatingadmissionpolicies.admissionregistration.k8s.io - a-abcdefgh").with(json!({
        "spec": {"matchConstraints": {
            "namespaceSelector": {},
            "resourceRules": [{"apiGroups": [""], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"], "scope": "*"}]}},
    }));
    let body = policy.fire().1.unwrap();
    let constraints = &body["spec"]["matchConstraints"];
    assert_eq!(
        constraints["namespaceSelector"],
        json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": [NS]}]})
    );
    assert_eq!(constraints["resourceRules"][0]["scope"], "Namespaced");

    let binding = good(
        "admission-policies",
        "create validatingadmissionpolicybindings.admissionregistration.k8s.io - a-abcdefgh",
    )
    .with(json!({"spec": {"policyName": "own-abcdefgh", "validationActions": ["Deny"]}}));
    let body = binding.fire().1.unwrap();
    assert_eq!(
        body["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"][0]["values"],
        json!([NS])
    );
}

#[test]
fn selectors_of_collections_and_secrets_are_narrowed() {
    for (what, labels, expected) in [
        (
            "list secrets @ -",
            "app=a",
            "karat.internal/run=abcdefgh,karat.internal/probe=probe,app=a",
        ),
        (
            "watch secrets @ -",
            "",
            "karat.internal/run=abcdefgh,karat.internal/probe=probe",
        ),
        (
            "deletecollection resourceclaims.resource.k8s.io @ -",
            "",
            "karat.internal/run=abcdefgh,karat.internal/probe=probe",
        ),
        (
            "deletecollection deviceclasses.resource.k8s.io - -",
            "a in (b)",
            "karat.internal/run=abcdefgh,karat.internal/probe=probe,a in (b)",
        ),
        ("list pods @ -", "app=a", "app=a"),
    ] {
        let mut shot = good("collection", what);
        shot.labels = labels;
        let (result, _, narrowed) = shot.fire();
        assert_eq!((result, narrowed.as_str()), (Ok(()), expected));
    }
}

#[test]
fn a_replacement_keeps_what_the_platform_wrote() {
    let current = json!({"metadata": {
        "finalizers": ["resource.kubernetes.io/delete-protection"],
        "labels": {"karat.internal/run": RUN, "app": "old", "app.kubernetes.io/managed-by": "karat"},
        "annotations": {"karat.internal/seal": "v1:00", "note": "old"}}});
    let mut body = json!({"metadata": {"name": "a", "labels": {"app": "new"}, "ownerReferences": [{"uid": "x"}]}});
    carry_over(&current, &mut body);
    assert_eq!(
        body,
        json!({"metadata": {
        "name": "a",
        "finalizers": ["resource.kubernetes.io/delete-protection"],
        "labels": {"app": "new", "karat.internal/run": RUN, "app.kubernetes.io/managed-by": "karat"},
        "annotations": {"karat.internal/seal": "v1:00"}}})
    );
}

#[test]
fn paths_never_reach_the_resource_api() {
    for path in [
        "/version",
        "/metrics",
        "/readyz",
        "/readyz/etcd",
        "/openapi/v3",
    ] {
        assert_eq!(check_path(path), Ok(()), "{path}");
    }
    for path in [
        "/api/v1/secrets",
        "/apis",
        "/api",
        "/readyz/../api/v1/secrets",
        "//api/v1",
        "/readyz?x=/api",
        "/%61pi/v1",
        "api",
        "",
        "/debug/pprof",
        "/logs/kube-apiserver.log",
        "/readyz/",
    ] {
        assert!(check_path(path).is_err(), "{path}");
    }
}

#[test]
fn the_lists_are_well_formed() {
    for (kind, why) in tables::listed_kinds() {
        assert!(!why.trim().is_empty(), "{kind} says no reason");
        let name = kind.strip_prefix("*.").unwrap_or(kind);
        assert!(crate::manifest::values::is_dns_subdomain(name), "{kind}");
        assert!(name.contains('.'), "{kind} has no group");
    }
    assert!(tables::acts_outside("external-secrets.io", "externalsecrets").is_some());
    assert!(tables::acts_outside("x.external-secrets.io", "pushsecrets").is_some());
    assert!(tables::acts_outside("notexternal-secrets.io", "externalsecrets").is_none());
    assert!(tables::acts_outside("kueue.x-k8s.io", "clusterqueues").is_some());
    assert!(tables::acts_outside("kueue.x-k8s.io", "localqueues").is_none());
    assert!(tables::acts_outside("trainer.kubeflow.org", "clustertrainingruntimes").is_some());
    assert!(tables::acts_outside("trainer.kubeflow.org", "trainingruntimes").is_none());
    assert!(tables::acts_outside("", "pods").is_none());
}

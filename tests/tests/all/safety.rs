//! Sandboxes, their end, and clean-up after runs that died, against a real API server with an administrator's credential.
//!
//! Each test compares every object of the cluster before and after, so they take turns on one control plane of their own.

use anyhow::{Context, Result, bail, ensure};
use karat_engine::clean::{CleanPlan, CleanSource, SealFilter, execute, plan_clean};
use karat_engine::cluster::{Cluster, ConnectOptions};
use karat_engine::journal::{self, Journal, JournalHead, ObjectRef};
use karat_engine::manifest::Manifest;
use karat_engine::sandbox::pull_secrets::PullSecrets;
use karat_engine::sandbox::remove::Options;
use karat_engine::sandbox::{Consents, Sandbox, SandboxError, SandboxOptions, Unproved};
use karat_engine::seal::{RunKey, Stamp};
use karat_testbed::{Component, ControlPlane};
use karat_tests::state::{self, State};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

const EXPIRES: &str = "2100-01-01T00:00:00Z";
const PATIENT: Options<'static> = Options {
    patience: Duration::from_secs(60),
    progress: &|_, _| {},
};

static LAB: OnceCell<ControlPlane> = OnceCell::const_new();
static TURN: Mutex<()> = Mutex::const_new(());

/// A turn on the control plane, and what stood there at its beginning.
struct Turn {
    lab: &'static ControlPlane,
    client: kube::Client,
    cluster: Cluster,
    before: State,
    folder: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Turn {
    async fn begin() -> Result<Turn> {
        let turn = TURN.lock().await;
        let lab = LAB
            .get_or_try_init(|| ControlPlane::builder().start())
            .await?;
        let client = lab.client().await?;
        let cluster = connect(&lab.kubeconfig()).await?;
        Ok(Turn {
            lab,
            before: state::of(&client).await?,
            client,
            cluster,
            folder: tempfile::tempdir()?,
            _turn: turn,
        })
    }

    /// Nothing was added, removed or changed since the beginning, apart from namesakes that a test names.
    async fn nothing_changed(&self, but: &[&str]) -> Result<()> {
        let after = state::of(&self.client).await?;
        let lines: Vec<_> = state::differences(&self.before, &after)
            .into_iter()
            .filter(|line| !but.iter().any(|name| line.contains(name)))
            .collect();
        ensure!(lines.is_empty(), "{}", lines.join("\n"));
        Ok(())
    }

    fn journal_path(&self, run: &str) -> PathBuf {
        self.folder.path().join(format!("{run}.jsonl"))
    }

    async fn journal(&self, run: &str) -> Result<Journal> {
        let system = self
            .cluster
            .get_json("/api/v1/namespaces/kube-system")
            .await?;
        let head = JournalHead {
            run: run.into(),
            key: RunKey::generate()?,
            cluster: text(&system, "/metadata/uid")?,
            server: self.lab.url(),
            started: "2026-01-01T00:00:00Z".into(),
        };
        Ok(Journal::create(&self.journal_path(run), head)?)
    }

    async fn open(&self, run: &str, expires: &str) -> Result<(Sandbox, Journal)> {
        let journal = self.journal(run).await?;
        let options = SandboxOptions {
            expires: expires.into(),
            unproved: Unproved::Refuse,
            pull_secrets: PullSecrets::default(),
        };
        let sandbox = Sandbox::open(self.cluster.clone(), journal.clone(), options).await?;
        Ok((sandbox, journal))
    }

    async fn plan(&self, filter: SealFilter) -> Result<CleanPlan> {
        Ok(plan_clean(&self.cluster, &CleanSource::Seals(filter)).await?)
    }

    async fn delete(&self, path: &str) -> Result<()> {
        let object = self.cluster.get_json(path).await?;
        self.cluster
            .delete_uid(path, &text(&object, "/metadata/uid")?)
            .await?;
        for _ in 0..200 {
            if self.cluster.find_json(path).await?.is_none() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("{path} stays")
    }
}

async fn connect(kubeconfig: &Path) -> Result<Cluster> {
    Ok(Cluster::connect(ConnectOptions {
        kubeconfig: Some(kubeconfig.to_owned()),
        ..ConnectOptions::default()
    })
    .await?)
}

fn text(object: &Value, pointer: &str) -> Result<String> {
    let found = object.pointer(pointer).and_then(Value::as_str);
    Ok(found
        .with_context(|| format!("{pointer} in {object}"))?
        .to_owned())
}

fn manifest() -> Result<Manifest> {
    let text = r#"
id = "safety"
version = "0.1.0"
title = "Safety"
claim = "c"
misleads = "m"
contract = "0.1.0-dev.1"
requirements = []
reach = "cluster-objects"
capabilities = ["kube-read"]
namespaces = [{ alias = "main", pods = 5 }, { alias = "base", pod-security = "baseline", pods = 5 }]
permissions = [{ api-groups = [""], resources = ["pods"], verbs = ["get"], why = "w" }]
cases = [{ id = "a", kind = "observation", required = "always", claim = "c", effect = ["get pods"] }]
"#;
    Ok(Manifest::parse(text, "probe.toml")?)
}

fn object(group: &str, resource: &str, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef {
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn class(name: &str) -> (ObjectRef, Value) {
    let body = json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": name}, "spec": {}});
    (object("resource.k8s.io", "deviceclasses", "", name), body)
}

/// Creates an object as the door does: journal, seal, POST, uid. `note` false leaves out the last, as a crash would.
async fn create(
    turn: &Turn,
    journal: &Journal,
    object: &ObjectRef,
    mut body: Value,
    note: bool,
) -> Result<Value> {
    let head = journal.head();
    Stamp {
        key: &head.key,
        run: &head.run,
        probe: Some("safety"),
        expires: EXPIRES,
    }
    .apply(object, &mut body, &[]);
    journal.intend(object, "safety")?;
    let made = turn
        .cluster
        .create_json(&object.collection_path(), &body)
        .await?;
    if note {
        journal.created(object, "safety", &text(&made, "/metadata/uid")?)?;
    }
    Ok(made)
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "image": "registry.invalid/x", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
        },
    })
}

/// The message of a refusal with this code.
async fn refused(cluster: &Cluster, path: &str, body: &Value, code: u16) -> Result<String> {
    match cluster.create_json(path, body).await {
        Ok(made) => bail!("accepted: {made}"),
        Err(e) => {
            ensure!(e.code() == Some(code), "{e}");
            Ok(e.to_string())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_holds_what_it_promises_and_leaves_nothing() -> Result<()> {
    let turn = Turn::begin().await?;
    let (sandbox, journal) = turn.open("aaaaaaaa", EXPIRES).await?;
    ensure!(sandbox.priority_classes()["system-cluster-critical"] > 0);
    let made = sandbox
        .open_probe(&manifest()?, Consents::default())
        .await?;
    ensure!(made.warnings.is_empty(), "{:?}", made.warnings);
    let main = made.namespaces["main"].clone();
    ensure!(main == "karat-aaaaaaaa-safety-main", "{main}");

    // What the server enforces, whoever asks: we are cluster administrators here.
    let pods = format!("/api/v1/namespaces/{main}/pods");
    let mut bad = pod("bad");
    bad["spec"]["hostNetwork"] = true.into();
    ensure!(
        refused(&turn.cluster, &pods, &bad, 403)
            .await?
            .contains("PodSecurity")
    );
    for name in ["system-cluster-critical", "system-node-critical"] {
        let mut bad = pod("bad");
        bad["spec"]["priorityClassName"] = name.into();
        ensure!(
            refused(&turn.cluster, &pods, &bad, 403)
                .await?
                .contains("exceeded quota: karat-priority")
        );
    }
    for kind in ["LoadBalancer", "NodePort"] {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"type": kind, "selector": {"a": "b"}, "ports": [{"port": 80}]}});
        let path = format!("/api/v1/namespaces/{main}/services");
        ensure!(
            refused(&turn.cluster, &path, &service, 403)
                .await?
                .contains("exceeded quota: karat")
        );
    }
    for n in 0..5 {
        let made = turn
            .cluster
            .create_json(&pods, &pod(&format!("p{n}")))
            .await?;
        let volumes = made.pointer("/spec/volumes").and_then(Value::as_array);
        ensure!(
            volumes.is_none_or(Vec::is_empty),
            "a token is mounted: {made}"
        );
    }
    ensure!(
        refused(&turn.cluster, &pods, &pod("p6"), 403)
            .await?
            .contains("exceeded quota: karat")
    );

    // What a probe may leave behind: a policy that forbids deletions, cluster objects, workloads, a claim with its pod.
    let policy = object(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        "",
        "no-aaaaaaaa",
    );
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": main}});
    create(&turn, &journal, &policy, json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "no-aaaaaaaa"},
        "spec": {
            "matchConstraints": {"namespaceSelector": selector, "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                "operations": ["DELETE"], "resources": ["pods"], "scope": "Namespaced"}]},
            "validations": [{"expression": "false"}]},
    }), true).await?;
    let binding = object(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
        "",
        "no-aaaaaaaa",
    );
    create(&turn, &journal, &binding, json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "no-aaaaaaaa"},
        "spec": {"policyName": "no-aaaaaaaa", "validationActions": ["Deny"], "matchResources": {"namespaceSelector": selector}},
    }), true).await?;
    let (deviceclass, body) = class("d-aaaaaaaa");
    create(&turn, &journal, &deviceclass, body, true).await?;
    let deployment = object("apps", "deployments", &main, "w-aaaaaaaa");
    create(
        &turn,
        &journal,
        &deployment,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "w-aaaaaaaa"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]}},
        }),
        true,
    )
    .await?;

    let closed = sandbox.close(PATIENT).await;
    ensure!(closed.left.is_empty(), "{:?}", closed.left);
    ensure!(journal::read(journal.path())?.closed);
    ensure!(journal.ledger().entries().is_empty());
    turn.nothing_changed(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_would_take_a_privileged_pod_is_no_sandbox() -> Result<()> {
    let lab = ControlPlane::builder()
        .arg(
            Component::ApiServer,
            "--disable-admission-plugins=PodSecurity",
        )
        .start()
        .await?;
    lab.client().await?;
    let cluster = connect(&lab.kubeconfig()).await?;
    let folder = tempfile::tempdir()?;
    for (run, unproved) in [("aaaaaaaa", Unproved::Refuse), ("bbbbbbbb", Unproved::Warn)] {
        let head = JournalHead {
            run: run.into(),
            key: RunKey::generate()?,
            cluster: String::new(),
            server: lab.url(),
            started: String::new(),
        };
        let journal = Journal::create(&folder.path().join(run), head)?;
        let options = SandboxOptions {
            expires: EXPIRES.into(),
            unproved,
            pull_secrets: PullSecrets::default(),
        };
        let sandbox = Sandbox::open(cluster.clone(), journal, options).await?;
        let opened = sandbox.open_probe(&manifest()?, Consents::default()).await;
        match (unproved, opened) {
            (Unproved::Refuse, Err(SandboxError::Unproved { namespace, .. })) => {
                ensure!(namespace == "karat-aaaaaaaa-safety-main", "{namespace}");
            }
            (Unproved::Warn, Ok(made)) => {
                ensure!(
                    made.warnings.len() == 2 && made.warnings[0].contains("privileged pod"),
                    "{:?}",
                    made.warnings
                );
            }
            (_, other) => bail!("{unproved:?}: {other:?}"),
        }
        let closed = sandbox.close(PATIENT).await;
        ensure!(closed.left.is_empty(), "{:?}", closed.left);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_run_is_cleaned_from_its_journal() -> Result<()> {
    let turn = Turn::begin().await?;
    let (sandbox, journal) = turn.open("cccccccc", EXPIRES).await?;
    sandbox
        .open_probe(&manifest()?, Consents::default())
        .await?;
    let (noted, body) = class("noted-cccccccc");
    create(&turn, &journal, &noted, body, true).await?;
    // The crash came between POST and uid, between note and POST, and before a namesake of somebody else was made.
    let (lost, body) = class("lost-cccccccc");
    create(&turn, &journal, &lost, body, false).await?;
    journal.intend(&class("never-cccccccc").0, "safety")?;
    let (namesake, body) = class("namesake-cccccccc");
    journal.intend(&namesake, "safety")?;
    turn.cluster
        .create_json(&namesake.collection_path(), &body)
        .await?;
    drop(sandbox);
    drop(journal);
    let path = turn.journal_path("cccccccc");
    // The last line is torn, as a power cut leaves it.
    let mut torn = std::fs::read(&path)?;
    torn.extend_from_slice(b"{\"op\":\"crea");
    std::fs::write(&path, torn)?;

    let source = CleanSource::Journal(path.clone());
    let plan = plan_clean(&turn.cluster, &source).await?;
    let names: Vec<_> = plan.runs[0]
        .targets
        .iter()
        .map(|t| t.object.to_string())
        .collect();
    ensure!(
        names
            == [
                "namespaces/karat-cccccccc-home",
                "namespaces/karat-cccccccc-safety-main",
                "namespaces/karat-cccccccc-safety-base",
                "deviceclasses.resource.k8s.io/noted-cccccccc",
                "deviceclasses.resource.k8s.io/lost-cccccccc",
            ],
        "{names:?}"
    );
    let removed = execute(&turn.cluster, &plan, PATIENT).await;
    ensure!(removed.left.is_empty() && removed.gone == 5, "{removed:?}");
    ensure!(plan_clean(&turn.cluster, &source).await?.is_empty());
    turn.nothing_changed(&["namesake-cccccccc"]).await?;
    turn.delete(&namesake.path()).await?;
    turn.nothing_changed(&[]).await?;

    // The same journal says nothing about another cluster.
    let other = std::fs::read_to_string(&path)?;
    let system = turn
        .cluster
        .get_json("/api/v1/namespaces/kube-system")
        .await?;
    std::fs::write(
        &path,
        other.replace(&text(&system, "/metadata/uid")?, "another"),
    )?;
    let error = plan_clean(&turn.cluster, &source)
        .await
        .err()
        .context("another cluster")?;
    ensure!(error.to_string().contains("this is another one"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn seals_are_followed_and_forgeries_are_not() -> Result<()> {
    let turn = Turn::begin().await?;
    let mut ours = Vec::new();
    for run in ["dddddddd", "eeeeeeee"] {
        let expires = if run == "dddddddd" {
            "2020-01-01T00:00:00Z"
        } else {
            EXPIRES
        };
        let (sandbox, journal) = turn.open(run, expires).await?;
        sandbox
            .open_probe(&manifest()?, Consents::default())
            .await?;
        let (own, body) = class(&format!("own-{run}"));
        ours.push(create(&turn, &journal, &own, body, true).await?);
    }
    let labels = ours[0]["metadata"]["labels"].clone();
    let annotations = ours[0]["metadata"]["annotations"].clone();
    let namespace = turn
        .cluster
        .get_json("/api/v1/namespaces/karat-dddddddd-safety-main")
        .await?;
    let marked = |name: &str, annotations: &Value| json!({"name": name, "labels": labels, "annotations": annotations});
    let foreign_class = |metadata: Value| json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": metadata, "spec": {}});
    let foreign_space =
        |metadata: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
    let classes = "/apis/resource.k8s.io/v1/deviceclasses";
    let spaces = "/api/v1/namespaces";

    // Forged label, copied seal, renamed clone, seal of another kind, seal on another namespace, a made-up run.
    let mut forgeries = Vec::new();
    for (path, body) in [
        (classes, foreign_class(marked("forged-label", &json!({})))),
        (classes, foreign_class(marked("copied-seal", &annotations))),
        (
            classes,
            foreign_class(marked("clone-dddddddd", &annotations)),
        ),
        (
            spaces,
            foreign_space(marked(
                "forged-space",
                &namespace["metadata"]["annotations"],
            )),
        ),
        (
            spaces,
            foreign_space(marked(
                "karat-dddddddd-evil-main",
                &namespace["metadata"]["annotations"],
            )),
        ),
        (
            spaces,
            foreign_space(
                json!({"name": "forged-run", "labels": {"karat.internal/run": "zzzzzzzz"}, "annotations": annotations}),
            ),
        ),
    ] {
        let made = turn.cluster.create_json(path, &body).await?;
        forgeries.push((format!("{path}/{}", text(&made, "/metadata/name")?), made));
    }
    // A forger with a key of their own in a home of their own: it proves nothing about objects of other names.
    let key = RunKey::generate()?;
    let forger = |subject: &ObjectRef, mut body: Value| {
        Stamp {
            key: &key,
            run: "ffffffff",
            probe: None,
            expires: "2020-01-01T00:00:00Z",
        }
        .apply(subject, &mut body, &[]);
        body
    };
    let victim = object("", "namespaces", "", "forged-victim");
    let home = object("", "namespaces", "", "karat-ffffffff-home");
    let secret = object("", "secrets", "karat-ffffffff-home", "karat-run-key");
    let stolen = object("", "namespaces", "", "karat-ffffffff-stolen-main");
    for (subject, body) in [
        (&victim, foreign_space(json!({"name": "forged-victim"}))),
        (&home, foreign_space(json!({"name": "karat-ffffffff-home"}))),
        (
            &secret,
            json!({"apiVersion": "v1", "kind": "Secret", "type": "karat.internal/run-key", "metadata": {"name": "karat-run-key"}, "stringData": {"key": RunKey::generate()?.to_hex()}}),
        ),
        (
            &stolen,
            foreign_space(json!({"name": "karat-ffffffff-stolen-main"})),
        ),
    ] {
        turn.cluster
            .create_json(&subject.collection_path(), &forger(subject, body))
            .await?;
    }

    // The home of `ffffffff` holds another key than the one it was sealed with.
    let plan = turn.plan(SealFilter::default()).await?;
    let reason = |name: &str| {
        plan.left_alone
            .iter()
            .find(|left| left.object.name == name)
            .map(|left| left.why.clone())
            .unwrap_or_default()
    };
    for (name, why) in [
        ("forged-label", "its name is none that this run gives"),
        ("copied-seal", "its name is none that this run gives"),
        (
            "clone-dddddddd",
            "its seal is forged, or copied from another object",
        ),
        ("forged-space", "its name is none that this run gives"),
        (
            "karat-dddddddd-evil-main",
            "its seal is forged, or copied from another object",
        ),
        (
            "forged-victim",
            "home namespace karat-ffffffff-home is not sealed with the key in it",
        ),
        (
            "karat-ffffffff-stolen-main",
            "home namespace karat-ffffffff-home is not sealed with the key in it",
        ),
    ] {
        ensure!(reason(name) == why, "{name}: {}", reason(name));
    }
    ensure!(
        reason("forged-run").contains("no run id") || reason("forged-run").contains("is gone"),
        "{}",
        reason("forged-run")
    );

    // With the right key in it, only what has a name of that run is taken.
    turn.delete(&secret.path()).await?;
    let body = forger(
        &secret,
        json!({"apiVersion": "v1", "kind": "Secret", "type": "karat.internal/run-key", "metadata": {"name": "karat-run-key"}, "stringData": {"key": key.to_hex()}}),
    );
    turn.cluster
        .create_json(&secret.collection_path(), &body)
        .await?;
    let runs = |plan: &CleanPlan| -> Vec<(String, usize)> {
        plan.runs
            .iter()
            .map(|run| (run.run.clone(), run.targets.len()))
            .collect()
    };
    let plan = turn.plan(SealFilter::default()).await?;
    ensure!(
        runs(&plan)
            == [
                ("dddddddd".into(), 4),
                ("eeeeeeee".into(), 4),
                ("ffffffff".into(), 2)
            ],
        "{:?}",
        runs(&plan)
    );
    ensure!(
        plan.left_alone
            .iter()
            .any(|left| left.object.name == "forged-victim")
    );

    // Filters.
    let only = |run: &str| SealFilter {
        run: Some(run.into()),
        ..SealFilter::default()
    };
    ensure!(runs(&turn.plan(only("eeeeeeee")).await?) == [("eeeeeeee".into(), 4)]);
    ensure!(turn.plan(only("gggggggg")).await?.is_empty());
    let expired = turn
        .plan(SealFilter {
            expired: true,
            ..SealFilter::default()
        })
        .await?;
    ensure!(
        runs(&expired) == [("dddddddd".into(), 4), ("ffffffff".into(), 2)],
        "{:?}",
        runs(&expired)
    );
    let hour = SealFilter {
        older_than: Some("1h".parse()?),
        ..SealFilter::default()
    };
    ensure!(turn.plan(hour).await?.is_empty());

    // Between plan and execution one of ours is replaced by somebody else's: the uid protects it.
    let taken = format!("{classes}/own-eeeeeeee");
    turn.delete(&taken).await?;
    let replaced = turn
        .cluster
        .create_json(classes, &foreign_class(json!({"name": "own-eeeeeeee"})))
        .await?;
    let removed = execute(&turn.cluster, &plan, PATIENT).await;
    ensure!(removed.left.is_empty(), "{:?}", removed.left);
    let after = turn.cluster.get_json(&taken).await?;
    ensure!(after["metadata"]["uid"] == replaced["metadata"]["uid"]);
    turn.delete(&taken).await?;

    for (path, made) in &forgeries {
        let after = turn.cluster.get_json(path).await?;
        ensure!(
            after["metadata"]["uid"] == made["metadata"]["uid"]
                && after["metadata"]["deletionTimestamp"].is_null(),
            "{after}"
        );
    }
    let names = [
        "forged-",
        "copied-seal",
        "clone-dddddddd",
        "karat-dddddddd-evil-main",
        "/evil-main",
    ];
    turn.nothing_changed(&names).await?;
    for (path, _) in &forgeries {
        turn.delete(path).await?;
    }
    turn.delete(&victim.path()).await?;
    turn.nothing_changed(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_without_its_key_goes_only_while_it_is_empty() -> Result<()> {
    let turn = Turn::begin().await?;
    let key = RunKey::generate()?;
    let home = object("", "namespaces", "", "karat-hhhhhhhh-home");
    let mut body =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": home.name}});
    Stamp {
        key: &key,
        run: "hhhhhhhh",
        probe: None,
        expires: EXPIRES,
    }
    .apply(&home, &mut body, &[]);
    turn.cluster
        .create_json(&home.collection_path(), &body)
        .await?;
    let map = object("", "configmaps", &home.name, "data-of-somebody");
    let data = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": map.name}});
    turn.cluster
        .create_json(&map.collection_path(), &data)
        .await?;
    let plan = turn.plan(SealFilter::default()).await?;
    ensure!(plan.is_empty() && plan.left_alone.len() == 1, "{plan:?}");
    turn.delete(&map.path()).await?;
    let plan = turn.plan(SealFilter::default()).await?;
    ensure!(plan.runs.len() == 1, "{plan:?}");
    let removed = execute(&turn.cluster, &plan, PATIENT).await;
    ensure!(removed.left.is_empty(), "{removed:?}");
    turn.nothing_changed(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_died_at_its_very_end_is_waited_for() -> Result<()> {
    let turn = Turn::begin().await?;
    let (sandbox, journal) = turn.open("kkkkkkkk", EXPIRES).await?;
    sandbox
        .open_probe(&manifest()?, Consents::default())
        .await?;
    for entry in journal.ledger().entries() {
        let uid = entry.uid.context("uid")?;
        turn.cluster.delete_uid(&entry.object.path(), &uid).await?;
    }
    let plan = turn.plan(SealFilter::default()).await?;
    ensure!(plan.left_alone.is_empty(), "{plan:?}");
    let removed = execute(&turn.cluster, &plan, PATIENT).await;
    ensure!(removed.left.is_empty(), "{removed:?}");
    turn.nothing_changed(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_finalizers_are_reported_and_never_removed() -> Result<()> {
    let turn = Turn::begin().await?;
    let (sandbox, journal) = turn.open("iiiiiiii", EXPIRES).await?;
    let made = sandbox
        .open_probe(&manifest()?, Consents::default())
        .await?;
    let (held, body) = class("held-iiiiiiii");
    create(&turn, &journal, &held, body, true).await?;
    let map = object("", "configmaps", &made.namespaces["main"], "held-iiiiiiii");
    create(
        &turn,
        &journal,
        &map,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": map.name}}),
        true,
    )
    .await?;
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    turn.cluster.merge_json(&held.path(), &hold).await?;
    turn.cluster.merge_json(&map.path(), &hold).await?;

    let hurried = Options {
        patience: Duration::from_secs(4),
        ..PATIENT
    };
    let closed = sandbox.close(hurried).await;
    let left: Vec<_> = closed.left.iter().map(ToString::to_string).collect();
    ensure!(
        left.iter()
            .any(|l| l
                == "deviceclasses.resource.k8s.io/held-iiiiiiii (finalizers example.com/hold)"),
        "{left:?}"
    );
    ensure!(
        left.iter()
            .any(|l| l.starts_with("configmaps/") && l.contains("example.com/hold")),
        "{left:?}"
    );
    ensure!(
        left.iter()
            .any(|l| l.starts_with("namespaces/karat-iiiiiiii-safety-main")),
        "{left:?}"
    );
    ensure!(
        turn.cluster
            .find_json("/api/v1/namespaces/karat-iiiiiiii-home")
            .await?
            .is_some(),
        "the key stays until the rest is gone"
    );

    let release = json!({"metadata": {"finalizers": null}});
    turn.cluster.merge_json(&held.path(), &release).await?;
    turn.cluster.merge_json(&map.path(), &release).await?;
    let plan = plan_clean(
        &turn.cluster,
        &CleanSource::Journal(journal.path().to_owned()),
    )
    .await?;
    let removed = execute(&turn.cluster, &plan, PATIENT).await;
    ensure!(removed.left.is_empty(), "{:?}", removed.left);
    turn.nothing_changed(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_name_is_never_touched() -> Result<()> {
    let turn = Turn::begin().await?;
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "karat-jjjjjjjj-safety-base"}});
    let theirs = turn
        .cluster
        .create_json("/api/v1/namespaces", &space)
        .await?;
    let (sandbox, _) = turn.open("jjjjjjjj", EXPIRES).await?;
    let error = sandbox
        .open_probe(&manifest()?, Consents::default())
        .await
        .err()
        .context("taken")?;
    ensure!(matches!(error, SandboxError::Taken { .. }), "{error}");
    let closed = sandbox.close(PATIENT).await;
    ensure!(closed.left.is_empty(), "{:?}", closed.left);
    let after = turn
        .cluster
        .get_json("/api/v1/namespaces/karat-jjjjjjjj-safety-base")
        .await?;
    ensure!(
        after["metadata"]["uid"] == theirs["metadata"]["uid"]
            && after["metadata"]["deletionTimestamp"].is_null()
    );
    turn.delete("/api/v1/namespaces/karat-jjjjjjjj-safety-base")
        .await?;
    turn.nothing_changed(&[]).await
}

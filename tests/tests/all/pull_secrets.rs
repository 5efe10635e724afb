//! Pull secrets on a real control plane: they reach the pods of probes, and no probe, no file and no line of output.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use karat_engine::images::{Images, Placement, PullSecretName};
use karat_engine::model::{Reach, Reason, Verdict};
use karat_engine::recording::format::{Access, Failure, Reply};
use karat_testbed::{ControlPlane, Registry, can_run_nodes, not_run};
use karat_tests::guests::{Guest, built};
use karat_tests::{folders, program, runs, state};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tokio::process::Command;

const PROBE: &str = "puller";
const USER: &str = "robot";
const PASSWORD: &str = "plain words for a registry";
const IMAGE: &str = "registry.example/private@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn placement(names: &[&str]) -> Placement {
    let pull_secrets = names.iter().filter_map(|name| PullSecretName::parse(name));
    Placement {
        pull_secrets: pull_secrets.collect(),
        ..Placement::default()
    }
}

fn images(names: &[&str]) -> Images {
    Images::new(&BTreeMap::new(), placement(names))
}

/// A probe that makes a pod, looks at all that could tell of its pull secret, and tries to get at it.
fn guest() -> Guest {
    const MAIN: &str = "${ns:main}";
    let pod = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "image": IMAGE, "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    });
    let script = json!([
        {"do": "create", "api": "v1", "resource": "pods", "ns": MAIN, "body": {"metadata": {"name": "own-${run}"}, "spec": pod}},
        {"do": "get", "api": "v1", "resource": "pods", "ns": MAIN, "name": "own-${run}"},
        {"do": "get", "api": "v1", "resource": "serviceaccounts", "ns": MAIN, "name": "default"},
        {"do": "list", "api": "v1", "resource": "secrets", "ns": MAIN},
        {"do": "get", "api": "v1", "resource": "secrets", "ns": "registries", "name": "pull"},
    ]);
    Guest::scripted(PROBE, &script)
        .lines("\n[[namespaces]]\nalias = \"main\"\npods = 5\n")
        .lines(&format!(
            "\n[[images]]\nname = \"private\"\nreference = {IMAGE:?}\n"
        ))
        .permit(
            "",
            &["pods", "serviceaccounts", "secrets"],
            karat_engine::manifest::VERBS,
            "sandbox",
        )
        .permit("", &["secrets"], &["get"], "registries")
}

/// The Secret of an operator for this registry, and what it holds.
async fn registries(lab: &ControlPlane, host: &str) -> Result<String> {
    let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let login = json!({"auths": {host: {"username": USER, "password": PASSWORD, "auth": auth}}});
    let data = STANDARD.encode(login.to_string());
    let things = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "registries"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
            "metadata": {"name": "pull", "namespace": "registries"}, "data": {".dockerconfigjson": data}}),
        json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "other", "namespace": "registries"}, "data": {"a": "Yg=="}}),
    ];
    lab.apply_yaml(
        "registries",
        &things.map(|thing| thing.to_string()).join("\n---\n"),
    )
    .await?;
    Ok(data)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_secret_reaches_the_pods_of_a_probe_and_nothing_else() -> Result<()> {
    let lab = ControlPlane::builder()
        .audit_policy(runs::AUDIT_IN_FULL)
        .start()
        .await?;
    let data = registries(&lab, "registry.example").await?;
    let client = lab.client().await?;
    let before = state::of(&client).await?;
    let run = runs::run_with_images(
        &lab.kubeconfig(),
        vec![guest().component()?],
        Reach::Sandbox,
        BTreeMap::new(),
        images(&["registries/pull"]),
    )
    .await?;
    let lines = state::differences(&before, &state::of(&client).await?);
    ensure!(lines.is_empty(), "{}", lines.join("\n"));

    // What the server stored: a copy, the account that names it, and a pod that got it from there.
    let audit = lab.audit_events()?;
    let space = format!("karat-{}-{PROBE}-main", run.record.run);
    let stored = |verb: &str, resource: &str| -> Result<Value> {
        let mut events = audit.iter().filter(|event| {
            event["verb"] == verb
                && event["objectRef"]["resource"] == resource
                && event["objectRef"]["namespace"] == space.as_str()
                && event["responseStatus"]["code"].as_u64() < Some(300)
        });
        // The proof of Pod Security is a pod too, but refused.
        let event = events.next();
        let event = event.with_context(|| format!("no {verb} of {resource} in the audit log"))?;
        Ok(event["responseObject"].clone())
    };
    let copy = stored("create", "secrets")?;
    assert_eq!(copy["data"][".dockerconfigjson"], data.as_str());
    assert_eq!(copy["type"], "kubernetes.io/dockerconfigjson");
    let name = copy["metadata"]["name"].as_str().context("a name")?;
    let named = json!([{"name": name}]);
    assert_eq!(
        stored("patch", "serviceaccounts")?["imagePullSecrets"],
        named
    );
    assert_eq!(stored("create", "pods")?["spec"]["imagePullSecrets"], named);

    // What the probe got: the pod has some pull secret, the list of Secrets is empty, and no read came through.
    let recording = run.recording(PROBE)?;
    let of = |function: &str, resource: &str| -> Result<Reply> {
        let mut entries = recording.entries().iter();
        let entry = entries.find(|entry| {
            entry.function.contains(function)
                && matches!(&entry.access, Some(Access::Resource(access)) if access.resource == resource)
        });
        Ok(recording.reply(entry.with_context(|| format!("no {function} of {resource}"))?)?)
    };
    for resource in ["pods", "serviceaccounts"] {
        let told = format!("{:?}", of("get", resource)?);
        ensure!(
            told.contains("imagePullSecrets") && told.contains("redacted-"),
            "{told}"
        );
    }
    let listed = format!("{:?}", of("list", "secrets")?);
    ensure!(
        !listed.contains("redacted-") && !listed.contains("karat-pull"),
        "{listed}"
    );
    assert!(matches!(of("get", "secrets")?, Err(Failure::Refused(_))));

    // No file of the run holds the name, the password, or the data.
    let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    for (file, bytes) in folders::files(&run.folder())? {
        let text = String::from_utf8_lossy(&bytes);
        for secret in [name, PASSWORD, &data, &auth, &STANDARD.encode(PASSWORD)] {
            ensure!(!text.contains(secret), "{} holds {secret}", file.display());
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_secret_that_is_none_stops_a_run_before_it_makes_anything() -> Result<()> {
    let lab = ControlPlane::builder().start().await?;
    registries(&lab, "registry.example").await?;
    let client = lab.client().await?;
    let before = state::of(&client).await?;
    for (name, told) in [
        (
            "registries/absent",
            "pull secret registries/absent does not exist",
        ),
        (
            "registries/other",
            "Secret registries/other is no pull secret",
        ),
    ] {
        let run = runs::run_with_images(
            &lab.kubeconfig(),
            vec![guest().component()?],
            Reach::Sandbox,
            BTreeMap::new(),
            images(&[name]),
        )
        .await;
        let error = format!("{:#}", run.err().context("it ran")?);
        ensure!(error.contains(told), "{error}");
    }
    let lines = state::differences(&before, &state::of(&client).await?);
    ensure!(lines.is_empty(), "{}", lines.join("\n"));
    Ok(())
}

/// Needs a kubelet and a container runtime: a registry that lets nobody in, a real probe, and the words of the kubelet.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_node_pulls_from_a_private_registry_with_it_and_not_without() -> Result<()> {
    const NAME: &str =
        "pull_secrets::a_real_node_pulls_from_a_private_registry_with_it_and_not_without";
    for can in [Registry::can_run().map(|_| ()), can_run_nodes()] {
        if let Err(why) = can {
            not_run(NAME, &why);
            return Ok(());
        }
    }
    let lab = ControlPlane::builder().real_nodes(1).start().await?;
    let node = lab.real_nodes().first().context("a node")?;
    let registry = Registry::start_at(lab.address().into(), Some((USER, PASSWORD)))?;
    registry.trusted_by(node)?;
    registries(&lab, &registry.host()).await?;

    let folder = tempfile::tempdir()?;
    registry.write_login(folder.path(), USER, PASSWORD)?;
    let config = format!("[images]\npushed-to = \"{}/karat\"\n", registry.host());
    std::fs::write(folder.path().join("karat.toml"), config)?;
    let push = Command::new(program::karat()?)
        .args(["images", "push", "--config", "karat.toml", "--plain-http"])
        .arg(registry.host())
        .env("DOCKER_CONFIG", folder.path())
        .current_dir(folder.path())
        .output()
        .await?;
    ensure!(
        push.status.success(),
        "{}",
        String::from_utf8_lossy(&push.stderr)
    );

    let mut verdicts = Vec::new();
    for names in [&[][..], &["registries/pull"]] {
        let placement = Placement {
            pushed_to: Some(format!("{}/karat", registry.host())),
            ..placement(names)
        };
        let run = runs::run_with_images(
            &lab.kubeconfig(),
            vec![built("probe-inplace-pod-resize")?],
            Reach::Sandbox,
            BTreeMap::new(),
            runs::own_images_at(placement)?,
        )
        .await?;
        let judgement = &run.attempt("inplace-pod-resize").judgement;
        verdicts.push((
            judgement.verdict,
            judgement.reason,
            judgement.explanation.clone(),
        ));
        for (file, bytes) in folders::files(&run.folder())? {
            let text = String::from_utf8_lossy(&bytes);
            ensure!(!text.contains(PASSWORD), "{}", file.display());
        }
    }
    let [without, with] = &verdicts[..] else {
        anyhow::bail!("{verdicts:?}");
    };
    ensure!(
        without.0 == Some(Verdict::Unknown) && without.1 == Some(Reason::ImageUnavailable),
        "{without:?}"
    );
    ensure!(with.0 == Some(Verdict::Pass), "{with:?}");
    Ok(())
}

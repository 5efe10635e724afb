//! Probes with an account of their own: who made which call, by the API server's audit log, and what the server refuses where
//! the door does not.

use anyhow::{Context, Result, ensure};
use karat_engine::capability::kube_read::{Query, get, open_list, raw};
use karat_engine::capability::kube_write::{Target, create};
use karat_engine::cluster::{Cluster, ConnectOptions};
use karat_engine::component;
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::event::Events;
use karat_engine::gate::{Door, StopSignal};
use karat_engine::grant::{Effective, Grants};
use karat_engine::images::Images;
use karat_engine::lease::NodeChoice;
use karat_engine::manifest::Manifest;
use karat_engine::model::{Reach, Verdict};
use karat_engine::names::sandbox_namespace;
use karat_engine::recording::format::Failure;
use karat_engine::run::lock::Lock;
use karat_engine::run::{Mode, RunRequest, run};
use karat_engine::sandbox::pull_secrets::PullSecrets;
use karat_engine::sandbox::remove::Options;
use karat_engine::sandbox::{Consents, Sandbox, SandboxOptions, Unproved};
use karat_engine::scratch::Scratch;
use karat_testbed::ControlPlane;
use karat_tests::guests::{Guest, case};
use karat_tests::state;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

async fn connect(kubeconfig: &Path) -> Result<Cluster> {
    Ok(Cluster::connect(ConnectOptions {
        kubeconfig: Some(kubeconfig.to_owned()),
        ..ConnectOptions::default()
    })
    .await?)
}

/// A probe that reads, lists, watches, writes and deletes in its namespace, and reads one object of another.
fn busy() -> Guest {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one-${run}"}});
    let at = |mut step: Value| {
        step["api"] = json!("v1");
        step["resource"] = json!("configmaps");
        step["ns"] = json!("${ns:main}");
        step
    };
    let script = json!([
        {"do": "open", "id": "alive"},
        at(json!({"do": "create", "body": body})),
        at(json!({"do": "get", "name": "one-${run}"})),
        at(json!({"do": "list"})),
        at(json!({"do": "watch", "ms": 200})),
        at(json!({"do": "patch", "name": "one-${run}", "kind": "merge", "body": {"data": {"a": "b"}}})),
        {"do": "get", "api": "v1", "resource": "configmaps", "ns": "kube-system",
         "name": "extension-apiserver-authentication"},
        {"do": "raw", "path": "/version"},
        at(json!({"do": "delete", "name": "one-${run}"})),
        {"do": "get", "api": "v1", "resource": "namespaces", "name": "kube-system"},
        {"do": "observe", "name": "kind", "value": "Namespace"},
        {"do": "conclude", "outcome": "pass"},
    ]);
    Guest::scripted("busy", &script)
        .namespace("main")
        .permit(
            "",
            &["configmaps"],
            &["create", "get", "list", "watch", "patch", "delete"],
            "sandbox",
        )
        .permit("", &["configmaps"], &["get"], "kube-system")
        .permit_paths(&["/version"])
        .cases(&case("alive", "get namespaces"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_shows_the_narrow_account_at_work_and_nothing_is_left_of_it() -> Result<()> {
    let lab = ControlPlane::builder().audit().start().await?;
    let before = state::of(&lab.client().await?).await?;
    let engine = Engine::new(&EngineOptions::default())?;
    let probe = component::load(&engine, busy().component()?)?;
    let folder = tempfile::tempdir()?;
    let record = run(RunRequest {
        engine,
        grants: Grants::all_asked(probe.manifest()),
        probes: vec![probe],
        left_out: Vec::new(),
        engine_cluster: connect(&lab.kubeconfig()).await?,
        probe_cluster: connect(&lab.kubeconfig()).await?,
        reach: Reach::Sandbox,
        settings: BTreeMap::new(),
        images: Images::default(),
        nodes: NodeChoice::default(),
        parallel: 1,
        out: folder.path().join("run"),
        mode: Mode::New,
        enforce: BTreeSet::from(["busy".to_owned()]),
        lock: Lock::Lease(Default::default()),
        redaction: std::sync::Arc::default(),
        nonce: None,
        witness: false,
        events: Events::silent(),
        stop: StopSignal::never(),
        stop_now: StopSignal::never(),
    })
    .await?;
    let attempt = &record.probes[0].attempts[0];
    ensure!(
        attempt.judgement.verdict == Some(Verdict::Pass),
        "{attempt:#?}"
    );
    ensure!(attempt.left_behind.is_empty(), "{attempt:#?}");

    let account = format!(
        "system:serviceaccount:karat-{0}-home:karat-busy-{0}",
        record.run
    );
    let calls = format!("karat-{}-busy-", record.run);
    let mut verbs = BTreeSet::new();
    let mut engine_calls = 0;
    for event in lab.audit_events()? {
        let agent = event["userAgent"].as_str().unwrap_or_default();
        let verb = event["verb"].as_str().unwrap_or_default();
        let acting = event["impersonatedUser"]["username"].as_str();
        let uri = event["requestURI"].as_str().unwrap_or_default();
        if event["auditID"]
            .as_str()
            .is_some_and(|id| id.starts_with(&calls))
        {
            ensure!(
                acting == Some(&account),
                "{verb} {uri} was made by {acting:?}"
            );
            let code = event["responseStatus"]["code"].as_u64().unwrap_or_default();
            ensure!(code < 300, "{verb} {uri} was answered {code}");
            verbs.insert(verb.to_owned());
        } else if agent.starts_with("karat/") && !uri.contains("selfsubjectaccessreviews") {
            ensure!(
                acting.is_none(),
                "the engine's {verb} {uri} was made by {acting:?}"
            );
            engine_calls += 1;
        }
    }
    let all = ["create", "delete", "get", "list", "patch", "watch"];
    ensure!(verbs.iter().eq(all.iter()), "{verbs:?}");
    ensure!(engine_calls > 10, "{engine_calls}");

    let after = state::of(&lab.client().await?).await?;
    let differences = state::differences(&before, &after);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

const NARROW: &str = r#"
id = "narrow"
version = "0.1.0"
title = "Asks for little"
claim = "the server refuses what the door should have"
misleads = "it is a test"
contract = "0.1.0-dev.1"
requirements = ["test.example/narrow"]
reach = "sandbox"
capabilities = ["kube-read", "kube-write"]
permissions = [
  { api-groups = [""], resources = ["configmaps"], verbs = ["get"], scope = "sandbox", why = "test" },
]
namespaces = [{ alias = "main" }]
cases = [
  { id = "one", kind = "observation", required = "always", claim = "it is refused", effect = ["configmaps"], expected = "403" },
]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_door_that_was_patched_open_is_refused_by_the_server() -> Result<()> {
    const RUN: &str = "acctabcd";
    let lab = karat_testbed::shared().await?;
    let admin = connect(&lab.kubeconfig()).await?;
    let folder = tempfile::tempdir()?;
    let manifest = Arc::new(Manifest::parse(NARROW, "probe.toml")?);
    let mut scratch = Scratch::new(RUN, Arc::clone(&manifest));
    let namespace = sandbox_namespace(RUN, "narrow", "main");
    scratch
        .namespaces
        .insert("main".to_owned(), namespace.clone());
    let mut parts = scratch
        .door(folder.path(), admin.clone())
        .map_err(anyhow::Error::msg)?;
    let options = SandboxOptions {
        expires: "2030-01-01T00:00:00Z".to_owned(),
        unproved: Unproved::Refuse,
        pull_secrets: PullSecrets::default(),
    };
    let sandbox = Sandbox::open(admin.clone(), parts.journal.clone(), options).await?;
    let made = sandbox.open_probe(&manifest, Consents::default()).await?;
    let probe_cluster = connect(&lab.kubeconfig()).await?;
    parts.cluster = sandbox
        .open_account(
            &parts.effective,
            &made.namespaces,
            Reach::Sandbox,
            &probe_cluster,
        )
        .await?;
    // What a hostile guest could only dream of: the check of permissions is gone.
    parts.effective = Arc::new(Effective::everything("narrow"));
    let door = Door::live(parts);

    let of = |resource: &str, at: &str| Query {
        namespace: (!at.is_empty()).then(|| at.to_owned()),
        ..Query::new("v1", resource)
    };
    // The one line that it has.
    let read = get(&door, &of("configmaps", &namespace), "kube-root-ca.crt").await;
    ensure!(read.is_ok(), "{read:?}");
    // What it has not, in its own namespace, in another one, in the cluster, and beside the resources.
    let list = async |resource: &str, at: &str| -> Result<(), Failure> {
        let mut cursor = open_list(&door, &of(resource, at))?;
        cursor.next(&door).await.map(drop)
    };
    let refused = [
        list("configmaps", &namespace).await,
        list("pods", &namespace).await,
        list("pods", "kube-system").await,
        get(&door, &of("nodes", ""), "any").await.map(drop),
        create(
            &door,
            &Target {
                namespace: Some(namespace.clone()),
                ..Target::new("v1", "configmaps")
            },
            &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("x-{RUN}")}}).to_string(),
        )
        .await
        .map(drop),
    ];
    for (at, result) in refused.iter().enumerate() {
        match result {
            Err(Failure::Answered { code: 403, .. }) => {}
            other => anyhow::bail!("call {at}: {other:?}"),
        }
    }
    // Of paths any status is an answer.
    ensure!(
        raw(&door, "/metrics")
            .await
            .is_ok_and(|answer| answer.code == 403)
    );
    let closing = Options {
        patience: Duration::from_secs(60),
        progress: &|_, _| {},
    };
    let closed = sandbox.close_probe("narrow", closing).await;
    ensure!(closed.left.is_empty(), "{closed:?}");
    let closed = sandbox.close(closing).await;
    ensure!(closed.left.is_empty(), "{closed:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_that_impersonates_already_is_refused() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let text = std::fs::read_to_string(lab.kubeconfig())?;
    let mut config: Value = serde_yaml_ng::from_str(&text)?;
    config["users"][0]["user"]["as"] = json!("system:admin");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, config.to_string())?;
    let cluster = connect(&path).await?;
    let error = cluster
        .acting_as("system:serviceaccount:default:x")
        .err()
        .context("two users in one request")?;
    ensure!(error.user == "system:admin", "{error}");
    Ok(())
}

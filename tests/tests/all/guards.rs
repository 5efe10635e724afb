//! The guards in front of a real API server, with an administrator's credential behind the door and everything granted.
//!
//! Every row of [`guard::rows`] is attacked through a component. The recording says which row refused the call, the API
//! server's audit log that nothing of it arrived, and the state of the cluster that nothing changed. Rows that let pass
//! what is in order also have a neighbour that the server really takes; what the door made of it is read in the answers
//! that the API server wrote into its audit log. A new row without a call here fails the test.

#[rustfmt::skip]
mod script;

use anyhow::{Context, Result, ensure};
use karat_engine::grant::{Effective, Grants};
use karat_engine::guard::{self, GuardContext, PatchKind, RowKind};
use karat_engine::journal::Ledger;
use karat_engine::manifest::Manifest;
use karat_engine::model::Reach;
use karat_engine::names;
use karat_engine::recording::Recording;
use karat_engine::recording::format::{Entry, Failure, ReplyKind, ResourceAccess};
use karat_testbed::ControlPlane;
use karat_tests::guests::Guest;
use karat_tests::runs::Run;
use karat_tests::{runs, state};
use script::Expect;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Probe of the large run.
const PROBE: &str = "rows";

/// Rows that no call of the contract can hit, and why. They are proved by asking the table itself.
const UNREACHABLE: &[(&str, &str)] = &[
    (
        "verbs",
        "the contract has one function for each verb of the resource API and none for others",
    ),
    (
        "pull-secrets",
        "the name that it looks for is drawn in each run, and no answer holds it",
    ),
];

/// What the operator granted beyond the plan, so that the harmless neighbours of these rows can be taken.
const EXCEPTIONS: &str = r#"
[[exception]]
probe = "rows"
kinds = ["runtimeclasses.node.k8s.io"]
annotations = ["prometheus.io/scrape"]
ingress-classes = ["granted"]
load-balancers = true
"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_row_holds_against_a_real_server() -> Result<()> {
    let lab = ControlPlane::builder()
        .audit_policy(runs::AUDIT_IN_FULL)
        .start()
        .await?;
    furnish(&lab).await?;
    let client = lab.client().await?;
    let stranger = uid(&client, "default", "bystander").await?;
    let steps = script::steps(&stranger);

    let before = state::of(&client).await?;
    let calls: Vec<&Value> = steps.iter().map(|step| &step.call).collect();
    let guest = guest(PROBE, &json!(calls), "cluster-objects");
    let grants = Grants::parse(EXCEPTIONS, "grants.toml")?;
    let run = runs::run_granting(
        &lab.kubeconfig(),
        vec![guest.component()?],
        Reach::ClusterObjects,
        grants,
    )
    .await?;
    // The same probe in a run that may not go as far.
    let low = guest_of_low_reach();
    let low_run = runs::guests(&lab.kubeconfig(), &[low], Reach::Sandbox).await?;
    let lines = state::differences(&before, &state::of(&client).await?);
    ensure!(lines.is_empty(), "{}", lines.join("\n"));

    let recording = run.recording(PROBE)?;
    let entries = calls_of(&recording);
    assert_eq!(
        entries.len(),
        steps.len(),
        "each step is one call: {}",
        run.attempt(PROBE).judgement.explanation
    );
    let low_recording = low_run.recording("low")?;
    let low_entries = calls_of(&low_recording);
    let server = Server::of(&lab, &run, entries.last().context("calls")?).await?;

    let mut wrong = Vec::new();
    let mut attacked = BTreeSet::new();
    let mut passed = BTreeSet::new();
    for (step, entry) in steps.iter().zip(&entries) {
        let told = match &step.expect {
            Expect::Stopped(row) => {
                attacked.insert(*row);
                stopped(
                    &recording,
                    entry,
                    &format!("guard `{row}`"),
                    &server,
                    &run,
                    PROBE,
                )
            }
            Expect::Taken(row, holds) => {
                passed.insert(*row);
                taken(&recording, entry, &server, &run, *holds)
            }
            Expect::Early(word) => stopped(&recording, entry, word, &server, &run, PROBE),
            Expect::Setup => taken(&recording, entry, &server, &run, |_| true),
        };
        if let Err(error) = told {
            wrong.push(format!("{:?} {}\n    {error:#}", step.expect, step.call));
        }
    }
    let low_server = Server::of(&lab, &low_run, low_entries.last().context("calls")?).await?;
    for entry in &low_entries {
        if entry.function.starts_with("kube-write") {
            attacked.insert("reach");
            if let Err(error) = stopped(
                &low_recording,
                entry,
                "guard `reach`",
                &low_server,
                &low_run,
                "low",
            ) {
                wrong.push(format!("reach: {error:#}"));
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} calls:\n{}",
        wrong.len(),
        wrong.join("\n")
    );

    let unreachable: BTreeSet<&str> = UNREACHABLE.iter().map(|(row, _)| *row).collect();
    let rows: BTreeSet<&str> = guard::rows().iter().map(|row| row.id).collect();
    let covered: BTreeSet<&str> = attacked.union(&unreachable).copied().collect();
    // A collection is not refused but narrowed: what others have in it is what the neighbour's call leaves alone.
    let covered: BTreeSet<&str> = covered.into_iter().chain(["collection"]).collect();
    assert_eq!(
        rows, covered,
        "every row is attacked, and every attack has its row"
    );
    for row in guard::rows()
        .iter()
        .filter(|row| row.kind == RowKind::Checked)
    {
        assert!(
            passed.contains(row.id),
            "{} has no harmless neighbour",
            row.id
        );
    }
    narrowed(&server)
}

/// The call was refused for this reason, and the server saw nothing of it.
fn stopped(
    recording: &Recording,
    entry: &Entry,
    word: &str,
    server: &Server,
    run: &Run,
    probe: &str,
) -> Result<()> {
    let reply = recording.reply(entry)?;
    let Err(Failure::Refused(text)) = &reply else {
        anyhow::bail!("was not refused: {reply:?}");
    };
    ensure!(text.contains(word), "refused for another reason: {text}");
    ensure!(
        entry.result == ReplyKind::Refused && !entry.facts.live,
        "{:?} {:?}",
        entry.result,
        entry.facts
    );
    let id = format!("karat-{}-{probe}-{}", run.record.run, entry.sequence);
    let arrived = server.of_call(&id);
    ensure!(arrived.is_empty(), "the server saw {arrived:?}");
    Ok(())
}

/// The server took the call, and what it answered holds.
fn taken(
    recording: &Recording,
    entry: &Entry,
    server: &Server,
    run: &Run,
    holds: fn(&Value) -> bool,
) -> Result<()> {
    let reply = recording.reply(entry)?;
    ensure!(reply.is_ok() && entry.facts.live, "{reply:?}");
    let id = format!("karat-{}-{PROBE}-{}", run.record.run, entry.sequence);
    let events = server.of_call(&id);
    let answer = events
        .iter()
        .rev()
        .find(|event| {
            event["responseStatus"]["code"]
                .as_u64()
                .is_some_and(|code| code < 300)
        })
        .with_context(|| format!("the audit log has no success of {id}"))?;
    let object = &answer["responseObject"];
    ensure!(holds(object), "the server has {object}");
    if answer["verb"] == "create" {
        let labels = &object["metadata"]["labels"];
        let annotations = &object["metadata"]["annotations"];
        ensure!(
            labels[names::LABEL_RUN] == run.record.run.as_str()
                && labels[names::LABEL_PROBE] == PROBE
                && labels[names::LABEL_MANAGED_BY] == names::MANAGED_BY
                && annotations[names::ANNOTATION_SEAL].is_string()
                && annotations[names::ANNOTATION_EXPIRES].is_string(),
            "the door's marks are missing: {object}"
        );
    }
    Ok(())
}

/// The deletion of a collection said itself what belongs to the run, whatever the probe's selector said.
fn narrowed(server: &Server) -> Result<()> {
    let deletions: Vec<&str> = server
        .events
        .iter()
        .filter(|event| event["verb"] == "deletecollection")
        .filter(|event| event["objectRef"]["resource"] == "priorityclasses")
        .filter_map(|event| event["requestURI"].as_str())
        .collect();
    ensure!(!deletions.is_empty(), "no collection was deleted");
    for uri in deletions {
        ensure!(
            uri.contains("karat.internal%2Frun") && uri.contains("karat.internal%2Fprobe"),
            "{uri}"
        );
    }
    Ok(())
}

/// What the API server says of a run.
struct Server {
    events: Vec<Value>,
}

impl Server {
    /// The audit log of this run once it holds the run's last call, so that what is missing then was never there.
    async fn of(lab: &ControlPlane, run: &Run, last: &Entry) -> Result<Server> {
        let prefix = format!("karat-{}-", run.record.run);
        let attempt = run.record.probes.first().context("a probe")?;
        let last = format!("{prefix}{}-{}", attempt.probe, last.sequence);
        let read = || -> Result<Vec<Value>, String> {
            let mut events = lab.audit_events().map_err(|error| error.to_string())?;
            events.retain(|event| id_of(event).starts_with(&prefix));
            let is_there = events.iter().any(|event| is_of_call(id_of(event), &last));
            if is_there {
                Ok(events)
            } else {
                Err(format!("no {last}"))
            }
        };
        lab.wait_until("the audit log to name the last call", || async {
            read().map(|_| ())
        })
        .await?;
        Ok(Server {
            events: read().map_err(anyhow::Error::msg)?,
        })
    }

    fn of_call(&self, id: &str) -> Vec<&Value> {
        let of_call = |event: &&Value| is_of_call(id_of(event), id);
        self.events.iter().filter(of_call).collect()
    }
}

fn id_of(event: &Value) -> &str {
    event["auditID"].as_str().unwrap_or_default()
}

/// Whether an audit id is `CALL-ATTEMPT`, or `CALL.PART-ATTEMPT` for a further request of the same call.
fn is_of_call(id: &str, call: &str) -> bool {
    id.strip_prefix(call)
        .is_some_and(|rest| rest.starts_with(['-', '.']))
}

/// The calls to the cluster, one for each step.
fn calls_of(recording: &Recording) -> Vec<&Entry> {
    let entries = recording.entries().iter();
    entries
        .filter(|entry| {
            matches!(
                entry.function.as_str(),
                "pods.log-query.open" | "pods.command.start" | "http.request.send"
            ) || entry.function.starts_with("kube-") && !entry.function.contains(".cursor.")
        })
        .collect()
}

/// A puppet that asks for everything that the steps touch, so that the guards and not the permissions refuse.
fn guest(id: &str, script: &Value, reach: &'static str) -> Guest {
    let mut guest = Guest::scripted(id, script)
        .reach(reach)
        .budget("calls = 2000\nwall = \"5m\"")
        .lines("\n[[namespaces]]\nalias = \"main\"\npod-security = \"baseline\"\npods = 5\n")
        .lines(&format!(
            "\n[[images]]\nname = \"tool\"\nreference = {:?}\n",
            script::IMAGE
        ));
    for (group, resources) in script::ASKED {
        guest = guest.permit(group, resources, karat_engine::manifest::VERBS, "cluster");
    }
    guest
}

/// Writes for which the probe has permission and the run not enough reach.
fn guest_of_low_reach() -> Guest {
    let class = |name: &str| json!({"metadata": {"name": name}, "value": -5});
    let script = json!([
        {"do": "create", "api": "scheduling.k8s.io/v1", "resource": "priorityclasses", "body": class("low-${run}")},
        {"do": "delete", "api": "scheduling.k8s.io/v1", "resource": "priorityclasses", "name": "bystander"},
        {"do": "get", "api": "v1", "resource": "namespaces", "name": "default"},
    ]);
    guest("low", &script, "cluster-objects")
}

/// What stands in the cluster before the run: things of others, and the kinds of some well-known add-ons.
async fn furnish(lab: &ControlPlane) -> Result<()> {
    let definitions: Vec<String> = script::ADD_ONS.iter().map(definition).collect();
    lab.apply_yaml("definitions", &definitions.join("\n---\n"))
        .await?;
    let things = [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bystander", "namespace": "default", "labels": {"app": "x"}}, "data": {"a": "b"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bystander", "namespace": "default"}, "stringData": {"a": "b"}}),
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "bystander", "labels": {"app": "x"}}, "value": -1}),
    ];
    let things = things.map(|thing| thing.to_string()).join("\n---\n");
    lab.apply_yaml("things of others", &things).await?;
    let client = lab.client().await?;
    lab.wait_until(
        "the add-ons to be served, and namespaces to be furnished",
        || async {
            for (group, plural, _, _) in script::ADD_ONS {
                let request = kube::core::Request::new(format!("/apis/{group}/v1/{plural}"));
                let request = request.list(&kube::api::ListParams::default());
                let request = request.map_err(|error| error.to_string())?;
                client
                    .request::<Value>(request)
                    .await
                    .map_err(|error| error.to_string())?;
            }
            for space in ["default", "kube-system", "kube-public", "kube-node-lease"] {
                uid(&client, space, "kube-root-ca.crt")
                    .await
                    .map_err(|error| error.to_string())?;
            }
            Ok(())
        },
    )
    .await?;
    Ok(())
}

fn definition((group, plural, kind, scope): &(&str, &str, &str, &str)) -> String {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    })
    .to_string()
}

async fn uid(client: &kube::Client, namespace: &str, name: &str) -> Result<String> {
    let api = kube::Api::<kube::api::DynamicObject>::namespaced_with(
        client.clone(),
        namespace,
        &kube::api::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
            "",
            "v1",
            "ConfigMap",
        )),
    );
    api.get(name).await?.metadata.uid.context("a uid")
}

/// Rows that no call can reach: the table itself is asked, with everything granted.
#[test]
fn rows_out_of_reach_refuse_as_well() -> Result<()> {
    let manifest = Manifest::parse(
        &guest(PROBE, &json!([]), "cluster-objects").manifest(),
        "probe.toml",
    )?;
    let mut grants = Grants::all_asked(&manifest);
    // Without it, entering objects of others is refused before collections are looked at.
    let text = "[[exception]]\nprobe = \"rows\"\nforeign-objects = [\"deployments.apps/scale\"]\n";
    grants.extend(Grants::parse(text, "grants.toml")?);
    let context = GuardContext {
        run: "abcdefgh".into(),
        probe: PROBE.into(),
        namespaces: vec!["karat-abcdefgh-rows-main".into()],
        reach: Reach::Disruptive,
        effective: Arc::new(Effective::new(
            &manifest,
            &grants,
            ["karat-abcdefgh-rows-main"],
        )),
        images: BTreeSet::new(),
        ledger: Ledger::default(),
        priority_classes: BTreeMap::new(),
        pull_secrets: vec!["karat-pull-0f0f".into()],
    };
    let shots = [
        ("verbs", "impersonate", "", "users", "", ""),
        (
            "verbs",
            "escalate",
            "rbac.authorization.k8s.io",
            "roles",
            "",
            "",
        ),
        (
            "verbs",
            "bind",
            "rbac.authorization.k8s.io",
            "clusterroles",
            "",
            "",
        ),
        ("verbs", "approve", "certificates.k8s.io", "signers", "", ""),
        ("verbs", "sign", "certificates.k8s.io", "signers", "", ""),
        (
            "collection",
            "deletecollection",
            "apps",
            "deployments",
            "scale",
            "karat-abcdefgh-rows-main",
        ),
    ];
    for (row, verb, group, resource, subresource, namespace) in shots {
        let access = ResourceAccess {
            verb: verb.into(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            ..ResourceAccess::default()
        };
        let refusal = guard::check(&mut guard::Request::of(&access), &context).err();
        let rule = refusal.as_ref().map(|refusal| refusal.rule);
        assert_eq!(rule, Some(row), "{verb} {resource}: {refusal:?}");
    }
    let access = ResourceAccess {
        verb: "create".into(),
        version: "v1".into(),
        resource: "pods".into(),
        namespace: "karat-abcdefgh-rows-main".into(),
        name: "own-abcdefgh".into(),
        ..ResourceAccess::default()
    };
    let mut pod = json!({"metadata": {"name": "own-abcdefgh"},
        "spec": {"volumes": [{"name": "v", "secret": {"secretName": "karat-pull-0f0f"}}]}});
    let mut request = guard::Request {
        body: Some(&mut pod),
        ..guard::Request::of(&access)
    };
    let refusal = guard::check(&mut request, &context).err();
    let rule = refusal.as_ref().map(|refusal| refusal.rule);
    assert_eq!(rule, Some("pull-secrets"), "{refusal:?}");
    assert_eq!(
        PatchKind::parse("strategic"),
        None,
        "a patch that no row can read"
    );
    Ok(())
}

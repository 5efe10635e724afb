//! Logs and commands through the whole engine: component, door, recording, judgement, replay.
//!
//! A control plane alone has no kubelet, so a proxy before it makes up what one would say, in the real protocols. The last
//! test asks a real node; where there is none, it says by its name that it was not run.

use crate::end_to_end::request;
use anyhow::{Context, Result, ensure};
use karat_engine::cluster::{Cluster, ConnectOptions};
use karat_engine::component;
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::grant::Grants;
use karat_engine::images::{Images, Placement};
use karat_engine::lease::NodeChoice;
use karat_engine::model::{Reach, Verdict};
use karat_engine::recording::Recording;
use karat_engine::recording::format::{Entry, Failure, ReplyKind, Seen};
use karat_engine::replay::{Depth, replay};
use karat_engine::run::{self, RunRequest};
use karat_testbed::proxy::{Proxy, Rule, Said};
use karat_testbed::{ControlPlane, can_run_nodes, images, not_run};
use karat_tests::guests::{Guest, case};
use karat_tests::runs;
use karat_tests::runs::Run;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const NS: &str = "${ns:main}";

fn logs(name: &str) -> Value {
    json!({"do": "logs", "ns": NS, "name": name, "follow": true})
}

fn exec(name: &str, argv: &[&str]) -> Value {
    json!({"do": "exec", "ns": NS, "name": name, "argv": argv, "ms": 60_000})
}

fn asking(id: &str, steps: &Value) -> Guest {
    Guest::scripted(id, steps)
        .namespace("main")
        .permit("", &["pods/log"], &["get"], "sandbox")
        .permit("", &["pods/exec"], &["get", "create"], "sandbox")
}

fn of(name: &str, what: &str) -> Rule {
    Rule::on("GET", &format!("/pods/{name}/{what}$"))
}

async fn before(rules: Vec<Rule>) -> Result<Proxy> {
    let lab = karat_testbed::shared().await?;
    let proxy = rules
        .into_iter()
        .fold(lab.proxy(), |proxy, rule| proxy.rule(rule));
    Ok(proxy.start().await?)
}

/// The calls of interface `pods` that are about a pod.
fn calls<'a>(recording: &'a Recording, pod: &str) -> Vec<&'a Entry> {
    let about = |entry: &&Entry| {
        entry.function.starts_with("pods.") && {
            let access = serde_json::to_value(&entry.access).unwrap_or_default();
            access["resource"]["name"] == pod
        }
    };
    recording.entries().iter().filter(about).collect()
}

/// All text that the guest was given of a pod.
fn text(recording: &Recording, pod: &str) -> Result<String> {
    let mut all = String::new();
    for entry in calls(recording, pod) {
        if let Ok(Seen::Text(text)) = recording.reply(entry)? {
            all.push_str(&text);
        }
    }
    Ok(all)
}

async fn replays(run: &Run) -> Result<()> {
    let engine = Engine::new(&EngineOptions::default())?;
    let again = replay(&engine, &run.folder(), None).await?;
    let findings: Vec<String> = again.findings().map(ToString::to_string).collect();
    ensure!(findings.is_empty(), "{findings:?}");
    ensure!(
        again
            .attempts
            .iter()
            .all(|attempt| attempt.depth == Depth::Full),
        "not replayed in full"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_containers_tell_is_recorded_judged_and_replayed() -> Result<()> {
    let secret = "ghp_0123456789abcdefABCDEF0123456789abcd";
    let slow = Duration::from_millis(50);
    let proxy = before(vec![
        of("allowed", "log").log(
            Said::new()
                .output("paths=1\nopen=fi")
                .pause(slow)
                .output("ne-7\ntoken ghp_0123456789abcdef")
                .pause(slow)
                .output("ABCDEF0123456789abcd\ndone=1\n"),
        ),
        of("denied", "exec").exec(
            Said::new()
                .output("errno=EPERM-9\n")
                .errors("no\n")
                .exits(1),
        ),
    ])
    .await?;
    let steps = json!([
        {"do": "open", "id": "authorised"},
        logs("allowed"),
        {"do": "observe", "name": "open", "value": "fine-7"},
        {"do": "conclude", "outcome": "pass"},
        {"do": "open", "id": "unauthorised"},
        exec("denied", &["/bin/tool", "open", "/dev/x y"]),
        {"do": "observe", "name": "errno", "value": "EPERM-9"},
        {"do": "conclude", "outcome": "pass"},
    ]);
    let negative = "  { id = \"unauthorised\", kind = \"negative\", required = \"always\", effect = [\"create pods/exec\"], \
                    controls = [{ case = \"authorised\" }], claim = \"c\", expected = \"e\" },\n";
    let cases = case("authorised", "get pods/log") + negative;
    let guest = asking("tells", &steps).cases(&cases);
    let run = runs::guests(proxy.kubeconfig(), &[guest], Reach::Sandbox).await?;
    let judgement = &run.attempt("tells").judgement;
    ensure!(judgement.verdict == Some(Verdict::Pass), "{judgement:#?}");
    let recording = run.recording("tells")?;
    let told = text(&recording, "allowed")?;
    ensure!(
        told.contains("open=fine-7\n") && told.ends_with("done=1\n"),
        "{told}"
    );
    ensure!(
        !told.contains(secret) && !told.contains("ABCDEF0123") && told.contains("token redacted-"),
        "{told}"
    );
    let exits: Vec<Option<i32>> = calls(&recording, "denied")
        .iter()
        .map(|entry| entry.facts.exit)
        .collect();
    ensure!(exits.last() == Some(&Some(1)), "{exits:?}");
    let seen = proxy.seen();
    let sent = seen
        .iter()
        .find(|seen| seen.uri.contains("/exec"))
        .context("no command arrived")?;
    ensure!(
        sent.uri.ends_with(
            "?stdout=true&stderr=true&command=%2Fbin%2Ftool&command=open&command=%2Fdev%2Fx%20y"
        ),
        "{}",
        sent.uri
    );
    replays(&run).await
}

/// What goes wrong, the pod that it happens to, and how the last call about that pod must end.
#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_the_right_error_and_never_an_answer() -> Result<()> {
    use ReplyKind::{Answered, NoAnswer, Ok as Fine, Other};
    let half = || Said::new().output("whole\nhalf-of-it");
    let page = |rule: Rule| rule.answer_text(200, "text/html", "<html>log in</html>");
    let rows: Vec<(&str, &str, Rule, ReplyKind)> = vec![
        ("l-fine", "log", of("l-fine", "log").log(half()), Fine),
        (
            "l-cut",
            "log",
            of("l-cut", "log").log(half().breaks()),
            NoAnswer,
        ),
        (
            "l-500",
            "log",
            of("l-500", "log").fail(500, "InternalError", "runtime"),
            Answered,
        ),
        (
            "l-502",
            "log",
            of("l-502", "log").fail(502, "", "dial tcp: connection refused"),
            Answered,
        ),
        (
            "l-404",
            "log",
            of("l-404", "log").fail(404, "NotFound", "pods \"l-404\" not found"),
            Answered,
        ),
        ("l-gone", "log", of("l-gone", "log").disconnect(), NoAnswer),
        ("l-page", "log", page(of("l-page", "log")), NoAnswer),
        (
            "x-fine",
            "exec",
            of("x-fine", "exec").exec(half().exits(0)),
            Fine,
        ),
        (
            "x-mute",
            "exec",
            of("x-mute", "exec").exec(half()),
            NoAnswer,
        ),
        (
            "x-cut",
            "exec",
            of("x-cut", "exec").exec(half().breaks()),
            NoAnswer,
        ),
        (
            "x-none",
            "exec",
            of("x-none", "exec").exec(Said::new().not_started("exec: not found")),
            Answered,
        ),
        (
            "x-late",
            "exec",
            of("x-late", "exec").exec(half().hangs()),
            Other,
        ),
        (
            "x-500",
            "exec",
            of("x-500", "exec").fail(500, "InternalError", "kubelet"),
            Answered,
        ),
        (
            "x-404",
            "exec",
            of("x-404", "exec").fail(404, "NotFound", "pods \"x-404\" not found"),
            Answered,
        ),
        (
            "x-gone",
            "exec",
            of("x-gone", "exec").disconnect(),
            NoAnswer,
        ),
        (
            "x-plain",
            "exec",
            of("x-plain", "exec").answer(200, json!({})),
            NoAnswer,
        ),
        ("x-page", "exec", page(of("x-page", "exec")), NoAnswer),
    ];
    let steps: Vec<Value> = rows
        .iter()
        .map(|(name, what, ..)| match *what {
            "log" => logs(name),
            _ => json!({"do": "exec", "ns": NS, "name": name, "argv": ["true"], "ms": if *name == "x-late" { 500 } else { 60_000 }}),
        })
        .collect();
    let (rules, wanted): (Vec<Rule>, Vec<(&str, ReplyKind)>) = rows
        .into_iter()
        .map(|(name, _, rule, wanted)| (rule, (name, wanted)))
        .unzip();
    let proxy = before(rules).await?;
    let guest = asking("faulty", &json!(steps)).cases(&case("unused", "get pods/log"));
    let run = runs::guests(proxy.kubeconfig(), &[guest], Reach::Sandbox).await?;
    ensure!(
        !proxy.hits().contains(&0),
        "a fault never happened: {:?}",
        proxy.hits()
    );
    let recording = run.recording("faulty")?;
    let mut wrong = Vec::new();
    for (name, wanted) in wanted {
        let last = calls(&recording, name).last().copied().context(name)?;
        let told = text(&recording, name)?;
        // Half a line is only whole where the stream ended in good order.
        let is_whole = told.contains("half-of-it") == name.ends_with("fine");
        if last.result != wanted || !is_whole {
            wrong.push(format!(
                "{name}: {:?} after {told:?}: {:?}",
                last.result,
                recording.reply(last)?
            ));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let verdict = run.attempt("faulty").judgement.verdict;
    ensure!(verdict == Some(Verdict::Unknown), "{verdict:?}");
    replays(&run).await
}

/// A log that cannot be had is no refusal of what the container was to try, and half of one proves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_negative_case_does_not_pass_by_a_log_that_cannot_be_had() -> Result<()> {
    let proxy = before(vec![
        of("works", "log").log(Said::new().output("opens-3\n")),
        of("gone", "log").fail(404, "NotFound", "pods \"gone\" not found"),
        of("starts", "log").fail(
            400,
            "BadRequest",
            "container \"tool\" in pod \"starts\" is waiting to start",
        ),
        of("empty", "log").log(Said::new()),
    ])
    .await?;
    let negative = "  { id = \"no\", kind = \"negative\", required = \"always\", effect = [\"get pods/log\"], \
                    controls = [{ case = \"yes\" }], claim = \"c\", expected = \"e\" },\n";
    let cases = case("yes", "get pods/log") + negative;
    let guests: Vec<Guest> = ["gone", "starts", "empty"]
        .into_iter()
        .map(|name| {
            let steps = json!([
                {"do": "open", "id": "yes"},
                logs("works"),
                {"do": "observe", "name": "open", "value": "opens-3"},
                {"do": "conclude", "outcome": "pass"},
                {"do": "open", "id": "no"},
                logs(name),
                {"do": "observe", "name": "answer", "value": "NotFound"},
                {"do": "conclude", "outcome": "pass"},
            ]);
            asking(&format!("log-{name}"), &steps).cases(&cases)
        })
        .collect();
    let run = runs::guests(proxy.kubeconfig(), &guests, Reach::Sandbox).await?;
    for name in ["gone", "starts", "empty"] {
        let judgement = &run.attempt(&format!("log-{name}")).judgement;
        ensure!(
            judgement.verdict == Some(Verdict::Unknown),
            "{name}: {judgement:#?}"
        );
    }
    Ok(())
}

/// Reaching into pods of others, without a line, without an exception, and with everything that a path could be made of.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_guest_reaches_into_no_pod_of_others() -> Result<()> {
    let proxy = before(Vec::new()).await?;
    let within = json!([
        {"do": "logs", "ns": "kube-system", "name": "etcd"},
        {"do": "exec", "ns": "kube-system", "name": "etcd", "argv": ["sh"], "ms": 1000},
        {"do": "logs", "ns": NS, "name": "../../kube-system/pods/etcd"},
        {"do": "logs", "ns": "", "name": "etcd"},
        {"do": "logs", "ns": "x?y", "name": "etcd"},
        {"do": "exec", "ns": NS, "name": "a/exec?command=sh&", "argv": ["true"], "ms": 1000},
        {"do": "exec", "ns": NS, "name": "a", "argv": [], "ms": 1000},
        {"do": "exec", "ns": NS, "name": "a", "argv": ["x".repeat(5_000)], "ms": 1000},
        {"do": "exec", "ns": NS, "name": "a", "argv": ["true"], "ms": 0},
        {"do": "logs", "ns": NS, "name": "a", "max": 0},
        {"do": "get", "api": "v1", "resource": "pods/attach", "ns": NS, "name": "a"},
        {"do": "get", "api": "v1", "resource": "pods/portforward", "ns": NS, "name": "a"},
    ]);
    let everything = json!([
        {"do": "exec", "ns": "kube-system", "name": "etcd", "argv": ["sh"], "ms": 1000},
        {"do": "exec", "ns": "default", "name": "any", "argv": ["sh"], "ms": 1000},
    ]);
    let guests = [
        asking("within", &within).permit("", &["pods"], &["get"], "sandbox"),
        Guest::scripted("everything", &everything)
            .namespace("main")
            .permit("", &["pods/exec"], &["get", "create"], "cluster")
            .reach("cluster-objects"),
    ];
    let components = guests
        .iter()
        .map(Guest::component)
        .collect::<Result<Vec<_>>>()?;
    let run = runs::run_granting(
        proxy.kubeconfig(),
        components,
        Reach::ClusterObjects,
        Grants::none(),
    )
    .await?;
    for probe in ["within", "everything"] {
        let recording = run.recording(probe)?;
        let refused = recording.entries().iter().filter(|entry| {
            matches!(entry.result, ReplyKind::Refused | ReplyKind::Malformed)
                && !entry.facts.live
                && (entry.function.starts_with("pods.") || entry.function.starts_with("kube-"))
        });
        // One log may be opened, and is not there; reading it in pieces of nothing is refused, if it comes to that.
        let least = if probe == "within" { 11 } else { 2 };
        ensure!(
            refused.clone().count() >= least,
            "{probe}: {:#?}",
            refused.collect::<Vec<_>>()
        );
        for entry in recording.entries() {
            if let Err(Failure::Refused(text)) = recording.reply(entry)? {
                ensure!(
                    ["probe.toml", "guard", "no object"]
                        .iter()
                        .any(|word| text.contains(word)),
                    "{text}"
                );
            }
        }
    }
    let reached: Vec<String> = proxy
        .seen()
        .into_iter()
        .filter(|seen| {
            let inside = seen.uri.contains("/exec")
                || seen.uri.contains("/attach")
                || seen.uri.contains("/log");
            inside && !seen.uri.contains("/pods/a/log")
        })
        .map(|seen| seen.uri)
        .collect();
    ensure!(reached.is_empty(), "{reached:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_logs_is_cut_at_its_limit() -> Result<()> {
    let proxy = before(vec![
        of("any", "log").log(Said::new().output("x\n").hangs()),
    ])
    .await?;
    let guest = Guest::attacking("ten-thousand-logs", "ten-thousand-logs")
        .namespace("main")
        .permit("", &["pods/log"], &["get"], "sandbox");
    let run = runs::guests(proxy.kubeconfig(), &[guest], Reach::Sandbox).await?;
    let attempt = run.attempt("ten-thousand-logs");
    let detail = attempt.outcome.detail().unwrap_or_default();
    ensure!(
        detail.contains("logs and commands"),
        "{:?}",
        attempt.outcome
    );
    ensure!(attempt.judgement.verdict != Some(Verdict::Pass));
    Ok(())
}

/// Needs a kubelet, a container runtime and the tool image.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_node_tells_the_same() -> Result<()> {
    if let Err(why) = can_run_nodes() {
        not_run("pods::a_real_node_tells_the_same", &why);
        return Ok(());
    }
    let lab = ControlPlane::builder().real_nodes(1).start().await?;
    // The image is one that the program brings: the run knows its digest, the node has it under that.
    let built = images::build(|_| {})?;
    let tool = built.images.iter().find(|image| image.name == images::TOOL);
    let tool = tool.context("no tool image")?;
    let digests = BTreeMap::from([("tool".to_owned(), tool.digest.clone())]);
    let own = Images::new(&digests, Placement::default());
    let image = tool.pinned();
    let pod = |name: &str, args: &[&str]| {
        json!({"do": "create", "api": "v1", "resource": "pods", "ns": NS, "body": {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{name}-${{run}}")},
            "spec": {
                "restartPolicy": "Never", "activeDeadlineSeconds": 600, "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "tool", "image": image, "command": ["/bin/tool"], "args": args,
                    "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            },
        }})
    };
    let until = |name: &str, phase: &str| {
        json!({"do": "until", "api": "v1", "resource": "pods", "ns": NS, "name": format!("{name}-${{run}}"),
            "pointer": "/status/phase", "value": phase, "ms": 120_000})
    };
    let mut late = exec("stays-${run}", &["/bin/tool", "sleep", "forever"]);
    late["ms"] = json!(2000);
    let steps = json!([
        pod("says", &["say", "karat", "3", "200"]),
        pod("stays", &["sleep", "forever"]),
        until("stays", "Running"),
        until("says", "Succeeded"),
        {"do": "open", "id": "told"},
        logs("says-${run}"),
        exec("stays-${run}", &["/bin/tool", "cat", "/proc/sys/kernel/ostype"]),
        exec("stays-${run}", &["/bin/tool", "exit", "3"]),
        exec("stays-${run}", &["/bin/nothing"]),
        late,
        {"do": "observe", "name": "kernel", "value": "Linux"},
        {"do": "conclude", "outcome": "pass"},
    ]);
    let guest = asking("live", &steps)
        .permit(
            "",
            &["pods"],
            &["get", "list", "watch", "create"],
            "sandbox",
        )
        .lines("\n[[images]]\nname = \"tool\"\nown = \"tool\"\n")
        .cases(&case("told", "create pods/exec"));
    let engine = Engine::new(&EngineOptions::default())?;
    let probe = component::load(&engine, guest.component()?)?;
    let folder = tempfile::tempdir()?;
    let asked = request(&engine, &lab, vec![probe], &folder.path().join("run")).await?;
    // Through a proxy that changes nothing: where faults are put between, commands and logs pass it too.
    let proxy = lab.proxy().start().await?;
    let record = run::run(RunRequest {
        reach: Reach::Sandbox,
        images: own,
        nodes: NodeChoice::default(),
        probe_cluster: Cluster::connect(ConnectOptions {
            kubeconfig: Some(proxy.kubeconfig().to_owned()),
            ..ConnectOptions::default()
        })
        .await?,
        ..asked
    })
    .await?;
    let passed = proxy.seen();
    ensure!(
        passed.iter().any(|seen| seen.uri.contains("/exec?")),
        "{passed:?}"
    );
    let run = Run::of(record, folder);
    let recording = run.recording("live")?;
    let judgement = &run.attempt("live").judgement;
    if judgement.verdict != Some(Verdict::Pass) {
        let calls = recording
            .entries()
            .iter()
            .filter(|entry| entry.function.starts_with("pods."));
        let calls: Vec<String> = calls
            .map(|entry| format!("{} {:?}", entry.function, recording.reply(entry)))
            .collect();
        anyhow::bail!("{}\n{}", judgement.explanation, calls.join("\n"));
    }
    let told = text(&recording, &format!("says-{}", run.record.run))?;
    ensure!(told == "karat 1\nkarat 2\nkarat 3\n", "{told:?}");
    let exits: Vec<(ReplyKind, Option<i32>)> = recording
        .entries()
        .iter()
        .filter(|entry| entry.function == "pods.execution.exit")
        .map(|entry| (entry.result, entry.facts.exit))
        .collect();
    let wanted = [
        (ReplyKind::Ok, Some(0)),
        (ReplyKind::Ok, Some(3)),
        (ReplyKind::Answered, None),
        (ReplyKind::Other, None),
    ];
    ensure!(exits == wanted, "{exits:?}");
    let fact = &calls(&recording, &format!("says-{}", run.record.run))[0]
        .facts
        .objects[0];
    ensure!(
        fact.ours && !fact.node.is_empty() && !fact.images.is_empty(),
        "{fact:?}"
    );
    replays(&run).await
}

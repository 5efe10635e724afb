//! Every branch of the probe on a fake cluster with a fake JobSet, fake Jobs and a kubelet that ends pods by what they were told.

use crate::{JobsetLifecycle, manifest};
use karat_sdk::testing::{self, FakeCluster, FakeResult, PodRequest, Run};
use karat_sdk::{Reason, Value, json};
use std::time::Duration;

const SPACE: &str = "karat-abcd2345-jobset-lifecycle-main";
const ALL: [&str; 8] = [
    "served", "children", "names", "suspends", "succeeds", "restarts", "gives-up", "waits",
];
const KEY: &str = "jobset.sigs.k8s.io/";

/// What is wrong with JobSet, or with what is below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// No Jobs are made.
    Idle,
    /// Jobs have another label than their name.
    Labels,
    /// A Job too many.
    TooMany,
    /// Pods do not carry the labels of their Jobs.
    PodLabels,
    /// Pods find no node, or no image.
    NoRoom,
    /// The name leads nowhere, or to somebody else, or nobody reaches anybody.
    NoName,
    OtherName,
    NoNetwork,
    /// A success policy is not followed.
    NoSuccess,
    /// The condition of success comes at once.
    EarlySuccess,
    /// Workers go on when the set is over.
    GoesOn,
    /// A failure is the end.
    NoRestart,
    /// Only what failed is made anew.
    Partly,
    /// Two restarts for one failure.
    Twice,
    /// Nothing comes of a failure.
    Hangs,
    /// It restarts without end.
    Endless,
    /// A failure counts as success.
    Lenient,
    /// Suspending changes nothing; or nothing comes back.
    NoSuspend,
    NoResume,
    /// All jobs begin at once.
    NoOrder,
    /// What waits never begins.
    NeverAfter,
    /// `dependsOn` is not known.
    Old,
}

use Wrong::*;

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn is(object: &Value, condition: &str) -> bool {
    let all = items(&object["status"]["conditions"]);
    all.iter()
        .any(|one| one["type"] == condition && one["status"] == "True")
}

fn conditions(kind: &str) -> Value {
    json!([{"type": kind, "status": "True"}])
}

/// Jobs below a set at its attempt.
fn make_jobs(cluster: &mut FakeCluster, set: &Value, wrong: Wrong) {
    let name = text(&set["metadata"]["name"]);
    let attempt = set["status"]["restarts"].as_u64().unwrap_or(0);
    for rjob in items(&set["spec"]["replicatedJobs"]) {
        let of = text(&rjob["name"]);
        if let Some(before) = rjob["dependsOn"][0]["name"].as_str() {
            let before = format!("{name}-{before}-0");
            let over = is(cluster.object("jobs", SPACE, &before), "Complete");
            if wrong == NeverAfter || (wrong != NoOrder && !over) {
                continue;
            }
        }
        let replicas = rjob["replicas"].as_u64().unwrap_or(1);
        let more = u64::from(wrong == TooMany && of == "workers");
        for at in 0..replicas + more {
            let job = format!("{name}-{of}-{at}");
            if !cluster.object("jobs", SPACE, &job).is_null() {
                continue;
            }
            let label = |key: &str| format!("{KEY}{key}");
            let index = if wrong == Labels { 7 } else { at };
            cluster.put(json!({
                "apiVersion": "batch/v1", "kind": "Job",
                "metadata": {
                    "name": job, "namespace": SPACE,
                    "labels": {
                        (label("jobset-name")): name, (label("replicatedjob-name")): of,
                        (label("job-index")): index.to_string(), (label("replicatedjob-replicas")): replicas.to_string(),
                        (label("restart-attempt")): attempt.to_string(),
                    },
                    "ownerReferences": [{"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "name": name, "uid": set["metadata"]["uid"], "controller": true}],
                },
                "spec": rjob["template"]["spec"],
            }));
        }
    }
}

/// The controller of JobSets for one set.
fn reconcile(cluster: &mut FakeCluster, set: &Value, wrong: Wrong) {
    let name = text(&set["metadata"]["name"]);
    let jobs: Vec<Value> = cluster
        .objects("jobs")
        .into_iter()
        .filter(|job| job["metadata"]["labels"][format!("{KEY}jobset-name")] == name.as_str())
        .collect();
    let of = |job: &Value| text(&job["metadata"]["labels"][format!("{KEY}replicatedjob-name")]);
    if is(set, "Completed") || is(set, "Failed") {
        for job in jobs
            .iter()
            .filter(|job| !is(job, "Complete") && !is(job, "Failed"))
        {
            if wrong != GoesOn {
                cluster.remove("jobs", SPACE, &text(&job["metadata"]["name"]));
            }
        }
        return;
    }
    let restarts = set["status"]["restarts"].as_u64().unwrap_or(0);
    let mut status = set["status"].clone();
    if status.is_null() {
        status = json!({"restarts": 0});
    }
    let failed = jobs.iter().any(|job| is(job, "Failed"));
    let most = set["spec"]["failurePolicy"]["maxRestarts"]
        .as_u64()
        .unwrap_or(0);
    let most = match wrong {
        NoRestart => 0,
        Endless => most + 2,
        _ => most,
    };
    if failed && wrong == Lenient {
        status["conditions"] = conditions("Completed");
    } else if failed && wrong == Hangs {
    } else if failed && restarts < most {
        status["restarts"] = json!(restarts + if wrong == Twice { 2 } else { 1 });
        for job in jobs
            .iter()
            .filter(|job| wrong != Partly || is(job, "Failed"))
        {
            cluster.remove("jobs", SPACE, &text(&job["metadata"]["name"]));
        }
    } else if failed {
        status["conditions"] = conditions("Failed");
    } else {
        let targets: Vec<String> = match &set["spec"]["successPolicy"]["targetReplicatedJobs"] {
            Value::Array(names) if wrong != NoSuccess => names.iter().map(text).collect(),
            _ => items(&set["spec"]["replicatedJobs"])
                .iter()
                .map(|one| text(&one["name"]))
                .collect(),
        };
        let all = targets.iter().all(|target| {
            let mut own = jobs.iter().filter(|job| of(job) == *target).peekable();
            own.peek().is_some() && own.all(|job| is(job, "Complete"))
        });
        if all || (wrong == EarlySuccess && name.starts_with("first")) {
            status["conditions"] = conditions("Completed");
        }
    }
    cluster.change("jobsets", SPACE, &name, |set| set["status"] = status);
    let set = cluster.object("jobsets", SPACE, &name).clone();
    if wrong != Idle && !is(&set, "Completed") && !is(&set, "Failed") {
        make_jobs(cluster, &set, wrong);
    }
}

/// The controller of Jobs and the kubelet for one Job.
fn work(cluster: &mut FakeCluster, job: &Value, wrong: Wrong) {
    let name = text(&job["metadata"]["name"]);
    let set = text(&job["metadata"]["labels"][format!("{KEY}jobset-name")]);
    let pod = format!("{name}-0-x");
    let suspended = cluster.object("jobsets", SPACE, &set)["spec"]["suspend"].as_bool();
    if suspended == Some(true) && wrong != NoSuspend {
        cluster.remove("pods", SPACE, &pod);
        return;
    }
    let there = !cluster.object("pods", SPACE, &pod).is_null();
    let comes_back = wrong != NoResume || suspended != Some(false);
    if !there && comes_back {
        let labels = if wrong == PodLabels {
            json!({format!("{KEY}jobset-name"): set})
        } else {
            job["metadata"]["labels"].clone()
        };
        let status = match wrong {
            NoRoom => {
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]})
            }
            _ => {
                json!({"phase": "Running", "podIP": "10.9.8.7", "conditions": [{"type": "Ready", "status": "True"}]})
            }
        };
        cluster.put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod, "namespace": SPACE, "labels": labels,
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"], "controller": true}]},
            "spec": {"nodeName": "n1"}, "status": status,
        }));
    }
    if wrong == NoRoom || is(job, "Complete") || is(job, "Failed") {
        return;
    }
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    let words: Vec<String> = items(&container["command"]).iter().map(text).collect();
    let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    let attempt = text(&job["metadata"]["labels"][format!("{KEY}restart-attempt")]);
    let ends = match words.as_slice() {
        ["echo", _] | ["sleep", "forever"] => None,
        ["env", _] => {
            let wanted = format!("KARAT_{attempt}");
            let has = items(&container["env"])
                .iter()
                .any(|one| one["name"] == wanted.as_str());
            // What fails twice is another fault than the one of the restarts.
            Some(has || attempt.as_str() > "1")
        }
        ["exit", code] => Some(*code == "0"),
        _ => Some(true),
    };
    let Some(well) = ends else { return };
    let uid = job["metadata"]["uid"].clone();
    if job["status"]["begun"].is_null() {
        cluster.change("jobs", SPACE, &name, |job| {
            job["status"] = json!({"begun": true})
        });
        cluster.after(Duration::from_secs(2), move |cluster| {
            cluster.change("jobs", SPACE, &name, |job| {
                if job["metadata"]["uid"] == uid {
                    job["status"]["conditions"] =
                        conditions(if well { "Complete" } else { "Failed" });
                }
            });
        });
    }
}

fn answers(asked: &PodRequest<'_>, wrong: Wrong) -> FakeResult {
    let words: Vec<&str> = asked.argv.iter().map(String::as_str).collect();
    match words.as_slice() {
        [_, "look", items @ ..] => {
            let mut said = String::new();
            for item in items {
                let url = item.trim_start_matches("http=");
                let by_name = url.contains("workers");
                let status = match wrong {
                    NoNetwork => "EHOSTUNREACH",
                    NoName if by_name => "uncategorized error",
                    _ => "200",
                };
                said.push_str(&format!("http.{url}={status}\n"));
            }
            FakeResult::output(&format!("{said}done=1\n"))
        }
        [_, "get", url] => {
            let host = url
                .trim_start_matches("http://")
                .split('.')
                .next()
                .unwrap_or_default();
            let who = if wrong == OtherName { "somebody" } else { host };
            FakeResult::output(&format!("{{\"pod\": \"{who}\"}}\n"))
        }
        _ => FakeResult::not_started("of the test"),
    }
}

fn cluster(wrong: Wrong) -> FakeCluster {
    let mut cluster = FakeCluster::new("v1.37.0");
    cluster.put(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"cpu": "4"}}}));
    cluster.serve(
        "jobset.x-k8s.io",
        &["v1alpha2"],
        "jobsets",
        "JobSet",
        true,
        &["status"],
    );
    cluster.serve("batch", &["v1"], "jobs", "Job", true, &["status"]);
    if wrong == Old {
        cluster.refuse("jobsets", |asked| {
            let has = asked.object["spec"]["replicatedJobs"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| !one["dependsOn"].is_null()));
            has.then(|| {
                (
                    400,
                    "strict decoding error: unknown field \"dependsOn\"".to_owned(),
                )
            })
        });
    }
    cluster.controller(move |cluster| {
        for set in cluster.objects("jobsets") {
            reconcile(cluster, &set, wrong);
        }
        for job in cluster.objects("jobs") {
            work(cluster, &job, wrong);
        }
    });
    cluster.commands(move |asked| answers(asked, wrong));
    cluster
}

fn run(wrong: Wrong) -> Run {
    testing::run::<JobsetLifecycle>(manifest::TEXT, cluster(wrong))
}

#[test]
fn a_jobset_that_works_passes_and_nothing_is_left() {
    let run = run(Nothing);
    assert_eq!(run.result, Ok(()));
    run.assert_passed(&ALL);
    run.assert_earned();
    run.assert_clean(&["jobsets", "jobs"]);
    assert_eq!(run.observed("restarts", "restarts"), Some("1"));
}

#[test]
fn each_fault_is_found_where_it_is() {
    for (wrong, case, part) in [
        (Idle, "children", "there is no Job"),
        (Labels, "children", "job-index"),
        (TooMany, "children", "too many"),
        (PodLabels, "children", "has not the label"),
        (NoName, "names", "does not lead"),
        (OtherName, "names", "answers somebody"),
        (NoSuccess, "succeeds", "its success policy was not followed"),
        (EarlySuccess, "succeeds", "its driver had not ended"),
        (GoesOn, "succeeds", "its workers were not ended"),
        (NoRestart, "restarts", "after 0 restarts"),
        (Partly, "restarts", "not the whole set"),
        (Twice, "restarts", "says 2"),
        (Hangs, "restarts", "not restarted"),
        (Hangs, "gives-up", "not Failed"),
        (Endless, "gives-up", "may not restart"),
        (Lenient, "gives-up", "is Completed"),
        (NoSuspend, "suspends", "still there"),
        (NoOrder, "waits", "before the first"),
        (NeverAfter, "waits", "never created"),
    ] {
        run(wrong).assert_failed(case, part);
    }
}

#[test]
fn what_pods_lack_is_no_fault_of_jobset() {
    run(NoRoom).assert_unknown("children", Reason::InsufficientCapacity);
    run(NoRoom).assert_unknown("gives-up", Reason::InsufficientCapacity);
    run(NoNetwork).assert_unknown("names", Reason::ProxyUnreachable);
    run(Old).assert_unknown("waits", Reason::VersionSkew);
}

#[test]
fn an_image_that_no_node_gets_is_told_soon_and_accuses_nobody() {
    let mut cluster = cluster(Nothing);
    cluster.without_images();
    let run = testing::run::<JobsetLifecycle>(manifest::TEXT, cluster);
    for id in ["children", "names", "restarts", "gives-up"] {
        run.assert_image_unavailable(id);
    }
}

#[test]
fn pods_that_do_not_come_back_are_a_fail() {
    run(NoResume).assert_failed("suspends", "have no pods");
}

#[test]
fn without_jobset_it_says_what_to_install() {
    let run = testing::run::<JobsetLifecycle>(manifest::TEXT, FakeCluster::new("v1.37.0"));
    run.assert_unknown_with("served", Reason::SolutionAbsent, "install JobSet");
    run.assert_unknown("gives-up", Reason::SolutionAbsent);
    let mut later = FakeCluster::new("v1.37.0");
    later.serve(
        "jobset.x-k8s.io",
        &["v1"],
        "jobsets",
        "JobSet",
        true,
        &["status"],
    );
    let run = testing::run::<JobsetLifecycle>(manifest::TEXT, later);
    run.assert_unknown("served", Reason::VersionSkew);
}

#[test]
fn no_fault_of_the_api_server_becomes_a_fail() {
    testing::assert_faults_are_no_fail::<JobsetLifecycle>(manifest::TEXT, || cluster(Nothing));
}

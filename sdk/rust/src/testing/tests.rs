//! The fake cluster must behave as a real one where a probe can notice.

use super::*;
use crate::kube::{Event, PatchKind, Quiet, Target};
use crate::wait::Deadline;
use crate::{CaseId, Probe, Query, Reason, Result, json};
use std::time::Duration;

const MANIFEST: &str = r#"
id = "example"
cases = [{ id = "a", kind = "positive", required = "always", effect = ["create configmaps"] }]
[[permissions]]
api-groups = [""]
resources = ["configmaps"]
verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
[[namespaces]]
alias = "main"
[budget]
wall = "1h"
"#;
const A: CaseId = CaseId::from_manifest("a");

/// Runs a closure as a probe. A function pointer is enough: no test captures anything.
macro_rules! probing {
    ($cluster:expr, $body:expr) => {{
        struct Body;
        impl Probe for Body {
            fn check() -> Result<()> {
                let body: fn(Target) -> Result<()> = $body;
                body(Target::new("v1", "configmaps").in_namespace(&crate::run::namespace("main")?))
            }
        }
        run::<Body>(MANIFEST, $cluster)
    }};
}

fn map(prefix: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": crate::run::name(prefix), "labels": {"set": "x"}}, "data": {"a": "1"}})
}

#[test]
fn the_life_of_an_object() {
    let run = probing!(FakeCluster::new("v1.37.0"), |maps| {
        let name = crate::run::name("m");
        let made = maps.create(&map("m"))?;
        assert!(maps.create(&map("m")).unwrap_err().is_already_exists());
        assert_eq!(made.label("karat.internal/run"), Some(RUN_ID));
        let changed = maps.update(&name, |object| object["data"]["a"] = json!("2"))?;
        assert_ne!(changed.resource_version(), made.resource_version());
        assert!(maps.replace(&name, made.value()).unwrap_err().is_conflict());
        let patched = maps.patch(
            &name,
            PatchKind::Merge,
            &json!({"data": {"b": "3", "a": null}}),
        )?;
        assert_eq!(patched.at("/data"), &json!({"b": "3"}));
        let steps = json!([{"op": "test", "path": "/metadata/uid", "value": made.uid()}, {"op": "add", "path": "/data/c", "value": "4"}]);
        assert_eq!(
            maps.patch(&name, PatchKind::Json, &steps)?.text("/data/c"),
            "4"
        );
        maps.create(&map("n"))?;
        assert_eq!(maps.query().labels("set=x").list()?.len(), 2);
        maps.delete(&name)?;
        assert!(maps.query().get(&name).unwrap_err().is_not_found());
        assert_eq!(maps.query().get_opt(&name)?, None);
        assert_eq!(maps.delete_collection("set=x")?, 1);
        assert!(maps.query().list()?.is_empty());
        Ok(())
    });
    assert_eq!(run.result, Ok(()));
    assert!(run.left_behind(&["configmaps"]).is_empty());
}

#[test]
fn the_door_refuses_what_the_manifest_does_not_ask_for() {
    let run = probing!(FakeCluster::new("v1.37.0"), |maps| {
        let error = Query::new("v1", "nodes").list().unwrap_err();
        assert!(error.is_refused_by_door(), "{error}");
        let elsewhere = Target::new("v1", "configmaps").in_namespace("default");
        assert!(
            elsewhere
                .create(&map("m"))
                .unwrap_err()
                .is_refused_by_door()
        );
        let mut foreign = map("m");
        foreign["metadata"]["name"] = json!("not-ours");
        assert!(maps.create(&foreign).unwrap_err().is_refused_by_door());
        Ok(())
    });
    assert_eq!(run.result, Ok(()));
}

#[test]
fn a_watch_gives_what_is_there_then_changes_and_admits_gaps() {
    let mut cluster = FakeCluster::new("v1.37.0");
    cluster.after(Duration::from_secs(60), FakeCluster::cut_watches);
    let run = probing!(cluster, |maps| {
        maps.create(&map("m"))?;
        let mut watch = maps.query().labels("set=x").watch()?;
        let deadline = Deadline::after(Duration::from_secs(600));
        assert!(matches!(watch.poll()?, Some(Event::Added(_))));
        assert_eq!(watch.poll()?, Some(Event::Synced));
        assert_eq!(watch.poll()?, None);
        maps.patch(
            &crate::run::name("m"),
            PatchKind::Merge,
            &json!({"data": {"b": "2"}}),
        )?;
        assert!(matches!(watch.poll()?, Some(Event::Modified(_))));
        // Out of the selector is gone, for this watch.
        maps.patch(
            &crate::run::name("m"),
            PatchKind::Merge,
            &json!({"metadata": {"labels": {"set": "y"}}}),
        )?;
        assert!(matches!(watch.poll()?, Some(Event::Deleted(_))));
        assert!(matches!(watch.next(deadline)?, Some(Event::Gap(_))));
        assert_eq!(watch.next(deadline)?, Some(Event::Synced));
        Ok(())
    });
    assert_eq!(run.result, Ok(()));
}

#[test]
fn a_quiet_window_costs_no_time_and_sees_what_breaks_it() {
    let mut cluster = FakeCluster::new("v1.37.0");
    cluster.after(Duration::from_secs(45), |cluster| {
        cluster.change(
            "configmaps",
            "karat-abcd2345-example-main",
            "m-abcd2345",
            |object| {
                object["data"]["a"] = json!("bad");
            },
        );
    });
    let run = probing!(cluster, |maps| {
        maps.create(&map("m"))?;
        let mut watch = maps.query().watch()?;
        let bad = |object: &crate::Object| object.text("/data/a") == "bad";
        assert_eq!(watch.quiet(Duration::from_secs(30), bad)?, Quiet::Held);
        assert!(matches!(
            watch.quiet(Duration::from_secs(30), bad)?,
            Quiet::Broken(_)
        ));
        Ok(())
    });
    assert_eq!(run.result, Ok(()));
}

#[test]
fn waits_end_at_their_deadline_or_at_the_budget() {
    let run = probing!(FakeCluster::new("v1.37.0"), |maps| {
        maps.create(&map("m"))?;
        let error = crate::kube::wait_for(
            &maps.query(),
            &crate::run::name("m"),
            Duration::from_secs(60),
            "the impossible",
            |object| (object.text("/data/a") == "never").then_some(()),
        )
        .unwrap_err();
        assert!(error.is_deadline());
        assert!(
            error
                .to_string()
                .starts_with("the impossible did not happen"),
            "{error}"
        );
        crate::wait::sleep(Duration::from_secs(7200))
    });
    assert!(run.result.unwrap_err().is_budget());
}

#[test]
fn a_forgotten_case_is_unknown() {
    let run = probing!(FakeCluster::new("v1.37.0"), |_| {
        let case = A.open("")?;
        drop(case);
        Ok(())
    });
    assert!(matches!(
        run.conclusion("a"),
        Some(Conclusion::Unknown(Reason::Deadline, _))
    ));
}

#[test]
fn a_pass_that_was_not_earned_is_noticed() {
    let run = probing!(FakeCluster::new("v1.37.0"), |_| A.open("")?.pass());
    assert_eq!(
        run.complaints(),
        ["a: no effect", "a: shows no value of an answer"]
    );
    let run = probing!(FakeCluster::new("v1.37.0"), |maps| {
        let case = A.open("")?;
        maps.create(&map("m"))?;
        case.observe("what we wrote", "x");
        case.pass()
    });
    assert_eq!(run.complaints(), ["a: shows no value of an answer"]);
    let run = probing!(FakeCluster::new("v1.37.0"), |maps| {
        let case = A.open("")?;
        case.observe("uid", maps.create(&map("m"))?.uid());
        case.pass()
    });
    run.assert_earned();
}

#[test]
fn finalizers_and_owners() {
    let mut cluster = FakeCluster::new("v1.37.0");
    let owner = cluster.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}}));
    cluster.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "default", "finalizers": ["a/b"],
        "ownerReferences": [{"uid": owner["metadata"]["uid"]}]}}));
    cluster.remove("pods", "default", "p");
    let held = cluster.object("configmaps", "default", "c");
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    cluster.change("configmaps", "default", "c", |object| {
        object["metadata"]["finalizers"] = json!([])
    });
    assert!(cluster.object("configmaps", "default", "c").is_null());
}

#[test]
fn a_list_that_lost_its_place_is_begun_again() {
    let mut cluster = FakeCluster::new("v1.37.0");
    cluster.page_size(1);
    cluster.fail("page", "configmaps", Fault::Expired, 1, 1);
    let run = probing!(cluster, |maps| {
        maps.create(&map("m"))?;
        maps.create(&map("n"))?;
        assert_eq!(maps.query().list()?.len(), 2);
        Ok(())
    });
    assert_eq!(run.result, Ok(()));
}

#[test]
fn what_is_in_the_way_is_discarded_and_trouble_only_logged() {
    let mut cluster = FakeCluster::new("v1.37.0");
    let trouble = Fault::Answer(500, "InternalError", "etcdserver: request timed out");
    cluster.fail_once("delete", "configmaps", trouble);
    let run = probing!(cluster, |maps| {
        let name = crate::run::name("m");
        maps.create(&map("m"))?;
        maps.discard(&name, None)?;
        assert!(maps.query().get_opt(&name)?.is_some());
        maps.discard(&name, Some(0))?;
        assert!(maps.query().get_opt(&name)?.is_none());
        maps.discard(&name, None)
    });
    assert_eq!(run.result, Ok(()));
    assert_eq!(run.log.len(), 1, "{:?}", run.log);
}

#[test]
fn a_case_that_was_not_tried_says_why() {
    let run = probing!(FakeCluster::new("v1.37.0"), |_| {
        Conclusion::unknown(Reason::NoAccelerator, "nothing here").leaves_untried(&[A])
    });
    run.assert_unknown_with("a", Reason::NoAccelerator, "not tried: nothing here");
    run.assert_no_fail();
}

#[test]
#[should_panic(expected = "a: fail: nothing was stored")]
fn a_failed_assertion_tells_what_the_cases_said() {
    let run = probing!(FakeCluster::new("v1.37.0"), |_| A
        .open("")?
        .fail("nothing was stored"));
    run.assert_failed("a", "nothing");
    run.assert_passed(&["a"]);
}

#[test]
#[should_panic(expected = "became a fail")]
fn a_probe_that_takes_trouble_for_a_fail_is_found() {
    struct Hasty;
    impl Probe for Hasty {
        fn check() -> Result<()> {
            let namespace = crate::run::namespace("main")?;
            let maps = Query::new("v1", "configmaps").in_namespace(&namespace);
            A.check("", |_| {
                Ok(match maps.list() {
                    Ok(_) => Conclusion::Pass,
                    Err(error) => Conclusion::fail(error.to_string()),
                })
            })?;
            Ok(())
        }
    }
    assert_faults_are_no_fail::<Hasty>(MANIFEST, || FakeCluster::new("v1.37.0"));
}

mod workloads {
    use crate::http::{Request, Unreached, service, unreached};
    use crate::metrics::{self, Sample};
    use crate::testing::{Answering, FakeCluster, Fault, run};
    use crate::{CaseId, Error, Probe, Result, json, wait};
    use std::time::Duration;

    const MANIFEST: &str = r#"
id = "example"
cases = [{ id = "answers", kind = "positive", required = "always", effect = ["get services/proxy"] }]
[[namespaces]]
alias = "main"
[[permissions]]
api-groups = [""]
resources = ["services/proxy"]
verbs = ["get", "create"]
[[permissions]]
api-groups = [""]
resources = ["services/proxy"]
verbs = ["get"]
scope = { namespace = "monitoring" }
names = ["prometheus:9090"]
paths = ["/api/v1/query"]
"#;
    const ANSWERS: CaseId = CaseId::from_manifest("answers");
    const SECOND: Duration = Duration::from_secs(1);
    const ECHO: &str = "service:karat-abcd2345-example-main/echo:80";

    struct Example;
    impl Probe for Example {
        fn check() -> Result<()> {
            let case = ANSWERS.open("")?;
            let namespace = crate::run::namespace("main")?;
            let echo = service(&namespace, "echo", 80);
            assert_eq!(echo, ECHO);
            let sent = Request::post_json(&echo, "/v1/chat", &json!({"a": 1})).send(10 * SECOND)?;
            let other = Request::get(&echo, "/quick").send(10 * SECOND)?;
            assert_eq!(sent.wait_status(SECOND)?, 200);
            assert_eq!(other.wait_status(SECOND)?, 404);
            assert_eq!(sent.read(100)?, Some(b"one".to_vec()));
            assert_eq!(sent.read(100)?, Some(Vec::new()));
            assert_eq!(
                wait::any(&[&sent.ready(), &other.ready()], 5 * SECOND)?,
                [1]
            );
            assert_eq!(other.finish(SECOND)?.text(), "no");
            let reply = sent.finish(5 * SECOND)?;
            assert_eq!((reply.text().as_str(), reply.arrivals.len()), ("two", 2));
            let gone = Request::get(&service(&namespace, "none", 80), "/").fetch(SECOND);
            assert_eq!(
                gone.err().as_ref().and_then(unreached),
                Some(Unreached::Missing)
            );
            for foreign in ["prometheus", "other"] {
                let refused =
                    Request::get(&service("monitoring", foreign, 9090), "/admin").fetch(SECOND);
                assert!(matches!(refused, Err(Error::Refused(_))));
            }
            let samples = metrics::scrape(&echo, "/metrics", &["count_total"])?;
            assert_eq!((samples.len(), samples[0].text.as_str()), (1, "10"));
            let found = metrics::query(
                "service:monitoring/prometheus:9090",
                "max(count_total{run=\"x\"})",
            )?;
            case.observe("count", &found[0].text);
            case.pass()
        }
    }

    fn cluster() -> FakeCluster {
        let mut cluster = FakeCluster::new("v1.37.0");
        cluster
            .workload(ECHO, |_, request| match request.path.as_str() {
                "/v1/chat" => Answering::arriving(200)
                    .chunk(Duration::ZERO, "one")
                    .chunk(3 * SECOND, "two"),
                _ => Answering::text(404, "no"),
            })
            .exposes(ECHO, |_, _| {
                vec![
                    Sample::new("count_total", &[], "10"),
                    Sample::new("other", &[], "1"),
                ]
            })
            .knows("service:monitoring/prometheus:9090", |_, promql| {
                assert!(promql.starts_with("max("));
                vec![Sample::new("", &[], "10")]
            });
        cluster
    }

    #[test]
    fn workloads_answer_expose_and_are_refused() {
        let run = run::<Example>(MANIFEST, cluster());
        run.result.as_ref().unwrap();
        run.assert_passed(&["answers"]);
    }

    struct Reads;
    impl Probe for Reads {
        fn check() -> Result<()> {
            let broken = Request::get(ECHO, "/").fetch(SECOND);
            let lost = Request::get(ECHO, "/").fetch(SECOND);
            assert!(
                matches!(&broken, Err(Error::NoAnswer(text)) if text.contains("broke off")),
                "{broken:?}"
            );
            assert!(matches!(lost, Err(Error::NoAnswer(_))));
            Ok(())
        }
    }

    #[test]
    fn what_breaks_off_is_no_answer() {
        let mut cluster = FakeCluster::new("v1.37.0");
        cluster.workload(ECHO, |_, _| Answering::text(200, "cut").break_off());
        cluster.fail("get", "services/proxy", Fault::Lost, 1, 1);
        run::<Reads>(MANIFEST, cluster).result.unwrap();
    }
}

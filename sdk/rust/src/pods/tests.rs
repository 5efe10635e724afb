use super::*;
use crate::testing::{self, FakeCluster, FakeLog, FakeResult, Fault, RUN_ID, Run};
use crate::{CaseId, Conclusion, Probe, Query, Reason, json};

const MANIFEST: &str = r#"
id = "example"
cases = [
  { id = "told", kind = "positive", required = "always", effect = ["get pods/log"] },
  { id = "tried", kind = "negative", required = "always", effect = ["get pods/log", "create pods/exec"], controls = [{ case = "told" }] },
]
[[permissions]]
api-groups = [""]
resources = ["pods", "pods/log"]
verbs = ["get"]
[[permissions]]
api-groups = [""]
resources = ["pods/exec"]
verbs = ["get", "create"]
[[namespaces]]
alias = "main"
"#;
const TOLD: CaseId = CaseId::from_manifest("told");
const TRIED: CaseId = CaseId::from_manifest("tried");
const SOON: Duration = Duration::from_secs(30);

/// Runs a closure as a probe, with the pod `tool` in the phase that the cluster has it in.
macro_rules! probing {
    ($cluster:expr, $body:expr) => {{
        struct Body;
        impl Probe for Body {
            fn check() -> Result<()> {
                let body: fn(Object) -> Result<()> = $body;
                let namespace = crate::run::namespace("main")?;
                let pods = Query::new("v1", "pods").in_namespace(&namespace);
                body(pods.get("tool")?)
            }
        }
        testing::run::<Body>(MANIFEST, $cluster)
    }};
}

fn cluster(phase: &str) -> FakeCluster {
    let mut cluster = FakeCluster::new("v1.37.0");
    cluster.put(json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "tool", "namespace": format!("karat-{RUN_ID}-example-main")},
        "spec": {"containers": [{"name": "tool"}]}, "status": {"phase": phase}}));
    cluster
}

fn fine(run: &Run) {
    run.result.as_ref().unwrap();
}

#[test]
fn a_script_is_followed_until_it_is_done() {
    let mut cluster = cluster("Running");
    cluster.logs(|_| {
        FakeLog::text("paths=1\nopen=o")
            .then(Duration::from_secs(5), "k\nopen=late\n")
            .then(Duration::from_secs(9), "done=1\nafter=x\n")
            .goes_on()
    });
    let run = probing!(cluster, |pod| {
        let case = TOLD.open("")?;
        let told = Logs::of(&pod).follow().open()?.script(SOON)?;
        assert_eq!(told.get("paths"), Some("1"));
        assert_eq!(told.all("open").collect::<Vec<_>>(), ["ok", "late"]);
        assert_eq!(told.get("after"), None);
        case.observe("open", "late");
        case.pass()?;
        let case = TRIED.open("")?;
        case.observe("paths", Logs::of(&pod).open()?.rest(SOON)?.trim());
        case.pass()
    });
    fine(&run);
    run.assert_earned();
    assert!(run.cluster.elapsed() >= Duration::from_secs(9));
}

#[test]
fn what_is_not_done_did_not_finish_and_says_nothing_about_the_platform() {
    for log in [
        FakeLog::text("paths=0\n"),
        FakeLog::text("paths=0\ndone=").breaks(),
        FakeLog::text("paths=0\n").goes_on(),
    ] {
        let mut cluster = cluster("Running");
        cluster.logs(move |_| log.clone());
        let run = probing!(cluster, |pod| {
            let case = TOLD.open("")?;
            let error = Logs::of(&pod).follow().open()?.script(SOON).unwrap_err();
            assert!(
                matches!(error, Error::NoAnswer(_) | Error::Deadline { .. }),
                "{error}"
            );
            case.conclude(&error.conclusion())
        });
        fine(&run);
        assert!(matches!(
            run.conclusion("told"),
            Some(Conclusion::Unknown(Reason::Deadline, _))
        ));
    }
}

#[test]
fn a_pod_that_cannot_be_asked_is_no_fail() {
    let run = probing!(cluster("Pending"), |pod| {
        let error = Logs::of(&pod).open().unwrap_err();
        assert!(
            matches!(&error, Error::Unreachable(answer) if answer.code == 400),
            "{error}"
        );
        let gone = Logs::in_namespace(pod.namespace(), "gone")
            .open()
            .unwrap_err();
        assert!(gone.is_not_found() && !gone.is_about_platform(), "{gone}");
        let error = exec(&pod, "true").run(SOON).unwrap_err();
        assert!(
            matches!(error.conclusion(), Conclusion::Unknown(..)),
            "{error}"
        );
        Ok(())
    });
    fine(&run);
}

#[test]
fn a_stream_gives_what_came_and_then_its_error() {
    let mut broken = cluster("Running");
    broken.logs(|_| FakeLog::text("a\nb\n").breaks());
    let run = probing!(broken, |pod| {
        let mut log = Logs::of(&pod).open()?;
        assert_eq!(log.line(SOON)?.as_deref(), Some("a"));
        assert_eq!(log.poll()?.as_deref(), Some("b\n"));
        assert!(matches!(log.poll(), Err(Error::NoAnswer(_))));
        Ok(())
    });
    fine(&run);
    let mut cluster = cluster("Running");
    cluster.logs(|_| FakeLog::text("a\n"));
    cluster.fail_once("read", "pods/log", Fault::Lost);
    let run = probing!(cluster, |pod| {
        assert!(matches!(Logs::of(&pod).read(SOON), Err(Error::NoAnswer(_))));
        assert_eq!(Logs::of(&pod).read(SOON)?, "a\n");
        Ok(())
    });
    fine(&run);
}

#[test]
fn commands_end_with_their_code_in_time_or_not_at_all() {
    let mut cluster = cluster("Running");
    cluster.commands(|asked| match asked.argv[0].as_str() {
        "cat" => FakeResult::output("Linux 6.1\n").takes(Duration::from_secs(2)),
        "false" => FakeResult::failed(3, "no\n"),
        "sleep" => FakeResult::output("never").takes(Duration::from_secs(3600)),
        "cut" => FakeResult::output("never").breaks(),
        other => FakeResult::not_started(&format!("exec: {other:?}: executable file not found")),
    });
    let run = probing!(cluster, |pod| {
        let release = exec(&pod, "cat").arg("/proc/version").run(SOON)?;
        assert_eq!((release.code, release.output.as_str()), (0, "Linux 6.1\n"));
        let failed = exec(&pod, "false").run(SOON)?;
        assert_eq!((failed.code, failed.errors.as_str()), (3, "no\n"));
        let late = exec(&pod, "sleep").run(SOON).unwrap_err();
        assert!(
            late.is_deadline() && late.to_string().contains("`sleep`"),
            "{late}"
        );
        let cut = exec(&pod, "cut").run(SOON).unwrap_err();
        assert!(matches!(cut, Error::NoAnswer(_)), "{cut}");
        let absent = exec(&pod, "nothing").run(SOON).unwrap_err();
        assert!(absent.to_string().contains("not found"), "{absent}");
        assert!(!absent.is_about_platform());
        Ok(())
    });
    fine(&run);
    assert!(
        run.calls
            .iter()
            .any(|call| call.resource == "pods/exec" && call.sent.contains("/proc/version"))
    );
}

#[test]
fn commands_need_both_verbs() {
    struct Body;
    impl Probe for Body {
        fn check() -> Result<()> {
            let namespace = crate::run::namespace("main")?;
            let pod = Query::new("v1", "pods")
                .in_namespace(&namespace)
                .get("tool")?;
            exec(&pod, "true").run(SOON).map(drop)
        }
    }
    let manifest = MANIFEST.replace(r#"["get", "create"]"#, r#"["create"]"#);
    let run = testing::run::<Body>(&manifest, cluster("Running"));
    assert!(run.result.unwrap_err().is_refused_by_door());
}

//! The probe `dra_support` on real control planes: conforming ones, which it must not accuse, and such as are wrong in exactly
//! one way, where it must give the right verdict for the right reason.
//!
//! Everything without devices shares one control plane; what is wrong with it is put before it by a proxy. Clusters with
//! devices, with old versions only or without the API have their own. With `KARAT_RECORD=1` the fixtures of the probe are
//! written anew from these runs.

use anyhow::{Context, Result, ensure};
use karat_engine::component;
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::model::{CaseResult, Judgement, Outcome, Reach, Reason, Tier, Verdict};
use karat_engine::recording::fixture;
use karat_engine::replay::replay_fixture;
use karat_testbed::proxy::{Proxy, Rule};
use karat_testbed::{ControlPlane, DraApi};
use karat_tests::guests::built;
use karat_tests::runs::{self, Run};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinSet;

const PROBE: &str = "dra-support";
const GROUP: &str = "^/apis/resource\\.k8s\\.io/";
const CRUD: [&str; 4] = [
    "crud-deviceclass",
    "crud-resourceslice",
    "crud-claimtemplate",
    "crud-claim",
];
const VALIDATION: [&str; 3] = ["validation-two-kinds", "validation-cel", "validation-name"];
const ALLOCATION: [&str; 4] = ["inventory", "allocated", "unsatisfiable", "released"];

/// One finished run of the probe.
struct Checked {
    /// Which cluster it was, for messages.
    on: String,
    run: Run,
}

async fn check(on: &str, kubeconfig: &Path) -> Result<Checked> {
    let component = built("probe-dra-support")?;
    let run = runs::run(kubeconfig, vec![component], Reach::ClusterObjects).await?;
    Ok(Checked { on: on.into(), run })
}

/// Runs the probe through a proxy with these rules.
async fn check_through(on: &str, lab: &ControlPlane, rules: Vec<Rule>) -> Result<Checked> {
    let proxy = started(lab, rules).await?;
    check(on, proxy.kubeconfig()).await
}

async fn started(lab: &ControlPlane, rules: Vec<Rule>) -> Result<Proxy> {
    Ok(rules
        .into_iter()
        .fold(lab.proxy(), |proxy, rule| proxy.rule(rule))
        .start()
        .await?)
}

impl Checked {
    fn judgement(&self) -> &Judgement {
        &self.run.attempt(PROBE).judgement
    }

    fn case(&self, id: &str) -> &CaseResult {
        let mut cases = self.judgement().cases.iter();
        cases
            .find(|case| case.case.id == id)
            .unwrap_or_else(|| panic!("no case {id}\n{self}"))
    }

    /// The whole: verdict and a part of its explanation.
    #[track_caller]
    fn is(&self, verdict: Verdict, explanation: &str) -> &Checked {
        let judgement = self.judgement();
        assert_eq!(judgement.verdict, Some(verdict), "{self}");
        assert!(
            judgement.explanation.contains(explanation),
            "want {explanation:?}\n{self}"
        );
        assert_eq!(
            self.run.attempt(PROBE).outcome,
            Outcome::Concluded,
            "{self}"
        );
        self
    }

    #[track_caller]
    fn passed(&self, ids: &[&str]) -> &Checked {
        for id in ids {
            assert_eq!(self.case(id).verdict, Verdict::Pass, "{id}\n{self}");
        }
        self
    }

    /// A case that failed, and a part of what the probe said about it.
    #[track_caller]
    fn failed(&self, id: &str, said: &str) -> &Checked {
        let case = self.case(id);
        assert_eq!(case.verdict, Verdict::Fail, "{id}\n{self}");
        let mut observations = case.observations.iter();
        assert!(
            observations.any(|observation| observation.name == "contradiction"
                && observation.value.contains(said)),
            "{id}: want {said:?}\n{self}"
        );
        self
    }

    #[track_caller]
    fn unknown(&self, id: &str, reason: Reason) -> &Checked {
        let case = self.case(id);
        assert_eq!(
            (case.verdict, case.reason),
            (Verdict::Unknown, Some(reason)),
            "{id}\n{self}"
        );
        self
    }

    #[track_caller]
    fn observed(&self, id: &str, name: &str, value: &str) -> &Checked {
        let mut observations = self.case(id).observations.iter();
        let found = observations.find(|observation| observation.name == name);
        assert_eq!(
            found.map(|observation| observation.value.as_str()),
            Some(value),
            "{id}: {name}\n{self}"
        );
        self
    }

    #[track_caller]
    fn tier(&self, tier: Tier) -> &Checked {
        assert_eq!(self.judgement().tier, tier, "{self}");
        self
    }

    /// Everything required held.
    #[track_caller]
    fn conforms(&self) -> &Checked {
        self.is(Verdict::Pass, "required cases held")
            .passed(&["served"])
            .passed(&CRUD)
            .passed(&VALIDATION)
    }

    #[track_caller]
    fn left_nothing(&self) -> &Checked {
        let left = &self.run.attempt(PROBE).left_behind;
        assert!(left.is_empty(), "left behind: {left:?}\n{self}");
        self
    }

    /// Writes the recording as the fixture of this name, if the tests were asked to.
    fn keep_as(&self, name: &str) -> Result<()> {
        if std::env::var_os("KARAT_RECORD").is_none() {
            return Ok(());
        }
        let path = fixture_file(name);
        std::fs::create_dir_all(path.parent().context("no folder")?)?;
        Ok(std::fs::write(
            &path,
            fixture::export(&self.run.recording(PROBE)?)?,
        )?)
    }
}

impl std::fmt::Display for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let attempt = self.run.attempt(PROBE);
        let judgement = &attempt.judgement;
        writeln!(
            f,
            "on: {}\n{:?} {:?} {:?} {:?}: {}",
            self.on,
            attempt.outcome,
            judgement.verdict,
            judgement.reason,
            judgement.tier,
            judgement.explanation
        )?;
        for case in &judgement.cases {
            writeln!(
                f,
                "  {} {:?} {:?}: {} (concluded {:?})",
                case.case, case.verdict, case.reason, case.explanation, case.concluded
            )?;
            for observation in &case.observations {
                writeln!(f, "    {} = {}", observation.name, observation.value)?;
            }
        }
        write!(f, "  left behind: {:?}", attempt.left_behind)
    }
}

fn fixture_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../probes/dra_support/recordings")
        .join(format!("{name}.jsonl"))
}

fn all_of(kind: &str, client: &kube::Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("resource.k8s.io", "v1", kind);
    Api::all_with(client.clone(), &ApiResource::from_gvk(&kind))
}

/// Names of cluster-scoped objects of a run that still stand.
async fn objects_of(lab: &ControlPlane, run: &str) -> Result<Vec<String>> {
    let client = lab.client().await?;
    let mut found = Vec::new();
    for kind in ["DeviceClass", "ResourceSlice"] {
        let present = all_of(kind, &client).list(&ListParams::default()).await?;
        let names = present.items.into_iter().filter_map(|o| o.metadata.name);
        found.extend(names.filter(|name| name.ends_with(run)));
    }
    Ok(found)
}

/// Replaces the devices of a laboratory by those of a fixture.
async fn only(lab: &ControlPlane, file: &str) -> Result<()> {
    let client = lab.client().await?;
    for kind in ["ResourceSlice", "DeviceClass"] {
        all_of(kind, &client)
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await?;
    }
    lab.apply(file).await?;
    Ok(lab.wait_nodes_ready().await?)
}

// ---- without devices, on the shared control plane ----

#[tokio::test(flavor = "multi_thread")]
async fn conforming_servers_are_not_accused() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let mut runs = JoinSet::new();
    runs.spawn(async {
        let checked = check("a plain server", &lab.kubeconfig()).await?;
        checked
            .conforms()
            .left_nothing()
            .unknown("inventory", Reason::NoAccelerator)
            .observed("served", "version used", "v1");
        for id in &ALLOCATION[1..] {
            checked.unknown(id, Reason::NotExercised);
        }
        checked.keep_as("pass")
    });
    runs.spawn(async {
        let slow = vec![Rule::on("*", "^/").delay(Duration::from_millis(300))];
        let checked = check_through("a slow server", lab, slow).await?;
        checked.conforms().left_nothing();
        Ok(())
    });
    runs.spawn(async {
        // As an admission webhook of a platform does.
        let marks = |object: &mut Value| {
            object["metadata"]["labels"]["platform.example/tenant"] = json!("t1");
            object["metadata"]["annotations"]["platform.example/checked"] = json!("yes");
        };
        let rules = ["POST", "PUT"]
            .map(|method| Rule::on(method, GROUP).rewrite_request(marks))
            .to_vec();
        let checked = check_through("labels are added to every object", lab, rules).await?;
        checked.conforms().left_nothing();
        Ok(())
    });
    runs.spawn(async {
        // A load balancer that ends long answers: the watch goes on by itself.
        let rules = vec![
            Rule::on("GET", GROUP)
                .query("watch=(1|true)")
                .times(2)
                .cut_after(900),
            Rule::on("GET", GROUP).times(2).disconnect(),
            Rule::on("*", GROUP)
                .times(4)
                .fail(429, "TooManyRequests", "slow down"),
        ];
        let checked = check_through("connections break and requests are shed", lab, rules).await?;
        let fails = checked.judgement().cases.iter();
        let fails: Vec<_> = fails
            .filter(|case| case.verdict == Verdict::Fail)
            .map(|case| &case.case)
            .collect();
        ensure!(fails.is_empty(), "{fails:?}\n{checked}");
        Ok(())
    });
    finished(runs).await
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_servers_are_found_for_the_right_reason() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let mut runs = JoinSet::new();
    runs.spawn(async {
        // One delete of each type. Those of the clean-up arrive: what the server only said to be gone is removed after all.
        let rules = vec![Rule::on("DELETE", GROUP).times(4).swallow()];
        let checked = check_through("deletes are swallowed", lab, rules).await?;
        checked
            .is(Verdict::Fail, "case crud-deviceclass")
            .passed(&["served"])
            .left_nothing();
        for id in CRUD {
            checked.failed(
                id,
                "the object was deleted, the server confirmed it, and it is still there",
            );
        }
        let left = objects_of(lab, &checked.run.record.run).await?;
        ensure!(left.is_empty(), "{left:?}\n{checked}");
        Ok(())
    });
    runs.spawn(async {
        let checked = unvalidated(lab).await?;
        checked
            .is(Verdict::Fail, "case validation-two-kinds")
            .passed(&["served"])
            .passed(&CRUD)
            .left_nothing();
        for id in VALIDATION {
            checked.failed(id, "was accepted");
        }
        Ok(())
    });
    runs.spawn(async {
        let rules = vec![Rule::on("GET", GROUP).drop_parameter("labelSelector")];
        let checked = check_through("lists ignore their selector", lab, rules).await?;
        checked.is(Verdict::Fail, "case crud-deviceclass");
        for id in CRUD {
            checked.failed(id, "the list by label gives");
        }
        Ok(())
    });
    runs.spawn(async {
        let forget = |event: &mut Value| {
            if event["type"] == "DELETED" {
                event["type"] = json!("BOOKMARK");
            }
        };
        let rules = vec![
            Rule::on("GET", GROUP)
                .query("watch=(1|true)")
                .rewrite(forget),
        ];
        let checked = check_through("watches forget deletions", lab, rules).await?;
        checked
            .is(Verdict::Fail, "case crud-deviceclass")
            .left_nothing();
        for id in CRUD {
            checked.failed(id, "deleted, and the watch did not say so");
        }
        Ok(())
    });
    runs.spawn(async {
        let rules = vec![Rule::on("PATCH", GROUP).swallow()];
        let checked = check_through("patches are swallowed", lab, rules).await?;
        ensure!(
            checked.judgement().verdict != Some(Verdict::Pass),
            "{checked}"
        );
        Ok(())
    });
    finished(runs).await
}

/// A server that takes flawed objects: the inner proxy mends what is about to be created and notes the flaw in an annotation,
/// the outer one shows the flaw as if it had been stored.
async fn unvalidated(lab: &ControlPlane) -> Result<Checked> {
    const FLAW: &str = "lab.example/flaw";
    let mend = |object: &mut Value| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        if !name.starts_with("bad-") {
            return;
        }
        let flaw = object["spec"].to_string();
        object["metadata"]["annotations"][FLAW] = json!(flaw);
        if object["kind"] == "ResourceSlice" {
            object["spec"]["devices"][0]["name"] = json!("device-0");
        } else {
            let class = json!({"deviceClassName": "none.example"});
            object["spec"]["devices"]["requests"] = json!([{"name": "mended", "exactly": class}]);
        }
    };
    let show = |object: &mut Value| {
        let annotations = object.pointer_mut("/metadata/annotations");
        let flaw = annotations
            .and_then(Value::as_object_mut)
            .and_then(|annotations| annotations.remove(FLAW));
        if let Some(flaw) = flaw.as_ref().and_then(Value::as_str) {
            object["spec"] = serde_json::from_str(flaw).unwrap_or_default();
        }
        true
    };
    let inner = started(lab, vec![Rule::on("POST", GROUP).rewrite_request(mend)]).await?;
    let outer = lab
        .proxy()
        .forward_with(inner.kubeconfig())
        .rule(Rule::on("*", GROUP).rewrite_objects(show))
        .start()
        .await?;
    check("flawed objects are accepted", outer.kubeconfig()).await
}

// ---- control planes of their own ----

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_the_server_decides_which_version_is_due() -> Result<()> {
    let lab = ControlPlane::builder().dra(DraApi::OldOnly).start().await?;
    let old = vec![Rule::version("1.33.4")];
    let direct = lab.kubeconfig();
    let (old, new) = tokio::try_join!(
        check_through("1.33 with old versions only", &lab, old),
        check("1.37 with old versions only", &direct),
    )?;
    old.conforms()
        .left_nothing()
        .observed("served", "server version", "v1.33.4")
        .observed("served", "version used", "v1beta2");
    new.is(Verdict::Fail, "case served")
        .failed("served", "resource.k8s.io/v1 is not served")
        .passed(&CRUD);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_the_api_fails() -> Result<()> {
    let lab = ControlPlane::builder().dra(DraApi::Off).start().await?;
    let checked = check("the API is off", &lab.kubeconfig()).await?;
    checked
        .is(Verdict::Fail, "case served")
        .failed("served", "resource.k8s.io/v1 is not served")
        .observed("served", "answer for resource.k8s.io/v1", "404")
        .left_nothing();
    for id in CRUD.iter().chain(&VALIDATION) {
        checked.unknown(id, Reason::SolutionAbsent);
    }
    checked.keep_as("fail")
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_allocated_whoever_made_them() -> Result<()> {
    let lab = ControlPlane::builder().start().await?;

    only(&lab, "exhausted-pool.yaml").await?;
    lab.wait_pods_running("exhausted").await?;
    let checked = check("every device is taken", &lab.kubeconfig()).await?;
    checked
        .conforms()
        .left_nothing()
        .unknown("inventory", Reason::InsufficientCapacity)
        .observed("inventory", "devices in complete pools", "2")
        .observed("inventory", "devices that a pod could get now", "0")
        .unknown("allocated", Reason::NotExercised);

    for (file, driver) in [
        ("unknown-vendor-nodes.yaml", "npu.unknown-vendor.invalid"),
        ("amd-nodes.yaml", "gpu.amd.com.invalid"),
    ] {
        only(&lab, file).await?;
        check(file, &lab.kubeconfig())
            .await?
            .conforms()
            .left_nothing()
            .passed(&ALLOCATION)
            .observed("allocated", "driver", driver)
            .tier(Tier::Simulated);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_generation_counts() -> Result<()> {
    let lab = ControlPlane::builder().start().await?;
    only(&lab, "nvidia-nodes.yaml").await?;
    check("nvidia-nodes.yaml", &lab.kubeconfig())
        .await?
        .conforms()
        .left_nothing()
        .passed(&ALLOCATION)
        .observed("inventory", "devices in complete pools", "4")
        .observed("inventory", "devices that the selector fits", "1")
        .tier(Tier::Simulated);

    only(&lab, "stale-slices.yaml").await?;
    check("a slice of an older generation", &lab.kubeconfig())
        .await?
        .conforms()
        .left_nothing()
        .passed(&ALLOCATION)
        .observed(
            "inventory",
            "devices of older generations or incomplete pools",
            "2",
        )
        .observed("inventory", "devices in complete pools", "1")
        .observed("allocated", "device", "gpu-0");

    // Allocation is not required, so the verdict stays; the case says what is wrong.
    let trusting = |claim: &mut Value| {
        let device = claim.pointer_mut("/status/allocation/devices/results/0/device");
        if let Some(device) = device {
            *device = json!("gpu-1");
        }
        true
    };
    let rules = vec![Rule::on("GET", "/resourceclaims").rewrite_objects(trusting)];
    check_through("a device of the older generation is allocated", &lab, rules)
        .await?
        .conforms()
        .failed("allocated", "which is not in the newest generation")
        .unknown("unsatisfiable", Reason::NotExercised);

    // A cache that never heard of the newest generation shows another device. The scheduler knows better, and what it
    // allocates is not what the API shows.
    let hide = |slice: &mut Value| {
        let devices = slice.pointer_mut("/spec/devices");
        if let Some(devices) = devices.and_then(Value::as_array_mut) {
            devices.retain(|device| device["name"] != "gpu-0");
        }
        slice.pointer("/spec/pool/generation") != Some(&json!(2))
    };
    let rules = vec![Rule::on("GET", "/resourceslices").rewrite_objects(hide)];
    check_through("the newest generation is hidden", &lab, rules)
        .await?
        .conforms()
        .failed("allocated", "which is not in the newest generation");
    Ok(())
}

// ---- recorded runs ----

#[tokio::test(flavor = "multi_thread")]
async fn recorded_runs_give_the_same_verdicts_again() -> Result<()> {
    let engine = Engine::new(&EngineOptions::default())?;
    let probe = component::load(&engine, built("probe-dra-support")?)?;
    for (name, verdict, explanation) in [
        ("pass", Verdict::Pass, "8 required cases held"),
        (
            "fail",
            Verdict::Fail,
            "case served: the probe contradicts the claim: resource.k8s.io/v1 is not served",
        ),
    ] {
        let path = fixture_file(name);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let judgement = replay_fixture(&engine, &probe, fixture::load(&text)?)
            .await
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("{name}: after a change of the probe, record anew with `KARAT_RECORD=1 cargo test -p karat-tests --test all dra_support`"))?;
        ensure!(
            judgement.verdict == Some(verdict) && judgement.explanation.contains(explanation),
            "{name}: {judgement:#?}"
        );
    }

    // A probe that hears another answer says something else, and that is noticed.
    let text = std::fs::read_to_string(fixture_file("fail"))?;
    let edited = text.replace("\"code\":404", "\"code\":500");
    ensure!(edited != text, "the fixture has no 404");
    let told = replay_fixture(&engine, &probe, fixture::load(&edited)?).await;
    ensure!(told.is_err(), "{told:#?}");
    Ok(())
}

async fn finished(mut runs: JoinSet<Result<()>>) -> Result<()> {
    let mut wrong = Vec::new();
    while let Some(done) = runs.join_next().await {
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => wrong.push(format!("{error:?}")),
            Err(error) if error.is_panic() => {
                let panic = error.into_panic();
                let text = panic.downcast_ref::<String>().cloned();
                wrong.push(text.unwrap_or_else(|| "a check panicked".to_owned()));
            }
            Err(error) => wrong.push(error.to_string()),
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}

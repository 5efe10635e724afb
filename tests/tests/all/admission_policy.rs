//! The probe `admission_policy` on a real control plane, and an edited recording of it. The clusters that are wrong in one way, on
//! which it must fail, are in `tests/broken/admission_policy.yaml`.

use anyhow::{Context, Result, ensure};
use karat_engine::component;
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::model::{Outcome, Reach, Verdict};
use karat_engine::recording::fixture;
use karat_engine::replay::replay_fixture;
use karat_tests::guests::built;
use karat_tests::runs;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use std::path::Path;

const PROBE: &str = "admission-policy";

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_server_passes_and_keeps_no_policy() -> Result<()> {
    let lab = karat_testbed::shared().await?;
    let component = built("probe-admission-policy")?;
    let run = runs::run(&lab.kubeconfig(), vec![component], Reach::ClusterObjects).await?;
    let attempt = run.attempt(PROBE);
    ensure!(attempt.outcome == Outcome::Concluded, "{attempt:#?}");
    let judgement = &attempt.judgement;
    ensure!(judgement.verdict == Some(Verdict::Pass), "{judgement:#?}");
    for case in &judgement.cases {
        ensure!(case.verdict == Verdict::Pass, "{case:#?}");
    }
    ensure!(attempt.left_behind.is_empty(), "{:?}", attempt.left_behind);

    // A policy that stays would be somebody else's trouble, so the server is asked itself.
    let client = lab.client().await?;
    for kind in [
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ] {
        let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let all: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&kind));
        let present = all.list(&ListParams::default()).await?;
        let mut names = present.items.into_iter().filter_map(|o| o.metadata.name);
        let left = names.find(|name| name.ends_with(&run.record.run));
        ensure!(left.is_none(), "{left:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_by_the_policy_of_somebody_else_is_worth_nothing() -> Result<()> {
    let engine = Engine::new(&EngineOptions::default())?;
    let probe = component::load(&engine, built("probe-admission-policy")?)?;
    let text = recording("pass")?;
    let edited = text.replace(
        "ValidatingAdmissionPolicy 'cost-",
        "ValidatingAdmissionPolicy 'lost-",
    );
    ensure!(edited != text, "the fixture has no refusal");
    let told = replay_fixture(&engine, &probe, fixture::load(&edited)?).await;
    ensure!(
        !matches!(&told, Ok(judgement) if judgement.verdict == Some(Verdict::Pass)),
        "{told:#?}"
    );
    Ok(())
}

fn recording(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../probes/admission_policy/recordings")
        .join(format!("{name}.jsonl"));
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

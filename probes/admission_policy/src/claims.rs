//! A policy on device classes: what a platform needs to keep teams to the accelerators they may use.
//!
//! Admin access (`adminAccess: true`) is not tried: the door of Karat lets no probe ask for devices that others hold.

use crate::direct::must_accept;
use crate::manifest::cases;
use crate::objects::Objects;
use crate::other;
use crate::policy::{Policy, Rules};
use karat_sdk::build::{ClaimSpec, DraVersion, claim};
use karat_sdk::discovery::Discovery;
use karat_sdk::{Object, Result, Value, log, run};

/// Concludes both cases, if the server has claims and the probe may create them.
pub(crate) fn check(objects: &Objects, discovery: Option<&Discovery>) -> Result<()> {
    let version = discovery.and_then(|discovery| DraVersion::newest(discovery).ok().flatten());
    let Some(version) = version else {
        log::info("resource.k8s.io is not served as this probe knows it; claims are left out");
        return Ok(());
    };
    let claims = objects.target(&version.api_version(), "resourceclaims");
    let allowed = run::name("allowed");
    let make =
        |prefix: &str, class: &str| claim(version, &run::name(prefix), &ClaimSpec::new(class));
    let good = make("claim-good", &allowed);
    let bad = make("claim-bad", &run::name("other"));
    // Outside of a case, where a refusal decides nothing: the permission is optional.
    if let Err(error) = claims.clone().dry_run().create(&good) {
        if error.ends_the_probe() {
            return Err(error);
        }
        log::info(format!("claims are left out: {error}"));
        return Ok(());
    }
    let of_request = match version {
        DraVersion::V1Beta1 => "r.deviceClassName",
        DraVersion::V1 | DraVersion::V1Beta2 => "r.exactly.deviceClassName",
    };
    let holder = of_request.trim_end_matches(".deviceClassName");
    let has = if holder == "r" { of_request } else { holder };
    let rules = [(
        format!("object.spec.devices.requests.all(r, has({has}) && {of_request} == '{allowed}')"),
        "only the allowed device class may be asked for",
    )];
    let rules = Rules {
        word: "devices",
        group: DraVersion::GROUP,
        version: version.as_str(),
        resource: "resourceclaims",
        validations: &rules,
    };
    let mut made = None;
    cases::CLAIM_ALLOWED.check("", |case| {
        let policy = match Policy::create(&rules) {
            Ok(policy) => made.insert(policy),
            Err(error) => return other(error),
        };
        policy.in_force(&claims, &bad)?;
        must_accept(case, policy, &claims, &good)
    })?;
    let Some(policy) = made else { return Ok(()) };
    cases::CLAIM_REFUSED.check("", |case| {
        policy.must_refuse(case, &claims, &bad, |claim| {
            asks_for(version, claim) != allowed
        })
    })?;
    policy.remove()
}

fn asks_for(version: DraVersion, claim: &Object) -> &str {
    let request = claim.at("/spec/devices/requests/0");
    let body: &Value = match version {
        DraVersion::V1Beta1 => request,
        DraVersion::V1 | DraVersion::V1Beta2 => &request["exactly"],
    };
    body["deviceClassName"].as_str().unwrap_or_default()
}

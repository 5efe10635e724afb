//! Step 3: what the API must refuse. Each object is one of step 2 with a single flaw, so nothing else can be the reason.

use crate::api::Api;
use crate::manifest::cases;
use karat_sdk::build::DraVersion;
use karat_sdk::{Case, Conclusion, Error, Reason, Result, Target, Value, json, log};

/// Concludes the three cases.
pub(crate) fn check(api: &Api) -> Result<()> {
    cases::VALIDATION_TWO_KINDS.check("", |case| two_kinds(api, case))?;
    cases::VALIDATION_CEL.check("", |case| {
        let mut object = api.claim("bad-cel", "bad");
        set_in_request(
            api,
            &mut object,
            "selectors",
            &json!([{"cel": {"expression": "device.driver == ("}}]),
        );
        must_be_refused(case, &api.sandboxed("resourceclaims"), &object)
    })?;
    cases::VALIDATION_NAME.check("", |case| {
        let mut object = api.resource_slice("bad-name", "bad");
        object["spec"]["devices"][0]["name"] = json!("device_0");
        must_be_refused(case, &api.cluster("resourceslices"), &object)
    })?;
    Ok(())
}

fn two_kinds(api: &Api, case: &Case) -> Result<Conclusion> {
    let claims = api.sandboxed("resourceclaims");
    let mut object = api.claim("bad-kinds", "bad");
    let alternative = json!([{"name": "other", "deviceClassName": "none"}]);
    object["spec"]["devices"]["requests"][0]["firstAvailable"] = alternative;
    // Before 1.36 a feature gate guards `firstAvailable`. With the gate off the server drops the field and sees one kind, so its
    // yes shows nothing. A dry run finds that out: it counts as an attempt only if it is refused.
    match claims.clone().dry_run().create(&object) {
        Ok(stored)
            if stored
                .at("/spec/devices/requests/0/firstAvailable")
                .is_null() =>
        {
            case.observe("firstAvailable", "dropped by the server");
            // Then the kinds of a single request must do: all devices, and a number of them.
            let mut object = api.claim("bad-mode", "bad");
            set_in_request(api, &mut object, "allocationMode", &json!("All"));
            set_in_request(api, &mut object, "count", &json!(2));
            must_be_refused(case, &claims, &object)
        }
        Ok(_) => must_be_refused(case, &claims, &object),
        Err(error) => refused(case, error),
    }
}

/// Creates what must not be created.
fn must_be_refused(case: &Case, target: &Target, object: &Value) -> Result<Conclusion> {
    let made = match target.create(object) {
        Ok(made) => made,
        Err(error) => return refused(case, error),
    };
    // Taken away at once: a flawed object may confuse a controller.
    if let Err(error) = target.delete(made.name()) {
        if error.ends_the_probe() {
            return Err(error);
        }
        log::warn(format!(
            "{} was accepted and could not be deleted: {error}",
            made.name()
        ));
    }
    case.observe("uid of what should have been refused", made.uid());
    Ok(Conclusion::fail(format!("{} was accepted", made.name())))
}

/// What a refusal shows.
fn refused(case: &Case, error: Error) -> Result<Conclusion> {
    match error {
        Error::Answered(answer) if answer.code == 422 => {
            case.observe("code", answer.code);
            case.observe("message", &answer.message);
            Ok(Conclusion::Pass)
        }
        // A server that cannot even read the object refuses it too, but not by validation: what that means is unclear.
        Error::Answered(answer) if answer.code == 400 => Ok(Conclusion::unknown(
            Reason::VersionSkew,
            format!("400 instead of 422: {}", answer.message),
        )),
        error => Err(error),
    }
}

fn set_in_request(api: &Api, object: &mut Value, field: &str, value: &Value) {
    let request = &mut object["spec"]["devices"]["requests"][0];
    match api.version {
        DraVersion::V1Beta1 => request[field] = value.clone(),
        DraVersion::V1 | DraVersion::V1Beta2 => request["exactly"][field] = value.clone(),
    }
}

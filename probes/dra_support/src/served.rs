//! Step 1: which versions are served, and whether that is enough for this Kubernetes version.

use crate::api::Api;
use crate::manifest::cases;
use karat_sdk::build::DraVersion;
use karat_sdk::discovery::Discovery;
use karat_sdk::{Case, Conclusion, Error, Query, Reason, Result, log};

/// The resources with the subresources that the claim names.
const RESOURCES: &[(&str, &[&str])] = &[
    ("deviceclasses", &[]),
    ("resourceclaims", &["status"]),
    ("resourceclaimtemplates", &[]),
    ("resourceslices", &[]),
];

/// Concludes the case and gives what the other cases speak; none when there is nothing to speak.
pub(crate) fn check(namespace: &str) -> Result<Option<Api>> {
    let mut spoken = None;
    cases::SERVED.check("", |case| {
        let (conclusion, version) = look(case, namespace)?;
        spoken = version.map(|version| Api {
            version,
            namespace: namespace.to_owned(),
        });
        Ok(conclusion)
    })?;
    Ok(spoken)
}

fn look(case: &Case, namespace: &str) -> Result<(Conclusion, Option<DraVersion>)> {
    let discovery = Discovery::read()?;
    let server = &discovery.version().git_version;
    case.observe("server version", server);
    let served = discovery.versions(DraVersion::GROUP);
    case.observe("served versions", served.join(", "));
    let Some(version) = DraVersion::newest(&discovery)? else {
        // An absence is shown by asking, not by a document that does not mention it.
        return Ok((
            absent(case, DraVersion::V1, namespace)?.unwrap_or_else(|| {
                Conclusion::unknown(
                    Reason::VersionSkew,
                    "discovery does not name resource.k8s.io/v1 and the server answers it all the same",
                )
            }),
            None,
        ));
    };
    case.observe("version used", version.as_str());

    let mut missing = Vec::new();
    for (name, subresources) in RESOURCES {
        match discovery.resource(DraVersion::GROUP, version.as_str(), name) {
            None => missing.push((*name).to_owned()),
            Some(found) => missing.extend(
                subresources
                    .iter()
                    .filter(|sub| !found.has_subresource(sub))
                    .map(|sub| format!("{name}/{sub}")),
            ),
        }
    }
    for (name, _) in RESOURCES {
        let mut pages = list(version, name, namespace).pages()?;
        pages.next_page()?;
        case.observe(&format!("resource version of {name}"), pages.position());
    }
    if !missing.is_empty() {
        return Ok((
            Conclusion::fail(format!(
                "{} lacks {}",
                version.api_version(),
                missing.join(", ")
            )),
            Some(version),
        ));
    }
    if version == DraVersion::V1 {
        return Ok((Conclusion::Pass, Some(version)));
    }
    let conclusion = match discovery.version().at_least(1, 34) {
        Some(false) => Conclusion::Pass,
        Some(true) => absent(case, DraVersion::V1, namespace)?.unwrap_or_else(|| {
            Conclusion::unknown(
                Reason::VersionSkew,
                "discovery does not name resource.k8s.io/v1 and the server answers it all the same",
            )
        }),
        None => Conclusion::unknown(
            Reason::VersionSkew,
            format!(
                "the server version `{server}` cannot be read, so it is unclear whether v1 is due"
            ),
        ),
    };
    if !conclusion.is_pass() {
        log::warn(format!("only {} is served", served.join(", ")));
    }
    Ok((conclusion, Some(version)))
}

/// Asks for a version that discovery does not name; a fail when the server says 404.
fn absent(case: &Case, version: DraVersion, namespace: &str) -> Result<Option<Conclusion>> {
    match list(version, "deviceclasses", namespace).list() {
        Ok(_) => Ok(None),
        Err(Error::Answered(answer)) if answer.code == 404 => {
            case.observe(
                &format!("answer for {}", version.api_version()),
                answer.code,
            );
            Ok(Some(Conclusion::fail(format!(
                "{} is not served",
                version.api_version()
            ))))
        }
        Err(error) => Err(error),
    }
}

fn list(version: DraVersion, resource: &str, namespace: &str) -> Query {
    let query = Query::new(&version.api_version(), resource).keep(&["/metadata/name"]);
    match resource {
        "resourceclaims" | "resourceclaimtemplates" => query.in_namespace(namespace),
        _ => query,
    }
}

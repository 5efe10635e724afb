//! Secrets: none of others by any verb or selector, and none that a controller would fill with a token.

use super::never::own_only;
use super::{GuardContext, Request, Stop, quoted};

/// Types that a controller or the API server gives a meaning outside the sandbox.
const REFUSED_TYPES: &[&str] = &[
    "kubernetes.io/service-account-token",
    "bootstrap.kubernetes.io/token",
];

pub(super) fn types(request: &mut Request<'_>, _: &GuardContext) -> Result<(), Stop> {
    if !request.is("", "secrets") {
        return Ok(());
    }
    let Some((body, _)) = request.object() else {
        return Ok(());
    };
    match body["type"].as_str() {
        Some(kind) if REFUSED_TYPES.contains(&kind) => Stop::never(format!(
            "a Secret of type {} is never written: it would be filled with, or be, a credential",
            quoted(kind)
        )),
        _ => Ok(()),
    }
}

/// Lists and watches are narrowed to the probe's own label and to its namespaces; single reads to its own objects.
pub(super) fn reads(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    let access = request.access;
    if !request.is("", "secrets") || request.writes() {
        return Ok(());
    }
    match access.verb.as_str() {
        "get" if context.owns("", "secrets", &access.namespace, &access.name) => Ok(()),
        "get" => Stop::never(format!(
            "Secret {} was not created by this probe and is never read",
            quoted(&access.name)
        )),
        _ if context.is_sandbox(&access.namespace) => own_only(&mut request.labels, context),
        _ => Stop::never("Secrets are listed and watched only in the probe's own namespaces"),
    }
}

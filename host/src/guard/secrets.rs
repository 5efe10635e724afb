//! Secrets: none of others by any verb or selector, none that a controller would fill with a token, and no word of those that
//! the kubelet pulls with.

use super::never::own_only;
use super::{GuardContext, Request, Stop, quoted};
use serde_json::Value;

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

/// A volume, a variable or a custom resource could carry a copy into a pod, whatever the field is called.
pub(super) fn pulls(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    let names = |text: &str| context.pull_secrets.iter().any(|name| text.contains(name));
    let access = request.access;
    if names(&access.name)
        || names(&request.labels)
        || request
            .body
            .as_deref()
            .is_some_and(|body| says(body, &names))
    {
        return Stop::never("what the kubelet pulls images with is not for probes");
    }
    Ok(())
}

fn says(value: &Value, names: &impl Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => names(text),
        Value::Array(items) => items.iter().any(|item| says(item, names)),
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| names(key) || says(value, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

//! Cluster-scoped objects: few, of known kinds, and made so that they reach nothing of others.

use super::{CLUSTER_OBJECTS_MAX, Extent, GuardContext, Request, Stop, kind_of, quoted, tables};
use serde_json::{Value, json};

const ADMISSION: &str = "admissionregistration.k8s.io";
const DRA: &str = "resource.k8s.io";

pub(super) fn limit(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    let access = request.access;
    let adds =
        access.verb == "create" && access.namespace.is_empty() && access.subresource.is_empty();
    if !adds || context.ledger.cluster_objects() < CLUSTER_OBJECTS_MAX {
        return Ok(());
    }
    Stop::never(format!(
        "this run already has {CLUSTER_OBJECTS_MAX} cluster-scoped objects; delete some first"
    ))
}

/// Kinds whose rows are below may be written; others must be named in the grants file.
pub(super) fn kinds(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    const KNOWN: &[(&str, &str)] = &[
        (DRA, "deviceclasses"),
        (DRA, "resourceslices"),
        ("scheduling.k8s.io", "priorityclasses"),
        (ADMISSION, "validatingadmissionpolicies"),
        (ADMISSION, "validatingadmissionpolicybindings"),
        // Cordoning, see `never::nodes`.
        ("", "nodes"),
    ];
    let access = request.access;
    if !request.writes()
        || !access.namespace.is_empty()
        || KNOWN.contains(&(access.group.as_str(), access.resource.as_str()))
    {
        return Ok(());
    }
    named(
        request,
        context,
        "cluster-scoped objects of this kind may concern everybody",
    )
}

/// Kinds whose controllers act outside the namespace.
pub(super) fn acts_outside(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    let access = request.access;
    if !request.writes() {
        return Ok(());
    }
    match tables::acts_outside(&access.group, &access.resource) {
        None => Ok(()),
        Some(why) => named(request, context, why),
    }
}

fn named(request: &Request<'_>, context: &GuardContext, why: &str) -> Result<(), Stop> {
    let access = request.access;
    let kind = crate::grant::qualified(&access.group, &access.resource);
    if context.effective.exceptions().kinds.contains(&kind) {
        return Ok(());
    }
    Stop::unless(
        format!("{} {}: {why}", access.verb, kind_of(access)),
        format!("kinds = [{}]", toml::Value::from(kind.as_str())),
    )
}

pub(super) fn priority_classes(request: &mut Request<'_>, _: &GuardContext) -> Result<(), Stop> {
    if !request.is("scheduling.k8s.io", "priorityclasses") {
        return Ok(());
    }
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    let value_holds = match body.get("value") {
        None => extent == Extent::Part,
        Some(value) => value.as_i64().is_some_and(|value| value < 0),
    };
    if !value_holds {
        return Stop::never(
            "a PriorityClass of a probe has a value below 0: others must never be pushed out",
        );
    }
    match body.get("globalDefault") {
        None | Some(Value::Bool(false)) => Ok(()),
        Some(_) => Stop::never("a PriorityClass of a probe is never the global default"),
    }
}

/// ValidatingAdmissionPolicies and their bindings: the door writes the selector on the probe's namespaces, and keeps them
/// off cluster-scoped objects, which no namespace selector holds back.
pub(super) fn admission(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    let key = match (
        request.access.group.as_str(),
        request.access.resource.as_str(),
    ) {
        (ADMISSION, "validatingadmissionpolicies") => "matchConstraints",
        (ADMISSION, "validatingadmissionpolicybindings") => "matchResources",
        _ => return Ok(()),
    };
    let binding = key == "matchResources";
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    let spec = match body.get_mut("spec") {
        None if extent == Extent::Part => return Ok(()),
        Some(Value::Object(spec)) => spec,
        _ => return Stop::never("an admission policy or binding needs a `spec`"),
    };
    if binding {
        match spec.get("policyName") {
            None if extent == Extent::Part => {}
            Some(Value::String(name))
                if context.owns(ADMISSION, "validatingadmissionpolicies", "", name) => {}
            _ => return Stop::never("a binding of a probe binds a policy that this probe created"),
        }
        let space = spec
            .get("paramRef")
            .and_then(|reference| reference["namespace"].as_str());
        if space.is_some_and(|space| !context.is_sandbox(space)) {
            return Stop::never("parameters of a binding come from the probe's own namespaces");
        }
    }
    let selector = json!({"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": context.namespaces},
    ]});
    if context.namespaces.is_empty() {
        return Stop::never("an admission policy needs a sandbox namespace that it is limited to");
    }
    match spec.get_mut(key) {
        None if extent == Extent::Part => return Ok(()),
        None if binding => {
            spec.insert(key.to_owned(), json!({"namespaceSelector": selector}));
        }
        Some(Value::Object(constraints)) => {
            constraints.insert("namespaceSelector".to_owned(), selector);
            match constraints.get_mut("resourceRules") {
                None => {}
                Some(Value::Array(rules)) => {
                    for rule in rules {
                        let Some(rule) = rule.as_object_mut() else {
                            return Stop::never("a resource rule is no object");
                        };
                        rule.insert("scope".to_owned(), "Namespaced".into());
                    }
                }
                Some(_) => return Stop::never("`resourceRules` must be a list"),
            }
        }
        _ => return Stop::never(format!("the policy needs `spec.{key}`")),
    }
    Ok(())
}

/// The `spec` that a row looks at; none where a patch leaves it alone.
fn spec_of<'a>(body: &'a Value, extent: Extent, kind: &str) -> Result<Option<&'a Value>, Stop> {
    match body.get("spec") {
        None if extent == Extent::Part => Ok(None),
        Some(spec) if spec.is_object() => Ok(Some(spec)),
        _ => Stop::never(format!("a {kind} of a probe needs a `spec`")),
    }
}

pub(super) fn device_classes(
    request: &mut Request<'_>,
    context: &GuardContext,
) -> Result<(), Stop> {
    if !request.is(DRA, "deviceclasses") {
        return Ok(());
    }
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    let Some(spec) = spec_of(body, extent, "DeviceClass")? else {
        return Ok(());
    };
    match spec.get("selectors") {
        None if extent == Extent::Part => {}
        // All selectors must hold, so one that holds for nothing but our driver is enough.
        Some(Value::Array(selectors))
            if selectors.iter().any(|selector| {
                selector["cel"]["expression"]
                    .as_str()
                    .is_some_and(|text| selects_run_driver(text, context))
            }) => {}
        _ => {
            return Stop::never(format!(
                "a DeviceClass of a probe needs a selector that begins with `device.driver == \"….{run}.karat.invalid\"` and has neither `||` nor `?`",
                run = context.run
            ));
        }
    }
    if let Some(name) = spec.get("extendedResourceName")
        && !name.as_str().is_some_and(|name| {
            name.split_once('/')
                .is_some_and(|(domain, _)| context.is_run_domain(domain))
        })
    {
        return Stop::never(
            "`extendedResourceName` of a DeviceClass lies below a name of this run",
        );
    }
    for config in spec["config"].as_array().into_iter().flatten() {
        if !config["opaque"]["driver"]
            .as_str()
            .is_some_and(|driver| context.is_run_domain(driver))
        {
            return Stop::never("the configuration of a DeviceClass is for a driver of this run");
        }
    }
    Ok(())
}

/// Whether an expression can be true only for devices of a driver of this run. CEL is not parsed here: it must begin with
/// the comparison, go on with `&&` or end, and have nothing that could loosen a conjunction.
fn selects_run_driver(expression: &str, context: &GuardContext) -> bool {
    if expression.contains("||") || expression.contains('?') {
        return false;
    }
    let compact = |text: &str| text.trim_start().to_owned();
    let rest = compact(expression);
    let Some(rest) = rest.strip_prefix("device.driver") else {
        return false;
    };
    let rest = compact(rest);
    let Some(rest) = rest.strip_prefix("==") else {
        return false;
    };
    let rest = compact(rest);
    let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return false;
    };
    let Some((driver, rest)) = rest[1..].split_once(quote) else {
        return false;
    };
    // A triple-quoted or escaped literal is not read as one here.
    let rest = compact(rest);
    !driver.contains('\\')
        && context.is_run_domain(driver)
        && (rest.is_empty() || rest.starts_with("&&"))
}

pub(super) fn resource_slices(
    request: &mut Request<'_>,
    context: &GuardContext,
) -> Result<(), Stop> {
    if !request.is(DRA, "resourceslices") {
        return Ok(());
    }
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    let Some(spec) = spec_of(body, extent, "ResourceSlice")? else {
        return Ok(());
    };
    let whole = extent == Extent::Whole;
    match spec.get("driver") {
        None if !whole => {}
        Some(Value::String(driver)) if context.is_run_domain(driver) => {}
        _ => {
            return Stop::never(format!(
                "the driver of a ResourceSlice of a probe ends in `{}.karat.invalid`",
                context.run
            ));
        }
    }
    match spec.get("pool") {
        None if !whole => {}
        Some(pool) => match pool.get("name") {
            None if !whole => {}
            Some(Value::String(name)) if name.contains(&context.run) => {}
            _ => {
                return Stop::never(
                    "the pool of a ResourceSlice of a probe holds the run id in its name",
                );
            }
        },
        None => return Stop::never("a ResourceSlice needs a pool"),
    }
    no_node(spec)?;
    for device in spec["devices"].as_array().into_iter().flatten() {
        no_node(device)?;
        // In v1beta1 the fields of a device stand in `basic`.
        no_node(&device["basic"])?;
        if let Some(selector) = device.get("nodeSelector") {
            matches_no_node(selector, context)?;
        }
    }
    match spec.get("nodeSelector") {
        None if !whole => Ok(()),
        Some(selector) => matches_no_node(selector, context),
        None => Stop::never("a ResourceSlice of a probe has a `nodeSelector` that matches no node"),
    }
}

fn no_node(place: &Value) -> Result<(), Stop> {
    if place
        .get("nodeName")
        .is_some_and(|name| !name.is_null() && *name != "")
    {
        return Stop::never("a ResourceSlice of a probe never names a node");
    }
    if place
        .get("allNodes")
        .is_some_and(|all| *all != Value::Bool(false) && !all.is_null())
    {
        return Stop::never("a ResourceSlice of a probe is never for all nodes");
    }
    Ok(())
}

/// One term, in which one requirement can hold only for a node that carries the run id, which none does.
fn matches_no_node(selector: &Value, context: &GuardContext) -> Result<(), Stop> {
    let one_term = selector["nodeSelectorTerms"]
        .as_array()
        .filter(|terms| terms.len() == 1);
    let holds = one_term.is_some_and(|terms| {
        ["matchFields", "matchExpressions"].iter().any(|part| {
            terms[0][part]
                .as_array()
                .into_iter()
                .flatten()
                .any(|requirement| {
                    let values = requirement["values"]
                        .as_array()
                        .map(Vec::as_slice)
                        .unwrap_or_default();
                    requirement["operator"] == "In"
                        && !values.is_empty()
                        && values.iter().all(|value| {
                            value.as_str().is_some_and(|text| {
                                text == context.run || context.is_run_name(text)
                            })
                        })
                })
        })
    });
    if holds {
        return Ok(());
    }
    Stop::never(format!(
        "the node selector of a ResourceSlice of a probe has exactly one term, with a requirement `In` whose values end in `-{}`: it must match no node ({})",
        context.run,
        quoted(&selector.to_string())
    ))
}

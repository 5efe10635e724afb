//! Services, routes and what else could turn the API server's proxy or a shared gateway against others.

use super::{Extent, GuardContext, Request, Stop, quoted};
use serde_json::Value;

const GATEWAY: &str = "gateway.networking.k8s.io";

pub(super) fn services(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    if !request.is("", "services") {
        return Ok(());
    }
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    let spec = match body.get("spec") {
        None if extent == Extent::Part => return Ok(()),
        Some(spec) if spec.is_object() => spec,
        _ => return Stop::never("a Service needs a `spec` with a selector"),
    };
    let consents = context.effective.exceptions();
    match spec.get("type").map(|kind| kind.as_str()) {
        None | Some(Some("ClusterIP")) => {}
        Some(Some("LoadBalancer")) if consents.load_balancers => {}
        Some(Some("NodePort")) if consents.node_ports => {}
        Some(Some("LoadBalancer")) => {
            return Stop::unless(
                "a Service of type LoadBalancer costs money",
                "load-balancers = true",
            );
        }
        Some(Some("NodePort")) => {
            return Stop::unless(
                "a Service of type NodePort opens a port on every node",
                "node-ports = true",
            );
        }
        Some(kind) => {
            return Stop::never(format!(
                "a Service of type {} is never allowed: it can aim at any host",
                quoted(kind.unwrap_or("null"))
            ));
        }
    }
    let selector_holds = match spec.get("selector") {
        None => extent == Extent::Part,
        Some(Value::Object(labels)) => !labels.is_empty() && labels.values().all(Value::is_string),
        Some(_) => false,
    };
    if !selector_holds {
        return Stop::never(
            "a Service needs a selector: without one, somebody else's addresses could stand behind it",
        );
    }
    for key in [
        "externalIPs",
        "externalName",
        "loadBalancerIP",
        "loadBalancerSourceRanges",
        "loadBalancerClass",
        "healthCheckNodePort",
    ] {
        if spec.get(key).is_some_and(|value| !is_empty(value)) {
            return Stop::never(format!("`spec.{key}` of a Service is never set by a probe"));
        }
    }
    // A chosen address could be one that something else is about to get; the server's own choice comes back in updates.
    if request.access.verb == "create" {
        let body = request.body.as_deref();
        let chosen = body.and_then(|body| body["spec"]["clusterIP"].as_str());
        if chosen.is_some_and(|address| !matches!(address, "" | "None")) {
            return Stop::never("the address of a Service is chosen by the server");
        }
    }
    let ports = request
        .body
        .as_deref()
        .and_then(|body| body["spec"]["ports"].as_array());
    let fixed = ports
        .into_iter()
        .flatten()
        .any(|port| port.get("nodePort").is_some_and(|p| !is_empty(p)));
    if fixed && !(consents.node_ports || consents.load_balancers) {
        return Stop::unless("`nodePort` opens a port on every node", "node-ports = true");
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) => false,
    }
}

/// HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, UDPRoute.
pub(super) fn routes(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    let access = request.access;
    if access.group != GATEWAY || !access.resource.ends_with("routes") {
        return Ok(());
    }
    let namespace = access.namespace.clone();
    let resource = access.resource.clone();
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    let Some(spec) = body.get("spec") else {
        return if extent == Extent::Part {
            Ok(())
        } else {
            Stop::never("a route needs a `spec` with `parentRefs`")
        };
    };
    let mut shared = false;
    match spec.get("parentRefs") {
        // A part without parents may concern a route on a shared gateway.
        None if extent == Extent::Part => {
            shared = !context.effective.exceptions().gateways.is_empty()
        }
        Some(Value::Array(parents)) if !parents.is_empty() => {
            for parent in parents {
                shared |= parent_is_shared(parent, &namespace, context)?;
            }
        }
        _ => return Stop::never("a route needs `parentRefs`"),
    }
    backends(spec, context)?;
    if !shared {
        return Ok(());
    }
    if resource != "httproutes" {
        return Stop::never(
            "on a gateway of others only an HTTPRoute is allowed: other routes cannot be told apart by path",
        );
    }
    if spec.get("hostnames").is_some_and(|names| !is_empty(names)) {
        return Stop::never(
            "a route on a gateway of others has no `hostnames`: it could catch somebody else's traffic",
        );
    }
    let rules = match spec.get("rules") {
        None if extent == Extent::Part => return Ok(()),
        Some(Value::Array(rules)) if !rules.is_empty() => rules,
        _ => return Stop::never("a route on a gateway of others needs rules with paths"),
    };
    for rule in rules {
        let matches = rule["matches"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let all_ours = matches.iter().all(|one| {
            matches!(
                one["path"]["type"].as_str(),
                None | Some("PathPrefix" | "Exact")
            ) && one["path"]["value"]
                .as_str()
                .is_some_and(|path| path.contains(&context.run))
        });
        if matches.is_empty() || !all_ours {
            return Stop::never(format!(
                "each rule of a route on a gateway of others matches only paths that hold the run id `{}`",
                context.run
            ));
        }
    }
    Ok(())
}

/// Whether a parent belongs to others (and is granted). A parent that is neither is refused.
fn parent_is_shared(parent: &Value, namespace: &str, context: &GuardContext) -> Result<bool, Stop> {
    let space = parent["namespace"].as_str().unwrap_or(namespace);
    let name = parent["name"].as_str().unwrap_or_default();
    let kind = parent["kind"].as_str().unwrap_or("Gateway");
    let group = parent["group"].as_str().unwrap_or(GATEWAY);
    let own = match (group, kind) {
        (GATEWAY, "Gateway") => context.owns(GATEWAY, "gateways", space, name),
        ("", "Service") => context.owns("", "services", space, name),
        _ => false,
    };
    if own {
        return Ok(false);
    }
    let full = format!("{space}/{name}");
    if (group, kind) != (GATEWAY, "Gateway") {
        return Stop::never(format!("a route cannot attach to {kind} {}", quoted(&full)));
    }
    if context.effective.exceptions().gateways.contains(&full) {
        return Ok(true);
    }
    Stop::unless(
        format!("gateway {} was not created by this probe", quoted(&full)),
        format!("gateways = [{}]", toml::Value::from(full.as_str())),
    )
}

/// References to backends, in rules and in filters, stay in the probe's namespaces.
fn backends(value: &Value, context: &GuardContext) -> Result<(), Stop> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| backends(item, context)),
        Value::Object(map) => {
            for (key, value) in map {
                let references = match (key.as_str(), value) {
                    ("backendRefs", Value::Array(items)) => items.as_slice(),
                    ("backendRef", one) => std::slice::from_ref(one),
                    _ => &[],
                };
                for reference in references {
                    if let Some(space) = reference["namespace"].as_str()
                        && !context.is_sandbox(space)
                    {
                        return Stop::never(format!(
                            "backend in namespace {} belongs to others",
                            quoted(space)
                        ));
                    }
                }
                backends(value, context)?;
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

pub(super) fn gateways(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    if !request.is(GATEWAY, "gateways") {
        return Ok(());
    }
    let Some((body, _)) = request.object() else {
        return Ok(());
    };
    let mut foreign = false;
    let listeners = body["spec"]["listeners"].as_array();
    for listener in listeners.into_iter().flatten() {
        let from = listener
            .pointer("/allowedRoutes/namespaces/from")
            .and_then(Value::as_str);
        foreign |= !matches!(from, None | Some("Same"));
        let certificates = listener
            .pointer("/tls/certificateRefs")
            .and_then(Value::as_array);
        foreign |= certificates.into_iter().flatten().any(|reference| {
            reference["namespace"]
                .as_str()
                .is_some_and(|space| !context.is_sandbox(space))
        });
    }
    if foreign {
        return Stop::never(
            "a gateway of a probe takes routes and certificates only from its own namespace",
        );
    }
    if body["spec"]
        .get("addresses")
        .is_some_and(|value| !is_empty(value))
    {
        return Stop::never("the addresses of a gateway are not chosen by a probe");
    }
    if context.effective.exceptions().load_balancers {
        return Ok(());
    }
    Stop::unless(
        "a gateway may start a load balancer, which costs money",
        "load-balancers = true",
    )
}

pub(super) fn reference_grants(
    request: &mut Request<'_>,
    context: &GuardContext,
) -> Result<(), Stop> {
    if !request.is(GATEWAY, "referencegrants") {
        return Ok(());
    }
    let Some((body, _)) = request.object() else {
        return Ok(());
    };
    let from = body["spec"]["from"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let own = |one: &Value| {
        one["namespace"]
            .as_str()
            .is_some_and(|space| context.is_sandbox(space))
    };
    if from.iter().all(own) {
        return Ok(());
    }
    Stop::never("a ReferenceGrant of a probe opens its namespace only to its own namespaces")
}

pub(super) fn ingresses(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    if !request.is("networking.k8s.io", "ingresses") {
        return Ok(());
    }
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    let Some(spec) = body.get("spec") else {
        return if extent == Extent::Part {
            Ok(())
        } else {
            Stop::never("an Ingress needs a `spec`")
        };
    };
    match spec.get("ingressClassName") {
        None if extent == Extent::Part => {}
        Some(Value::String(class))
            if context
                .effective
                .exceptions()
                .ingress_classes
                .contains(class) => {}
        Some(Value::String(class)) => {
            return Stop::unless(
                format!("ingress class {} is shared with others", quoted(class)),
                format!("ingress-classes = [{}]", toml::Value::from(class.as_str())),
            );
        }
        _ => {
            return Stop::never(
                "an Ingress of a probe names its class: the default one belongs to others",
            );
        }
    }
    for key in ["defaultBackend", "tls"] {
        if spec.get(key).is_some_and(|value| !is_empty(value)) {
            return Stop::never(format!(
                "`spec.{key}` of an Ingress is never set by a probe: it would concern every host"
            ));
        }
    }
    for rule in spec["rules"].as_array().into_iter().flatten() {
        let paths = rule.pointer("/http/paths").and_then(Value::as_array);
        let paths = paths.map(Vec::as_slice).unwrap_or_default();
        let ours = |path: &Value| {
            matches!(path["pathType"].as_str(), Some("Prefix" | "Exact"))
                && path["path"]
                    .as_str()
                    .is_some_and(|text| text.contains(&context.run))
        };
        if rule.get("host").is_some_and(|host| !is_empty(host))
            || paths.is_empty()
            || !paths.iter().all(ours)
        {
            return Stop::never(format!(
                "each rule of an Ingress has no host, and only paths that hold the run id `{}`",
                context.run
            ));
        }
    }
    Ok(())
}

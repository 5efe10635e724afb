//! Roles and their bindings inside the sandbox: never more than the probe itself was granted there, for accounts it made.

use super::{Extent, GuardContext, Request, Rule, Stop, kind_of, quoted, rows};
use crate::recording::format::{Access, ResourceAccess};
use serde_json::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Resources that a Role must not open although the probe itself may have them: behind the door each of their objects is
/// looked at, and a pod with a Role is not behind the door.
const NOT_BY_ROLE: &[(&str, &str)] = &[
    ("", "secrets"),
    ("", "serviceaccounts"),
    (GROUP, "roles"),
    (GROUP, "rolebindings"),
];

pub(super) fn roles(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    if !request.is(GROUP, "roles") {
        return Ok(());
    }
    let namespace = request.access.namespace.clone();
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    if body.get("aggregationRule").is_some() {
        return Stop::never("a Role does not aggregate others");
    }
    let rules = match body.get("rules") {
        None => return Ok(()),
        Some(Value::Array(rules)) => rules,
        Some(Value::Null) if extent == Extent::Whole => return Ok(()),
        Some(_) => return Stop::never("`rules` must be a list"),
    };
    for rule in rules {
        one_rule(rule, &namespace, context)?;
    }
    Ok(())
}

fn one_rule(rule: &Value, namespace: &str, context: &GuardContext) -> Result<(), Stop> {
    let words = |key: &str| -> Result<Vec<&str>, Stop> {
        match rule.get(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(items)) => match items.iter().map(Value::as_str).collect() {
                Some(words) => Ok(words),
                None => Stop::never(format!("`{key}` of a Role must be a list of words")),
            },
            Some(_) => Stop::never(format!("`{key}` of a Role must be a list of words")),
        }
    };
    if !words("nonResourceURLs")?.is_empty() {
        return Stop::never("a Role opens no paths");
    }
    let names = words("resourceNames")?;
    for group in words("apiGroups")? {
        for resource in words("resources")? {
            for verb in words("verbs")? {
                if [group, resource, verb]
                    .iter()
                    .any(|word| word.contains('*'))
                {
                    return Stop::never("a Role of a probe has no wildcards");
                }
                let (plain, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                let mut access = ResourceAccess {
                    verb: verb.to_owned(),
                    group: group.to_owned(),
                    resource: plain.to_owned(),
                    subresource: subresource.to_owned(),
                    namespace: namespace.to_owned(),
                    ..ResourceAccess::default()
                };
                if never(&access) || access.is_proxy() || NOT_BY_ROLE.contains(&(group, plain)) {
                    return Stop::never(format!(
                        "{verb} {} is never given to an account",
                        kind_of(&access)
                    ));
                }
                // Without names a rule is for all of them; an empty name stands for that.
                let names = if names.is_empty() { &[""][..] } else { &names };
                for name in names {
                    access.name = (*name).to_owned();
                    if let Err(refusal) =
                        context.effective.allows(&Access::Resource(access.clone()))
                    {
                        return Stop::never(format!(
                            "a Role can give only what the probe itself may do: {}",
                            refusal.message
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Whether a pattern row, or the list of verbs, stops this whoever asks.
pub(crate) fn never(access: &ResourceAccess) -> bool {
    let by_pattern = rows().iter().any(|row| match &row.rule {
        Rule::Patterns(patterns) => patterns.iter().any(|pattern| pattern.matches(access)),
        Rule::Code(_) => false,
    });
    by_pattern || !crate::manifest::VERBS.contains(&access.verb.as_str())
}

pub(super) fn bindings(request: &mut Request<'_>, context: &GuardContext) -> Result<(), Stop> {
    if !request.is(GROUP, "rolebindings") {
        return Ok(());
    }
    let namespace = request.access.namespace.clone();
    let Some((body, extent)) = request.object() else {
        return Ok(());
    };
    match body.get("roleRef") {
        None if extent == Extent::Part => {}
        Some(role) if role["kind"] == "Role" && role["apiGroup"] == GROUP => {
            let name = role["name"].as_str().unwrap_or_default();
            if !context.owns(GROUP, "roles", &namespace, name) {
                return Stop::never(format!(
                    "Role {} was not created by this probe",
                    quoted(name)
                ));
            }
        }
        _ => {
            return Stop::never(
                "a RoleBinding of a probe refers to a Role that it created, and to no ClusterRole",
            );
        }
    }
    let subjects = match body.get("subjects") {
        None => return Ok(()),
        Some(Value::Array(subjects)) => subjects,
        Some(_) => return Stop::never("`subjects` must be a list"),
    };
    for subject in subjects {
        let space = subject["namespace"].as_str().unwrap_or_default();
        let name = subject["name"].as_str().unwrap_or_default();
        if subject["kind"] != "ServiceAccount"
            || !context.is_sandbox(space)
            || !context.owns("", "serviceaccounts", space, name)
        {
            return Stop::never(format!(
                "subject {} is no service account that this probe created",
                quoted(name)
            ));
        }
    }
    Ok(())
}

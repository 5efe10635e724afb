//! What the cluster says of an operator: its definition, its webhooks, its Deployment, its lease. Nothing is written here.

use karat_sdk::{Case, Conclusion, Object, Query, Reason, Result, Value, wait};
use std::time::Duration;

use crate::operator::Operator;

/// A leader renews every two seconds as operators are built, and has lost its lease after fifteen.
const LEASE: Duration = Duration::from_secs(30);

const VALIDATING: &str = "validatingwebhookconfigurations";
const MUTATING: &str = "mutatingwebhookconfigurations";

/// An operator whose definition is there.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(crate) operator: Operator,
    definition: Object,
    /// Its validating webhooks for the creation of the kind, as they are registered.
    webhooks: Vec<Value>,
    /// All of its webhooks for a creation: those that complete objects, and those for other kinds of it.
    all: Vec<Value>,
}

impl Installed {
    /// Looks for an operator; the operator itself when it is not there.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub(crate) fn look(operator: Operator) -> Result<std::result::Result<Self, Operator>> {
        let definitions = Query::new("apiextensions.k8s.io/v1", "customresourcedefinitions");
        let Some(definition) = definitions
            .keep(&[
                "/spec/versions/*/name",
                "/spec/versions/*/served",
                "/spec/conversion",
                "/status/conditions",
            ])
            .get_opt(&operator.definition())?
        else {
            return Ok(Err(operator));
        };
        let mut all = registered(&operator, VALIDATING)?;
        let webhooks = of_kind(&operator, &all);
        all.extend(registered(&operator, MUTATING)?);
        Ok(Ok(Installed {
            webhooks,
            all,
            operator,
            definition,
        }))
    }

    pub(crate) fn has_webhook(&self) -> bool {
        !self.webhooks.is_empty()
    }

    /// Whether a message is about a webhook of this operator.
    pub(crate) fn is_mine(&self, message: &str) -> bool {
        self.all.iter().any(|webhook| {
            let name = webhook["name"].as_str().unwrap_or_default();
            !name.is_empty() && message.contains(&format!("webhook \"{name}\""))
        })
    }

    /// The version that is spoken here; empty if there is none.
    pub(crate) fn version(&self) -> &str {
        self.operator
            .version(self.definition.value())
            .unwrap_or_default()
    }

    /// The definition is in force.
    pub(crate) fn registered(&self, case: &Case) -> Conclusion {
        let operator = &self.operator;
        case.observe("operator", operator.text("name"));
        let specific = if operator.is_specific() { "yes" } else { "no" };
        case.observe("for AI in particular", specific);
        case.observe("definition", operator.definition());
        for kind in ["Established", "NamesAccepted"] {
            let so = self.definition.condition(kind);
            if so
                .as_ref()
                .is_none_or(|condition| condition.status != "True")
            {
                let said = so.map(|condition| condition.message.to_owned());
                return Conclusion::fail(format!(
                    "{} is installed and not {kind}: {}",
                    operator.definition(),
                    said.unwrap_or_default()
                ));
            }
        }
        if self.version().is_empty() {
            return Conclusion::unknown(
                Reason::VersionSkew,
                format!(
                    "{} is served in no version that this probe knows; use another release of it",
                    operator.definition()
                ),
            );
        }
        case.observe("version used", self.version());
        Conclusion::Pass
    }

    /// A validating webhook is registered and leads somewhere.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub(crate) fn wired(&self, case: &Case) -> Result<Conclusion> {
        // Again, because what was read before the case was open proves nothing.
        let found = of_kind(&self.operator, &registered(&self.operator, VALIDATING)?);
        if found.is_empty() {
            return Ok(Conclusion::fail(format!(
                "no validating webhook is registered for creating {}, so nothing can reject bad input",
                self.operator.definition()
            )));
        }
        for webhook in &found {
            let text = |pointer: &str| {
                let found = webhook.pointer(pointer).and_then(Value::as_str);
                found.unwrap_or_default()
            };
            case.observe("webhook", text("/name"));
            case.observe("failurePolicy", text("/failurePolicy"));
            let (namespace, service) = (
                text("/clientConfig/service/namespace"),
                text("/clientConfig/service/name"),
            );
            if service.is_empty() {
                case.observe("reached by", "URL");
            } else {
                case.observe("reached by", format!("Service {service}"));
                if ready_endpoints(namespace, service)? == Some(0) {
                    return Ok(Conclusion::fail(format!(
                        "webhook {} leads to Service {service}, which has no ready endpoint",
                        text("/name")
                    )));
                }
                if text("/clientConfig/caBundle").is_empty() {
                    return Ok(Conclusion::fail(format!(
                        "webhook {} has no CA bundle, so the API server trusts nobody behind it",
                        text("/name")
                    )));
                }
            }
        }
        Ok(Conclusion::Pass)
    }

    /// The controller is at work: its Deployment is available, or its leader renews its lease.
    ///
    /// # Errors
    /// Those of the server and of the door.
    pub(crate) fn running(&self, case: &Case) -> Result<Conclusion> {
        let services = self.webhooks.iter().filter_map(|webhook| {
            let service = &webhook["clientConfig"]["service"];
            Some((service["namespace"].as_str()?, service["name"].as_str()?))
        });
        for (namespace, _) in services {
            let found = Query::new("apps/v1", "deployments")
                .in_namespace(namespace)
                .keep(&["/status", "/spec/replicas"])
                .list()?;
            for deployment in &found {
                let available = deployment.at("/status/availableReplicas").as_u64();
                case.observe("Deployment", deployment.name());
                case.observe("available replicas", available.unwrap_or(0));
            }
            let wanted = |one: &&Object| one.at("/spec/replicas").as_u64() != Some(0);
            let idle = found.iter().filter(wanted).find(|deployment| {
                deployment
                    .at("/status/availableReplicas")
                    .as_u64()
                    .unwrap_or(0)
                    == 0
            });
            if let Some(idle) = idle {
                return Ok(Conclusion::fail(format!(
                    "Deployment {}, beside the operator's webhook, has no available replica",
                    idle.name()
                )));
            }
        }
        self.renewed(case)
    }

    fn renewed(&self, case: &Case) -> Result<Conclusion> {
        let name = self.operator.text("lease");
        let read = || -> Result<Option<Object>> {
            let leases = Query::new("coordination.k8s.io/v1", "leases");
            let found = leases.fields(format!("metadata.name={name}")).list()?;
            Ok(found.into_iter().next())
        };
        let Some(first) = read()? else {
            return Ok(Conclusion::unknown(
                Reason::Deadline,
                format!(
                    "there is no leader lease {name}; is the operator running, and does it elect a leader?"
                ),
            ));
        };
        case.observe("leader lease", name);
        let before = first.text("/spec/renewTime").to_owned();
        let renewed = wait::poll(Duration::from_secs(1), LEASE, "a renewal", || {
            let now = read()?;
            Ok(now.filter(|now| now.text("/spec/renewTime") != before))
        });
        match renewed {
            Ok(lease) => {
                case.observe("renewed at", lease.text("/spec/renewTime"));
                Ok(Conclusion::Pass)
            }
            Err(error) if error.is_deadline() => Ok(Conclusion::fail(format!(
                "leader lease {name} was not renewed for {} s: no controller is at work",
                LEASE.as_secs()
            ))),
            Err(error) => Err(error),
        }
    }
}

/// Whether a rule of a webhook has a word in one of its lists.
fn has(rule: &Value, field: &str, word: &str) -> bool {
    let words = rule[field].as_array().map(Vec::as_slice);
    words.unwrap_or_default().iter().any(|one| one == word)
}

/// Whether a rule of a webhook is as wanted.
fn any_rule(webhook: &Value, wanted: impl Fn(&Value) -> bool) -> bool {
    let rules = webhook["rules"].as_array().map(Vec::as_slice);
    rules.unwrap_or_default().iter().any(wanted)
}

/// The webhooks that the creation of any kind of an operator's group goes through, without those for everything.
fn registered(operator: &Operator, configurations: &str) -> Result<Vec<Value>> {
    let all = Query::new("admissionregistration.k8s.io/v1", configurations).list()?;
    let mine = |rule: &Value| {
        has(rule, "apiGroups", operator.text("group"))
            && (has(rule, "operations", "CREATE") || has(rule, "operations", "*"))
    };
    let webhooks = all.iter().flat_map(|one| one.items("/webhooks"));
    let mine = webhooks.filter(|webhook| any_rule(webhook, mine));
    Ok(mine.cloned().collect())
}

/// Those among them that look at the kind itself.
fn of_kind(operator: &Operator, webhooks: &[Value]) -> Vec<Value> {
    let kind = |rule: &Value| {
        has(rule, "resources", operator.text("resource")) || has(rule, "resources", "*")
    };
    let found = webhooks.iter().filter(|webhook| any_rule(webhook, kind));
    found.cloned().collect()
}

/// Ready endpoints of a Service; none when it has no slices at all, as one that only names an outside address.
fn ready_endpoints(namespace: &str, service: &str) -> Result<Option<usize>> {
    let slices = Query::new("discovery.k8s.io/v1", "endpointslices")
        .in_namespace(namespace)
        .labels(format!("kubernetes.io/service-name={service}"))
        .list()?;
    if slices.is_empty() {
        return Ok(None);
    }
    let endpoints = slices.iter().flat_map(|slice| slice.items("/endpoints"));
    Ok(Some(
        endpoints
            .filter(|endpoint| endpoint["conditions"]["ready"] != false)
            .count(),
    ))
}

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
    /// Its validating webhooks for CREATE, as they are registered.
    webhooks: Vec<Value>,
    /// And those that complete its objects before.
    mutating: Vec<Value>,
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
        Ok(Ok(Installed {
            webhooks: webhooks(&operator, VALIDATING)?,
            mutating: webhooks(&operator, MUTATING)?,
            operator,
            definition,
        }))
    }

    pub(crate) fn has_webhook(&self) -> bool {
        !self.webhooks.is_empty()
    }

    /// Whether a message is about a webhook of this operator.
    pub(crate) fn is_mine(&self, message: &str) -> bool {
        self.webhooks.iter().chain(&self.mutating).any(|webhook| {
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
        if !operator.is_specific() {
            case.observe("for AI in particular", "no");
        }
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
        let found = webhooks(&self.operator, VALIDATING)?;
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

/// The webhooks that the creation of an operator's kind goes through, without those for everything.
fn webhooks(operator: &Operator, configurations: &str) -> Result<Vec<Value>> {
    let all = Query::new("admissionregistration.k8s.io/v1", configurations).list()?;
    let mine = |rule: &Value| {
        let has = |field: &str, word: &str| {
            let words = rule[field].as_array().map(Vec::as_slice);
            words.unwrap_or_default().iter().any(|one| one == word)
        };
        has("apiGroups", operator.text("group"))
            && (has("resources", operator.text("resource")) || has("resources", "*"))
            && (has("operations", "CREATE") || has("operations", "*"))
    };
    let mut found = Vec::new();
    for configuration in &all {
        for webhook in configuration.items("/webhooks") {
            let rules = webhook["rules"].as_array().map(Vec::as_slice);
            if rules.unwrap_or_default().iter().any(mine) {
                found.push(webhook.clone());
            }
        }
    }
    Ok(found)
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

//! What is scaled: a Deployment whose pods hold a unit and serve one gauge, which is set from here.
//!
//! A new pod serves the low level, so that a high one is always that of a pod which was told to.

use crate::manifest::{images, settings};
use crate::place::Place;
use karat_sdk::build::PodBuilder;
use karat_sdk::discovery::Discovery;
use karat_sdk::http::{self, Request};
use karat_sdk::monitoring::{self, Endpoint, Way};
use karat_sdk::{
    Case, Conclusion, Error, Object, Query, Reason, Result, Target, Value, inventory, json,
    metrics, run, wait,
};
use std::time::Duration;

/// Name of the gauge, and of the metric where the adapter does not rename it. One lowercase word, so that it is a name in every
/// part of an adapter, an API path and a rule of RBAC.
pub(crate) const GAUGE: &str = "karatload";
/// Its levels.
pub(crate) const LOW: u64 = 3;
/// Ten times what is aimed at.
pub(crate) const HIGH: u64 = 200;
/// Where the metrics are.
const PATH: &str = "/metrics";
const PORT: u16 = 8080;
const PORT_NAME: &str = "metrics";
/// Label that the Deployment, the Service and monitors select by.
const LABEL: &str = "karat-workload";
/// Patience for one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often something is looked at again.
pub(crate) const EVERY: Duration = Duration::from_secs(2);
/// How long a pod that is ready may take to be reached.
const REACHED: Duration = Duration::from_secs(30);

/// The Deployment, with its first pod ready.
pub(crate) struct Workload {
    pub(crate) namespace: String,
    /// Name of the Deployment, and value of the label.
    pub(crate) name: String,
    /// The pod that was there first.
    pub(crate) first: Object,
}

/// Starts it and reads the gauge at the pod itself.
pub(crate) fn start(
    case: &Case,
    namespace: &str,
    place: &Place,
    made: &mut Option<Workload>,
) -> Result<Conclusion> {
    let name = run::name("serve");
    let wanted = settings::ASK_BY.get()?;
    let way = Way::choose(&Discovery::read()?, wanted.as_deref())?;
    if let Some(conclusion) = ask(&way, namespace, &name)? {
        return Ok(conclusion);
    }
    case.observe("asks to be read by", way.by());
    let target = Target::new("apps/v1", "deployments").in_namespace(namespace);
    let deployment = target.create(&deployment(&name, place, &way)?)?;
    case.observe("deployment", deployment.uid());
    let limit = settings::POD_WAIT.get_or(Duration::from_secs(300))?;
    let mut last = None;
    let ready = wait::poll(EVERY, limit, "readiness of the first pod", || {
        last = pods(namespace, &name)?.into_iter().next();
        inventory::all_pulled(&last)?;
        Ok(last.clone().filter(inventory::is_ready))
    });
    let first = match (ready, last) {
        (Ok(pod), _) => pod,
        (Err(error), None) if error.is_deadline() => {
            return Ok(Conclusion::unknown(
                Reason::Deadline,
                format!("{error}: there is none"),
            ));
        }
        (Err(error), Some(pod)) if error.is_deadline() => {
            return Ok(inventory::not_running(&pod, &error.to_string()));
        }
        (Err(error), _) => return Err(error),
    };
    case.observe("pod", first.uid());
    let workload = Workload {
        namespace: namespace.to_owned(),
        name,
        first,
    };
    let said = wait::poll(EVERY, REACHED, "an answer of the pod", || {
        match workload.gauge(&workload.first) {
            Ok(value) => Ok(Some(value)),
            Err(error) if http::unreached(&error).is_some() => Ok(None),
            Err(error) => Err(error),
        }
    });
    let said = match said {
        Ok(said) => said,
        Err(error) => return Ok(http::not_asked(&error)),
    };
    case.observe("gauge", &said);
    if said != LOW.to_string() {
        return Ok(Conclusion::unknown(
            Reason::CompetingWorkload,
            format!("the pod serves {said}, and was told {LOW}"),
        ));
    }
    *made = Some(workload);
    Ok(Conclusion::Pass)
}

/// Asks to be read where that is not done on the pods; gives what it is worth that the cluster does not take it.
fn ask(way: &Way, namespace: &str, name: &str) -> Result<Option<Conclusion>> {
    if way.wants_service() {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": {LABEL: name}},
            "spec": {"selector": {LABEL: name}, "ports": [{"name": PORT_NAME, "port": PORT, "targetPort": PORT_NAME}]},
        });
        Target::new("v1", "services")
            .in_namespace(namespace)
            .create(&service)?;
    }
    let asked = way.create(&Endpoint {
        namespace,
        name,
        label: LABEL,
        port: PORT_NAME,
        path: PATH,
    });
    match asked {
        Ok(()) => Ok(None),
        Err(error) => monitoring::refused(error).map(Some),
    }
}

fn deployment(name: &str, place: &Place, way: &Way) -> Result<Value> {
    let gauge = format!("{GAUGE}={LOW}");
    let pod = PodBuilder::tool(name, &run::image(images::METRICS)?)
        .args(&[PORT.to_string().as_str(), &gauge]);
    let mut pod = place.with_unit(pod).label(LABEL, name).build();
    // What a Deployment makes is kept running.
    pod["spec"]["restartPolicy"] = json!("Always");
    if let Some(spec) = pod["spec"].as_object_mut() {
        spec.remove("activeDeadlineSeconds");
    }
    let container = &mut pod["spec"]["containers"][0];
    container["ports"] = json!([{"name": PORT_NAME, "containerPort": PORT}]);
    container["readinessProbe"] =
        json!({"httpGet": {"path": "/healthz", "port": PORT_NAME}, "periodSeconds": 1});
    let mut metadata = json!({"labels": {LABEL: name}});
    if way.is_annotations() {
        metadata["annotations"] = monitoring::annotations(PORT, PATH);
    }
    Ok(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {LABEL: name}},
            "template": {"metadata": metadata, "spec": pod["spec"]},
        },
    }))
}

fn pods(namespace: &str, name: &str) -> Result<Vec<Object>> {
    let pods = Query::new("v1", "pods")
        .in_namespace(namespace)
        .labels(format!("{LABEL}={name}"))
        .list()?;
    Ok(pods
        .into_iter()
        .filter(|pod| !inventory::has_ended(pod))
        .collect())
}

impl Workload {
    /// Its pods that have not ended, those that are going included.
    pub(crate) fn pods(&self) -> Result<Vec<Object>> {
        pods(&self.namespace, &self.name)
    }

    /// The Deployment.
    pub(crate) fn deployment(&self) -> Result<Object> {
        Query::new("apps/v1", "deployments")
            .in_namespace(&self.namespace)
            .get(&self.name)
    }

    fn endpoint(&self, pod: &Object) -> String {
        http::pod(&self.namespace, pod.name(), PORT)
    }

    /// The gauge as a pod itself serves it.
    pub(crate) fn gauge(&self, pod: &Object) -> Result<String> {
        let samples = metrics::scrape(&self.endpoint(pod), PATH, &[GAUGE])?;
        let sample = samples.into_iter().next();
        sample
            .map(|sample| sample.text)
            .ok_or_else(|| Error::NoAnswer(format!("the pod does not serve {GAUGE}")))
    }

    /// Sets the gauge of a pod.
    ///
    /// # Errors
    /// Those of a request; `NoAnswer` where the pod does not take it.
    pub(crate) fn set(&self, pod: &Object, level: u64) -> Result<()> {
        let path = format!("/set?name={GAUGE}&value={level}");
        let reply = Request::new("POST", &self.endpoint(pod), &path).fetch(PATIENCE)?;
        if reply.code / 100 == 2 {
            Ok(())
        } else {
            Err(Error::NoAnswer(format!(
                "the pod answered {} to a new level",
                reply.code
            )))
        }
    }
}

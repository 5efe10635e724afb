//! The workload: one pod that counts requests, and a Service before it. What it serves at its own endpoint is the measure of
//! everything that the monitoring says.

use crate::manifest::{images, settings};
use karat_sdk::build::PodBuilder;
use karat_sdk::http::{self, Request};
use karat_sdk::leases::LeasedNode;
use karat_sdk::metrics::{self, Sample};
use karat_sdk::{
    Case, Conclusion, Error, Query, Reason, Result, Target, inventory, json, kube, run, wait,
};
use std::cell::Cell;
use std::time::Duration;

/// Series of the workload.
pub(crate) const COUNTER: &str = "karat_requests_total";
pub(crate) const HISTOGRAM: &str = "karat_request_duration_seconds_count";
pub(crate) const SUM: &str = "karat_request_duration_seconds_sum";
pub(crate) const GAUGE: &str = "karat_temperature";
const SCRAPES: &str = "karat_scrapes_total";
/// What the gauge says.
const TEMPERATURE: &str = "41.5";
/// Label that the Service and monitors select by.
pub(crate) const LABEL: &str = "karat-workload";
/// Name of the port.
pub(crate) const PORT_NAME: &str = "metrics";
/// The port.
pub(crate) const PORT: u16 = 8080;
/// Where the metrics are.
pub(crate) const PATH: &str = "/metrics";
/// Patience for one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often something is looked at again.
pub(crate) const EVERY: Duration = Duration::from_secs(2);
/// How long endpoints may take after a pod is ready.
const ENDPOINTS: Duration = Duration::from_secs(60);

/// The workload, ready.
pub(crate) struct Stub {
    /// Where it is.
    pub(crate) namespace: String,
    /// Name of the pod and of the Service, and value of its label.
    pub(crate) name: String,
    uid: String,
    service: String,
    pod: String,
    /// Readings of the endpoint by us.
    ours: Cell<u64>,
    /// Whether each of them was answered, so that the number is right.
    sure: Cell<bool>,
}

/// What the workload says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Said {
    pub(crate) counter: f64,
    pub(crate) histogram: f64,
    /// Seconds of all requests together: a number that nobody knows beforehand.
    pub(crate) sum: f64,
    pub(crate) gauge: f64,
    /// Readings by others, if that can be known.
    pub(crate) foreign: Option<u64>,
}

/// Starts the workload on one of these nodes and reads it once.
pub(crate) fn start(
    case: &Case,
    namespace: &str,
    nodes: &[LeasedNode],
    made: &mut Option<Stub>,
) -> Result<Conclusion> {
    let name = run::name("stub");
    let pods = Target::new("v1", "pods").in_namespace(namespace);
    let pod = pods.create(&pod(&name, nodes)?)?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "labels": {LABEL: name}},
        "spec": {"selector": {LABEL: name}, "ports": [{"name": PORT_NAME, "port": PORT, "targetPort": PORT_NAME}]},
    });
    Target::new("v1", "services")
        .in_namespace(namespace)
        .create(&service)?;
    let limit = settings::POD_WAIT.get_or(Duration::from_secs(120))?;
    if let Some(unknown) = not_ready(&pods.query(), &name, limit)? {
        return Ok(unknown);
    }
    let stub = Stub {
        service: http::service(namespace, &name, PORT),
        pod: http::pod(namespace, &name, PORT),
        namespace: namespace.to_owned(),
        uid: pod.uid().to_owned(),
        name,
        ours: Cell::new(0),
        sure: Cell::new(true),
    };
    // Its health does not count as a request.
    let reached =
        wait::poll(
            EVERY,
            ENDPOINTS,
            "an answer through the Service",
            || match Request::get(&stub.service, "/healthz").fetch(PATIENCE) {
                Ok(reply) if reply.code == 200 => Ok(Some(())),
                Ok(_) => Ok(None),
                Err(error) if http::unreached(&error).is_some() => Ok(None),
                Err(error) => Err(error),
            },
        );
    if let Err(error) = reached {
        return Ok(http::not_asked(&error));
    }
    let said = match stub.says() {
        Ok(said) => said,
        Err(error) => return Ok(http::not_asked(&error)),
    };
    case.observe("pod", &stub.uid);
    case.observe("counter", said.counter);
    if said.counter != 0.0 || said.histogram != 0.0 {
        return Ok(Conclusion::unknown(
            Reason::CompetingWorkload,
            "somebody sent requests to the workload before the probe did",
        ));
    }
    *made = Some(stub);
    Ok(Conclusion::Pass)
}

fn pod(name: &str, nodes: &[LeasedNode]) -> Result<karat_sdk::Value> {
    let label = format!("--label=run={}", run::id());
    let gauge = format!("{GAUGE}={TEMPERATURE}");
    let mut pod = PodBuilder::tool(name, &run::image(images::METRICS)?)
        .args(&[PORT.to_string().as_str(), &label, &gauge])
        .label(LABEL, name)
        .on_leased(nodes)
        .deadline(1200)
        .build();
    let container = &mut pod["spec"]["containers"][0];
    container["ports"] = json!([{"name": PORT_NAME, "containerPort": PORT}]);
    container["readinessProbe"] =
        json!({"httpGet": {"path": "/healthz", "port": PORT_NAME}, "periodSeconds": 1});
    Ok(pod)
}

/// Waits until the pod is ready; gives why nothing can be said where it does not become so.
fn not_ready(pods: &Query, name: &str, limit: Duration) -> Result<Option<Conclusion>> {
    let mut last = None;
    let ready = kube::wait_for(pods, name, limit, "readiness of the workload", |pod| {
        let is_ready = pod.condition("Ready").is_some_and(|it| it.status == "True");
        last = Some(pod.clone());
        (is_ready || inventory::has_ended(pod)).then_some(is_ready)
    });
    let text = match ready {
        Ok(true) => return Ok(None),
        Ok(false) => "the workload does not run".to_owned(),
        Err(error) if error.is_deadline() => error.to_string(),
        Err(error) => return Err(error),
    };
    let Some(pod) = last else {
        return Ok(Some(Conclusion::unknown(Reason::Deadline, text)));
    };
    Ok(Some(inventory::not_running(&pod, &text)))
}

impl Stub {
    /// Reads the workload's own endpoint.
    pub(crate) fn says(&self) -> Result<Said> {
        self.ours.set(self.ours.get() + 1);
        let names = [COUNTER, HISTOGRAM, SUM, GAUGE, SCRAPES];
        let samples = match metrics::scrape(&self.pod, PATH, &names) {
            Ok(samples) => samples,
            Err(error) => {
                self.sure.set(false);
                return Err(error);
            }
        };
        let value = |name: &str| {
            samples
                .iter()
                .find(|sample| sample.name == name)
                .map(|sample| sample.value)
                .ok_or_else(|| Error::NoAnswer(format!("the workload does not serve {name}")))
        };
        // Counts are whole and far below 2^53.
        let all = value(SCRAPES)? as u64;
        Ok(Said {
            counter: value(COUNTER)?,
            histogram: value(HISTOGRAM)?,
            sum: value(SUM)?,
            gauge: value(GAUGE)?,
            foreign: self.sure.get().then(|| all.saturating_sub(self.ours.get())),
        })
    }

    /// Sends one request that counts, and gives the code.
    pub(crate) fn request(&self) -> Result<u16> {
        Ok(Request::get(&self.service, "/work").fetch(PATIENCE)?.code)
    }

    /// Whether it is still the pod that was started, and its container was never restarted.
    pub(crate) fn is_the_same(&self) -> Result<bool> {
        let pods = Query::new("v1", "pods").in_namespace(&self.namespace);
        let Some(pod) = pods.get_opt(&self.name)? else {
            return Ok(false);
        };
        let restarts = pod.at("/status/containerStatuses/0/restartCount").as_u64();
        Ok(pod.uid() == self.uid
            && pod.text("/status/phase") == "Running"
            && restarts.unwrap_or(0) == 0)
    }
}

/// The smallest and the greatest value of a series; none where there is none. Not the sum: a pod is often read twice, and then
/// both are the same sooner or later.
pub(crate) fn range(samples: &[Sample]) -> Option<(f64, f64)> {
    let values = samples.iter().map(|sample| sample.value);
    let both = values
        .filter(|value| !value.is_nan())
        .map(|value| (value, value));
    both.reduce(|have, one| (have.0.min(one.0), have.1.max(one.1)))
}

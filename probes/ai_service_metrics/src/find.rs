//! The query API of the platform's monitoring: the service that the operator names, or the first one that its labels call one and
//! that answers. Where there is none, the workload tells whether anybody reads it.

use crate::ask;
use crate::manifest::settings;
use crate::stub::Stub;
use karat_sdk::discovery::Discovery;
use karat_sdk::http;
use karat_sdk::metrics::{self, QueryApi};
use karat_sdk::monitoring;
use karat_sdk::{Case, Conclusion, Error, Object, Query, Reason, Result, wait};
use std::time::Duration;

/// The smallest question, and one whose answer nobody knows beforehand.
const QUESTION: &str = "vector(1)";
const CLOCK: &str = "time()";
/// Groups of systems that read workloads without a query API in the cluster that labels name.
const COLLECTORS: [&str; 7] = [
    "monitoring.coreos.com",
    "monitoring.googleapis.com",
    "azmonitoring.coreos.com",
    "monitoring.rhobs",
    "operator.victoriametrics.com",
    "opentelemetry.io",
    "collectors.grafana.com",
];
/// How long a fault of the way to the query API may last.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How often the workload is asked who reads it.
const EVERY: Duration = Duration::from_secs(5);

/// What may be the query API, with what it said to the smallest question.
pub(crate) struct Candidate {
    api: QueryApi,
    said: Result<()>,
}

fn services() -> Query {
    Query::new("v1", "services").keep(&[
        "/metadata/labels/app",
        "/metadata/labels/app.kubernetes.io~1name",
        "/spec/ports/*/port",
    ])
}

fn ask_it(api: &QueryApi) -> Result<()> {
    let answer = metrics::query(&api.endpoint, QUESTION)?;
    match answer.as_slice() {
        [one] if one.value == 1.0 => Ok(()),
        _ => Err(Error::Unexpected(format!(
            "{} samples for {QUESTION}, and none that is 1 alone",
            answer.len()
        ))),
    }
}

/// Everything that may be it, asked once.
pub(crate) fn candidates() -> Result<Vec<Candidate>> {
    if let Some(endpoint) = settings::ENDPOINT.get()? {
        let api = QueryApi {
            system: "the declared system",
            endpoint: format!("service:{endpoint}"),
        };
        return Ok(vec![Candidate { said: Ok(()), api }]);
    }
    let mut all = Vec::new();
    for api in metrics::query_apis(&services().list()?) {
        let said = ask_it(&api);
        match said {
            Err(error) if error.ends_the_probe() => return Err(error),
            said => all.push(Candidate { api, said }),
        }
    }
    Ok(all)
}

/// The best of them, asked again. What is only refused by the door comes last, because it says nothing.
fn best(candidates: &[Candidate]) -> Option<&QueryApi> {
    let answering = candidates.iter().find(|one| one.said.is_ok());
    let asked = |one: &&Candidate| !matches!(one.said, Err(Error::Refused(_)));
    let found = answering.or_else(|| candidates.iter().find(asked));
    Some(&found.or(candidates.first())?.api)
}

/// Says which one it is.
pub(crate) fn choose(
    case: &Case,
    candidates: Result<Vec<Candidate>>,
    stub: &Stub,
    found: &mut Option<QueryApi>,
) -> Result<Conclusion> {
    let candidates = candidates?;
    let Some(api) = best(&candidates) else {
        return nobody(case, &services().list()?, stub);
    };
    case.observe("system", api.system);
    case.observe("endpoint", &api.endpoint);
    if let Err(error) = http::patiently(PATIENCE, || ask_it(api)) {
        if matches!(error, Error::Refused(_)) {
            return Err(error);
        }
        return Ok(trouble(&error));
    }
    match http::patiently(PATIENCE, || metrics::query(&api.endpoint, CLOCK)) {
        Ok(answer) => {
            if let [one] = answer.as_slice() {
                case.observe("its time", &one.text);
            }
        }
        Err(error) => return Ok(trouble(&error)),
    }
    *found = Some(api.clone());
    Ok(Conclusion::Pass)
}

/// What an error of a query is worth. A login is no fault, and nobody can log in through the API server's proxy.
pub(crate) fn trouble(error: &Error) -> Conclusion {
    if http::unreached(error).is_some() {
        return Conclusion::unknown(Reason::ProxyUnreachable, error.to_string());
    }
    match error {
        Error::Answered(answer) if answer.reason.is_empty() && wants_login(answer.code) => {
            Conclusion::unknown(
                Reason::AuthRequired,
                format!(
                    "the query API answers {} and so wants a login, which the API server's proxy does not pass on",
                    answer.code
                ),
            )
        }
        Error::Answered(_) | Error::Unexpected(_) => match error.conclusion() {
            Conclusion::Fail(text) => Conclusion::unknown(
                Reason::SolutionAbsent,
                format!("what is called a query API does not answer PromQL: {text}"),
            ),
            other => other,
        },
        _ => error.conclusion(),
    }
}

/// 401 and 403 by themselves, and the redirects by which proxies lead to a page for logins.
fn wants_login(code: u16) -> bool {
    matches!(code, 401 | 403 | 302 | 303 | 307)
}

/// No service is called a query API. Whether the workload is read by anybody decides.
fn nobody(case: &Case, present: &[Object], stub: &Stub) -> Result<Conclusion> {
    const NAME_IT: &str = "name it with the setting `endpoint`";
    if !metrics::query_apis(present).is_empty() {
        return Ok(Conclusion::unknown(
            Reason::CompetingWorkload,
            "a query API appeared while the probe looked for one; run it again",
        ));
    }
    let discovery = Discovery::read()?;
    let collector = COLLECTORS
        .iter()
        .find(|group| !discovery.versions(group).is_empty());
    if let Some(group) = collector {
        return Ok(Conclusion::unknown(
            Reason::SolutionAbsent,
            format!(
                "{group} is served, so something may read workloads, but no service is labelled as its query API; {NAME_IT}"
            ),
        ));
    }
    if let Err(error) = ask::ask(&discovery, stub) {
        return monitoring::refused(error);
    }
    let limit = settings::SCRAPE_WAIT.get_or(Duration::from_secs(300))?;
    let deadline = wait::Deadline::after(limit);
    loop {
        let said = match stub.says() {
            Ok(said) => said,
            Err(error) if error.ends_the_probe() => return Err(error),
            Err(error) => {
                return Ok(Conclusion::unknown(
                    Reason::ProxyUnreachable,
                    error.to_string(),
                ));
            }
        };
        if said.foreign.is_some_and(|foreign| foreign > 0) {
            return Ok(Conclusion::unknown(
                Reason::SolutionAbsent,
                format!(
                    "something reads the workload, but no service is labelled as a query API; {NAME_IT}"
                ),
            ));
        }
        if deadline.left().is_zero() {
            case.observe("services", present.len());
            return Ok(Conclusion::fail(format!(
                "no service is labelled as the query API of a monitoring system, and nobody read the workload, which asked for it, within {} s",
                limit.as_secs()
            )));
        }
        wait::sleep(EVERY.min(deadline.left()))?;
    }
}

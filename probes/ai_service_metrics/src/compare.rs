//! What the monitoring says of the workload, beside what the workload says of itself.

use crate::ask;
use crate::find::{PATIENCE, trouble};
use crate::manifest::settings;
use crate::stub::{COUNTER, EVERY, GAUGE, HISTOGRAM, SUM, Said, Stub, range};
use karat_sdk::discovery::Discovery;
use karat_sdk::http;
use karat_sdk::metrics::{self, QueryApi, Sample};
use karat_sdk::monitoring;
use karat_sdk::wait::{self, Deadline};
use karat_sdk::{Case, Conclusion, Error, Reason, Result, run};
use std::time::Duration;

/// Requests that are sent.
const REQUESTS: u16 = 10;

fn selector(series: &str) -> String {
    format!("{series}{{run=\"{}\"}}", run::id())
}

fn series(api: &QueryApi, name: &str) -> Result<Vec<Sample>> {
    http::patiently(PATIENCE, || metrics::query(&api.endpoint, &selector(name)))
}

/// Asks and waits until the workload is there.
pub(crate) fn discover(case: &Case, api: &QueryApi, stub: &Stub) -> Result<Conclusion> {
    let asked = match ask::ask(&Discovery::read()?, stub) {
        Ok(asked) => asked,
        Err(error) => return monitoring::refused(error),
    };
    case.observe("asked by", asked.by);
    if !asked.labels.is_empty() {
        case.observe("labels of the monitor", asked.labels);
    }
    let limit = settings::SCRAPE_WAIT.get_or(Duration::from_secs(300))?;
    let deadline = Deadline::after(limit);
    let last = loop {
        let last = match series(api, COUNTER) {
            Ok(found) if !found.is_empty() => {
                for (at, sample) in found.iter().enumerate() {
                    let labels = sample.labels.iter();
                    let shown: Vec<String> = labels
                        .map(|(name, value)| [name.as_str(), value].join("="))
                        .collect();
                    case.observe(
                        &["series ", &(at + 1).to_string()].concat(),
                        shown.join(", "),
                    );
                }
                for name in ["instance", "job", "pod"] {
                    if let Some(value) = found[0].label(name) {
                        case.observe(name, value);
                    }
                }
                return Ok(Conclusion::Pass);
            }
            Err(error) if error.ends_the_probe() => return Err(error),
            other => other,
        };
        if deadline.left().is_zero() {
            break last;
        }
        wait::sleep(EVERY.min(deadline.left()))?;
    };
    if let Err(error) = last {
        return Ok(trouble(&error));
    }
    let text = format!(
        "after {} s {} answers and has no series {}",
        limit.as_secs(),
        api.system,
        selector(COUNTER)
    );
    blame(case, stub, &Said::default(), |said| {
        let read = match said.foreign {
            Some(0) => "nobody has read it",
            Some(_) => "somebody has read it, so what was read is not kept",
            None => "whether anybody has read it is not known",
        };
        format!("{text}, which the workload serves at its own endpoint; {read}")
    })
}

/// Fails, if the workload still serves the counts that are expected of it.
fn blame(
    case: &Case,
    stub: &Stub,
    expected: &Said,
    text: impl FnOnce(&Said) -> String,
) -> Result<Conclusion> {
    let said = match stub.says() {
        Ok(said) => said,
        Err(error) => return Ok(no_control(&error)),
    };
    if !stub.is_the_same()? {
        return Ok(Conclusion::unknown(
            Reason::CompetingWorkload,
            "the workload was restarted or replaced meanwhile, and so lost its counts",
        ));
    }
    if said.counter != expected.counter || said.histogram != expected.histogram {
        return Ok(foreign_requests(&said));
    }
    case.observe("counter of the workload", said.counter);
    if let Some(foreign) = said.foreign {
        case.observe("readings by others", foreign);
    }
    Ok(Conclusion::fail(text(&said)))
}

fn no_control(error: &Error) -> Conclusion {
    match error.conclusion() {
        Conclusion::Fail(text) => Conclusion::unknown(
            Reason::ProxyUnreachable,
            format!("the workload's own endpoint does not answer any more: {text}"),
        ),
        other => other,
    }
}

fn foreign_requests(said: &Said) -> Conclusion {
    Conclusion::unknown(
        Reason::CompetingWorkload,
        format!(
            "the workload itself counts {} requests, so somebody else sends some",
            said.counter
        ),
    )
}

/// What the monitoring says: the smallest and the greatest value of each series.
struct Seen {
    counter: Option<(f64, f64)>,
    histogram: Option<(f64, f64)>,
    sum: Option<(f64, f64)>,
    gauge: Option<(f64, f64)>,
    series: usize,
}

impl Seen {
    fn read(api: &QueryApi) -> Result<Self> {
        let counters = series(api, COUNTER)?;
        Ok(Seen {
            counter: range(&counters),
            histogram: range(&series(api, HISTOGRAM)?),
            sum: range(&series(api, SUM)?),
            gauge: range(&series(api, GAUGE)?),
            series: counters.len(),
        })
    }

    fn is(&self, said: &Said) -> bool {
        // All of a series: one that is right hides none that is wrong.
        let is = |seen: Option<(f64, f64)>, value| seen == Some((value, value));
        is(self.counter, said.counter)
            && is(self.histogram, said.histogram)
            && is(self.sum, said.sum)
            && is(self.gauge, said.gauge)
    }
}

fn shown(seen: Option<(f64, f64)>) -> String {
    match seen {
        None => "nothing".to_owned(),
        Some((least, most)) if least == most => most.to_string(),
        Some((least, most)) => [least.to_string(), most.to_string()].join(" to "),
    }
}

/// Sends exactly ten requests and compares.
pub(crate) fn values(case: &Case, api: &QueryApi, stub: &Stub) -> Result<Conclusion> {
    let mut codes = Vec::new();
    for _ in 0..REQUESTS {
        match stub.request() {
            Ok(code) => codes.push(code.to_string()),
            Err(error) if error.ends_the_probe() => return Err(error),
            // It may have arrived. The workload says.
            Err(_) => codes.push("-".to_owned()),
        }
    }
    case.observe("codes", codes.join(" "));
    let expected = match stub.says() {
        Ok(said) => said,
        Err(error) => return Ok(no_control(&error)),
    };
    let requests = f64::from(REQUESTS);
    if expected.counter > requests {
        return Ok(foreign_requests(&expected));
    }
    if expected.counter < requests || expected.histogram != expected.counter {
        return Ok(Conclusion::unknown(
            Reason::ProxyUnreachable,
            format!(
                "of {REQUESTS} requests {} reached the workload",
                expected.counter
            ),
        ));
    }
    let limit = settings::SCRAPE_WAIT.get_or(Duration::from_secs(300))?;
    let deadline = Deadline::after(limit);
    let last = loop {
        let last = match Seen::read(api) {
            Ok(seen) if seen.is(&expected) => {
                case.observe("counter", expected.counter);
                case.observe("requests in the histogram", expected.histogram);
                case.observe("seconds in the histogram", expected.sum);
                case.observe("gauge", expected.gauge);
                case.observe("series of the counter", seen.series);
                return Ok(Conclusion::Pass);
            }
            Err(error) if error.ends_the_probe() => return Err(error),
            other => other,
        };
        if deadline.left().is_zero() {
            break last;
        }
        wait::sleep(EVERY.min(deadline.left()))?;
    };
    let seen = match last {
        Ok(seen) => seen,
        Err(error) => return Ok(trouble(&error)),
    };
    blame(case, stub, &expected, |said| {
        format!(
            "after {} s the monitoring says {} in the counter, {} as count and {} as seconds of the histogram and {} in the gauge, and the workload says {}, {}, {} and {}",
            limit.as_secs(),
            shown(seen.counter),
            shown(seen.histogram),
            shown(seen.sum),
            shown(seen.gauge),
            said.counter,
            said.histogram,
            said.sum,
            said.gauge
        )
    })
}

/// How the target is called and how often it is read.
pub(crate) fn target(case: &Case, api: &QueryApi, stub: &Stub) -> Result<Conclusion> {
    let up = format!("up{{namespace=\"{}\"}}", stub.namespace);
    for sample in metrics::query(&api.endpoint, &up)? {
        for (name, value) in &sample.labels {
            case.observe(name, value);
        }
        case.observe("up", &sample.text);
    }
    let counted = format!("count_over_time({}[1m])", selector(COUNTER));
    let counts = metrics::query(&api.endpoint, &counted)?;
    let Some((_, most)) = range(&counts) else {
        return Ok(Conclusion::unknown(
            Reason::MetricDelayed,
            "there is no sample of the last minute",
        ));
    };
    case.observe("samples in one minute", most);
    Ok(Conclusion::Pass)
}

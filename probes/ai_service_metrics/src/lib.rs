//! `ai_service_metrics`: the platform's monitoring finds a new workload, and shows the values that it serves.
//!
//! A workload of our own has a counter, a gauge and a histogram with the label of the run. It asks to be read as workloads do on
//! this platform, gets exactly ten requests, and what the monitoring says is compared with what the workload says itself. Read in
//! this order: `stub` (the workload), `find` (the query API), `ask` (annotations and monitors), `compare` (series and values).
//! Nothing is sent with credentials: a query API that wants a login cannot be judged from here.

mod ask;
mod compare;
mod find;
mod stub;
#[cfg(test)]
mod tests;

karat_sdk::manifest!();

use karat_sdk::{Conclusion, Probe, Result, leases, run};
use manifest::{cases, leases as wanted, namespaces};

struct AiServiceMetrics;

impl Probe for AiServiceMetrics {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let all = [
            cases::WORKLOAD,
            cases::QUERY_API,
            cases::DISCOVERED,
            cases::VALUES,
        ];
        let Some(lease) = leases::acquire_for(&[wanted::NODE], &all)? else {
            return Ok(());
        };
        let mut made = None;
        let first = cases::WORKLOAD.check("", |case| {
            stub::start(case, &namespace, lease.nodes(), &mut made)
        })?;
        let Some(stub) = made else {
            return first.leaves_untried(&[cases::QUERY_API, cases::DISCOVERED, cases::VALUES]);
        };
        // Outside of a case: a candidate that nobody granted is no trouble while another one answers.
        let candidates = find::candidates();
        let mut found = None;
        let second =
            cases::QUERY_API.check("", |case| find::choose(case, candidates, &stub, &mut found))?;
        let Some(api) = found else {
            return second.leaves_untried(&[cases::DISCOVERED, cases::VALUES]);
        };
        let third = cases::DISCOVERED.check("", |case| compare::discover(case, &api, &stub))?;
        if third != Conclusion::Pass {
            return third.leaves_untried(&[cases::VALUES]);
        }
        cases::VALUES.check("", |case| compare::values(case, &api, &stub))?;
        cases::TARGET.check("", |case| compare::target(case, &api, &stub))?;
        lease.release()
    }
}

karat_sdk::probe!(AiServiceMetrics);

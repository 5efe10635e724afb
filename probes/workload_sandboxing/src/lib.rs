//! `workload_sandboxing` (KAR-20): a RuntimeClass keeps pods apart from the kernel of their node.
//!
//! A neighbour of the RuntimeClass runs first and serves; on its node a second pod of the class looks around, and so does a third
//! without the class, from which the difference is told. Read in this order: `candidate` (which RuntimeClass), `pods` (the three),
//! `isolation` (what they told). `README.md` says what a pass is worth.

mod candidate;
mod isolation;
mod pods;
#[cfg(test)]
mod tests;

karat_sdk::manifest!();

use karat_sdk::{CaseId, Probe, Reason, Result, leases, not_tried, run};
use manifest::{cases, leases as wanted, namespaces};

struct WorkloadSandboxing;

/// Everything that rests on pods that ran.
const LOOKED_AT: [CaseId; 7] = [
    cases::KERNEL,
    cases::PROCESSES,
    cases::MEMORY,
    cases::FILES,
    cases::NETWORK,
    cases::NEIGHBOURS,
    cases::WORKS,
];

impl Probe for WorkloadSandboxing {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let mut class = None;
        cases::CANDIDATE.check("", |case| candidate::find(case, &mut class))?;
        let Some(class) = class else {
            not_tried(
                &[cases::RUNS, cases::NEIGHBOUR],
                Reason::SolutionAbsent,
                "no RuntimeClass is a sandbox",
            )?;
            return not_tried(
                &LOOKED_AT,
                Reason::SolutionAbsent,
                "no RuntimeClass is a sandbox",
            );
        };
        let all = [&[cases::NEIGHBOUR, cases::RUNS], &LOOKED_AT[..]].concat();
        let Some(lease) = leases::acquire_for(&[wanted::NODES], &all)? else {
            return Ok(());
        };
        let mut group = pods::Group::new(namespace, class, lease.nodes());
        let beside = cases::NEIGHBOUR.check("", |case| group.neighbour(case))?;
        if !beside.is_pass() {
            return beside.leaves_untried(&[&[cases::RUNS], &LOOKED_AT[..]].concat());
        }
        let ran = cases::RUNS.check("", |case| group.look(case))?;
        let Some(looks) = group.looks().filter(|_| ran.is_pass()) else {
            return ran.leaves_untried(&LOOKED_AT);
        };
        for (case, judge) in [
            (cases::KERNEL, isolation::kernel as isolation::Judge),
            (cases::PROCESSES, isolation::processes),
            (cases::MEMORY, isolation::memory),
            (cases::FILES, isolation::files),
            (cases::NETWORK, isolation::network),
            (cases::NEIGHBOURS, isolation::neighbours),
            (cases::WORKS, isolation::works),
        ] {
            // Read again in each case, so that what is shown there stands in an answer of its own.
            case.check("", |case| judge(case, &looks.read()?))?;
        }
        lease.release()
    }
}

karat_sdk::probe!(WorkloadSandboxing);

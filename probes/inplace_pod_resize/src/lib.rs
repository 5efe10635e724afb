//! `inplace_pod_resize`: CPU and memory of a running container change without a new pod.
//!
//! One pod with two containers: `steady` must go on while its CPU changes, `again` asks for a restart when its memory does. What
//! the API says is compared with what the container's cgroup says. Read in this order: `subject` (the pod), `cases` (what is
//! done to it). `README.md` says what a pass is worth.

mod steps;
mod subject;
#[cfg(test)]
mod tests;

karat_sdk::manifest!();

use karat_sdk::{Case, Conclusion, Probe, Result, leases, run};
use manifest::{cases, leases as wanted, namespaces};

use subject::Subject;

struct InplacePodResize;

impl Probe for InplacePodResize {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let Some(lease) = leases::acquire_for(&[wanted::NODE], &ALL)? else {
            return Ok(());
        };
        let mut subject = None;
        let runs = cases::RUNS.check("", |case| {
            subject::start(case, &namespace, &lease, &mut subject)
        })?;
        let Some(subject) = subject.filter(|_| runs.is_pass()) else {
            return runs.leaves_untried(&ALL[1..]);
        };
        let cpu = cases::CPU.check("", |case| subject.unless_gone(steps::cpu(case, &subject)))?;
        if !cpu.is_pass() {
            return cpu.leaves_untried(&ALL[2..]);
        }
        for (id, step) in [
            (cases::RESTARTS, steps::restarts as Step),
            (cases::INFEASIBLE, steps::infeasible),
            (cases::CLASS, steps::class),
            (cases::DEVICES, steps::devices),
        ] {
            id.check("", |case| subject.unless_gone(step(case, &subject)))?;
        }
        lease.release()
    }
}

/// Something that is done to the pod.
type Step = fn(&Case, &Subject) -> Result<Conclusion>;

const ALL: [karat_sdk::CaseId; 6] = [
    cases::RUNS,
    cases::CPU,
    cases::RESTARTS,
    cases::INFEASIBLE,
    cases::CLASS,
    cases::DEVICES,
];

karat_sdk::probe!(InplacePodResize);

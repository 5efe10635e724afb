//! `jobset_lifecycle`: what a JobSet makes, and how it ends, restarts, fails, pauses and starts in order.
//!
//! One set stays for what needs pods that run (`alive`); the others come to an end of their own (`ends`). What is believed is what
//! happened: Jobs that came and went in a watch that began before the set, and answers of containers; `status` only where the claim
//! is about it. Read in this order: `sets` (what is created), `story` (what is seen of it), `alive`, `ends`.
//! It installs nothing, and says nothing about queues and placement.

mod alive;
mod ends;
mod sets;
mod story;
#[cfg(test)]
mod tests;

karat_sdk::manifest!();

use karat_sdk::discovery::Discovery;
use karat_sdk::{Case, CaseId, Conclusion, Probe, Query, Reason, Result, leases, run};
use manifest::{cases, leases as wanted, namespaces};

use sets::{GROUP, Sets, VERSION};

/// All that is not tried without JobSet, or without its pods.
const REST: [CaseId; 5] = [
    cases::CHILDREN,
    cases::NAMES,
    cases::SUCCEEDS,
    cases::RESTARTS,
    cases::GIVES_UP,
];

struct JobsetLifecycle;

impl Probe for JobsetLifecycle {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let said = cases::SERVED.check("", |case| served(case, &namespace))?;
        if !said.is_pass() {
            return said.leaves_untried(&REST);
        }
        let Some(lease) = leases::acquire_for(&[wanted::NODE], &REST)? else {
            return Ok(());
        };
        let sets = Sets::new(namespace, lease.nodes())?;
        let mut alive = None;
        let said = cases::CHILDREN.check("", |case| alive::start(case, &sets, &mut alive))?;
        let Some(mut alive) = alive.filter(|_| said.is_pass()) else {
            return said.leaves_untried(&REST[1..]);
        };
        cases::NAMES.check("", |case| alive.names(case))?;
        cases::SUSPENDS.check("", |case| alive.suspends(case))?;
        alive.end()?;
        for (id, step) in [
            (cases::SUCCEEDS, ends::succeeds as Step),
            (cases::RESTARTS, ends::restarts),
            (cases::GIVES_UP, ends::gives_up),
            (cases::WAITS, ends::waits),
        ] {
            id.check("", |case| step(case, &sets))?;
        }
        // Pods may outlive their sets for a moment.
        lease.keep();
        Ok(())
    }
}

/// One more set.
type Step = fn(&Case, &Sets) -> Result<Conclusion>;

fn served(case: &Case, namespace: &str) -> Result<Conclusion> {
    let api_version = [GROUP, VERSION].join("/");
    let jobsets = Query::new(&api_version, "jobsets").in_namespace(namespace);
    let listed = jobsets.pages().and_then(|mut pages| {
        pages.next_page()?;
        Ok(pages.position())
    });
    match listed {
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
        Ok(position) => {
            let discovery = Discovery::read()?;
            case.observe("server version", &discovery.version().git_version);
            case.observe("versions of JobSet", discovery.versions(GROUP).join(", "));
            case.observe("resource version of jobsets", position);
            return Ok(Conclusion::Pass);
        }
    }
    // It fails by itself where only newer versions are served.
    Discovery::read()?.newest(GROUP, &[VERSION])?;
    Ok(Conclusion::unknown(
        Reason::SolutionAbsent,
        "jobset.x-k8s.io/v1alpha2 is not served; install JobSet",
    ))
}

karat_sdk::probe!(JobsetLifecycle);

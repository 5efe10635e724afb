//! `agent_sandbox_lifecycle`: a sandbox that runs and is reached, a pool that keeps some warm, a claim that gets one, and their end.
//!
//! Conditions are not believed: each stands beside pods, which belong to the sandbox or to the pool by their owners and are ready, and
//! beside an answer of the web server in them. Read in this order: `dialect` (what is written in which version), `place` (what is
//! looked for), `single` (one sandbox), `pooled` (template, pool and claims).
//! It installs nothing, and does not look at how well a sandbox isolates.

mod dialect;
mod place;
mod pooled;
mod single;
#[cfg(test)]
mod tests;

karat_sdk::manifest!();

use karat_sdk::discovery::Discovery;
use karat_sdk::{Case, CaseId, Conclusion, Probe, Query, Reason, Result, leases, run};
use manifest::{cases, leases as wanted, namespaces};

use dialect::{CORE, Dialect, EXTENSIONS, KINDS, Version};
use place::Place;

/// All that is not tried where a pod cannot run.
const REST: [CaseId; 5] = [
    cases::RUNS,
    cases::ANSWERS,
    cases::POOL,
    cases::CLAIM,
    cases::ENDS,
];

struct AgentSandboxLifecycle;

impl Probe for AgentSandboxLifecycle {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let mut dialect = None;
        let said = cases::SERVED.check("", |case| served(case, &namespace, &mut dialect))?;
        let Some(dialect) = dialect.filter(|_| said.is_pass()) else {
            return match said {
                Conclusion::NotApplicable(_) => Ok(()),
                said => said.leaves_untried(&REST),
            };
        };
        let Some(lease) = leases::acquire_for(&[wanted::NODE], &REST)? else {
            return Ok(());
        };
        let place = Place::new(namespace, dialect, lease.nodes())?;
        one_sandbox(&place)?;
        a_pool(&place)?;
        // Pods may outlive their sandboxes for a moment.
        lease.keep();
        Ok(())
    }
}

fn one_sandbox(place: &Place) -> Result<()> {
    let mut running = None;
    let said = cases::RUNS.check("", |case| single::runs(case, place, &mut running))?;
    let Some(mut running) = running.filter(|_| said.is_pass()) else {
        return said.leaves_untried(&[cases::ANSWERS]);
    };
    cases::ANSWERS.check("", |case| running.answers(case))?;
    cases::SUSPENDS.check("", |case| running.suspends(case))?;
    running.end()
}

fn a_pool(place: &Place) -> Result<()> {
    let mut pool = None;
    let said = cases::POOL.check("", |case| pooled::fill(case, place, &mut pool))?;
    let Some(pool) = pool.filter(|_| said.is_pass()) else {
        return said.leaves_untried(&[cases::CLAIM, cases::ENDS]);
    };
    let mut claimed = None;
    let said = cases::CLAIM.check("", |case| pool.claim(case, &mut claimed))?;
    match claimed.filter(|_| said.is_pass()) {
        Some(claimed) => {
            cases::ENV.check("", |case| pool.env(case))?;
            cases::ENDS.check("", |case| claimed.ends(case, place))?;
            Ok(())
        }
        None => said.leaves_untried(&[cases::ENDS]),
    }
}

fn served(case: &Case, namespace: &str, dialect: &mut Option<Dialect>) -> Result<Conclusion> {
    let discovery = Discovery::read()?;
    let known = Version::KNOWN.map(Version::as_str);
    let core = discovery.newest(CORE, &known)?;
    let extensions = discovery.newest(EXTENSIONS, &known)?;
    case.observe("server version", &discovery.version().git_version);
    let Some(core) = core.and_then(|version| Version::parse(&version)) else {
        // Absence is shown by asking.
        let asked = Query::new(&[CORE, known[0]].join("/"), "sandboxes").in_namespace(namespace);
        return match asked.list() {
            Err(error) if error.is_not_found() => {
                case.observe("answer for sandboxes", "404");
                Ok(Conclusion::NotApplicable(
                    "agents.x-k8s.io is not served: Agent Sandbox is not installed".to_owned(),
                ))
            }
            Err(error) => Err(error),
            Ok(_) => Ok(Conclusion::unknown(
                Reason::Deadline,
                "sandboxes are served and discovery does not tell; run again",
            )),
        };
    };
    let Some(extensions) = extensions.and_then(|version| Version::parse(&version)) else {
        return Ok(Conclusion::unknown(
            Reason::SolutionAbsent,
            "Sandbox is served, and templates, pools and claims are not: install the extensions of Agent Sandbox",
        ));
    };
    let found = Dialect { core, extensions };
    for kind in KINDS {
        found.target(kind, namespace).query().list()?;
    }
    case.observe("versions of Sandbox", discovery.versions(CORE).join(", "));
    *dialect = Some(found);
    Ok(Conclusion::Pass)
}

karat_sdk::probe!(AgentSandboxLifecycle);

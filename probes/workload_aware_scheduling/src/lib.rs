//! `workload_aware_scheduling`: the scheduler of Kubernetes treats a group of the Workload API as a unit.
//!
//! The steps are those of `karat_gang`, with the adapter of the Workload API. The first of them, pods before their group, also
//! tells a scheduler that does not obey groups at all from one that breaks them: the former is a gate that is off, and no fail.
//! `README.md` says what a pass is worth.

#[cfg(test)]
mod tests;

karat_sdk::manifest!();

use karat_gang::upstream::{self, Found};
use karat_gang::{Gang, Needs, Upstream, Version};
use karat_sdk::discovery::Discovery;
use karat_sdk::{Case, CaseId, Conclusion, Probe, Query, Reason, Result, run};
use manifest::{cases, images, namespaces, settings};
use std::time::Duration;

/// How long nothing must start. As in the manifest.
const QUIET: Duration = Duration::from_secs(30);
/// What is tried once there is room, and decides.
const STEPS: [CaseId; 4] = [
    cases::GATED,
    cases::TOGETHER,
    cases::NONE_STARTS,
    cases::RELEASED,
];

struct WorkloadAwareScheduling;

impl Probe for WorkloadAwareScheduling {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let mut found = None;
        let said = cases::SERVED.check("", |case| {
            let discovery = Discovery::read()?;
            let (conclusion, version) = served(case, &discovery, &namespace)?;
            found = version.map(|version| (version, discovery));
            Ok(conclusion)
        })?;
        let Some((version, discovery)) = found.filter(|_| said.is_pass()) else {
            if let Conclusion::NotApplicable(_) = said {
                return Ok(());
            }
            said.leaves_untried(&[cases::ROOM])?;
            return said.leaves_untried(&STEPS);
        };
        let adapter = Upstream::new(version, &namespace);
        let needs = Needs {
            room: cases::ROOM,
            rest: &STEPS,
            shell: images::SHELL,
            quiet: QUIET,
            start: settings::START_WAIT,
            rejection: settings::REJECTION_WAIT,
            release: settings::RELEASE_WAIT,
        };
        match Gang::open(&adapter, &discovery, namespace, &needs)? {
            Some(gang) => steps(&gang, &adapter),
            None => Ok(()),
        }
    }
}

/// The steps in their order. Each rests on the one before, so the first that does not hold ends them.
fn steps(gang: &Gang<'_>, upstream: &Upstream) -> Result<()> {
    let said = cases::GATED.check("", |case| gang.group_comes_later(case, upstream))?;
    if !said.is_pass() {
        return said.leaves_untried(&STEPS[1..]);
    }
    cases::CONDITION.check("", |case| gang.condition_is_true(case))?;
    let said = cases::TOGETHER.check("", |case| gang.together(case))?;
    if !said.is_pass() {
        return said.leaves_untried(&STEPS[2..]);
    }
    let mut held = None;
    let said = cases::NONE_STARTS.check("", |case| gang.none_starts(case, &mut held))?;
    let Some(held) = held.filter(|_| said.is_pass()) else {
        return said.leaves_untried(&STEPS[3..]);
    };
    let said = cases::RELEASED.check("", |case| gang.released(case, &held))?;
    if !said.is_pass() {
        return Ok(());
    }
    let said = cases::ONE_DOMAIN.check("", |case| gang.one_domain(case, upstream))?;
    if said.is_pass() {
        cases::NO_DOMAIN.check("", |case| gang.no_domain(case, upstream))?;
    }
    Ok(())
}

fn served(
    case: &Case,
    discovery: &Discovery,
    namespace: &str,
) -> Result<(Conclusion, Option<Version>)> {
    Ok(match upstream::look(case, discovery, namespace)? {
        Found::Spoken(version) => {
            case.observe("version used", version.as_str());
            (Conclusion::Pass, Some(version))
        }
        Found::Unspoken(conclusion) => (conclusion, None),
        Found::Absent => {
            // Absence is shown by asking: the group is there, for PriorityClass.
            let workloads = Query::new(&Version::V1Beta1.api_version(), "workloads");
            match workloads.in_namespace(namespace).list() {
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    let text = "workloads are served and discovery does not tell; run again";
                    return Ok((Conclusion::unknown(Reason::Deadline, text), None));
                }
            }
            case.observe("answer for workloads", "404");
            let text = "scheduling.k8s.io has no kind Workload on this server";
            (Conclusion::NotApplicable(text.to_owned()), None)
        }
    })
}

karat_sdk::probe!(WorkloadAwareScheduling);

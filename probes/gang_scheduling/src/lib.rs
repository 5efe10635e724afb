//! `gang_scheduling` (KAR-53): with one installed solution, a group of pods starts together when all of them fit, and none of
//! them starts when one place is missing.
//!
//! This file picks a solution and takes the steps of `karat_gang` in their order; what they do and what they refuse to conclude
//! is written there. `README.md` says what a pass is worth.

#[cfg(test)]
mod tests;

karat_sdk::manifest!();

use karat_gang::upstream::{self, Found};
use karat_gang::{Gang, Needs, Upstream, Version};
use karat_sdk::discovery::Discovery;
use karat_sdk::{Case, CaseId, Conclusion, Probe, Reason, Result, run};
use manifest::{cases, images, namespaces, settings};
use std::time::Duration;

/// How long nothing must start. As in the manifest.
const QUIET: Duration = Duration::from_secs(30);
/// What is tried once there is room, and decides.
const STEPS: [CaseId; 3] = [cases::TOGETHER, cases::NONE_STARTS, cases::RELEASED];

struct GangScheduling;

impl Probe for GangScheduling {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let mut found = None;
        let said = cases::SOLUTION.check("", |case| {
            let discovery = Discovery::read()?;
            let (conclusion, version) = solution(case, &discovery, &namespace)?;
            found = version.map(|version| (version, discovery));
            Ok(conclusion)
        })?;
        let Some((version, discovery)) = found.filter(|_| said.is_pass()) else {
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
            Some(gang) => steps(&gang),
            None => Ok(()),
        }
    }
}

/// The steps in their order. Each rests on the one before, so the first that does not hold ends them.
fn steps(gang: &Gang<'_>) -> Result<()> {
    let said = cases::TOGETHER.check("", |case| gang.together(case))?;
    if !said.is_pass() {
        return said.leaves_untried(&STEPS[1..]);
    }
    let mut held = None;
    let said = cases::NONE_STARTS.check("", |case| gang.none_starts(case, &mut held))?;
    let Some(held) = held.filter(|_| said.is_pass()) else {
        return said.leaves_untried(&STEPS[2..]);
    };
    let said = cases::RELEASED.check("", |case| gang.released(case, &held))?;
    if said.is_pass() {
        cases::DEADLOCK.check("", |case| gang.deadlock(case))?;
        cases::FRAGMENTATION.check("", |case| gang.fragmented(case))?;
    }
    Ok(())
}

/// Which solution is installed. Kueue, Volcano, KAI and coscheduling are not spoken yet and not looked for.
fn solution(
    case: &Case,
    discovery: &Discovery,
    namespace: &str,
) -> Result<(Conclusion, Option<Version>)> {
    Ok(match upstream::look(case, discovery, namespace)? {
        Found::Spoken(version) => {
            case.observe("solution", "Workload API");
            case.observe("version used", version.as_str());
            (Conclusion::Pass, Some(version))
        }
        Found::Unspoken(conclusion) => (conclusion, None),
        Found::Absent => {
            let text = "no gang scheduling solution that this probe knows is installed; install one, such as the Workload API of Kubernetes 1.36 or later (scheduling.k8s.io, feature gate GenericWorkload)";
            (Conclusion::unknown(Reason::SolutionAbsent, text), None)
        }
    })
}

karat_sdk::probe!(GangScheduling);

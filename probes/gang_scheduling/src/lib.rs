//! `gang_scheduling` (KAR-53): with one installed solution, a group of pods starts together when all of them fit, and none of
//! them starts when one place is missing.
//!
//! This file picks a solution and takes the steps of `karat_gang` in their order; what they do and what they refuse to conclude
//! is written there. `README.md` says what a pass is worth.

#[cfg(test)]
mod tests;

karat_sdk::manifest!();

use karat_gang::kueue::{self, Served};
use karat_gang::upstream::{self, Found};
use karat_gang::{Adapter, Gang, Kueue, Needs, Upstream};
use karat_sdk::discovery::Discovery;
use karat_sdk::{Case, CaseId, Conclusion, Probe, Reason, Result, run};
use manifest::{cases, images, namespaces, settings};
use std::time::Duration;

/// How long nothing must start. As in the manifest.
const QUIET: Duration = Duration::from_secs(30);
/// What is tried once there is room, and decides.
const STEPS: [CaseId; 3] = [cases::TOGETHER, cases::NONE_STARTS, cases::RELEASED];
/// Solutions that are looked for and not spoken: group, resource, name.
const OTHERS: [(&str, &str, &str); 3] = [
    ("scheduling.volcano.sh", "podgroups", "Volcano"),
    ("scheduling.run.ai", "podgroups", "KAI"),
    ("scheduling.x-k8s.io", "podgroups", "coscheduling"),
];

struct GangScheduling;

impl Probe for GangScheduling {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let mut found = None;
        let said = cases::SOLUTION.check("", |case| {
            let discovery = Discovery::read()?;
            let (conclusion, adapter) = solution(case, &discovery, &namespace)?;
            found = adapter.map(|adapter| (adapter, discovery));
            Ok(conclusion)
        })?;
        let Some((adapter, discovery)) = found.filter(|_| said.is_pass()) else {
            said.leaves_untried(&[cases::ROOM])?;
            return said.leaves_untried(&STEPS);
        };
        let needs = Needs {
            room: cases::ROOM,
            rest: &STEPS,
            shell: images::SHELL,
            quiet: QUIET,
            start: settings::START_WAIT,
            rejection: settings::REJECTION_WAIT,
            release: settings::RELEASE_WAIT,
        };
        if let Some(gang) = Gang::open(adapter.as_ref(), &discovery, namespace, &needs)? {
            steps(&gang)?;
            return adapter.finish();
        }
        Ok(())
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
    if said.is_pass() && gang.pods_stay() {
        cases::DEADLOCK.check("", |case| gang.deadlock(case))?;
    }
    // What counts quota says by its own documentation that it does not look at nodes.
    if said.is_pass() && !gang.adapter.by_quota() {
        cases::FRAGMENTATION.check("", |case| gang.fragmented(case))?;
    }
    Ok(())
}

type Chosen = Option<Box<dyn Adapter>>;

/// Which solution is tried: the one that a setting names, else Kueue, else the Workload API. The others are listed.
fn solution(case: &Case, discovery: &Discovery, namespace: &str) -> Result<(Conclusion, Chosen)> {
    let wanted = settings::SOLUTION.get_or("any".to_owned())?;
    let queue = settings::QUEUE.get()?.filter(|queue| !queue.is_empty());
    let kueue = kueue::served(discovery);
    for (group, resource, name) in OTHERS {
        let mut versions = discovery.versions(group).into_iter();
        if versions.any(|version| discovery.resource(group, version, resource).is_some()) {
            case.observe("installed as well, and not spoken", name);
        }
    }
    let upstream = upstream::served(discovery);
    if wanted == "kueue" || (wanted == "any" && kueue != Served::Absent) {
        if upstream != upstream::Served::Absent {
            case.observe("installed as well, and not tried", "Workload API");
        }
        return Ok(match kueue {
            Served::Known(version) => {
                case.observe("server version", &discovery.version().git_version);
                case.observe("solution", "Kueue");
                let adapter = Kueue::new(version, namespace, queue);
                adapter.look(case)?;
                (Conclusion::Pass, Some(Box::new(adapter)))
            }
            Served::Unknown(versions) => {
                let text = format!(
                    "Kueue is served only in {versions}, which this probe does not know; use another release of it"
                );
                (Conclusion::unknown(Reason::VersionSkew, text), None)
            }
            Served::Absent => {
                absent("Kueue is not installed; install it, or choose another solution")
            }
        });
    }
    if kueue != Served::Absent {
        case.observe("installed as well, and not tried", "Kueue");
    }
    Ok(match upstream::look(case, discovery, namespace)? {
        Found::Spoken(version) => {
            case.observe("solution", "Workload API");
            case.observe("version used", version.as_str());
            let adapter = Upstream::new(version, namespace);
            (Conclusion::Pass, Some(Box::new(adapter)))
        }
        Found::Unspoken(conclusion) => (conclusion, None),
        Found::Absent => absent(
            "no gang scheduling solution that this probe knows is installed; install one, such as Kueue, or the Workload API of Kubernetes 1.36 or later (scheduling.k8s.io, feature gate GenericWorkload)",
        ),
    })
}

fn absent(text: &str) -> (Conclusion, Chosen) {
    (Conclusion::unknown(Reason::SolutionAbsent, text), None)
}

karat_sdk::probe!(GangScheduling);

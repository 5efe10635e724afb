//! The set that stays: one driver that does nothing, two workers that answer. What needs pods which run is tried with it.

use crate::sets::{ATTEMPT, DRIVER, INDEX, OF_JOB, OF_SET, PORT, REPLICAS, Sets, WORKERS};
use karat_sdk::inventory::{is_ready, not_running};
use karat_sdk::kube::PatchKind;
use karat_sdk::{
    Case, Conclusion, Object, Query, Reason, Result, inventory, json, pods, run, wait,
};
use std::time::Duration;

/// Between two looks.
const REST: Duration = Duration::from_secs(1);
/// Name and replicas of each of its replicated jobs.
const SHAPE: [(&str, u32); 2] = [(DRIVER, 1), (WORKERS, 2)];
/// All its pods.
const PODS: usize = 3;

/// The set, with its pods as they were seen when they all ran.
pub(crate) struct Alive<'a> {
    sets: &'a Sets,
    name: String,
    pods: Vec<Object>,
}

/// Creates it and looks at what JobSet makes of it.
pub(crate) fn start<'a>(
    case: &Case,
    sets: &'a Sets,
    alive: &mut Option<Alive<'a>>,
) -> Result<Conclusion> {
    let name = run::name("set");
    let port = PORT.to_string();
    let jobs = json!([
        sets.job(DRIVER, 1, &["sleep", "forever"]),
        sets.job(WORKERS, 2, &["echo", &port]),
    ]);
    let set = sets.create(&name, jobs, json!({}))?;
    case.observe("set", set.uid());
    let mut found = Vec::new();
    let made = wait::poll(REST, sets.step, "", || {
        found = children(sets, set.uid())?;
        Ok((found.len() >= PODS).then_some(()))
    });
    match made {
        Err(error) if !error.is_deadline() => return Err(error),
        _ => {}
    }
    for job in &found {
        case.observe("Job", job.name());
    }
    if let Some(wrong) = wrong_children(&found, &name) {
        return Ok(Conclusion::fail(wrong));
    }
    let mut own = Alive {
        sets,
        name,
        pods: Vec::new(),
    };
    if let Err(conclusion) = own.all_ready(&[])? {
        return Ok(conclusion);
    }
    for pod in &own.pods {
        case.observe("pod", pod.uid());
        let job = found.iter().find(|job| pod.is_owned_by(job.uid()));
        let Some(job) = job else {
            return Ok(Conclusion::fail(format!(
                "{pod} has the label of the set and belongs to none of its Jobs"
            )));
        };
        for key in [OF_JOB, INDEX] {
            if pod.label(key) != job.label(key) {
                return Ok(Conclusion::fail(format!(
                    "{pod} has not the label {key} of its Job"
                )));
            }
        }
    }
    *alive = Some(own);
    Ok(Conclusion::Pass)
}

/// The Jobs that say by their owner reference that they are of the set.
fn children(sets: &Sets, uid: &str) -> Result<Vec<Object>> {
    let mut jobs = Query::new("batch/v1", "jobs")
        .in_namespace(&sets.namespace)
        .keep(&["/metadata/labels", "/metadata/ownerReferences"])
        .list()?;
    jobs.retain(|job| job.is_owned_by(uid));
    Ok(jobs)
}

/// What is wrong with the children of a set of [`SHAPE`].
fn wrong_children(found: &[Object], set: &str) -> Option<String> {
    let mut names = Vec::new();
    for (of, replicas) in SHAPE {
        for at in 0..replicas {
            let (at, replicas) = (at.to_string(), replicas.to_string());
            let name = [set, of, &at].join("-");
            let Some(job) = found.iter().find(|job| job.name() == name) else {
                let have: Vec<&str> = found.iter().map(Object::name).collect();
                let have = have.join(", ");
                return Some(format!("there is no Job {name}; the set has [{have}]"));
            };
            for (key, wanted) in [
                (OF_SET, set),
                (OF_JOB, of),
                (INDEX, &at),
                (REPLICAS, &replicas),
                (ATTEMPT, "0"),
            ] {
                let have = job.label(key);
                if have != Some(wanted) {
                    let have = have.unwrap_or("none");
                    return Some(format!(
                        "the label {key} of Job {name} is {have} in place of {wanted}"
                    ));
                }
            }
            names.push(name);
        }
    }
    let more = found
        .iter()
        .find(|job| names.iter().all(|name| name != job.name()));
    more.map(|job| format!("the set has one Job too many, {}", job.name()))
}

impl Alive<'_> {
    /// The pods that carry its name.
    fn now(&self) -> Result<Vec<Object>> {
        Query::new("v1", "pods")
            .in_namespace(&self.sets.namespace)
            .labels([OF_SET, &self.name].join("="))
            .keep(inventory::SEEN)
            .list()
    }

    /// Waits until all its pods run, none of them one of `old`; they are kept.
    fn all_ready(&mut self, old: &[Object]) -> Result<std::result::Result<(), Conclusion>> {
        let mut now = Vec::new();
        let ready = wait::poll(REST, self.sets.pods, "", || {
            now = self.now()?;
            now.retain(|pod| old.iter().all(|old| old.uid() != pod.uid()));
            inventory::all_pulled(&now)?;
            let ready = now.iter().filter(|pod| is_ready(pod)).count();
            Ok((ready >= PODS).then_some(()))
        });
        match ready {
            Ok(()) => {
                now.retain(is_ready);
                self.pods = now;
                Ok(Ok(()))
            }
            Err(error) if error.is_deadline() => {
                let late = now.iter().find(|pod| !is_ready(pod));
                Ok(Err(late.map_or_else(
                    || Conclusion::fail("the Jobs of the set have no pods"),
                    |pod| not_running(pod, &pod.to_string()),
                )))
            }
            Err(error) => Err(error),
        }
    }

    fn pod(&self, of: &str, index: &str) -> Option<&Object> {
        let is = |pod: &&Object| pod.label(OF_JOB) == Some(of) && pod.label(INDEX) == Some(index);
        self.pods.iter().find(is)
    }

    /// Asks the first worker from the driver: by its address, which must go well, and by its name.
    pub(crate) fn names(&self, case: &Case) -> Result<Conclusion> {
        let (Some(driver), Some(worker)) = (self.pod(DRIVER, "0"), self.pod(WORKERS, "0")) else {
            return Ok(Conclusion::unknown(
                Reason::CompetingWorkload,
                "the pods of the set are others than before",
            ));
        };
        let host = [&self.name, WORKERS, "0", "0"].join("-");
        let name = [&host, ".", &self.name].concat();
        pods::reaches(case, driver, worker, &name, PORT, &host)
    }

    fn suspend(&self, suspend: bool) -> Result<Object> {
        let patch = json!({"spec": {"suspend": suspend}});
        self.sets
            .target()
            .patch(&self.name, PatchKind::Merge, &patch)
    }

    /// Takes the pods away and brings others.
    pub(crate) fn suspends(&mut self, case: &Case) -> Result<Conclusion> {
        let set = self.suspend(true)?;
        case.observe("set", set.uid());
        let mut left = Vec::new();
        let gone = wait::poll(REST, self.sets.step, "", || {
            left = self.now()?;
            left.retain(|pod| !inventory::has_ended(pod));
            Ok(left.is_empty().then_some(()))
        });
        match gone {
            Ok(()) => {}
            Err(error) if error.is_deadline() => {
                return Ok(Conclusion::fail(format!(
                    "the set is suspended, and {} of its pods are still there",
                    left.len()
                )));
            }
            Err(error) => return Err(error),
        }
        self.suspend(false)?;
        let old = std::mem::take(&mut self.pods);
        if let Err(conclusion) = self.all_ready(&old)? {
            return Ok(conclusion);
        }
        for pod in &self.pods {
            case.observe("pod", pod.uid());
        }
        Ok(Conclusion::Pass)
    }

    /// Takes it away: others need the room.
    pub(crate) fn end(&self) -> Result<()> {
        self.sets.target().discard(&self.name, None)
    }
}

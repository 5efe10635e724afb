//! One sandbox: it runs, answers under its name, goes to rest and comes back.

use crate::dialect::{Kind, Version};
use crate::place::{PORT, Place, REST, too_few};
use karat_sdk::inventory::{all_pulled, is_ready, not_running};
use karat_sdk::kube::{PatchKind, wait_for, wait_for_beside};
use karat_sdk::{Case, Conclusion, Object, Query, Reason, Result, clock, pods, run, wait};

/// A sandbox that runs.
pub(crate) struct Running<'a> {
    place: &'a Place,
    sandbox: Object,
    pod: Object,
}

fn is_true(object: &Object, condition: &str) -> bool {
    let found = object.condition(condition);
    found.is_some_and(|found| found.status == "True")
}

/// Creates it. What it says and what its pod says must agree.
pub(crate) fn runs<'a>(
    case: &Case,
    place: &'a Place,
    running: &mut Option<Running<'a>>,
) -> Result<Conclusion> {
    let name = run::name("box");
    let target = place.target(Kind::Sandbox);
    let began = clock::elapsed();
    let made = target.create(&place.dialect.sandbox(&name, &place.content()))?;
    case.observe("sandbox", made.uid());
    let ready = |sandbox: &Object| is_true(sandbox, "Ready").then(|| sandbox.clone());
    let pulled = || all_pulled(&place.pods_of(made.uid())?);
    let said = wait_for_beside(&target.query(), &name, place.ready, "", ready, pulled);
    // As soon as it says so, before anything else can become true.
    let pods = place.pods_of(made.uid())?;
    for pod in &pods {
        case.observe("pod", pod.uid());
    }
    let sandbox = match said {
        Ok(sandbox) => sandbox,
        Err(error) if error.is_deadline() => {
            let seconds = place.ready.as_secs();
            return Ok(match pods.first() {
                Some(pod) if is_ready(pod) => Conclusion::fail(format!(
                    "{pod} is ready, and its sandbox does not say so after {seconds} s"
                )),
                Some(pod) => not_running(pod, &pod.to_string()),
                None => Conclusion::fail(format!("the sandbox has no pod after {seconds} s")),
            });
        }
        Err(error) => return Err(error),
    };
    case.observe(
        "cold start in milliseconds",
        (clock::elapsed() - began).as_millis(),
    );
    let [pod] = pods.as_slice() else {
        let text = format!(
            "the sandbox says that it is Ready, with {} pods",
            pods.len()
        );
        return Ok(Conclusion::fail(text));
    };
    if !is_ready(pod) {
        return Ok(Conclusion::fail(format!(
            "the sandbox says that it is Ready, and {pod} is not: it is {}",
            pod.text("/status/phase")
        )));
    }
    if let Some(differs) = place.differs(pod) {
        return Ok(Conclusion::fail(differs));
    }
    if place.dialect.core == Version::V1Beta1
        && let Some(other) = other_version(place, &name)?
    {
        case.observe("read as v1alpha1", other.uid());
    }
    *running = Some(Running {
        place,
        pod: pod.clone(),
        sandbox,
    });
    Ok(Conclusion::Pass)
}

/// The same object in the older version, where that is served still: somebody must convert it.
fn other_version(place: &Place, name: &str) -> Result<Option<Object>> {
    let mut older = place.dialect;
    older.core = Version::V1Alpha1;
    let query: Query = older
        .target(Kind::Sandbox, &run::namespace("main")?)
        .query();
    query.get_opt(name)
}

impl Running<'_> {
    /// Asks it from another pod.
    pub(crate) fn answers(&self, case: &Case) -> Result<Conclusion> {
        let name = self.sandbox.text("/status/serviceFQDN");
        if name.is_empty() {
            return Ok(Conclusion::fail(
                "the sandbox is Ready and says no serviceFQDN, so nobody knows its name",
            ));
        }
        let target = self.place.pods();
        let client = self
            .place
            .pod(&run::name("client"), &["sleep", "forever"])
            .build();
        let client = target.create(&client)?;
        case.observe("client", client.uid());
        let ready = |pod: &Object| is_ready(pod).then(|| pod.clone());
        let waited = wait_for(&target.query(), client.name(), self.place.ready, "", ready);
        let client = match waited {
            Ok(client) => client,
            Err(error) if error.is_deadline() => {
                let pod = target.query().get(client.name())?;
                return Ok(not_running(&pod, &pod.to_string()));
            }
            Err(error) => return Err(error),
        };
        let said = pods::reaches(case, &client, &self.pod, name, PORT, self.pod.name())?;
        target.discard(client.name(), None)?;
        Ok(said)
    }

    fn suspend(&self, suspend: bool) -> Result<Object> {
        let patch = self.place.dialect.suspend(suspend);
        let target = self.place.target(Kind::Sandbox);
        target.patch(self.sandbox.name(), PatchKind::Merge, &patch)
    }

    /// Takes its pod away and brings another one.
    pub(crate) fn suspends(&mut self, case: &Case) -> Result<Conclusion> {
        self.suspend(true)?;
        let old = self.pod.uid().to_owned();
        let gone = wait::poll(REST, self.place.step, "", || {
            Ok((!self.place.pod_is_there(&old)?).then_some(()))
        });
        match gone {
            Ok(()) => {}
            Err(error) if error.is_deadline() => {
                return Ok(Conclusion::fail(format!(
                    "the sandbox is suspended, and {} is still there",
                    self.pod
                )));
            }
            Err(error) => return Err(error),
        }
        self.suspend(false)?;
        let mut found = Vec::new();
        let back = wait::poll(REST, self.place.ready, "", || {
            found = self.place.pods_of(self.sandbox.uid())?;
            all_pulled(&found)?;
            Ok(found.iter().find(|pod| is_ready(pod)).cloned())
        });
        match back {
            Ok(pod) => {
                case.observe("pod", pod.uid());
                if pod.uid() == old {
                    return Ok(Conclusion::unknown(
                        Reason::CompetingWorkload,
                        "the pod that was gone is there again",
                    ));
                }
                self.pod = pod;
                Ok(Conclusion::Pass)
            }
            Err(error) if error.is_deadline() => Ok(too_few(&found, 1, "the sandbox that goes on")),
            Err(error) => Err(error),
        }
    }

    /// Takes it away: others need the room.
    pub(crate) fn end(&self) -> Result<()> {
        let target = self.place.target(Kind::Sandbox);
        target.discard(self.sandbox.name(), None)
    }
}

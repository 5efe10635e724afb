//! Template, pool and claims.

use crate::dialect::Kind;
use crate::place::{Place, REST, too_few};
use karat_sdk::admission::is_unknown_field;
use karat_sdk::inventory::{all_pulled, is_ready};
use karat_sdk::kube::wait_for;
use karat_sdk::{Case, Conclusion, Error, Object, Reason, Result, clock, json, run, wait};

/// Sandboxes that the pool keeps warm.
const WARM: usize = 2;

/// A pool that was full.
pub(crate) struct Pool<'a> {
    place: &'a Place,
    template: String,
    pool: Object,
    /// Its pods, warm before anybody asked.
    warm: Vec<Object>,
}

/// A claim that has its sandbox.
pub(crate) struct Claimed {
    claim: Object,
    sandbox: Object,
    pod: Object,
}

/// The pods of a pool once it has enough that are ready and none of `without`; what it has where that does not come about.
fn filled(
    place: &Place,
    pool: &Object,
    without: Option<&str>,
    within: std::time::Duration,
) -> Result<std::result::Result<Vec<Object>, Vec<Object>>> {
    let mut found = Vec::new();
    let full = wait::poll(REST, within, "", || {
        found = place.pods_of(pool.uid())?;
        found.retain(|pod| Some(pod.uid()) != without);
        all_pulled(&found)?;
        let ready = found.iter().filter(|pod| is_ready(pod)).count();
        Ok((ready >= WARM).then_some(()))
    });
    match full {
        Ok(()) => Ok(Ok(found)),
        Err(error) if error.is_deadline() => Ok(Err(found)),
        Err(error) => Err(error),
    }
}

/// Creates template and pool.
pub(crate) fn fill<'a>(
    case: &Case,
    place: &'a Place,
    filled_pool: &mut Option<Pool<'a>>,
) -> Result<Conclusion> {
    let (template, name) = (run::name("web"), run::name("pool"));
    let object = place.dialect.template(&template, &place.content());
    place.target(Kind::Template).create(&object)?;
    let object = place.dialect.pool(&name, &template, WARM);
    let pool = place.target(Kind::Pool).create(&object)?;
    case.observe("pool", pool.uid());
    let warm = match filled(place, &pool, None, place.ready)? {
        Ok(warm) => warm,
        Err(found) => return Ok(too_few(&found, WARM, "the pool")),
    };
    for pod in &warm {
        case.observe("warm pod", pod.uid());
        if let Some(differs) = place.differs(pod) {
            return Ok(Conclusion::fail(differs));
        }
    }
    let mut says = 0;
    let told = wait::poll(REST, place.step, "", || {
        let now = place.now(Kind::Pool, &name)?;
        let now = now
            .as_ref()
            .map(|pool| pool.at("/status/replicas").as_u64());
        says = now.flatten().unwrap_or_default();
        Ok((says == 2).then_some(()))
    });
    match told {
        Ok(()) => {}
        Err(error) if error.is_deadline() => {
            return Ok(Conclusion::fail(format!(
                "the pool has {WARM} pods, and its status says {says}"
            )));
        }
        Err(error) => return Err(error),
    }
    *filled_pool = Some(Pool {
        place,
        template,
        pool,
        warm,
    });
    Ok(Conclusion::Pass)
}

/// Why a claim is not Ready, as it says.
fn word(claim: Option<&Object>) -> String {
    match claim.and_then(|claim| claim.condition("Ready")) {
        Some(ready) => format!("{} {}", ready.reason, ready.message),
        None => "nothing".to_owned(),
    }
}

impl Pool<'_> {
    fn claim_object(&self, name: &str) -> karat_sdk::Value {
        let dialect = self.place.dialect;
        dialect.claim(name, &self.template, self.pool.name())
    }

    /// Claims one of the warm sandboxes.
    pub(crate) fn claim(&self, case: &Case, claimed: &mut Option<Claimed>) -> Result<Conclusion> {
        let place = self.place;
        let name = run::name("claim");
        let began = clock::elapsed();
        let object = self.claim_object(&name);
        let claim = place.target(Kind::Claim).create(&object)?;
        case.observe("claim", claim.uid());
        let mut last = None;
        let query = place.target(Kind::Claim).query();
        let ready = wait_for(&query, &name, place.ready, "", |claim| {
            last = Some(claim.clone());
            let ready = claim.condition("Ready")?;
            (ready.status == "True").then_some(())
        });
        match ready {
            Ok(()) => {}
            Err(error) if error.is_deadline() => {
                return Ok(Conclusion::fail(format!(
                    "{} pods were warm, and after {} s the claim says {}",
                    self.warm.len(),
                    place.ready.as_secs(),
                    word(last.as_ref())
                )));
            }
            Err(error) => return Err(error),
        }
        let time = (clock::elapsed() - began).as_millis();
        case.observe("from claim to ready in milliseconds", time);
        let (sandbox, pod) = match self.sandbox_of(case, last.as_ref())? {
            Ok(found) => found,
            Err(conclusion) => return Ok(conclusion),
        };
        if self.warm.iter().all(|warm| warm.uid() != pod.uid()) {
            return Ok(Conclusion::fail(format!(
                "{pod} was started for the claim, although {} pods were warm",
                self.warm.len()
            )));
        }
        match filled(place, &self.pool, Some(pod.uid()), place.step)? {
            Ok(pods) => {
                for pod in &pods {
                    case.observe("warm pod", pod.uid());
                }
            }
            Err(found) => return Ok(too_few(&found, WARM, "after the claim the pool")),
        }
        *claimed = Some(Claimed {
            claim,
            sandbox,
            pod,
        });
        Ok(Conclusion::Pass)
    }

    /// The sandbox of a claim that is Ready, and its pod.
    fn sandbox_of(
        &self,
        case: &Case,
        claim: Option<&Object>,
    ) -> Result<std::result::Result<(Object, Object), Conclusion>> {
        let place = self.place;
        // The first releases write the key in capitals.
        let text = |place: &str| claim.map_or("", |claim| claim.text(place));
        let name = match text("/status/sandbox/name") {
            "" => text("/status/sandbox/Name"),
            name => name,
        };
        let sandbox = match name {
            "" => None,
            name => place.now(Kind::Sandbox, name)?,
        };
        let Some(sandbox) = sandbox else {
            return Ok(Err(Conclusion::fail(format!(
                "the claim says that it is Ready, and its Sandbox `{name}` is not there"
            ))));
        };
        case.observe("sandbox", sandbox.uid());
        if let Some(launch) = sandbox.label("agents.x-k8s.io/launch-type") {
            case.observe("launch type", launch);
        }
        let pods = place.pods_of(sandbox.uid())?;
        Ok(match pods.into_iter().find(is_ready) {
            Some(pod) => {
                case.observe("pod", pod.uid());
                Ok((sandbox, pod))
            }
            None => Err(Conclusion::fail(
                "the claim says that it is Ready, and its sandbox has no pod that is",
            )),
        })
    }

    /// Asks for what the template does not allow.
    pub(crate) fn env(&self, case: &Case) -> Result<Conclusion> {
        let name = run::name("env");
        let mut object = self.claim_object(&name);
        object["spec"]["env"] = json!([{"name": "KARAT", "value": "yes"}]);
        let target = self.place.target(Kind::Claim);
        let not_known = || {
            let text = "claims of this version have no variables";
            Conclusion::unknown(Reason::VersionSkew, text)
        };
        let made = match target.create(&object) {
            Ok(made) => made,
            Err(error) if is_unknown_field(&error) => return Ok(not_known()),
            Err(Error::Answered(answer)) if matches!(answer.code, 400 | 403 | 422) => {
                case.observe("refused", &answer.message);
                return Ok(if answer.message.contains("env") {
                    Conclusion::Pass
                } else {
                    Error::Answered(answer).conclusion()
                });
            }
            Err(error) => return Err(error),
        };
        if made.at("/spec/env").is_null() {
            target.discard(&name, None)?;
            return Ok(not_known());
        }
        let mut last = None;
        let told = wait::poll(REST, self.place.ready, "", || {
            last = self.place.now(Kind::Claim, &name)?;
            let ready = last.as_ref().and_then(|claim| claim.condition("Ready"));
            let is = ready.as_ref().is_some_and(|ready| ready.status == "True");
            let why = ready.map_or("", |ready| ready.message).to_owned();
            Ok((is || why.contains("env")).then_some((is, why)))
        });
        target.discard(&name, None)?;
        Ok(match told {
            Ok((true, _)) => Conclusion::fail(
                "the template allows no variables, and a claim with one has a sandbox",
            ),
            Ok((false, why)) => {
                case.observe("refused", why);
                Conclusion::Pass
            }
            Err(error) if error.is_deadline() => Conclusion::unknown(
                Reason::Deadline,
                format!("it was accepted, and says {}", word(last.as_ref())),
            ),
            Err(error) => return Err(error),
        })
    }
}

impl Claimed {
    /// Gives it back.
    pub(crate) fn ends(&self, case: &Case, place: &Place) -> Result<Conclusion> {
        let Some(claim) = place.now(Kind::Claim, self.claim.name())? else {
            return Ok(Conclusion::unknown(
                Reason::CompetingWorkload,
                "somebody else deleted the claim",
            ));
        };
        case.observe("claim", claim.uid());
        place.target(Kind::Claim).delete(self.claim.name())?;
        let mut left = Vec::new();
        let gone = wait::poll(REST, place.step, "", || {
            left.clear();
            let own =
                |now: Option<Object>, was: &Object| now.is_some_and(|now| now.uid() == was.uid());
            if own(place.now(Kind::Claim, self.claim.name())?, &self.claim) {
                left.push("the claim");
            }
            if own(
                place.now(Kind::Sandbox, self.sandbox.name())?,
                &self.sandbox,
            ) {
                left.push("its sandbox");
            }
            if place.pod_is_there(self.pod.uid())? {
                left.push("its pod");
            }
            Ok(left.is_empty().then_some(()))
        });
        Ok(match gone {
            Ok(()) => Conclusion::Pass,
            Err(error) if error.is_deadline() => Conclusion::fail(format!(
                "the claim was deleted, and after {} s there is still {}",
                place.step.as_secs(),
                left.join(", ")
            )),
            Err(error) => return Err(error),
        })
    }
}

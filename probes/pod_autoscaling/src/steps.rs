//! The steps: one pod while the gauge is low, two while it is high, one when it is low again.
//!
//! Each waits for the metric, then for what the autoscaler wants, then for the pods, with a time for each, so that a fail names who did
//! not follow. Before anything is said of the platform, the pods are asked whether they still serve what they were told.

use crate::excuse;
use crate::manifest::settings;
use crate::meter::{Level, Meter, TARGET, shown};
use crate::place::{MOST, Place};
use crate::workload::{EVERY, HIGH, LOW, Workload};
use karat_sdk::http;
use karat_sdk::inventory::{all_pulled, is_ready};
use karat_sdk::wait::{self, Deadline};
use karat_sdk::{Case, Conclusion, Object, Reason, Result, clock};
use std::time::Duration;

/// Everything that the steps look at.
pub(crate) struct Lab<'a> {
    pub(crate) place: &'a Place,
    pub(crate) workload: &'a Workload,
    pub(crate) meter: &'a Meter,
}

/// One look at everything.
struct Look {
    autoscaler: Object,
    /// Replicas that the autoscaler wants.
    wanted: u64,
    pods: Vec<Object>,
}

impl Look {
    fn ready(&self) -> u64 {
        self.pods.iter().filter(|pod| is_ready(pod)).count() as u64
    }
}

/// The state of one condition in words.
fn said(autoscaler: &Object, kind: &str) -> String {
    match autoscaler.condition(kind) {
        Some(it) => format!("{kind} is {}, {}: {}", it.status, it.reason, it.message),
        None => format!("it says nothing of {kind}"),
    }
}

fn holds(autoscaler: &Object, kind: &str) -> bool {
    autoscaler
        .condition(kind)
        .is_some_and(|it| it.status == "True")
}

fn lost(why: &str) -> Conclusion {
    Conclusion::unknown(
        Reason::MetricDelayed,
        format!("the platform has lost the metric: {why}"),
    )
}

impl Lab<'_> {
    fn look(&self) -> Result<Look> {
        let autoscaler = self.meter.autoscaler()?;
        Ok(Look {
            wanted: autoscaler
                .at("/status/desiredReplicas")
                .as_u64()
                .unwrap_or_default(),
            pods: self.workload.pods()?,
            autoscaler,
        })
    }

    /// Tells pods a level; gives what it is worth that one cannot be told.
    fn tell(&self, case: &Case, pods: &[Object], level: u64) -> Result<Option<Conclusion>> {
        for pod in pods {
            match self.workload.set(pod, level) {
                Ok(()) => case.observe("set", format!("{pod} to {level}")),
                Err(error) if error.ends_the_probe() => return Err(error),
                Err(error) => return Ok(Some(http::not_asked(&error))),
            }
        }
        Ok(None)
    }

    /// Why nothing can be said of the platform: a pod does not serve what it was told.
    fn untrue(&self, pods: &[Object], level: u64) -> Result<Option<Conclusion>> {
        for pod in pods {
            let serves = match self.workload.gauge(pod) {
                Ok(serves) => serves,
                Err(error) if error.ends_the_probe() => return Err(error),
                Err(error) => return Ok(Some(http::not_asked(&error))),
            };
            if serves != level.to_string() {
                return Ok(Some(Conclusion::unknown(
                    Reason::CompetingWorkload,
                    format!(
                        "{pod} serves {serves}, and was told {level}: it was restarted or set by somebody else"
                    ),
                )));
            }
        }
        Ok(None)
    }

    /// The first of these pods whose metric is not that of a level, and what it is.
    fn stray<'a>(&self, pods: &'a [Object], level: u64) -> Result<Option<(&'a Object, Level)>> {
        for pod in pods {
            let says = self.meter.level(pod)?;
            let follows = if level == LOW {
                self.meter.is_low(&says)
            } else {
                Meter::is_beyond(&says)
            };
            if !follows {
                return Ok(Some((pod, says)));
            }
        }
        Ok(None)
    }

    /// The metric does not follow the gauge.
    fn not_followed(&self, pods: &[Object], level: u64, seconds: u64) -> Result<Conclusion> {
        if let Some(conclusion) = self.untrue(pods, level)? {
            return Ok(conclusion);
        }
        Ok(match self.stray(pods, level)? {
            Some((pod, Ok(says))) => Conclusion::fail(format!(
                "{} {}, {seconds} s after {pod} serves {level}",
                self.meter.place(),
                shown(says)
            )),
            Some((_, Err(why))) => lost(&why),
            None => Conclusion::unknown(
                Reason::Deadline,
                format!("the metric came to {level} only after {seconds} s"),
            ),
        })
    }

    /// The autoscaler does not follow the metric.
    fn not_wanted(
        &self,
        look: &Look,
        pods: &[Object],
        level: u64,
        seconds: u64,
    ) -> Result<Conclusion> {
        if let Some(conclusion) = self.untrue(pods, level)? {
            return Ok(conclusion);
        }
        // Another name is read through the autoscaler itself, so it has seen it.
        let now = pods.first().map(|pod| self.meter.level(pod)).transpose()?;
        if let Some(Err(why)) = now {
            return Ok(lost(&why));
        }
        let average = match self.meter.average(&look.autoscaler) {
            Ok(average) => shown(average),
            Err(why) => why,
        };
        Ok(Conclusion::fail(format!(
            "the autoscaler wants {} replicas {seconds} s after the metric came to {level}, with a target of {TARGET}; it shows an average of {average}; {}; {}",
            look.wanted,
            said(&look.autoscaler, "ScalingActive"),
            said(&look.autoscaler, "AbleToScale"),
        )))
    }
}

/// The autoscaler reads the metric and leaves one pod.
pub(crate) fn active(case: &Case, lab: &Lab<'_>) -> Result<Conclusion> {
    let limit = settings::UP_WAIT.get_or(Duration::from_secs(180))?;
    let mut last = None;
    let calm = wait::poll(EVERY, limit, "an autoscaler that is active", || {
        let look = lab.look()?;
        let average = lab.meter.average(&look.autoscaler);
        let works =
            holds(&look.autoscaler, "AbleToScale") && holds(&look.autoscaler, "ScalingActive");
        let calm = works && look.wanted == 1 && lab.meter.is_low(&average);
        last = Some(look);
        Ok(average.ok().filter(|_| calm))
    });
    let average = match calm {
        Ok(average) => average,
        Err(error) if error.is_deadline() => {
            let Some(look) = last else {
                return Err(error);
            };
            let first = std::slice::from_ref(&lab.workload.first);
            return lab.not_wanted(&look, first, LOW, limit.as_secs());
        }
        Err(error) => return Err(error),
    };
    if let Some(look) = &last {
        for kind in ["AbleToScale", "ScalingActive"] {
            if let Some(it) = look.autoscaler.condition(kind) {
                case.observe(kind, it.reason);
            }
        }
        if look.pods.len() > 1 {
            return Ok(Conclusion::unknown(
                Reason::CompetingWorkload,
                "the Deployment has more than one pod, and nobody wants them",
            ));
        }
    }
    case.observe("average", shown(average));
    Ok(Conclusion::Pass)
}

/// When each of the things happened, in the order in which they must.
#[derive(Default)]
struct Course {
    metric: Option<Duration>,
    wanted: Option<Duration>,
}

impl Course {
    fn tell(&self, case: &Case, began: Duration) {
        let after = |at: Option<Duration>| at.map(|at| at.saturating_sub(began).as_millis());
        for (name, at) in [("metric", self.metric), ("wanted", self.wanted)] {
            if let Some(millis) = after(at) {
                case.observe(&format!("milliseconds until {name}"), millis);
            }
        }
        let all = clock::elapsed().saturating_sub(began).as_millis();
        case.observe("milliseconds until pods", all);
    }
}

/// From one pod to two.
pub(crate) fn up(case: &Case, lab: &Lab<'_>) -> Result<Conclusion> {
    let level_wait = settings::LEVEL_WAIT.get_or(Duration::from_secs(300))?;
    let up_wait = settings::UP_WAIT.get_or(Duration::from_secs(180))?;
    let pod_wait = settings::POD_WAIT.get_or(Duration::from_secs(300))?;
    let first = std::slice::from_ref(&lab.workload.first);
    if let Some(conclusion) = lab.tell(case, first, HIGH)? {
        return Ok(conclusion);
    }
    let began = clock::elapsed();
    let mut deadline = Deadline::after(level_wait);
    let mut course = Course::default();
    loop {
        let look = lab.look()?;
        if course.metric.is_none()
            && (Meter::is_beyond(&lab.meter.average(&look.autoscaler))
                || lab.stray(first, HIGH)?.is_none())
        {
            course.metric = Some(clock::elapsed());
            deadline = Deadline::after(up_wait);
        }
        if course.wanted.is_none() && look.wanted >= MOST {
            course.wanted = Some(clock::elapsed());
            deadline = Deadline::after(pod_wait);
        }
        all_pulled(&look.pods)?;
        if course.wanted.is_some() && look.ready() >= MOST {
            for pod in &look.pods {
                case.observe("pod", pod.uid());
            }
            case.observe("wanted replicas", look.wanted);
            course.tell(case, began);
            return Ok(Conclusion::Pass);
        }
        if deadline.left().is_zero() {
            return if course.wanted.is_some() {
                let text = format!(
                    "the autoscaler wants {} replicas, and {} is ready after {} s",
                    look.wanted,
                    look.ready(),
                    pod_wait.as_secs()
                );
                excuse::not_running(lab, &look.pods, &text)
            } else if course.metric.is_some() {
                lab.not_wanted(&look, first, HIGH, up_wait.as_secs())
            } else {
                lab.not_followed(first, HIGH, level_wait.as_secs())
            };
        }
        wait::sleep(EVERY)?;
    }
}

/// From two pods to one.
pub(crate) fn down(case: &Case, lab: &Lab<'_>) -> Result<Conclusion> {
    let level_wait = settings::LEVEL_WAIT.get_or(Duration::from_secs(300))?;
    let down_wait = settings::DOWN_WAIT.get_or(Duration::from_secs(420))?;
    let pod_wait = settings::POD_WAIT.get_or(Duration::from_secs(300))?;
    let told = lab.workload.pods()?;
    if let Some(conclusion) = lab.tell(case, &told, LOW)? {
        return Ok(conclusion);
    }
    let began = clock::elapsed();
    let mut deadline = Deadline::after(level_wait);
    let mut course = Course::default();
    loop {
        let look = lab.look()?;
        if course.metric.is_none()
            && (lab.meter.is_low(&lab.meter.average(&look.autoscaler))
                || lab.stray(&told, LOW)?.is_none())
        {
            course.metric = Some(clock::elapsed());
            deadline = Deadline::after(down_wait);
        }
        if course.wanted.is_none() && look.wanted == 1 {
            course.wanted = Some(clock::elapsed());
            deadline = Deadline::after(pod_wait);
        }
        if course.wanted.is_some() && look.pods.len() == 1 && look.ready() == 1 {
            case.observe("pod that is left", look.pods[0].uid());
            case.observe("wanted replicas", look.wanted);
            course.tell(case, began);
            return Ok(Conclusion::Pass);
        }
        if deadline.left().is_zero() {
            return if course.wanted.is_some() {
                Ok(excuse::not_gone(
                    &look.pods,
                    look.wanted,
                    pod_wait.as_secs(),
                ))
            } else if course.metric.is_some() {
                lab.not_wanted(&look, &told, LOW, down_wait.as_secs())
            } else {
                lab.not_followed(&told, LOW, level_wait.as_secs())
            };
        }
        wait::sleep(EVERY)?;
    }
}

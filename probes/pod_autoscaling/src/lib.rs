//! `pod_autoscaling`: a HorizontalPodAutoscaler changes the number of running accelerator pods by a custom metric.
//!
//! One pod of a Deployment holds a unit and serves a gauge. While it is low one pod is left; when it is set high a second one must be
//! wanted, run and hold a unit of its own; when it is set low again one is left. What the pods serve themselves is the measure of
//! everything that the platform says. Read in this order: `place` (which units), `workload` (the pods), `meter` (the metric and the
//! autoscaler), `steps` (up and down), `excuse` (what it is worth that pods do not run).
//! Only metrics of pods from custom.metrics.k8s.io are used; the probe registers no API and changes no adapter.

mod excuse;
mod meter;
mod place;
mod steps;
#[cfg(test)]
mod tests;
mod workload;

karat_sdk::manifest!();

use karat_sdk::{Conclusion, Probe, Result, run};
use manifest::{cases, namespaces};
use steps::Lab;

struct PodAutoscaling;

impl Probe for PodAutoscaling {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let rest = [
            cases::WORKLOAD,
            cases::METRIC,
            cases::ACTIVE,
            cases::UP,
            cases::UNITS,
            cases::DOWN,
        ];
        let mut found = None;
        let first =
            cases::ACCELERATORS.check("", |case| place::find(case, &namespace, &mut found))?;
        let Some(place) = found else {
            return first.leaves_untried(&rest);
        };
        let mut made = None;
        let second = cases::WORKLOAD.check("", |case| {
            workload::start(case, &namespace, &place, &mut made)
        })?;
        let Some(workload) = made else {
            return second.leaves_untried(&rest[1..]);
        };
        let mut known = None;
        let third = cases::METRIC.check("", |case| meter::find(case, &workload, &mut known))?;
        let Some(meter) = known else {
            return third.leaves_untried(&rest[2..]);
        };
        let lab = Lab {
            place: &place,
            workload: &workload,
            meter: &meter,
        };
        let fourth = cases::ACTIVE.check("", |case| steps::active(case, &lab))?;
        if fourth != Conclusion::Pass {
            return fourth.leaves_untried(&rest[3..]);
        }
        let fifth = cases::UP.check("", |case| steps::up(case, &lab))?;
        if fifth != Conclusion::Pass {
            return fifth.leaves_untried(&rest[4..]);
        }
        cases::UNITS.check("", |case| place::holders(case, &lab))?;
        if cases::DOWN.check("", |case| steps::down(case, &lab))? == Conclusion::Pass {
            cases::RELEASED.check("", |case| place::released(case, &lab))?;
        }
        Ok(())
    }
}

karat_sdk::probe!(PodAutoscaling);

//! `robust_controller` (KAR-63): an operator's kinds are registered, its controller is at work, its webhook refuses what is bad and
//! nothing else, and what it is given it brings to its final state, keeps there, and takes away again.
//!
//! Status is not believed: each word of the operator (a condition, a registration, a renewed lease) stands beside something that it did.
//! Read in this order: `operator` (what is known of each, as data), `installed` (what is looked at), `steps` (what is done).
//! It never installs anything, and never changes an object that is not its own or of its own.

mod installed;
mod operator;
mod steps;
#[cfg(test)]
mod tests;

karat_sdk::manifest!();

use installed::Installed;
use karat_sdk::{CaseId, Conclusion, Probe, Reason, Result, leases, run};
use manifest::{cases, leases as wanted, namespaces, settings};
use operator::Operator;
use steps::{STEPS, Steps};

/// What is not tried without an operator, beside the steps.
const LOOKS: [CaseId; 2] = [cases::RUNNING, cases::WIRED];

struct RobustController;

impl Probe for RobustController {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let wanted = settings::OPERATOR.get_or("any".to_owned())?;
        let mut chosen = None;
        let said = cases::REGISTERED.check("", |case| {
            let mut absent = Vec::new();
            let mut all: Vec<Installed> = Vec::new();
            for operator in Operator::all() {
                if wanted != "any" && wanted != operator.text("id") {
                    continue;
                }
                match Installed::look(operator)? {
                    Ok(found) => all.push(found),
                    Err(operator) => absent.push(operator.text("name").to_owned()),
                }
            }
            // One without a webhook fails only where none has one.
            let at = all.iter().position(Installed::has_webhook).unwrap_or(0);
            for (place, other) in all.iter().enumerate().filter(|(place, _)| *place != at) {
                let why = if place < at {
                    "has no webhook"
                } else {
                    "not tried"
                };
                case.observe(other.operator.text("name"), why);
            }
            if at >= all.len() {
                let text = format!(
                    "none of the operators that this probe knows is installed ({}); install one",
                    absent.join(", ")
                );
                return Ok(Conclusion::unknown(Reason::SolutionAbsent, text));
            }
            let found = all.swap_remove(at);
            let conclusion = found.registered(case);
            chosen = Some(found);
            Ok(conclusion)
        })?;
        let Some(found) = chosen.filter(|_| said.is_pass()) else {
            said.leaves_untried(&LOOKS)?;
            return said.leaves_untried(&STEPS);
        };
        cases::RUNNING.check("", |case| found.running(case))?;
        cases::WIRED.check("", |case| found.wired(case))?;
        let Some(lease) = leases::acquire_for(&[wanted::NODE], &STEPS)? else {
            return Ok(());
        };
        Steps::new(&found, namespace, lease.nodes())?.take()?;
        // Pods may outlive their object for a moment.
        lease.keep();
        Ok(())
    }
}

karat_sdk::probe!(RobustController);

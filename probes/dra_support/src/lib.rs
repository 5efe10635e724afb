//! `dra_support` (KAR-51): the stable API of dynamic resource allocation is served, its four types behave, and where a
//! driver is installed, devices are allocated by their attributes.
//!
//! Read in this order: `served` (step 1), `crud` (2), `validation` (3), `functional` (4 and 5). The
//! first three decide; allocation is reported beside them, because the requirement asks for the API only. `README.md` says what
//! a pass is worth.

mod api;
mod crud;
mod functional;
mod served;
mod validation;

#[cfg(test)]
mod tests;

karat_sdk::manifest!();

use karat_sdk::{Probe, Reason, Result, not_tried, run};
use manifest::{cases, namespaces};

struct DraSupport;

impl Probe for DraSupport {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let Some(api) = served::check(&namespace)? else {
            return nothing_to_exercise();
        };
        crud::check(&api)?;
        validation::check(&api)?;
        functional::check(&api)
    }
}

/// Without the API the other cases cannot be tried.
fn nothing_to_exercise() -> Result<()> {
    let untried = [
        cases::CRUD_DEVICECLASS,
        cases::CRUD_RESOURCESLICE,
        cases::CRUD_CLAIMTEMPLATE,
        cases::CRUD_CLAIM,
        cases::VALIDATION_TWO_KINDS,
        cases::VALIDATION_CEL,
        cases::VALIDATION_NAME,
    ];
    let why = "resource.k8s.io is not served in a version that this probe knows";
    not_tried(&untried, Reason::SolutionAbsent, why)
}

karat_sdk::probe!(DraSupport);

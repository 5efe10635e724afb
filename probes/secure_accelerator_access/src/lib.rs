//! `secure_accelerator_access` (KAR-49): a container reaches exactly the devices that were allocated to it, and no other.
//!
//! One container gets a device and keeps it. Beside it, on the same node, from the same image and as root, others look for files
//! of devices, make them, and try to open them. Read in this order: `inventory` (node, driver, files), `profile` and `errno` (the two
//! tables on which all rests), `sight` (what a container told), `access` (the cases), `pods`. `README.md` says what a pass is worth.

mod access;
mod errno;
mod inventory;
mod pods;
mod profile;
mod sight;
#[cfg(test)]
mod tests;

karat_sdk::manifest!();

use karat_sdk::{CaseId, Probe, Result, run};
use manifest::{cases, namespaces};

struct SecureAcceleratorAccess;

/// Everything that rests on a container with a device.
const COMPARED: [CaseId; 5] = [
    cases::SECOND_CONTAINER,
    cases::UNAUTHORISED,
    cases::MADE_NODE,
    cases::ENVIRONMENT,
    cases::TENANTS,
];
/// The RuntimeClass by which NVIDIA's runtime is chosen.
const NVIDIA: &str = "nvidia";

impl Probe for SecureAcceleratorAccess {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let mut place = None;
        let said = cases::INVENTORY.check("", |case| inventory::find(case, &mut place))?;
        let Some(place) = place.filter(|_| said.is_pass()) else {
            said.leaves_untried(&[cases::AUTHORISED])?;
            return said.leaves_untried(&COMPARED);
        };
        let pods = pods::Pods {
            place: &place,
            namespace,
        };
        cases::HOST_PATH.check("", |case| access::host_path(case, &pods))?;
        let mut holder = None;
        let said =
            cases::AUTHORISED.check("", |case| access::authorised(case, &pods, &mut holder))?;
        let Some(holder) = holder.filter(|_| said.is_pass()) else {
            return said.leaves_untried(&COMPARED);
        };
        cases::SECOND_CONTAINER.check("", |case| holder.second_container(case, &pods))?;
        let mut stranger = None;
        let said =
            cases::UNAUTHORISED.check("", |case| match holder.stranger(&pods, "stranger")? {
                Ok(pod) => {
                    let said = holder.unauthorised(case, &pods, &pod)?;
                    stranger = Some(pod);
                    Ok(said)
                }
                Err(conclusion) => Ok(conclusion),
            })?;
        match &stranger {
            Some(pod) => {
                cases::MADE_NODE.check("", |case| holder.made_node(case, &pods, pod))?;
            }
            None => said.leaves_untried(&[cases::MADE_NODE])?,
        }
        cases::ENVIRONMENT.check("", |case| holder.environment(case, &pods, None))?;
        let mut second = None;
        cases::TENANTS.check("", |case| holder.tenants(case, &pods, &mut second))?;
        if let Some(second) = second {
            cases::AFTERWARDS.check("", |case| holder.afterwards(case, &pods, &second))?;
        }
        if access::has_class(NVIDIA)? {
            cases::RUNTIME_CLASS.check("", |case| holder.environment(case, &pods, Some(NVIDIA)))?;
        }
        Ok(())
    }
}

karat_sdk::probe!(SecureAcceleratorAccess);

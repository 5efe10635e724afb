//! `model_readiness`: traffic reaches a model server only while it can serve.
//!
//! A simulated server takes a while to load, its health is made to fail and to heal, and it is exchanged by a rolling update. All
//! the while a client in the cluster asks it through its Service and tells every second who answered. Read in this order: `scene`
//! (what is made, and what is seen of it), `traffic` (what the client tells), `health` (loading, failing, healing), `rollout`.
//! It asks no server of others, and does not measure how fast anything is.

mod health;
mod rollout;
mod scene;
#[cfg(test)]
mod tests;
mod traffic;

karat_sdk::manifest!();

use karat_sdk::{Probe, Result, leases, run};
use manifest::{cases, leases as wanted, namespaces};

struct ModelReadiness;

impl Probe for ModelReadiness {
    fn check() -> Result<()> {
        let namespace = run::namespace(namespaces::MAIN)?;
        let Some(lease) = leases::acquire_for(&[wanted::NODE], &ALL)? else {
            return Ok(());
        };
        let mut made = None;
        let first = cases::LOADING.check("", |case| {
            health::loading(case, &namespace, lease.nodes(), &mut made)
        })?;
        let Some((scene, server)) = made else {
            return first.leaves_untried(&ALL[1..]);
        };
        let loaded = cases::LOADED.check("", |case| health::loaded(case, &scene, &server))?;
        if !loaded.is_pass() {
            return loaded.leaves_untried(&ALL[2..]);
        }
        let failing = cases::FAILING.check("", |case| health::failing(case, &scene, &server))?;
        // Tried in any case: a server that is left sick would spoil what follows.
        let healed = cases::HEALED.check("", |case| health::healed(case, &scene, &server))?;
        if !healed.is_pass() {
            let first = if failing.is_pass() { healed } else { failing };
            return first.leaves_untried(&ALL[4..]);
        }
        let mut change = None;
        let update = cases::UPDATE.check("", |case| rollout::update(case, &scene, &mut change))?;
        let Some(change) = change else {
            return update.leaves_untried(&ALL[5..]);
        };
        cases::DRAINS.check("", |case| rollout::drains(case, &scene, &change))?;
        lease.release()
    }
}

const ALL: [karat_sdk::CaseId; 6] = [
    cases::LOADING,
    cases::LOADED,
    cases::FAILING,
    cases::HEALED,
    cases::UPDATE,
    cases::DRAINS,
];

karat_sdk::probe!(ModelReadiness);

//! Where there is a device that can be had: driver, class and node, and which files its devices are.

use crate::manifest::{leases, settings};
use crate::profile::Profile;
use karat_sdk::build::DraVersion;
use karat_sdk::discovery::Discovery;
use karat_sdk::inventory::{self, devices};
use karat_sdk::{Case, Conclusion, Error, Reason, Result, leases as lease, run};

/// The node, set aside, and what can be asked for there.
pub(crate) struct Place {
    pub(crate) version: DraVersion,
    pub(crate) node: String,
    pub(crate) driver: String,
    pub(crate) class: String,
    pub(crate) tolerate: Vec<String>,
    pub(crate) profile: Profile,
    /// Free devices of the driver.
    pub(crate) free: usize,
}

pub(crate) fn find(case: &Case, place: &mut Option<Place>) -> Result<Conclusion> {
    let Some(version) = DraVersion::newest(&Discovery::read()?)? else {
        return Ok(Conclusion::unknown(
            Reason::NoAccelerator,
            "dynamic resource allocation is not served; devices of device plugins are not looked at by this version",
        ));
    };
    let found = devices::read(version, &run::id())?;
    case.observe("devices in complete pools", found.all.len());
    case.observe(
        "kubelets of usable nodes",
        found.kubelets.as_slice().join(", "),
    );
    if found.all.is_empty() {
        return Ok(Conclusion::unknown(
            Reason::NoAccelerator,
            "no driver publishes a device; devices of device plugins are not looked at by this version",
        ));
    }
    let taken = lease::acquire_either(&[leases::PAIR], &[leases::SINGLE], lease::TURN);
    let lease = match taken {
        Ok(lease) => lease,
        Err(Error::Unavailable(why)) => {
            return Ok(Conclusion::unknown(
                Reason::InsufficientCapacity,
                format!("no node with a free device can be set aside: {why}"),
            ));
        }
        Err(error) => return Err(error),
    };
    // Others of the run may have had the node until now.
    let found = devices::read(version, &run::id())?;
    let nodes = inventory::nodes()?;
    let setting = settings::DEVICE_PATHS.get_or(String::new())?;
    let mut unknown = None;
    for node in lease.nodes() {
        if nodes
            .iter()
            .any(|one| one.played && one.name == node.name())
        {
            return Ok(Conclusion::unknown(
                Reason::NoAccelerator,
                "the free devices are on a node that is played: no container runs there",
            ));
        }
        let Some(choice) = found.choose_on(node.name(), &run::id()) else {
            continue;
        };
        let Some(first) = choice.fitting.first() else {
            continue;
        };
        let driver = first.driver.clone();
        let Some(profile) = Profile::of(&driver, &setting) else {
            unknown = Some(driver);
            continue;
        };
        let of_driver = found.usable_on(node.name());
        let free = of_driver
            .filter(|device| device.key.driver == driver)
            .count();
        case.observe("driver", &driver);
        case.observe("class", &choice.class);
        case.observe("node", node.name());
        case.observe("free devices of the driver there", free);
        case.observe("files of devices", profile.counted.join(", "));
        *place = Some(Place {
            version,
            node: node.name().to_owned(),
            driver,
            class: choice.class,
            tolerate: choice.tolerate,
            profile,
            free,
        });
        lease.keep();
        return Ok(Conclusion::Pass);
    }
    Ok(match unknown {
        Some(driver) => Conclusion::unknown(
            Reason::UnknownAccelerator,
            format!(
                "driver {driver} is in no table of this probe; say by the setting device-paths what the files of its devices begin with"
            ),
        ),
        None => Conclusion::unknown(
            Reason::InsufficientCapacity,
            "the node that was set aside has no free device of a class that is understood",
        ),
    })
}

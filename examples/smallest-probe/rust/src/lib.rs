//! The smallest probe that does what every probe does: it reads a list, opens a case, waits on a watch and concludes.
//!
//! `probe.toml` beside it declares the two cases, so they can be shown before anything runs, and none can be left out.

use karat_sdk::kube::{Event, Query};
use karat_sdk::wait::Deadline;
use karat_sdk::{Conclusion, Error, Probe, Result};
use std::time::Duration;

karat_sdk::manifest!();
use manifest::cases;

/// The time that a watch may take to deliver what is there.
const SYNC: Duration = Duration::from_secs(20);

struct Smallest;

impl Probe for Smallest {
    fn check() -> Result<()> {
        let namespaces = Query::new("v1", "namespaces").keep(&["/status/phase"]);

        cases::NAMESPACES.check("", |case| {
            let found = namespaces.list()?;
            case.observe("namespaces", found.len());
            let Some(system) = found.iter().find(|object| object.name() == "kube-system") else {
                return Ok(Conclusion::fail("there is no namespace kube-system"));
            };
            case.observe("uid of kube-system", system.uid());
            Ok(Conclusion::Pass)
        })?;

        cases::WATCH.check("", |case| {
            let mut watch = namespaces.watch()?;
            let deadline = Deadline::after(SYNC);
            let mut seen = false;
            while let Some(event) = watch.next(deadline)? {
                match event {
                    Event::Added(object) if object.name() == "kube-system" => {
                        case.observe("uid of kube-system", object.uid());
                        seen = true;
                    }
                    Event::Synced if seen => {
                        watch.close();
                        return Ok(Conclusion::Pass);
                    }
                    Event::Synced => {
                        return Ok(Conclusion::fail("the watch did not deliver kube-system"));
                    }
                    _ => {}
                }
            }
            Err(Error::Deadline {
                what: "the end of what is there".into(),
                after: SYNC,
            })
        })?;
        Ok(())
    }
}

karat_sdk::probe!(Smallest);

#[cfg(test)]
mod tests {
    use super::*;
    use karat_sdk::testing::{self, FakeCluster, Fault};

    #[test]
    fn a_cluster_in_order_passes() {
        let run = testing::run::<Smallest>(manifest::TEXT, FakeCluster::new("v1.37.0"));
        assert_eq!(run.conclusion("namespaces"), Some(&Conclusion::Pass));
        assert_eq!(run.conclusion("watch"), Some(&Conclusion::Pass));
        run.assert_earned();
    }

    #[test]
    fn a_cluster_without_its_own_namespace_fails() {
        let mut cluster = FakeCluster::new("v1.37.0");
        cluster.remove("namespaces", "", "kube-system");
        let run = testing::run::<Smallest>(manifest::TEXT, cluster);
        assert!(matches!(
            run.conclusion("namespaces"),
            Some(Conclusion::Fail(_))
        ));
        assert!(matches!(run.conclusion("watch"), Some(Conclusion::Fail(_))));
    }

    #[test]
    fn a_server_in_trouble_is_no_fail() {
        let mut cluster = FakeCluster::new("v1.37.0");
        cluster.fail_always(
            "*",
            "namespaces",
            Fault::Answer(500, "InternalError", "etcdserver: leader changed"),
        );
        let run = testing::run::<Smallest>(manifest::TEXT, cluster);
        assert!(matches!(
            run.conclusion("namespaces"),
            Some(Conclusion::Unknown(..))
        ));
    }
}

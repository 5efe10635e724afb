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

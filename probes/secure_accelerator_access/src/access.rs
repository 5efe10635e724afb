//! The cases: what a container with a device sees, and what those see that have none. Each looks at what one container told,
//! while the first container still has its device.

use crate::errno::{Came, Doubt};
use crate::pods::{FIRST, Pods, SECOND};
use crate::sight::{self, Device};
use karat_sdk::kube::Object;
use karat_sdk::pods::Script;
use karat_sdk::{Answer, Case, Conclusion, Error, Query, Reason, Result};

/// Who has nothing to do with devices.
const NOBODY: &str = "a container that asked for no device";

/// The first container and its device.
pub(crate) struct Holder {
    pod: Object,
    pub(crate) device: Device,
}

/// One container with a device: it has exactly one file, and opens it.
pub(crate) fn authorised(
    case: &Case,
    pods: &Pods<'_>,
    holder: &mut Option<Holder>,
) -> Result<Conclusion> {
    pods.prepare()?;
    let made = pods.tenant("holder", &pods.place.first, None)?;
    let pod = match pods.started(&made)? {
        Ok(pod) => pod,
        Err(conclusion) => return Ok(conclusion),
    };
    case.observe("pod", pod.uid());
    let script = pods.told(&pod, FIRST)?;
    let devices = match sight::counted(&script, &pods.place.profile) {
        Ok(devices) => devices,
        Err(what) => return Ok(not_told(&what)),
    };
    sight::show(case, &devices);
    for device in &devices {
        case.observe("device", &device.path);
    }
    let [device] = devices.as_slice() else {
        let counted = pods.place.profile.counted.join(", ");
        return Ok(if devices.is_empty() {
            Conclusion::unknown(
                Reason::UnknownAccelerator,
                format!(
                    "the container was allocated a device and has no file {counted} with a number; say by the setting device-paths what the files of this driver begin with"
                ),
            )
        } else {
            Conclusion::fail(format!(
                "the container was allocated one device and has {}",
                devices.len()
            ))
        });
    };
    match device.came() {
        Came::Through => {}
        Came::Refused => {
            return Ok(Conclusion::fail(format!(
                "{} was given to the container, and the device cgroup refuses it",
                device.path
            )));
        }
        _ => {
            return Ok(Conclusion::unknown(
                Reason::Deadline,
                format!(
                    "{} was given to the container and does not open: {}; without one that opens, nothing can be said of those that do not",
                    device.path, device.answer
                ),
            ));
        }
    }
    *holder = Some(Holder {
        device: device.clone(),
        pod,
    });
    Ok(Conclusion::Pass)
}

impl Holder {
    /// A second container in the same pod.
    pub(crate) fn second_container(&self, case: &Case, pods: &Pods<'_>) -> Result<Conclusion> {
        let script = pods.told(&self.pod, SECOND)?;
        self.has_none(case, pods, &script, "the second container")
    }

    /// A pod that asks for no device.
    pub(crate) fn stranger(&self, pods: &Pods<'_>, prefix: &str) -> Result<crate::pods::Started> {
        let made = pods.stranger(prefix, &self.device)?;
        pods.started(&made)
    }

    /// It has no file, and the one of the first container does not open.
    pub(crate) fn unauthorised(
        &self,
        case: &Case,
        pods: &Pods<'_>,
        stranger: &Object,
    ) -> Result<Conclusion> {
        let script = pods.told(stranger, FIRST)?;
        let said = self.has_none(case, pods, &script, NOBODY)?;
        if !said.is_pass() {
            return Ok(said);
        }
        let path = &self.device.path;
        let answer = script.get(&format!("open.{path}")).unwrap_or_default();
        case.observe(&format!("opening {path}"), answer);
        Ok(match Came::of(answer) {
            Came::Absent | Came::Refused => Conclusion::Pass,
            Came::Through => Conclusion::fail(format!("{NOBODY} opens {path}")),
            Came::Open(doubt) => doubtful(path, answer, doubt),
        })
    }

    /// What it makes itself does not open.
    pub(crate) fn made_node(
        &self,
        case: &Case,
        pods: &Pods<'_>,
        stranger: &Object,
    ) -> Result<Conclusion> {
        let script = pods.told(stranger, FIRST)?;
        if !pods.holds_on(case, &self.pod)? {
            return Ok(holder_gone());
        }
        Ok(self.refused_what_it_made(case, &script, NOBODY))
    }

    fn refused_what_it_made(&self, case: &Case, script: &Script, who: &str) -> Conclusion {
        let tried = match sight::made(script, &self.device) {
            Ok(tried) => tried,
            Err(what) => return not_told(&what),
        };
        for (number, _) in &tried {
            let answer = script.get(&format!("made.{number}")).unwrap_or_default();
            case.observe(&format!("made device {number}"), answer);
        }
        if let Some((number, _)) = tried.iter().find(|(_, came)| *came == Came::Through) {
            return Conclusion::fail(format!(
                "{who} made the file of device {number} and opened it"
            ));
        }
        // Only of the number that the first container opens is it known that a driver stands behind it.
        match tried.first() {
            Some((_, Came::Refused)) => Conclusion::Pass,
            Some((number, Came::Open(doubt))) => {
                let answer = script.get(&format!("made.{number}")).unwrap_or_default();
                doubtful(&format!("device {number}"), answer, *doubt)
            }
            _ => not_told("what came of the file that it made"),
        }
    }

    /// No devices by variables.
    pub(crate) fn environment(
        &self,
        case: &Case,
        pods: &Pods<'_>,
        class: Option<&str>,
    ) -> Result<Conclusion> {
        let prefix = if class.is_some() { "class" } else { "env" };
        let made = pods.by_environment(prefix, class)?;
        let pod = match pods.started(&made)? {
            Ok(pod) => pod,
            Err(conclusion) => return Ok(conclusion),
        };
        for (container, value) in [(FIRST, "all"), (SECOND, "void")] {
            let script = pods.told(&pod, container)?;
            let who = format!("a container whose environment says `{value}`");
            let said = self.has_none(case, pods, &script, &who)?;
            if !said.is_pass() {
                return Ok(said);
            }
        }
        Ok(Conclusion::Pass)
    }

    /// A second container with a device has another one, as far as units are not declared to share. Gives the pod, as far as there is one.
    pub(crate) fn tenants(
        &self,
        case: &Case,
        pods: &Pods<'_>,
        second: &mut Option<Object>,
    ) -> Result<Conclusion> {
        let place = pods.place;
        let Some(ask) = &place.second else {
            return Ok(Conclusion::unknown(
                Reason::InsufficientCapacity,
                "the node has one free device, and this takes two",
            ));
        };
        if let Some(why) = place.shared {
            case.observe("shared", why);
        }
        if *ask != place.first {
            case.observe("asked for by the second", ask);
        }
        let made = pods.tenant("tenant", ask, Some(&self.device))?;
        let pod = match pods.started(&made)? {
            Ok(pod) => pod,
            Err(conclusion) => return Ok(conclusion),
        };
        *second = Some(pod.clone());
        let script = pods.told(&pod, FIRST)?;
        let devices = match sight::counted(&script, &pods.place.profile) {
            Ok(devices) => devices,
            Err(what) => return Ok(not_told(&what)),
        };
        sight::show(case, &devices);
        case.observe("device of the first", &self.device.number);
        if !pods.holds_on(case, &self.pod)? {
            return Ok(holder_gone());
        }
        let mine = pods.allocated(&self.pod, &place.first)?;
        let theirs = pods.allocated(&pod, ask)?;
        case.observe("allocated to the first", mine.join(", "));
        case.observe("allocated to the second", theirs.join(", "));
        if let Some(both) = mine.iter().find(|device| theirs.contains(device)) {
            return Ok(Conclusion::fail(format!(
                "{both} was allocated to both containers"
            )));
        }
        let number = &self.device.number;
        let same = devices.iter().any(|other| other.number == *number);
        if same && place.shared.is_none() {
            return Ok(Conclusion::fail(format!(
                "two devices were allocated, and both containers have device {number}"
            )));
        }
        let (has, asked) = (devices.len(), ask.count());
        if has > asked {
            let was = if asked == 1 { "one device" } else { "fewer" };
            return Ok(Conclusion::fail(format!(
                "the second container was allocated {was} and has {has}"
            )));
        }
        if has < asked {
            return Ok(not_told(
                "of a device of its own for each that it was allocated",
            ));
        }
        // Units that are one device are told apart by their driver, if at all, and not by files.
        if same {
            return Ok(Conclusion::Pass);
        }
        Ok(self.refused_what_it_made(case, &script, "the second container"))
    }

    /// When the second is gone, somebody who asks for none still has nothing.
    pub(crate) fn afterwards(
        &self,
        case: &Case,
        pods: &Pods<'_>,
        second: &Object,
    ) -> Result<Conclusion> {
        pods.remove(second)?;
        match self.stranger(pods, "later")? {
            Ok(stranger) => self.unauthorised(case, pods, &stranger),
            Err(conclusion) => Ok(conclusion),
        }
    }

    /// No file of a device, neither counted nor shared, while the first container has its own.
    fn has_none(
        &self,
        case: &Case,
        pods: &Pods<'_>,
        script: &Script,
        who: &str,
    ) -> Result<Conclusion> {
        let profile = &pods.place.profile;
        let told = sight::counted(script, profile)
            .and_then(|devices| Ok((devices, sight::shared(script, profile)?)));
        let (devices, shared) = match told {
            Ok(told) => told,
            Err(what) => return Ok(not_told(&what)),
        };
        sight::show(case, &devices);
        if !pods.holds_on(case, &self.pod)? {
            return Ok(holder_gone());
        }
        Ok(match (devices.first(), shared.first()) {
            (Some(device), _) => Conclusion::fail(format!(
                "{who} has {}, device {}; opening it: {}",
                device.path, device.number, device.answer
            )),
            (None, Some(path)) => Conclusion::fail(format!("{who} has {path}")),
            (None, None) => Conclusion::Pass,
        })
    }
}

/// Whether there is a RuntimeClass of this name.
pub(crate) fn has_class(name: &str) -> Result<bool> {
    let classes = Query::new("node.k8s.io/v1", "runtimeclasses")
        .keep(&["/handler"])
        .list()?;
    Ok(classes.iter().any(|class| class.name() == name))
}

/// Admission refuses the devices of the node.
pub(crate) fn host_path(case: &Case, pods: &Pods<'_>) -> Result<Conclusion> {
    match pods.try_host_path() {
        Ok(_) => Ok(Conclusion::fail(
            "a pod that mounts /dev of the node is let in at Pod Security level baseline",
        )),
        Err(Error::Answered(Answer {
            code: 403, message, ..
        })) => {
            case.observe("answer", "403");
            case.observe("message", message);
            Ok(Conclusion::Pass)
        }
        Err(error) => Err(error),
    }
}

fn holder_gone() -> Conclusion {
    Conclusion::unknown(
        Reason::CompetingWorkload,
        "the container with the device ended meanwhile",
    )
}

fn not_told(what: &str) -> Conclusion {
    Conclusion::unknown(
        Reason::Deadline,
        format!("the container did not tell {what}"),
    )
}

fn doubtful(what: &str, answer: &str, doubt: Doubt) -> Conclusion {
    let why = match doubt {
        Doubt::Mode => {
            "the mode of the file or of its mount refused, which says nothing of the device cgroup"
        }
        Doubt::NoDriver => {
            "no driver stands behind the number, although another container opens it"
        }
        Doubt::Other => "an error that says nothing of the device cgroup",
    };
    Conclusion::unknown(Reason::Deadline, format!("{what}: {answer}, {why}"))
}

//! What a container told of devices: files that it has, and what came of its attempts to open them. Nothing is concluded here from
//! what it did not tell.

use crate::errno::Came;
use crate::profile::Profile;
use karat_sdk::Case;
use karat_sdk::pods::Script;

/// Minors of made files beside that of the device itself.
const MINORS: u32 = 8;

/// The file of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// Where it is.
    pub(crate) path: String,
    /// Major and minor, `195:0`. Two files of one number are one device.
    pub(crate) number: String,
    /// The kernel's answer to opening it.
    pub(crate) answer: String,
}

impl Device {
    pub(crate) fn came(&self) -> Came {
        Came::of(&self.answer)
    }
}

/// The words with which the tool looks for counted devices.
pub(crate) fn looking(profile: &Profile) -> Vec<String> {
    let counted = profile.counted.iter();
    let shared = profile.shared.iter();
    counted
        .map(|path| format!("devices={path}"))
        .chain(shared.map(|path| format!("exists={path}")))
        .collect()
}

/// The words with which it tries what is not its own: the file of a device of another, and files that it makes with this number
/// and the first of the same driver. Numbers of other drivers are left alone: opening a watchdog or a tape does something.
pub(crate) fn trying(device: &Device) -> Vec<String> {
    let mut words = vec![
        format!("open={}", device.path),
        format!("made={}", device.number),
    ];
    if let Some((major, minor)) = device.number.split_once(':') {
        let others = (0..MINORS).map(|minor| minor.to_string());
        let others = others.filter(|other| other != minor);
        words.extend(others.map(|other| format!("made={major}:{other}")));
    }
    words
}

/// The counted devices of a container; an error is what it did not tell.
pub(crate) fn counted(script: &Script, profile: &Profile) -> Result<Vec<Device>, String> {
    let mut found = Vec::new();
    for prefix in &profile.counted {
        let told = script.get(&format!("devices.{prefix}")).unwrap_or_default();
        let Ok(count) = told.parse::<usize>() else {
            return Err(format!("whether it has {prefix}N ({told})"));
        };
        let mut here = 0;
        for (key, value) in script.told() {
            let Some(path) = key.strip_prefix("device.") else {
                continue;
            };
            let number_of = |path: &str| path.strip_prefix(prefix.as_str()).map(str::len);
            if number_of(path).is_none() {
                continue;
            }
            here += 1;
            let (number, answer) = value.split_once(' ').unwrap_or((value, ""));
            let device = Device {
                path: path.to_owned(),
                number: number.to_owned(),
                answer: answer.to_owned(),
            };
            // Two beginnings of the table may fit the same file.
            if !found.contains(&device) {
                found.push(device);
            }
        }
        if here < count {
            return Err(format!("all of its {count} files {prefix}N"));
        }
    }
    Ok(found)
}

/// Files of the driver that the container has and that are no device.
pub(crate) fn shared<'a>(script: &Script, profile: &'a Profile) -> Result<Vec<&'a str>, String> {
    let mut found = Vec::new();
    for path in profile.shared {
        match script.get(&format!("exists.{path}")).unwrap_or_default() {
            "no" => {}
            "" => return Err(format!("whether it has {path}")),
            _ => found.push(*path),
        }
    }
    Ok(found)
}

/// What came of the attempts with files that the container made, by number, that of the device first.
pub(crate) fn made(script: &Script, device: &Device) -> Result<Vec<(String, Came)>, String> {
    let words = trying(device);
    let numbers = words.iter().filter_map(|word| word.strip_prefix("made="));
    numbers
        .map(|number| {
            let told = script.get(&format!("made.{number}"));
            let told = told.ok_or_else(|| format!("what came of device {number}"))?;
            Ok((number.to_owned(), Came::of_made(told)))
        })
        .collect()
}

/// Shows the files of a container.
pub(crate) fn show(case: &Case, devices: &[Device]) {
    case.observe("files of devices", devices.len());
    for device in devices {
        case.observe(&device.path, format!("{} {}", device.number, device.answer));
    }
}

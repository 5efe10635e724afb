//! Which files are the devices of a driver. A device is counted by a file of its own: a fixed beginning and a number, nothing
//! else. Files that all devices of a node share are not counted, and must not be seen by who has none.

/// The files of one driver's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// What the names of the counted files begin with, before their number.
    pub(crate) counted: Vec<String>,
    /// Files that go with any device.
    pub(crate) shared: &'static [&'static str],
}

struct Row {
    driver: &'static str,
    counted: &'static [&'static str],
    shared: &'static [&'static str],
}

const ROWS: [Row; 6] = [
    Row {
        driver: "gpu.nvidia.com",
        counted: &["/dev/nvidia"],
        shared: &[
            "/dev/nvidiactl",
            "/dev/nvidia-uvm",
            "/dev/nvidia-modeset",
            "/dev/nvidia-caps",
        ],
    },
    Row {
        driver: "gpu.amd.com",
        counted: &["/dev/dri/renderD"],
        shared: &["/dev/kfd"],
    },
    Row {
        driver: "gaudi.intel.com",
        counted: &["/dev/accel/accel", "/dev/hl"],
        shared: &[],
    },
    Row {
        driver: "gpu.intel.com",
        counted: &["/dev/dri/renderD"],
        shared: &[],
    },
    Row {
        driver: "tpu.google.com",
        counted: &["/dev/vfio/", "/dev/accel"],
        shared: &[],
    },
    Row {
        driver: "neuron.aws.com",
        counted: &["/dev/neuron"],
        shared: &[],
    },
];

/// Variables by which runtimes of several vendors give out devices. All are tried on every platform: a container decides itself
/// what its environment says.
pub(crate) const VARIABLES: [&str; 3] = [
    "NVIDIA_VISIBLE_DEVICES",
    "AMD_VISIBLE_DEVICES",
    "HABANA_VISIBLE_DEVICES",
];

impl Profile {
    /// That of the setting, else that of the table; none for a driver that is in neither.
    pub(crate) fn of(driver: &str, setting: &str) -> Option<Profile> {
        let row = ROWS.iter().find(|row| row.driver == driver);
        let shared = row.map_or(&[][..], |row| row.shared);
        let told: Vec<String> = setting
            .split(',')
            .map(str::trim)
            .filter(|path| path.starts_with("/dev/") && path.len() > 5)
            .map(str::to_owned)
            .collect();
        let known = row.into_iter().flat_map(|row| row.counted);
        let counted = if told.is_empty() {
            known.map(|&path| path.to_owned()).collect()
        } else {
            told
        };
        (!counted.is_empty()).then_some(Profile { counted, shared })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_wins_and_an_unknown_driver_needs_one() {
        let known = Profile::of("gpu.nvidia.com", "").unwrap();
        assert_eq!(known.counted, ["/dev/nvidia"]);
        assert!(known.shared.contains(&"/dev/nvidiactl"));
        assert_eq!(Profile::of("vendor.example", ""), None);
        let told = Profile::of("vendor.example", "/dev/x, /dev/y/z").unwrap();
        assert_eq!(told.counted, ["/dev/x", "/dev/y/z"]);
        let both = Profile::of("gpu.nvidia.com", "/dev/other").unwrap();
        assert_eq!(both.counted, ["/dev/other"]);
        assert!(!both.shared.is_empty());
    }

    #[test]
    fn a_setting_outside_of_dev_is_none() {
        for text in ["/etc/passwd", "/dev/", "nvidia", ""] {
            assert_eq!(Profile::of("vendor.example", text), None, "{text}");
        }
    }
}

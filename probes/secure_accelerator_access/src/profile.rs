//! Which files are the devices of a driver. A device is counted by a file of its own: a fixed beginning and a number, nothing
//! else. Files that all devices of a node share are not counted, and must not be seen by who has none.

/// The files of one driver's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// The driver of its row in the table; empty for one that only the setting knows.
    pub(crate) vendor: &'static str,
    /// What the names of the counted files begin with, before their number.
    pub(crate) counted: Vec<String>,
    /// Files that go with any device.
    pub(crate) shared: &'static [&'static str],
}

struct Row {
    driver: &'static str,
    /// The extended resources of the vendor's device plugin; one that ends in `*` stands for all that begin so.
    resources: &'static [&'static str],
    counted: &'static [&'static str],
    shared: &'static [&'static str],
}

const ROWS: [Row; 6] = [
    Row {
        driver: "gpu.nvidia.com",
        resources: &[
            "nvidia.com/gpu",
            "nvidia.com/gpu.shared",
            "nvidia.com/mig-*",
        ],
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
        // Partitions have names of their own, such as cpx_nps4.
        resources: &["amd.com/*"],
        counted: &["/dev/dri/renderD"],
        shared: &["/dev/kfd"],
    },
    Row {
        driver: "gaudi.intel.com",
        resources: &["habana.ai/gaudi"],
        counted: &["/dev/accel/accel", "/dev/hl"],
        shared: &[],
    },
    Row {
        driver: "gpu.intel.com",
        resources: &["gpu.intel.com/i915", "gpu.intel.com/xe"],
        counted: &["/dev/dri/renderD"],
        shared: &[],
    },
    Row {
        driver: "tpu.google.com",
        resources: &["google.com/tpu"],
        counted: &["/dev/vfio/", "/dev/accel"],
        shared: &[],
    },
    Row {
        driver: "neuron.aws.com",
        resources: &[
            "aws.amazon.com/neuron",
            "aws.amazon.com/neuroncore",
            "aws.amazon.com/neurondevice",
        ],
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
    pub(crate) fn of_driver(driver: &str, setting: &str) -> Option<Profile> {
        Profile::of(ROWS.iter().find(|row| row.driver == driver), setting)
    }

    /// The same for an extended resource.
    pub(crate) fn of_resource(resource: &str, setting: &str) -> Option<Profile> {
        let named = |name: &&str| match name.strip_suffix('*') {
            Some(beginning) => resource.starts_with(beginning),
            None => resource == *name,
        };
        let mut rows = ROWS.iter();
        Profile::of(rows.find(|row| row.resources.iter().any(named)), setting)
    }

    fn of(row: Option<&Row>, setting: &str) -> Option<Profile> {
        let vendor = row.map_or("", |row| row.driver);
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
        (!counted.is_empty()).then_some(Profile {
            vendor,
            counted,
            shared,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_wins_and_an_unknown_driver_needs_one() {
        let known = Profile::of_driver("gpu.nvidia.com", "").unwrap();
        assert_eq!(known.counted, ["/dev/nvidia"]);
        assert!(known.shared.contains(&"/dev/nvidiactl"));
        assert_eq!(Profile::of_driver("vendor.example", ""), None);
        let told = Profile::of_driver("vendor.example", "/dev/x, /dev/y/z").unwrap();
        assert_eq!(told.counted, ["/dev/x", "/dev/y/z"]);
        let both = Profile::of_driver("gpu.nvidia.com", "/dev/other").unwrap();
        assert_eq!(both.counted, ["/dev/other"]);
        assert!(!both.shared.is_empty());
    }

    #[test]
    fn an_extended_resource_is_known_by_its_whole_name_or_its_beginning() {
        let vendor = |resource: &str| Profile::of_resource(resource, "").map(|it| it.vendor);
        assert_eq!(vendor("nvidia.com/gpu"), Some("gpu.nvidia.com"));
        assert_eq!(vendor("nvidia.com/mig-1g.10gb"), Some("gpu.nvidia.com"));
        assert_eq!(vendor("amd.com/cpx_nps4"), Some("gpu.amd.com"));
        assert_eq!(vendor("nvidia.com/gpus"), None);
        assert_eq!(vendor("rdma/hca"), None);
        let told = Profile::of_resource("vendor.example/gpu", "/dev/x").unwrap();
        assert_eq!((told.vendor, told.counted), ("", vec!["/dev/x".to_owned()]));
    }

    #[test]
    fn a_setting_outside_of_dev_is_none() {
        for text in ["/etc/passwd", "/dev/", "nvidia", ""] {
            assert_eq!(Profile::of_driver("vendor.example", text), None, "{text}");
        }
    }
}

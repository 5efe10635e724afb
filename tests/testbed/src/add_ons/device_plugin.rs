//! The add-on `device-plugin`: harmless devices of the machine as an extended resource, on each real node. A faulty plugin is
//! described by [`DevicePluginSettings`].
//!
//! It runs on the host and reaches the kubelet's folder, which only the node's own mounts have, through `/proc`. It is ended by its
//! own number with the laboratory; a node that is killed takes the folder with it, and the plugin waits for one that never comes.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde::Deserialize;

use super::AddOn;
use crate::control_plane::{ControlPlane, START_DEADLINE};
use crate::error::{Result, TestbedError};
use crate::node::{MOST, RealNode};
use crate::supervise::Launch;

/// Names of the plugins' processes and logs.
const PLUGINS: [&str; MOST as usize] = [
    "device-plugin-0",
    "device-plugin-1",
    "device-plugin-2",
    "device-plugin-3",
    "device-plugin-4",
    "device-plugin-5",
    "device-plugin-6",
    "device-plugin-7",
];

/// Where a kubelet looks for device plugins, whatever its root folder is.
const FOLDER: &str = "var/lib/kubelet/device-plugins";

/// How a device plugin departs from one that gives each unit's own device. All fields may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DevicePluginSettings {
    /// The extended resource, where it is not `karat.local/test-device`.
    pub resource: Option<String>,
    /// Character devices of this machine, one for each unit, where they are not those of the laboratory.
    pub devices: Vec<String>,
    /// Whether every container gets the first device, whichever unit it was allocated.
    pub first: bool,
    /// Whether every container gets all devices, however many units it was allocated.
    pub all: bool,
    /// A character device of this machine that every container with a unit gets in addition, as `/dev/karat-dev-9`.
    pub beside: Option<String>,
}

impl DevicePluginSettings {
    /// From YAML.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn parse(yaml: &str) -> std::result::Result<Self, String> {
        serde_yaml_ng::from_str(yaml).map_err(|e| e.to_string())
    }

    /// The extended resource.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.resource
            .as_deref()
            .unwrap_or("karat.local/test-device")
    }

    fn flags(&self) -> Vec<String> {
        let mut flags = vec![format!("-resource={}", self.resource())];
        flags.extend(self.beside.iter().map(|path| format!("-beside={path}")));
        let switches = [("-first", self.first), ("-all", self.all)];
        let on = switches.into_iter().filter(|(_, on)| *on);
        flags.extend(on.map(|(name, _)| name.to_owned()));
        flags
    }
}

impl ControlPlane {
    /// Names and logs of the plugins, started or not.
    pub(super) fn device_plugins(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let nodes = self.real_nodes().iter();
        nodes.map(|node| (name(node), self.device_plugin_log(node)))
    }

    /// The log of the device plugin of a node: a line for each registration and each allocation.
    #[must_use]
    pub fn device_plugin_log(&self, node: &RealNode) -> PathBuf {
        node.logs.join(format!("{}.log", name(node)))
    }

    pub(super) async fn start_device_plugins(&self) -> Result<()> {
        let settings = &self.config.device_plugin;
        let asked = if settings.devices.is_empty() {
            &self.config.devices
        } else {
            &settings.devices
        };
        let devices = self.devices_for(AddOn::DevicePlugin, asked)?;
        for node in self.real_nodes() {
            let first = node.first_process().ok_or(TestbedError::Stopped)?;
            let mut args = vec![format!("-dir=/proc/{first}/root/{FOLDER}")];
            let numbered = devices.iter().enumerate();
            args.extend(numbered.map(|(i, path)| format!("-device=dev-{i}={path}")));
            args.extend(settings.flags());
            let launch = Launch {
                program: self.programs.path(AddOn::DevicePlugin.name()),
                args: args.into_iter().map(Into::into).collect(),
                log: self.device_plugin_log(node),
            };
            self.supervisor.start(name(node), launch)?;
        }
        for node in self.real_nodes() {
            self.wait_units(node, devices.len()).await?;
        }
        Ok(())
    }

    /// Waits until pods can ask for so many units of the extended resource.
    async fn wait_units(&self, node: &RealNode, count: usize) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client().await?);
        let resource = self.config.device_plugin.resource();
        self.wait(
            &format!("{} has {count} of {resource}", node.name()),
            &self.device_plugin_log(node),
            START_DEADLINE,
            async || {
                let seen = nodes.get(node.name()).await.map_err(|e| e.to_string())?;
                let there = seen.status.and_then(|status| status.allocatable);
                let there = there.and_then(|mut all| all.remove(resource));
                match there {
                    Some(units) if units.0 == count.to_string() => Ok(()),
                    other => Err(other.map_or_else(|| "none".to_owned(), |units| units.0)),
                }
            },
        )
        .await
    }
}

fn name(node: &RealNode) -> &'static str {
    PLUGINS[usize::from(node.index)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn departures_are_read_strictly_and_end_up_in_flags() {
        let told = "{resource: nvidia.com/gpu, first: true, beside: /dev/fuse}";
        let settings = DevicePluginSettings::parse(told).unwrap();
        assert_eq!(
            settings.flags(),
            ["-resource=nvidia.com/gpu", "-beside=/dev/fuse", "-first"]
        );
        assert!(DevicePluginSettings::parse("frist: true").is_err());
        let usual = DevicePluginSettings::parse("{}").unwrap();
        assert_eq!(usual.flags(), ["-resource=karat.local/test-device"]);
    }
}

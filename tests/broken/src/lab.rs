//! Starts the control planes of the tables, with real nodes where they want some and this machine can have them.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use karat_testbed::{
    AdapterSettings, AddOn, Component, ControlPlane, DevicePluginSettings, DraApi,
    KubernetesVersion, NODE_PROGRAMS, PrometheusSettings, RuntimeHandler, can_run_nodes,
    gvisor_need, images, resume_process,
};

use crate::data::{Dra, HandlerData, LabData, Runs};
use crate::place;

/// A program by its name.
///
/// # Errors
/// If there is none of that name.
pub fn component(name: &str) -> Result<Component> {
    let found = Component::ALL.into_iter().find(|c| c.name() == name);
    found.with_context(|| {
        let names = Component::ALL.map(Component::name).join(", ");
        format!("program {name}: not one of {names}")
    })
}

/// A program beside the real nodes, or an operator, by its name.
///
/// # Errors
/// If there is none of that name.
pub fn add_on(name: &str) -> Result<AddOn> {
    let found = AddOn::ALL.into_iter().find(|add_on| add_on.name() == name);
    found.with_context(|| {
        let names = AddOn::ALL.map(AddOn::name).join(", ");
        format!("with {name}: not one of {names}")
    })
}

/// What can be suspended while a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspended {
    /// A program beside the nodes, or an operator.
    AddOn(AddOn),
    /// A program of the control plane.
    Component(Component),
    /// A program of every real node.
    OfNodes(&'static str),
}

impl Suspended {
    /// By its name.
    ///
    /// # Errors
    /// If there is nothing of that name.
    pub fn named(name: &str) -> Result<Self> {
        if let Some(program) = NODE_PROGRAMS.into_iter().find(|known| *known == name) {
            return Ok(Self::OfNodes(program));
        }
        component(name)
            .map(Self::Component)
            .or_else(|_| add_on(name).map(Self::AddOn))
            .with_context(|| {
                format!(
                    "pause {name}: no operator, and no program of the control plane or of a node"
                )
            })
    }

    /// Its processes.
    #[must_use]
    pub fn processes(self, lab: &ControlPlane) -> Vec<u32> {
        match self {
            Self::AddOn(add_on) => lab.add_on_pid(add_on).into_iter().collect(),
            Self::Component(component) => lab.pid(component).into_iter().collect(),
            Self::OfNodes(program) => {
                let nodes = lab.real_nodes().iter();
                nodes.filter_map(|node| node.program_pid(program)).collect()
            }
        }
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// If it is gone, or does not answer again.
    pub async fn resume(self, lab: &ControlPlane) -> Result<()> {
        if let Self::AddOn(add_on) = self {
            lab.resume_add_on(add_on).await?;
            return Ok(());
        }
        for pid in self.processes(lab) {
            resume_process(pid)?;
        }
        Ok(())
    }
}

/// The Prometheus that stands beside the nodes, where it is not the usual one.
fn prometheus(data: &LabData) -> Result<Option<PrometheusSettings>> {
    let Some(text) = &data.prometheus else {
        return Ok(None);
    };
    ensure!(data.real_nodes > 0, "`prometheus` needs `real-nodes`");
    let settings = PrometheusSettings::parse(text).map_err(anyhow::Error::msg);
    settings.context("prometheus").map(Some)
}

/// The adapter of metrics that stands beside the nodes, where it is not the usual one.
fn metrics_adapter(data: &LabData) -> Result<Option<AdapterSettings>> {
    let Some(text) = &data.metrics_adapter else {
        return Ok(None);
    };
    ensure!(data.real_nodes > 0, "`metrics-adapter` needs `real-nodes`");
    let settings = AdapterSettings::parse(text).map_err(anyhow::Error::msg);
    settings.context("metrics-adapter").map(Some)
}

/// The device plugin beside the nodes, where it is not the usual one.
fn device_plugin(data: &LabData) -> Result<Option<DevicePluginSettings>> {
    let Some(text) = &data.device_plugin else {
        return Ok(None);
    };
    ensure!(data.real_nodes > 0, "`device-plugin` needs `real-nodes`");
    let settings = DevicePluginSettings::parse(text).map_err(anyhow::Error::msg);
    settings.context("device-plugin").map(Some)
}

/// What a control plane must obey beyond the form of its data.
///
/// # Errors
/// The first mistake.
pub fn check(data: &LabData) -> Result<()> {
    for program in data.args.keys() {
        component(program)?;
    }
    for name in &data.with {
        let needs = add_on(name)?.needs_real_nodes();
        ensure!(
            data.real_nodes > 0 || !needs,
            "`with: {name}` needs `real-nodes`"
        );
    }
    add_on_configs(data)?;
    ensure!(
        data.real_nodes > 0 || (data.handlers.is_empty() && data.devices.is_empty()),
        "`handlers` and `devices` need `real-nodes`"
    );
    prometheus(data)?;
    metrics_adapter(data)?;
    device_plugin(data)?;
    for (name, handler) in &data.handlers {
        ensure!(
            handler.flags.is_empty() || handler.runs == Runs::Gvisor,
            "handler {name}: only gvisor has `flags`"
        );
        ensure!(
            handler.through.is_none() || handler.runs == Runs::Runc,
            "handler {name}: only runc has `through`"
        );
        if let Some(text) = &handler.spec {
            serde_yaml_ng::from_str::<serde_json::Map<String, serde_json::Value>>(text)
                .with_context(|| format!("handler {name}: spec"))?;
        }
    }
    Ok(())
}

/// Why this machine cannot have such a control plane; none if it can. What is asked of the machine is asked once.
#[must_use]
pub fn impossible(data: &LabData) -> Option<String> {
    static NODES: OnceLock<Option<String>> = OnceLock::new();
    static GVISOR: OnceLock<Option<String>> = OnceLock::new();
    if data.real_nodes == 0 {
        return None;
    }
    let nodes = NODES.get_or_init(|| {
        let can = can_run_nodes().and_then(|()| images::ensure_target().map_err(|e| e.to_string()));
        can.err().map(|why| format!("no real nodes here: {why}"))
    });
    // Every node has the handler; who names it needs it.
    let wanted = data.handlers.values().any(|h| h.runs == Runs::Gvisor);
    let gvisor = || {
        GVISOR.get_or_init(|| {
            let need = gvisor_need(KubernetesVersion::default());
            (!need.met).then(|| format!("no gVisor here: {}", need.text))
        })
    };
    nodes
        .clone()
        .or_else(|| wanted.then(gvisor).cloned().flatten())
}

fn handler(data: &HandlerData) -> RuntimeHandler {
    match data.runs {
        Runs::Runc => match &data.through {
            Some(text) => RuntimeHandler::RuncScript(text.clone()),
            None => RuntimeHandler::Runc,
        },
        Runs::Gvisor if data.flags.is_empty() => RuntimeHandler::Gvisor,
        Runs::Gvisor => RuntimeHandler::GvisorWith(data.flags.clone()),
    }
}

/// What the configuration files of operators say differently.
///
/// # Errors
/// If there is no operator of that name, or it is no YAML.
pub fn add_on_configs(data: &LabData) -> Result<Vec<(AddOn, serde_json::Value)>> {
    let configs = data.with_config.iter().map(|(name, text)| {
        let config =
            serde_yaml_ng::from_str(text).with_context(|| format!("with-config {name}"))?;
        Ok((add_on(name)?, config))
    });
    configs.collect()
}

/// Starts a control plane and puts into it what stays.
///
/// # Errors
/// If it does not start, or an object is refused.
pub async fn start(data: &LabData) -> Result<ControlPlane> {
    let mut builder = ControlPlane::builder().dra(match data.dra {
        Dra::Stable => DraApi::Stable,
        Dra::All => DraApi::All,
        Dra::OldOnly => DraApi::OldOnly,
        Dra::Off => DraApi::Off,
    });
    if data.workload_api {
        builder = builder.workload_api();
    }
    for (gate, on) in &data.feature_gates {
        builder = builder.feature_gate(gate, *on);
    }
    for entry in &data.runtime_config {
        builder = builder.runtime_config(entry);
    }
    for (program, args) in &data.args {
        let program = component(program)?;
        for arg in args {
            builder = builder.arg(program, arg);
        }
    }
    if let Some(yaml) = &data.scheduler_config {
        builder = builder.scheduler_config(yaml);
    }
    if data.real_nodes > 0 {
        builder = builder.real_nodes(data.real_nodes);
    }
    for (name, told) in &data.handlers {
        builder = builder.runtime_handler(name, handler(told));
        if let Some(spec) = &told.spec {
            builder = builder.runtime_spec(name, spec);
        }
    }
    for name in &data.with {
        builder = builder.with(add_on(name)?);
    }
    for (add_on, config) in add_on_configs(data)? {
        builder = builder.with_config(add_on, config);
    }
    builder = builder.devices(&data.devices);
    if let Some(settings) = prometheus(data)? {
        builder = builder.prometheus(settings);
    }
    if let Some(settings) = metrics_adapter(data)? {
        builder = builder.metrics_adapter(settings);
    }
    if let Some(settings) = device_plugin(data)? {
        builder = builder.device_plugin(settings);
    }
    let lab = builder.start().await?;
    for fixture in &data.fixtures {
        lab.apply(fixture).await?;
    }
    if let Some(yaml) = &data.objects {
        lab.apply_yaml("objects of the lab", yaml).await?;
    }
    let has_nodes = place::has_nodes(&data.fixtures, data.objects.as_deref())?;
    if has_nodes {
        lab.wait_nodes_ready().await?;
    }
    Ok(lab)
}

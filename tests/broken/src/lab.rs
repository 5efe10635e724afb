//! Starts the control planes of the tables.

use anyhow::{Context as _, Result};
use karat_testbed::{AddOn, Component, ControlPlane, DraApi};

use crate::data::{Dra, LabData};
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
    for name in &data.with {
        builder = builder.with(add_on(name)?);
    }
    for (add_on, config) in add_on_configs(data)? {
        builder = builder.with_config(add_on, config);
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

//! Flags, environment and files become one value before work begins. Nothing here talks to a cluster.
//! A flag wins over a variable, a variable over the default.

use crate::args::{ClusterArgs, RbacArg, ReachArg, SelectionArgs, SourceArgs};
use crate::env::{self, Environment};
use crate::images::OwnImages;
use crate::probes::{Probe, Probes, built_in, read_limited};
use crate::ui::diagnostics::{Classify as _, CommandError};
use crate::ui::text::shown;
use anyhow::anyhow;
use karat_engine::cluster::ConnectOptions;
use karat_engine::images::{Images, Placement};
use karat_engine::lease::NodeChoice;
use karat_engine::manifest::{Manifest, SettingKind};
use karat_engine::model::Reach;
use karat_engine::product::platform::{PLATFORM_SIZE_MAX, Platform};
use karat_engine::redact::{MAX_RULES_SIZE, Rules};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Longest value of a setting in bytes.
const SETTING_MAX: usize = 4096;

/// Enough that the longest probe decides: probes mostly wait, and who wants the same nodes waits for a lease.
const PARALLEL_DEFAULT: usize = 16;

/// What `run` and `plan` share, checked.
pub(crate) struct Selection {
    /// All probes of the sources.
    pub(crate) probes: Probes,
    /// What the user named; empty means all.
    pub(crate) wanted: Vec<String>,
    /// How far the run may go.
    pub(crate) reach: Reach,
    /// The grants file.
    pub(crate) grants: Option<PathBuf>,
    /// What is hidden beside what is hidden anyway.
    pub(crate) redaction: Arc<Rules>,
    /// Settings by probe id and key.
    pub(crate) settings: BTreeMap<String, BTreeMap<String, String>>,
    /// Probes at one time.
    pub(crate) parallel: usize,
    /// Ids of probes that get an account of their own.
    pub(crate) enforce: BTreeSet<String>,
    /// Whether the cluster's issuer witnesses the run.
    pub(crate) witness: bool,
    /// The program's own images, and mirrors.
    pub(crate) images: Images,
    /// The nodes that leases may take.
    pub(crate) nodes: NodeChoice,
}

impl Selection {
    /// Reads the sources and checks every word against them.
    ///
    /// # Errors
    /// Unreadable sources, unknown probes, settings that no probe has.
    pub(crate) fn new(
        args: &SelectionArgs,
        environment: &Environment,
    ) -> Result<Selection, CommandError> {
        Selection::with_probes(args, probes(&args.sources, environment)?)
    }

    /// The same with probes that are already read.
    ///
    /// # Errors
    /// As [`Selection::new`].
    pub(crate) fn with_probes(
        args: &SelectionArgs,
        probes: Probes,
    ) -> Result<Selection, CommandError> {
        for word in &args.probes {
            probes.find(word)?;
        }
        let settings = settings(&args.settings, &probes)?;
        let enforce = enforced(args, &probes)?;
        let platform = configured(args.config.as_deref())?;
        let mut named = platform.nodes.of.keys();
        // A word that no probe has would silently give that probe every node.
        if let Some(word) = named.find(|word| probes.iter().all(|one| one.manifest.id != **word)) {
            return Err(CommandError::usage(anyhow!(
                "[nodes] of the configuration names the probe `{}`, and there is none with this id",
                shown(word)
            ))
            .hint("see `karat list` for the ids of probes"));
        }
        if args.witness && reach(args.reach) == Reach::Read {
            return Err(CommandError::usage(anyhow!(
                "`--witness` makes a namespace and an account, and a run of reach `read` makes nothing"
            ))
            .hint("leave out --reach, or --witness"));
        }
        Ok(Selection {
            enforce,
            witness: args.witness,
            wanted: args.probes.clone(),
            reach: reach(args.reach),
            grants: args.grants.clone(),
            redaction: Arc::new(match &args.redact {
                Some(file) => redaction(file)?,
                None => Rules::default(),
            }),
            settings,
            parallel: args.parallel.map_or(PARALLEL_DEFAULT, usize::from),
            images: Images::new(&OwnImages::needed_by(&probes)?.digests(), platform.images),
            nodes: platform.nodes,
            probes,
        })
    }

    /// One line about what the user wants hidden; none where there is no file of rules.
    pub(crate) fn redaction_line(&self) -> Option<String> {
        let digest = self.redaction.digest()?;
        let names = shown(&self.redaction.names().join(", "));
        Some(format!("also hidden: {names} (rules {})", &digest[..12]))
    }

    /// The probes that the user named, or all.
    pub(crate) fn selected(&self) -> Vec<&Probe> {
        self.probes
            .iter()
            .filter(|probe| {
                self.wanted.is_empty() || self.wanted.iter().any(|word| probe.answers(word))
            })
            .collect()
    }
}

/// Reads a file of redaction rules.
///
/// # Errors
/// It cannot be read, or is none.
pub(crate) fn redaction(file: &Path) -> Result<Rules, CommandError> {
    let name = file.display().to_string();
    let bytes = read_limited(file, MAX_RULES_SIZE as u64)?;
    let text = String::from_utf8(bytes).usage(format!("{name} is not UTF-8"))?;
    Rules::parse(&text, &name).usage(format!("{name} holds no redaction rules"))
}

/// What the operator says of images.
///
/// # Errors
/// An unreadable `karat.toml`.
pub(crate) fn placement(file: Option<&Path>) -> Result<Placement, CommandError> {
    Ok(configured(file)?.images)
}

/// What `karat.toml` says; nothing where there is none.
fn configured(file: Option<&Path>) -> Result<Platform, CommandError> {
    file.map_or_else(|| Ok(Platform::default()), config)
}

/// Reads `karat.toml`.
///
/// # Errors
/// It cannot be read, or is none.
pub(crate) fn config(path: &Path) -> Result<Platform, CommandError> {
    let name = path.display().to_string();
    let doing = format!("cannot read {name}");
    let bytes = read_limited(path, PLATFORM_SIZE_MAX as u64)?;
    let text = String::from_utf8(bytes).usage(format!("{name} is not UTF-8"))?;
    Platform::parse(&text, &name).usage(doing)
}

/// Probes that act as an account of their own: by the flag, else those that are not built in. A run of reach `read` writes
/// nothing, so nothing but the flag gives it accounts.
fn enforced(args: &SelectionArgs, probes: &Probes) -> Result<BTreeSet<String>, CommandError> {
    let all = |keep: &dyn Fn(&Probe) -> bool| {
        let kept = probes.iter().filter(|probe| keep(probe));
        kept.map(|probe| probe.manifest.id.clone()).collect()
    };
    let reads = reach(args.reach) == Reach::Read;
    match args.rbac {
        Some(RbacArg::Enforce) if reads => Err(CommandError::usage(anyhow!(
            "`--rbac enforce` makes accounts and roles, and a run of reach `read` makes nothing"
        ))
        .hint("leave out --reach, or add --rbac off")),
        Some(RbacArg::Enforce) => Ok(all(&|_| true)),
        Some(RbacArg::Off) => Ok(BTreeSet::new()),
        None if reads => Ok(BTreeSet::new()),
        None => {
            let known = digests_built_in();
            Ok(all(&|probe| !known.contains(&probe.digest)))
        }
    }
}

/// Digests of the probes that came with the program. Without them no probe counts as built in.
pub(crate) fn digests_built_in() -> BTreeSet<String> {
    let layout = std::env::current_exe()
        .and_then(|path| path.canonicalize())
        .ok()
        .and_then(|executable| built_in(&executable));
    let probes = layout.and_then(|layout| Probes::load(&[layout]).ok());
    probes
        .iter()
        .flat_map(Probes::iter)
        .map(|probe| probe.digest.clone())
        .collect()
}

/// The reach of a flag.
pub(crate) fn reach(flag: Option<ReachArg>) -> Reach {
    match flag {
        None => Reach::default(),
        Some(ReachArg::Read) => Reach::Read,
        Some(ReachArg::Sandbox) => Reach::Sandbox,
        Some(ReachArg::ClusterObjects) => Reach::ClusterObjects,
        Some(ReachArg::Disruptive) => Reach::Disruptive,
    }
}

/// Probes of the flag, the variable or the program itself.
///
/// # Errors
/// No source at all, or an unreadable one.
pub(crate) fn probes(args: &SourceArgs, environment: &Environment) -> Result<Probes, CommandError> {
    if !args.probes_from.is_empty() {
        return Probes::load(&args.probes_from);
    }
    if let Some(value) = environment.get(env::KARAT_PROBES) {
        let sources: Vec<PathBuf> = std::env::split_paths(&value)
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        return Probes::load(&sources)
            .map_err(|error| error.hint("the source comes from KARAT_PROBES"));
    }
    // The real file, so that a symbolic link in ~/bin finds its probes too.
    let executable = std::env::current_exe()
        .and_then(|path| path.canonicalize())
        .map_err(|error| {
            CommandError::environment(error).doing("cannot find the place of this program")
        })?;
    match built_in(&executable) {
        Some(layout) => Probes::load(&[layout]),
        None => Err(CommandError::environment(anyhow!(
            "no built-in probes were found beside {}",
            executable.display()
        ))
        .hint("install Karat with its `probes` folder, run `cargo xtask probes` in a checkout, or give --probes-from")),
    }
}

/// How to reach the cluster.
///
/// # Errors
/// A kubeconfig that does not exist.
pub(crate) fn connect_options(args: &ClusterArgs) -> Result<ConnectOptions, CommandError> {
    if let Some(file) = &args.kubeconfig
        && !file.is_file()
    {
        return Err(CommandError::usage(anyhow!(
            "there is no kubeconfig file {}",
            file.display()
        )));
    }
    Ok(ConnectOptions {
        kubeconfig: args.kubeconfig.clone(),
        context: args.context.clone(),
        ..ConnectOptions::default()
    })
}

/// `probe.key=value`, checked against the manifests. A probe id may hold dots, so the longest one that fits is meant.
fn settings(
    given: &[String],
    probes: &Probes,
) -> Result<BTreeMap<String, BTreeMap<String, String>>, CommandError> {
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for text in given {
        let (path, value) = text.split_once('=').ok_or_else(|| {
            CommandError::usage(anyhow!("`--set {text}` has no `=`"))
                .hint("write --set probe.key=value")
        })?;
        let (probe, key) = probes
            .iter()
            .filter_map(|probe| {
                let key = path
                    .strip_prefix(probe.manifest.id.as_str())?
                    .strip_prefix('.')?;
                Some((probe, key))
            })
            .max_by_key(|(probe, _)| probe.manifest.id.len())
            .ok_or_else(|| {
                CommandError::usage(anyhow!("`--set {text}` names no probe"))
                    .hint("write --set probe.key=value")
            })?;
        check_setting(&probe.manifest, key, value)?;
        all.entry(probe.manifest.id.clone())
            .or_default()
            .insert(key.to_owned(), value.to_owned());
    }
    Ok(all)
}

fn check_setting(manifest: &Manifest, key: &str, value: &str) -> Result<(), CommandError> {
    let id = &manifest.id;
    let Some(setting) = manifest.settings.get(key) else {
        let keys: Vec<&str> = manifest.settings.keys().map(String::as_str).collect();
        return Err(
            CommandError::usage(anyhow!("probe {id} has no setting `{key}`")).hint(
                if keys.is_empty() {
                    "it has no settings at all".to_owned()
                } else {
                    format!("it has: {}", keys.join(", "))
                },
            ),
        );
    };
    let wrong = |expected: String| {
        Err(CommandError::usage(anyhow!(
            "setting {id}.{key} is `{value}`, expected {expected}"
        ))
        .hint(setting.help.clone()))
    };
    if value.len() > SETTING_MAX || value.chars().any(char::is_control) {
        return wrong(format!(
            "at most {SETTING_MAX} bytes without control characters"
        ));
    }
    match setting.kind.check(value) {
        Ok(()) => Ok(()),
        Err(expected) => wrong(expected),
    }
}

/// The words of a kind of setting, for people.
pub(crate) fn kind_of_setting(kind: &SettingKind) -> String {
    match kind {
        SettingKind::String => "text".to_owned(),
        SettingKind::Bool => "`true` or `false`".to_owned(),
        SettingKind::Integer => "a whole number".to_owned(),
        SettingKind::Duration => "a duration such as `90s`".to_owned(),
        SettingKind::Quantity => "a quantity such as `2Gi`".to_owned(),
        SettingKind::OneOf(words) => format!("one of {}", words.join(", ")),
        SettingKind::Secret => "the name of a secret".to_owned(),
    }
}

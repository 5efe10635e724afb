//! `karat bundle`: makes a bundle of a run, public copies of a bundle, and artifacts that registries keep. Needs no cluster.

use super::Context;
use crate::args::{BundleCreateArgs, BundlePackArgs, BundleUnpackArgs, BundleWithholdArgs};
use crate::exit::Exit;
use crate::probes::read_limited;
use crate::ui::diagnostics::{Classify as _, CommandError, CommandResult};
use crate::ui::text::{bytes, counted, shown_within};
use karat_engine::bundle::archive::{ARTIFACT_TYPE, MEDIA_TYPE, PACKED_MAX, pack, unpack};
use karat_engine::bundle::signature::{KeyError, PublicKey, SigningKey};
use karat_engine::bundle::{BundleError, Created, Limits, Withhold, create, withhold};
use karat_engine::witness::Release;
use karat_registry::reference::check_tag;
use karat_registry::{Layout, LayoutError, Piece};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Name of the bundle in the folder of a run.
pub(crate) const IN_RUN: &str = "bundle";
/// Most bytes of a key file.
const KEY_MAX: u64 = 64 << 10;

#[derive(Serialize)]
struct Made<'a> {
    run: &'a str,
    bundle: String,
    files: usize,
    bytes: u64,
    signed_by: Option<&'a str>,
    left_out: &'a [String],
    withheld: u64,
    /// `none`, `unfinished`, `waiting` or `included`; absent for a copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    witness: Option<&'static str>,
    /// When a witness that waits may be given away.
    #[serde(skip_serializing_if = "Option::is_none")]
    witness_from: Option<String>,
}

#[derive(Serialize)]
struct InLayout<'a> {
    run: &'a str,
    layout: String,
    tag: &'a str,
    /// Digest of the artifact's manifest.
    digest: String,
    files: usize,
    /// Of the packed bundle.
    bytes: u64,
}

/// Makes a bundle.
pub(crate) fn create_bundle(context: &Context, args: &BundleCreateArgs) -> CommandResult {
    let key = args.sign.as_deref().map(signing_key).transpose()?;
    let to = args.out.clone().unwrap_or_else(|| args.run.join(IN_RUN));
    let made = create(&args.run, &to, key.as_ref()).map_err(|error| {
        explained(
            error,
            format!("cannot make a bundle of {}", args.run.display()),
        )
    })?;
    tell(context, &made, &to, args.json)
}

/// Makes a public copy.
pub(crate) fn withhold_answers(context: &Context, args: &BundleWithholdArgs) -> CommandResult {
    let what = Withhold {
        probes: args.probes.iter().cloned().collect(),
        components: args.components,
    };
    let made = withhold(&args.bundle, &args.out, &what)
        .map_err(|error| explained(error, format!("cannot copy {}", args.bundle.display())))?;
    tell(context, &made, &args.out, args.json)
}

/// Puts a bundle into a layout.
pub(crate) fn pack_bundle(context: &Context, args: &BundlePackArgs) -> CommandResult {
    let packed = pack(&args.bundle)
        .map_err(|error| explained(error, format!("cannot pack {}", args.bundle.display())))?;
    let name = args.tag.as_deref().unwrap_or(&packed.run);
    check_tag(name).usage("cannot name the bundle")?;
    let file = format!("{}.tar.gz", packed.run);
    let store = |layout: Layout| {
        layout.put_piece(&Piece {
            artifact_type: ARTIFACT_TYPE,
            media_type: MEDIA_TYPE,
            name,
            file: &file,
            bytes: &packed.bytes,
        })
    };
    let digest = Layout::create(&args.out)
        .and_then(store)
        .map_err(|error| no_layout(error, format!("cannot write to {}", args.out.display())))?;
    let size = packed.bytes.len() as u64;
    let printer = &context.printer;
    if args.json {
        let found = InLayout {
            run: &packed.run,
            layout: args.out.display().to_string(),
            tag: name,
            digest: digest.to_string(),
            files: packed.files,
            bytes: size,
        };
        printer.json(&found).bug("cannot write what was made")?;
    } else {
        printer.data_lines([
            format!(
                "bundle of run {}: {} packed in {}, {}",
                shown_within(&packed.run, 40),
                counted(packed.files, "file"),
                args.out.display(),
                bytes(size)
            ),
            format!("{}  {digest}", shown_within(name, 128)),
        ]);
    }
    Ok(Exit::Passed)
}

/// Takes a bundle out of a layout.
pub(crate) fn unpack_bundle(context: &Context, args: &BundleUnpackArgs) -> CommandResult {
    let packed = Layout::open(&args.layout)
        .and_then(|layout| layout.piece(ARTIFACT_TYPE, args.tag.as_deref(), PACKED_MAX))
        .map_err(|error| no_layout(error, format!("cannot read {}", args.layout.display())))?;
    let made = unpack(&packed, &args.out, &Limits::default())
        .map_err(|error| explained(error, format!("cannot unpack {}", args.layout.display())))?;
    tell(context, &made, &args.out, args.json)
}

fn no_layout(error: LayoutError, doing: String) -> CommandError {
    let several = matches!(error, LayoutError::Absent { .. });
    let error = match error {
        LayoutError::Io { .. } => CommandError::environment(error),
        error => CommandError::usage(error),
    };
    let error = error.doing(doing);
    if several {
        error.hint("--tag names the bundle; `karat bundle pack` makes such a layout")
    } else {
        error
    }
}

fn tell(context: &Context, made: &Created, to: &Path, json: bool) -> CommandResult {
    let printer = &context.printer;
    if json {
        let found = Made {
            run: &made.run,
            bundle: to.display().to_string(),
            files: made.files,
            bytes: made.bytes,
            signed_by: made.key.as_deref(),
            left_out: &made.left_out,
            withheld: made.withheld,
            witness: made.witness.as_ref().map(|witness| match witness {
                Release::Absent => "none",
                Release::Unfinished => "unfinished",
                Release::Alive(_) => "waiting",
                Release::Expired => "included",
            }),
            witness_from: match &made.witness {
                Some(Release::Alive(until)) => Some(until.to_string()),
                _ => None,
            },
        };
        printer.json(&found).bug("cannot write what was made")?;
    } else {
        printer.data_lines(lines(made, to));
    }
    Ok(Exit::Passed)
}

/// What was made, and how to check it.
pub(crate) fn lines(made: &Created, to: &Path) -> Vec<String> {
    let mut said = vec![format!(
        "bundle of run {}: {} in {}, {}",
        shown_within(&made.run, 40),
        to.display(),
        counted(made.files, "file"),
        bytes(made.bytes)
    )];
    if let Some(key) = &made.key {
        said.push(format!("signed by {key}"));
    }
    if made.withheld > 0 {
        let answers = usize::try_from(made.withheld).unwrap_or(usize::MAX);
        said.push(format!(
            "{} withheld; statement and signatures still hold",
            counted(answers, "answer")
        ));
    }
    for digest in &made.left_out {
        said.push(format!(
            "without the component {}: whoever verifies brings it",
            shown_within(digest, 80)
        ));
    }
    match &made.witness {
        None | Some(Release::Absent) => {}
        Some(Release::Expired) => {
            said.push("with its witness: every token in it has expired".to_owned());
        }
        Some(Release::Unfinished) => said.push(
            "without its witness, which lacks the last token: finish the run with `karat run --resume`"
                .to_owned(),
        ),
        Some(Release::Alive(until)) => said.push(format!(
            "without its witness yet: tokens in the run folder live until {}; `karat bundle create` adds it after that",
            until.strftime("%Y-%m-%dT%H:%M:%SZ")
        )),
    }
    said.push(format!("check it:    karat verify {}", to.display()));
    said
}

/// The message with the command that helps.
fn explained(error: BundleError, doing: String) -> CommandError {
    let hint = match &error {
        BundleError::Recording { .. } => Some(
            "this evidence does not hold; run the probe again with --rerun, or look at the file",
        ),
        BundleError::NoBundle { .. } => {
            Some("`karat bundle create RUN_DIR` makes a bundle of a run")
        }
        BundleError::NoProbe { .. } => Some("`karat verify` lists the probes of a bundle"),
        _ => None,
    };
    let environment = matches!(error, BundleError::Io { .. });
    let error = if environment {
        CommandError::environment(error)
    } else {
        CommandError::usage(error)
    };
    let error = error.doing(doing);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Reads a private key.
pub(crate) fn signing_key(path: &Path) -> Result<SigningKey, CommandError> {
    key(path, SigningKey::from_pem).map_err(|error| {
        error.hint(
            "make one with: openssl ecparam -name prime256v1 -genkey -noout -out signing-key.pem",
        )
    })
}

/// Reads public keys.
pub(crate) fn public_keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>, CommandError> {
    paths
        .iter()
        .map(|path| {
            key(path, PublicKey::from_pem).map_err(|error| {
                error.hint(
                    "make one of a private key with: openssl pkey -in signing-key.pem -pubout",
                )
            })
        })
        .collect()
}

fn key<K>(path: &Path, read: impl Fn(&str) -> Result<K, KeyError>) -> Result<K, CommandError> {
    let bytes = read_limited(path, KEY_MAX)?;
    read(&String::from_utf8_lossy(&bytes)).usage(format!("cannot use the key {}", path.display()))
}

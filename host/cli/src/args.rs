//! What can be typed, as clap types and nothing else: no files are read and nothing is decided here.
//! Flags, environment and files become one value in [`crate::settings`]; each verb's work is in [`crate::commands`].

#![allow(
    rustdoc::invalid_html_tags,
    reason = "these comments are help texts, where `<time>` stands for a value"
)]

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Run the Kubernetes AI Requirements as small sandboxed probes, and keep evidence that anyone can check.
#[derive(Debug, Parser)]
#[command(
    name = "karat",
    version,
    max_term_width = 110,
    subcommand_required = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) speech: SpeechArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The definition of the program with the variables it reads, for parsing, completions and the reference alike.
pub(crate) fn command() -> clap::Command {
    use std::fmt::Write as _;
    let mut text = format!("{EXAMPLES}\n\nEnvironment:\n");
    for variable in crate::env::ALL {
        let _ = writeln!(text, "  {}\n          {}", variable.name, variable.help);
    }
    text.push('\n');
    text.push_str(EXIT_CODES);
    Cli::command().after_help(EXIT_CODES).after_long_help(text)
}

const EXIT_CODES: &str = "Exit codes: 0 all selected passed, 1 something failed, 2 could not tell, 3 wrong usage or input,\n\
                          4 the environment failed, 70 a bug, 130 and 143 after a signal.";

const EXAMPLES: &str = "Examples:\n  \
    karat list                                  what can be run\n  \
    karat plan --reach cluster-objects          what a run would do, and which RBAC is missing\n  \
    karat run --reach cluster-objects           run it, after showing the plan and asking\n  \
    karat explain dra_support --run karat-runs/20260101T120000Z\n  \
    karat replay karat-runs/20260101T120000Z    compute the verdicts again, without a cluster";

/// How much the program says.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Speech")]
pub(crate) struct SpeechArgs {
    /// Say nothing but results, warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Also show each call of a probe, its log and the chain of causes of warnings
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Write without colours; `NO_COLOR` in the environment does the same
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run probes against a cluster and judge it
    #[command(after_long_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Show what a run would do, ask for and create, without running anything
    #[command(after_long_help = PLAN_EXAMPLES)]
    Plan(PlanArgs),
    /// List the probes that can be run
    List(ListArgs),
    /// List, carry, push and look for the images that probes start, and those that the program brings
    #[command(subcommand)]
    Images(ImagesCommand),
    /// Show what a probe is and asks for: manifest, imports, permissions, digest, size
    Inspect(InspectArgs),
    /// Explain a requirement: its claim, its cases, how it could mislead; after a run, why this verdict and what to do
    #[command(after_long_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Remove what an interrupted run left on the cluster
    #[command(after_long_help = CLEAN_EXAMPLES)]
    Clean(CleanArgs),
    /// Compute the verdicts of a finished run again from its recordings, without a cluster
    Replay(ReplayArgs),
    /// Make a bundle of a run, or a public copy of a bundle: evidence that can be given away
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Check a bundle without trusting who made it: digests, signatures, and every verdict computed again, offline
    #[command(after_long_help = VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
    /// Write what a finished run says: a page for people, files for machines and for the programme
    #[command(after_long_help = REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Copy a finished run and hide more in the copy, if every verdict stays the same
    #[command(after_long_help = REDACT_EXAMPLES)]
    Redact(RedactArgs),
    /// Say offline what the programme's validator would make of a product folder, and what it does not look at
    #[command(after_long_help = LINT_EXAMPLES)]
    Lint(LintArgs),
    /// Make the product folder of the programme from a run, an official form and what you say of the platform
    #[command(after_long_help = PRODUCT_EXAMPLES)]
    Product(ProductArgs),
    /// Print the comment a bot would post on a product folder or a bundle: what was computed again, what rests on links alone
    #[command(after_long_help = REVIEW_EXAMPLES)]
    Review(ReviewArgs),
    /// Print the completion script of a shell
    #[command(
        after_long_help = "Example:\n  karat completions bash > /etc/bash_completion.d/karat"
    )]
    Completions(CompletionsArgs),
    /// Write, build and look at probes of your own
    #[command(subcommand)]
    Probe(ProbeCommand),
}

const RUN_EXAMPLES: &str = "Examples:\n  \
    karat run --reach cluster-objects --probe dra_support\n  \
    karat run --yes --json --out results > run.json     in a pipeline\n  \
    karat run --out results --rerun failed              again, only what did not pass\n  \
    karat run --probes-from my-probe.wasm               a probe of your own\n  \
    karat run --wait 30m                                after a run that is going now\n\n\
    The final table goes to stdout, or the run record with --json; progress and messages go to stderr.";
const PLAN_EXAMPLES: &str = "Examples:\n  \
    karat plan\n  \
    karat plan --reach cluster-objects --json\n  \
    karat plan --offline            without asking a cluster";
const EXPLAIN_EXAMPLES: &str = "Examples:\n  \
    karat explain dra_support\n  \
    karat explain dra_support --run karat-runs/20260101T120000Z";
const CLEAN_EXAMPLES: &str = "Examples:\n  \
    karat clean karat-runs/20260101T120000Z     by the journal of that run\n  \
    karat clean --dry-run                       by seals on the cluster: list what would go\n\n\
    Objects go by uid, and only if the journal or a seal proves that a run of Karat made them.";
const REPORT_EXAMPLES: &str = "Examples:\n  \
    karat report karat-runs/20260101T120000Z --to html --out report.html\n  \
    karat report karat-runs/20260101T120000Z --to all --out reports\n  \
    karat report karat-runs/20260101T120000Z --to json | jq .summary\n\n\
    Nothing is judged again and no cluster is asked: a report repeats what the folder says, and tells what is missing in it.\n\
    The product folder of the programme needs more than a run: `karat product` makes it.\n\
    Ends with 0 when the report is written, whatever it says, and with 2 when something is missing or damaged.";

const VERIFY_EXAMPLES: &str = "Examples:\n  \
    karat verify karat-runs/20260101T120000Z/bundle\n  \
    karat verify bundle --key vendor.pem --against AIConformance-1.37.yaml --json\n\n\
    Exit codes: 0 everything was checked and holds, 1 something is wrong, 2 something could not be checked.";
const REDACT_EXAMPLES: &str = "Examples:\n  \
    karat redact karat-runs/20260101T120000Z --rules hide.toml --out public\n\n\
    A file of rules:\n  \
    [[rule]]\n  \
    name = \"rack\"\n  \
    kind = \"Node\"\n  \
    path = \"metadata.annotations['example.com/rack']\"\n\n  \
    [[rule]]\n  \
    name = \"ticket\"\n  \
    pattern = \"TICKET-[0-9]{6}\"\n\n\
    Every attempt of the copy is replayed before it gets its name. Where a verdict, a reason or a\n\
    case would change, nothing is written and the message names the attempt. Signatures and\n\
    witnesses of a bundle are not copied: they are of the original.";
const LINT_EXAMPLES: &str = "Examples:\n  \
    karat lint v1.37/my-product\n  \
    karat lint v1.37/my-product --form AIConformance-1.37.yaml     also compares the official texts\n  \
    karat lint --explain evidence-empty\n\n\
    Ends with 0 without errors and 1 with some. No network is used; the output names what stays unchecked.";

const PRODUCT_EXAMPLES: &str = "Examples:\n  \
    karat product karat-runs/20260101T120000Z --form AIConformance-1.37.yaml --platform karat.toml --out v1.37/my-product\n\n\
    The run is computed again first; one that does not hold makes no folder. What people wrote into the folder stays when it is\n\
    made again. Ends with 0 if the folder passes the lint, 1 if a MUST failed, 2 if a person must still supply something.";

const REVIEW_EXAMPLES: &str = "Examples:\n  \
    karat review --issue-nonce                                      a word that the next run must answer\n  \
    karat review v1.37/my-product --form AIConformance-1.37.yaml --bundle bundle\n  \
    karat review bundle --nonce WORD --to json\n\n\
    Ends with 0 if every MUST (of a bundle: everything) was computed again, 1 if something is wrong, 2 if nothing is wrong and\n\
    not everything could be computed again. No network is used and nothing is posted.";

/// Which cluster.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct ClusterArgs {
    /// Kubeconfig file [default: KUBECONFIG, then ~/.kube/config, then the service account of the pod]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current context]
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// Where probes come from.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Probes")]
pub(crate) struct SourceArgs {
    /// OCI image layout, folder of .wasm files, or one .wasm file, in place of the built-in probes; repeatable
    #[arg(long, value_name = "PATH")]
    pub(crate) probes_from: Vec<PathBuf>,
}

/// Which probes, how far, with what.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Probes")]
pub(crate) struct SelectionArgs {
    /// Probe id or requirement id; repeatable [default: all]
    #[arg(long = "probe", value_name = "ID")]
    pub(crate) probes: Vec<String>,
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
    /// How far the run may go [default: sandbox]
    #[arg(long, value_enum, value_name = "REACH")]
    pub(crate) reach: Option<ReachArg>,
    /// File that says what probes may do [default: what the plan shows as asked for]
    #[arg(long, value_name = "FILE")]
    pub(crate) grants: Option<PathBuf>,
    /// File that says where images come from and which nodes leases may take: `[images]` and `[nodes]` of `karat.toml`
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// File of what shall be hidden beside what is hidden anyway, by paths and patterns
    #[arg(long, value_name = "FILE")]
    pub(crate) redact: Option<PathBuf>,
    /// Who enforces the permissions of probes beside the door [default: enforce for probes that are not built in]
    #[arg(long, value_enum, value_name = "MODE")]
    pub(crate) rbac: Option<RbacArg>,
    /// Have the cluster's token issuer witness the run; this names the issuer, and with it often provider, region or project
    #[arg(long, help_heading = "Evidence")]
    pub(crate) witness: bool,
    /// A setting of a probe; repeatable
    #[arg(long = "set", value_name = "PROBE.KEY=VALUE")]
    pub(crate) settings: Vec<String>,
    /// How many probes run at one time; they mostly wait, and leases keep them apart [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) parallel: Option<u16>,
}

/// Who enforces the permissions of probes beside the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RbacArg {
    /// Nobody: probes act as you, and the door alone limits them
    Off,
    /// The API server: each probe gets an account with exactly its permissions, and acts as it
    Enforce,
}

/// How far a run may go, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReachArg {
    /// Touches nothing
    Read,
    /// Writes only in namespaces of its own
    Sandbox,
    /// Also creates labelled cluster-scoped objects and removes them
    ClusterObjects,
    /// May also change the number of nodes
    Disruptive,
}

/// Which probes of an earlier run are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RerunArg {
    /// Those whose last attempt did not pass
    Failed,
}

/// How runs on one cluster are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LockArg {
    /// Not at all; then runs disturb each other's verdicts
    None,
    /// By the Lease `karat-run` in namespace `default`, held while the run writes
    Lease,
}

fn parse_wait(text: &str) -> Result<Duration, &'static str> {
    karat_engine::manifest::parse_duration(text)
}

/// Arguments of `karat run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Start without asking; needed where there is no terminal
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Print the run record, and only that, to stdout
    #[arg(long)]
    pub(crate) json: bool,
    /// Output folder [default: karat-runs/<time>; with --rerun and --resume the newest one there]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Word of a reviewer that enters the run id and so every name the run creates
    #[arg(long, value_name = "TEXT")]
    pub(crate) nonce: Option<String>,
    /// Private key that signs the bundle: ECDSA P-256 in PEM, without a password
    #[arg(long, value_name = "KEY")]
    pub(crate) sign: Option<PathBuf>,
    /// Try probes of an earlier run again; attempts are added, never replaced
    #[arg(long, value_enum, value_name = "WHICH", conflicts_with_all = ["resume", "nonce"])]
    pub(crate) rerun: Option<RerunArg>,
    /// Finish an interrupted run: same plan, grants, probes, cluster and server version
    #[arg(long, conflicts_with = "nonce")]
    pub(crate) resume: bool,
    /// How two runs that write are kept apart on one cluster
    #[arg(long, value_enum, value_name = "HOW", default_value = "lease")]
    pub(crate) lock: LockArg,
    /// How long to wait for another run, such as `10m` [default: not at all]
    #[arg(long, value_name = "DURATION", value_parser = parse_wait)]
    pub(crate) wait: Option<Duration>,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
}

/// Arguments of `karat plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Print the plan as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Ask no cluster: no permissions are checked and nothing is tried
    #[arg(long, conflicts_with_all = ["kubeconfig", "context"])]
    pub(crate) offline: bool,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
    #[command(flatten)]
    pub(crate) selection: SelectionArgs,
}

/// Arguments of `karat list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Print the list as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
}

/// The verbs of `karat images`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImagesCommand {
    /// List the images that probes start: from where, by which digest, for which architectures
    List(ImagesListArgs),
    /// Write images into one archive, for a cluster without a way out: own ones and those of registries, with all platforms
    #[command(after_long_help = EXPORT_EXAMPLES)]
    Export(ImagesExportArgs),
    /// Check an archive of images and write it as a folder, an OCI image layout
    Import(ImagesImportArgs),
    /// Push own images to `pushed-to`, and those of a folder to their mirrors; what is there is not sent again
    #[command(after_long_help = PUSH_EXAMPLES)]
    Push(ImagesPushArgs),
    /// Ask registries, from this machine, whether pods could pull each image, and for which platforms
    #[command(after_long_help = CHECK_EXAMPLES)]
    Check(ImagesCheckArgs),
}

const EXPORT_EXAMPLES: &str = "Examples:\n  \
    karat images export images.tar\n  \
    karat images export --own - | ssh node ctr -n k8s.io images import -";
const PUSH_EXAMPLES: &str = "Examples:\n  \
    karat images push --config karat.toml\n  \
    karat images import images.tar images && karat images push --from images --config karat.toml\n\n\
    In karat.toml:\n  \
    [images]\n  \
    pushed-to = \"registry.example/karat\"\n  \
    mirrors = { \"registry.k8s.io\" = \"registry.example/k8s\" }";
const CHECK_EXAMPLES: &str = "Examples:\n  \
    karat images check --config karat.toml\n  \
    karat images check --config karat.toml --nodes     also: is there one for each node\n\n\
    Exit codes: 0 every image is there, 1 one is not or not for all platforms, 2 one could not be asked for.";

/// Of which probes, with which mirrors.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ImagesPlanArgs {
    /// File that says where images come from, section `[images]` of `karat.toml`
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Probe id or requirement id whose images are meant; repeatable [default: all, and what else the program brings]
    #[arg(long = "probe", value_name = "ID", help_heading = "Probes")]
    pub(crate) probes: Vec<String>,
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
}

/// How registries are spoken to. Credentials are those of `docker login`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Registries")]
pub(crate) struct RegistryArgs {
    /// Certificate authorities in PEM that are believed beside those of the system
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Registry that is spoken to in plain HTTP, `host` or `host:port`; repeatable
    #[arg(long, value_name = "HOST")]
    pub(crate) plain_http: Vec<String>,
}

/// Arguments of `karat images list`.
#[derive(Debug, Args)]
pub(crate) struct ImagesListArgs {
    /// Print the list as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) plan: ImagesPlanArgs,
}

/// Arguments of `karat images export`.
#[derive(Debug, Args)]
pub(crate) struct ImagesExportArgs {
    /// Archive to write, where nothing may be; `-` is stdout
    #[arg(value_name = "FILE.tar|-")]
    pub(crate) file: PathBuf,
    /// Only images that the program brings; no network is used
    #[arg(long)]
    pub(crate) own: bool,
    /// Print what was written as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) plan: ImagesPlanArgs,
    #[command(flatten)]
    pub(crate) registries: RegistryArgs,
}

/// Arguments of `karat images import`.
#[derive(Debug, Args)]
pub(crate) struct ImagesImportArgs {
    /// Archive of `karat images export`; `-` is stdin
    #[arg(value_name = "FILE.tar|-")]
    pub(crate) file: PathBuf,
    /// Folder to write, where nothing may be
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    /// Print what was written as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `karat images push`.
#[derive(Debug, Args)]
pub(crate) struct ImagesPushArgs {
    /// Folder of `karat images import`, whose images are pushed to their mirrors
    #[arg(long, value_name = "FOLDER")]
    pub(crate) from: Option<PathBuf>,
    /// File that says where to, section `[images]` of `karat.toml`
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print what was pushed as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) registries: RegistryArgs,
}

/// Arguments of `karat images check`.
#[derive(Debug, Args)]
pub(crate) struct ImagesCheckArgs {
    /// Print what was found as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Also compare with the nodes of the cluster; --kubeconfig and --context mean this too
    #[arg(long)]
    pub(crate) nodes: bool,
    #[command(flatten)]
    pub(crate) plan: ImagesPlanArgs,
    #[command(flatten)]
    pub(crate) registries: RegistryArgs,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

/// Arguments of `karat inspect` and `karat probe inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Probe id, requirement id, or a component file
    #[arg(value_name = "PROBE|FILE.wasm")]
    pub(crate) target: String,
    /// Print as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
}

/// Arguments of `karat explain`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Probe id, requirement id, or number of a KAR such as KAR-51
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Output folder of a run
    #[arg(long, value_name = "DIR")]
    pub(crate) run: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
}

/// Arguments of `karat clean`.
#[derive(Debug, Args)]
pub(crate) struct CleanArgs {
    /// Output folder of the run; without it, everything on the cluster whose seal proves that Karat made it
    #[arg(value_name = "RUN_DIR")]
    pub(crate) run: Option<PathBuf>,
    /// Only the run with this id; only without RUN_DIR
    #[arg(long, value_name = "ID", conflicts_with = "run")]
    pub(crate) run_id: Option<String>,
    /// Only runs whose time is up; only without RUN_DIR
    #[arg(long, conflicts_with = "run")]
    pub(crate) expired: bool,
    /// Remove without asking; needed where there is no terminal
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Remove also what belongs to a run that is still going; it stops when it sees that
    #[arg(long)]
    pub(crate) force: bool,
    /// List what would be removed and remove nothing
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

/// Arguments of `karat replay`.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Output folder of the run
    #[arg(value_name = "RUN_DIR")]
    pub(crate) run: PathBuf,
    /// Print what was found as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The verbs of `karat bundle`.
#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Make a bundle of a run; `karat run` does so at its end
    #[command(
        after_long_help = "Example:\n  karat bundle create karat-runs/20260101T120000Z --sign signing-key.pem"
    )]
    Create(BundleCreateArgs),
    /// Copy a bundle without its answers, for the public; statement and signatures still hold
    #[command(
        after_long_help = "Example:\n  karat bundle withhold karat-runs/20260101T120000Z/bundle --out public --probe gang-scheduling"
    )]
    Withhold(BundleWithholdArgs),
    /// Put a bundle into an OCI image layout, as an artifact that registries keep
    #[command(
        after_long_help = "Example:\n  karat bundle pack karat-runs/20260101T120000Z/bundle --out evidence\n  oras copy --from-oci-layout evidence:RUN_ID registry.example.com/evidence:RUN_ID"
    )]
    Pack(BundlePackArgs),
    /// Take a bundle out of an OCI image layout, to verify it
    #[command(
        after_long_help = "Example:\n  oras copy --to-oci-layout registry.example.com/evidence:RUN_ID evidence:RUN_ID\n  karat bundle unpack evidence --out bundle\n  karat verify bundle"
    )]
    Unpack(BundleUnpackArgs),
}

/// Arguments of `karat bundle create`.
#[derive(Debug, Args)]
pub(crate) struct BundleCreateArgs {
    /// Output folder of the run
    #[arg(value_name = "RUN_DIR")]
    pub(crate) run: PathBuf,
    /// Where the bundle goes [default: RUN_DIR/bundle]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Private key that signs it: ECDSA P-256 in PEM, without a password
    #[arg(long, value_name = "KEY")]
    pub(crate) sign: Option<PathBuf>,
    /// Print what was made as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `karat bundle withhold`.
#[derive(Debug, Args)]
pub(crate) struct BundleWithholdArgs {
    /// The bundle
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundle: PathBuf,
    /// Where the copy goes
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Probe whose answers stay behind; repeatable [default: all]
    #[arg(long = "probe", value_name = "ID")]
    pub(crate) probes: Vec<String>,
    /// Leave the probes' components behind too
    #[arg(long)]
    pub(crate) components: bool,
    /// Print what was made as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `karat bundle pack`.
#[derive(Debug, Args)]
pub(crate) struct BundlePackArgs {
    /// The bundle
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundle: PathBuf,
    /// The layout: a new or empty folder, or one that other bundles lie in
    #[arg(long, value_name = "LAYOUT")]
    pub(crate) out: PathBuf,
    /// Name of the entry [default: the id of the run]
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// Print what was made as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `karat bundle unpack`.
#[derive(Debug, Args)]
pub(crate) struct BundleUnpackArgs {
    /// The layout
    #[arg(value_name = "LAYOUT")]
    pub(crate) layout: PathBuf,
    /// Where the bundle goes; nothing may be there
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Name of the entry, where the layout has several bundles
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Option<String>,
    /// Print what was made as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `karat verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The bundle
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundle: PathBuf,
    /// Public key that must have signed it, in PEM; repeatable
    #[arg(long = "key", value_name = "KEY")]
    pub(crate) keys: Vec<PathBuf>,
    /// List of the probes that may be run, one sha256:… in each line [default: the built-in ones]
    #[arg(long, value_name = "LIST")]
    pub(crate) probes: Option<PathBuf>,
    /// Run probes of the bundle that are in no list too; they get no network and no cluster all the same
    #[arg(long)]
    pub(crate) run_foreign_probes: bool,
    /// Official form, AIConformance-<version>.yaml: which of its requirements the bundle answers
    #[arg(long, value_name = "FORM")]
    pub(crate) against: Option<PathBuf>,
    /// The nonce that was given for this run
    #[arg(long, value_name = "TEXT")]
    pub(crate) nonce: Option<String>,
    /// Key set (JWKS) of the issuer that must have signed the witness, as you know it
    #[arg(long, value_name = "FILE")]
    pub(crate) issuer_keys: Option<PathBuf>,
    /// Fetch the keys that the issuer of the witness publishes now; the only use of the network
    #[arg(long)]
    pub(crate) online: bool,
    /// Certificate authority of the issuer's address, in PEM [default: those that browsers believe]
    #[arg(long, value_name = "FILE", requires = "online")]
    pub(crate) issuer_ca: Option<PathBuf>,
    /// Print what was found as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
}

/// A format of `karat report`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// Plain lines: the verdicts and what to do next
    Terminal,
    /// One page for people, which needs no network
    Html,
    /// For machines, with a published schema
    Json,
    /// JUnit XML
    Junit,
    /// The text of `go test -v`
    E2eLog,
    /// The events of `go test -json`
    Results,
    /// One Markdown page for each requirement, into a folder
    Markdown,
    /// All of these but `terminal`, into a folder, under the names that the programme knows
    All,
}

/// Arguments of `karat report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Output folder of a run, or a bundle
    #[arg(value_name = "FOLDER")]
    pub(crate) folder: PathBuf,
    /// What to write
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "terminal")]
    pub(crate) to: ReportFormat,
    /// File to write, or folder for `markdown` and `all` [default: stdout; `markdown` and `all` need it]
    #[arg(short, long, value_name = "FILE_OR_DIR", required_if_eq_any([("to", "markdown"), ("to", "all")]))]
    pub(crate) out: Option<PathBuf>,
}

/// Arguments of `karat redact`.
#[derive(Debug, Args)]
pub(crate) struct RedactArgs {
    /// Output folder of the run, or a bundle of it; it is only read
    #[arg(value_name = "RUN_DIR")]
    pub(crate) run: PathBuf,
    /// File of what shall be hidden, by paths and patterns
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: PathBuf,
    /// Folder of the copy; it must not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Print what was done as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `karat lint`.
#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// Product folder, the one with PRODUCT.yaml
    #[arg(value_name = "FOLDER", required_unless_present = "explain")]
    pub(crate) folder: Option<PathBuf>,
    /// Official form of the version, AIConformance-<version>.yaml: descriptions and levels are compared with it
    #[arg(long, value_name = "FILE")]
    pub(crate) form: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Explain a rule and check nothing
    #[arg(long, value_name = "RULE", conflicts_with_all = ["folder", "form", "json"])]
    pub(crate) explain: Option<String>,
}

/// Arguments of `karat product`.
#[derive(Debug, Args)]
pub(crate) struct ProductArgs {
    /// Bundle, or output folder of the run
    #[arg(value_name = "BUNDLE")]
    pub(crate) bundle: PathBuf,
    /// Official form of the version, AIConformance-<version>.yaml
    #[arg(long, value_name = "FILE")]
    pub(crate) form: PathBuf,
    /// What you say of the platform: metadata and declarations [default: the placeholders of the form stay]
    #[arg(long, value_name = "FILE")]
    pub(crate) platform: Option<PathBuf>,
    /// Product folder to make or to bring up to date, best vX.Y/<product>
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Print what was decided as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a review is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReviewTo {
    /// A comment for a pull request
    Markdown,
    /// A document for programs
    Json,
}

/// Arguments of `karat review`.
#[derive(Debug, Args)]
pub(crate) struct ReviewArgs {
    /// Product folder, the one with PRODUCT.yaml, or a bundle
    #[arg(value_name = "FOLDER|BUNDLE", required_unless_present = "issue_nonce")]
    pub(crate) target: Option<PathBuf>,
    /// What is printed
    #[arg(long, value_enum, value_name = "WHAT", default_value = "markdown")]
    pub(crate) to: ReviewTo,
    /// Official form of the version: descriptions and levels are compared with it
    #[arg(long, value_name = "FILE")]
    pub(crate) form: Option<PathBuf>,
    /// Bundle of a product folder, where it does not lie inside; repeatable
    #[arg(long, value_name = "DIR")]
    pub(crate) bundle: Vec<PathBuf>,
    /// The word that the run must answer
    #[arg(long, value_name = "TEXT")]
    pub(crate) nonce: Option<String>,
    /// Public key that must have signed each bundle, in PEM; repeatable
    #[arg(long = "key", value_name = "KEY")]
    pub(crate) keys: Vec<PathBuf>,
    /// Also run probes that are not known here, confined as in a run and without a network
    #[arg(long)]
    pub(crate) run_foreign_probes: bool,
    /// Print a fresh word and the command that answers it, and review nothing
    #[arg(long, conflicts_with_all = ["target", "form", "bundle", "nonce", "keys", "run_foreign_probes", "to"])]
    pub(crate) issue_nonce: bool,
    /// Which probes are known
    #[command(flatten)]
    pub(crate) sources: SourceArgs,
}

/// Arguments of `karat completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

/// Verbs for authors of probes.
#[derive(Debug, Subcommand)]
pub(crate) enum ProbeCommand {
    /// Write a new project that builds and runs
    #[command(
        after_long_help = "Example:\n  karat probe new --lang python my-probe && karat probe build my-probe"
    )]
    New(ProbeNewArgs),
    /// Build a project, or wrap a module, into a component with its manifest inside
    #[command(after_long_help = BUILD_EXAMPLES)]
    Build(ProbeBuildArgs),
    /// Show what a probe is and asks for; the same as `karat inspect`
    Inspect(InspectArgs),
}

const BUILD_EXAMPLES: &str = "Examples:\n  \
    karat probe build                                   the project in this folder\n  \
    karat probe build --core target/probe.wasm -o probe.wasm\n  \
    karat probe build --component app.wasm --manifest probe.toml -o probe.wasm\n\n\
    Python needs componentize-py, JavaScript needs componentize-qjs: in PATH, in .venv/bin or in node_modules/.bin.";

/// Languages that have a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LangArg {
    /// Rust
    Rust,
    /// Python
    Python,
    /// JavaScript
    Js,
}

/// Arguments of `karat probe new`.
#[derive(Debug, Args)]
pub(crate) struct ProbeNewArgs {
    /// Language of the project
    #[arg(long, value_enum)]
    pub(crate) lang: LangArg,
    /// Id of the probe [default: the folder's name]
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// Checkout of Karat whose Rust SDK the project uses [default: the one this program was built in]
    #[arg(long, value_name = "DIR")]
    pub(crate) sdk: Option<PathBuf>,
    /// Folder to make; it must not exist or be empty
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// Arguments of `karat probe build`.
#[derive(Debug, Args)]
pub(crate) struct ProbeBuildArgs {
    /// Folder of the project
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// A core module to wrap, in place of building the project
    #[arg(long, value_name = "FILE", conflicts_with = "component")]
    pub(crate) core: Option<PathBuf>,
    /// A component to embed the manifest in, in place of building the project
    #[arg(long, value_name = "FILE")]
    pub(crate) component: Option<PathBuf>,
    /// The manifest [default: probe.toml in the folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// Where the component is written [default: <probe id>.wasm in the folder]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn probes_and_settings_repeat() {
        let cli = Cli::try_parse_from([
            "karat", "run", "--probe", "a", "--probe", "b", "--set", "a.x=1", "--set", "a.y=2",
            "-q",
        ])
        .unwrap();
        assert!(cli.speech.quiet);
        let Command::Run(run) = cli.command else {
            panic!("not run")
        };
        assert_eq!(run.selection.probes, ["a", "b"]);
        assert_eq!(run.selection.settings, ["a.x=1", "a.y=2"]);
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            &["karat", "run", "--resume", "--nonce", "x"][..],
            &["karat", "run", "--resume", "--rerun", "failed"],
            &["karat", "clean", "--yes", "--dry-run"],
            &["karat", "run", "--parallel", "0"],
            &["karat", "plan", "--offline", "--context", "x"],
            &["karat", "-q", "-v", "list"],
            &["karat", "lint"],
            &["karat", "report", "folder", "--to", "all"],
            &["karat", "report", "folder", "--to", "pdf"],
            &["karat", "lint", "folder", "--explain", "logo-type"],
            &["karat", "product", "run", "--out", "folder"],
            &["karat", "product", "run", "--form", "form"],
            &["karat", "review"],
            &["karat", "review", "folder", "--issue-nonce"],
            &["karat", "review", "--issue-nonce", "--nonce", "x"],
            &["karat", "review", "folder", "--to", "html"],
            &["karat"],
        ] {
            assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
        }
    }
}

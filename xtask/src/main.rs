//! The commands of the README, and what cargo cannot express: wasm builds, the testbed, one run of all tests.
//!
//! `cargo xtask demo` and `cargo xtask test` are built from the smaller commands beside them. Nothing here decides a
//! verdict or knows the contract; look in `host/` for that, and in `tests/testbed/` for the real Kubernetes.

mod demo;
mod lab;
mod mutants;
mod probes;
mod say;
mod scale;
mod suite;
mod timing;
mod wasm;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::say::say;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, tests and shows Karat")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything, start a real control plane with simulated accelerators, run the suite, stop it again
    Demo(demo::DemoArgs),
    /// Build what the tests need and run all of them; arguments after `--` go to `cargo test`
    Test {
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run the probes on clusters that are broken on purpose, and count the faults they find
    Mutants(mutants::MutantsArgs),
    /// A control plane that stays until it is taken down
    #[command(subcommand)]
    Testbed(lab::LabCommand),
    /// Compare what the program needs to read a large cluster with one raw paged LIST; fill it first with `testbed scale`
    ScaleCheck(scale::CheckArgs),
    /// Build probes, examples and test guests for wasm, and the layout of built-in probes
    Probes,
    /// Build our own images as an OCI layout, without a container engine
    Images,
    /// The process that owns a named control plane
    #[command(name = "testbed-supervisor", hide = true)]
    Supervise(lab::UpArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Test { args } => suite::run(&args),
        Command::Mutants(args) => mutants::run(&args),
        Command::Testbed(command) => lab::run(command),
        Command::ScaleCheck(args) => scale::check(&args),
        Command::Probes => probes::build_all().map(|_| ExitCode::SUCCESS),
        Command::Images => lab::images(),
        Command::Supervise(args) => lab::supervise(&args),
    };
    result.unwrap_or_else(|error| {
        say(&format!("error: {error}"));
        for cause in error.chain().skip(1) {
            say(&format!("  cause: {cause}"));
        }
        ExitCode::FAILURE
    })
}

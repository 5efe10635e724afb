//! What probes can do, one module a capability, in plain Rust types. The contract's adapters convert and call these.
//!
//! A capability checks the form of its arguments, describes the call for the door ([`crate::gate`]) and brings the live
//! action. It reaches outside only through the `Wire` that the door hands to that action, and never calls
//! another capability. Functions that have no error in the contract return one here all the same: then the attempt is
//! over ([`crate::gate::Door::ended`] says why) and the caller traps the guest.

pub(crate) mod address;
mod answers;
pub mod cases;
pub mod clock;
mod discovery;
mod exposition;
pub mod http;
pub mod kube_read;
pub mod kube_write;
pub mod leases;
pub mod log;
pub mod metrics;
pub mod not_live;
pub mod pods;
mod promql;
pub mod run;
pub mod settings;
pub mod snapshot;
pub(crate) mod target;
pub mod wait;
pub mod watch;
mod write_body;

use crate::recording::format::{Failure, Reply, Seen};

/// A recording may be edited by hand (fixtures): an answer of the wrong form is an error of the recording, not a panic.
fn unexpected<T>(function: &str, seen: &Seen) -> Result<T, Failure> {
    let form = match seen {
        Seen::Nothing => "nothing",
        Seen::Text(_) => "text",
        Seen::Page { .. } => "page",
        Seen::Event { .. } => "event",
        Seen::Ready(_) => "ready",
        Seen::Number(_) => "number",
        Seen::Raw { .. } => "raw",
        Seen::Bytes(_) => "bytes",
        Seen::Numbers(_) => "numbers",
    };
    Err(Failure::Malformed(format!(
        "the recorded answer of {function} has the form `{form}`, which {function} never gives"
    )))
}

fn text(function: &str, reply: Reply) -> Result<String, Failure> {
    match reply? {
        Seen::Text(text) => Ok(text),
        other => unexpected(function, &other),
    }
}

fn nothing(function: &str, reply: Reply) -> Result<(), Failure> {
    match reply? {
        Seen::Nothing => Ok(()),
        other => unexpected(function, &other),
    }
}

#[cfg(test)]
pub(crate) mod testing;

//! Cases: the claims of the manifest, opened, shown and concluded.
//!
//! A case can only be named by a constant that the build made from `probe.toml`, so a case that the manifest does not have
//! does not compile. What is concluded here is not the verdict: the engine judges, from the manifest and the recorded calls.

use crate::error::Result;
use crate::host;

/// Why a probe could not tell. The words are the engine's table; it adds others that only it may give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No accelerator was found.
    NoAccelerator,
    /// The accelerator is in no profile.
    UnknownAccelerator,
    /// Nothing that implements the capability is installed.
    SolutionAbsent,
    /// The cluster had not enough free units.
    InsufficientCapacity,
    /// The API server forbade a call.
    PermissionDenied,
    /// An image could not be pulled.
    ImageUnavailable,
    /// The API server's proxy could not reach the target.
    ProxyUnreachable,
    /// The target wants its own credentials.
    AuthRequired,
    /// A metric did not appear in time.
    MetricDelayed,
    /// Other workloads changed the capacity meanwhile.
    CompetingWorkload,
    /// A feature gate that the check needs is off.
    FeatureGateOff,
    /// The cluster serves only versions that the probe does not know.
    VersionSkew,
    /// The time was up while the platform was still at work, or did not answer.
    Deadline,
    /// Objects of the run remain.
    CleanupIncomplete,
}

impl Reason {
    /// All of them.
    pub const ALL: &[Reason] = &[
        Reason::NoAccelerator,
        Reason::UnknownAccelerator,
        Reason::SolutionAbsent,
        Reason::InsufficientCapacity,
        Reason::PermissionDenied,
        Reason::ImageUnavailable,
        Reason::ProxyUnreachable,
        Reason::AuthRequired,
        Reason::MetricDelayed,
        Reason::CompetingWorkload,
        Reason::FeatureGateOff,
        Reason::VersionSkew,
        Reason::Deadline,
        Reason::CleanupIncomplete,
    ];

    /// The word of the contract: `insufficient_capacity`.
    pub fn code(self) -> &'static str {
        match self {
            Reason::NoAccelerator => "no_accelerator",
            Reason::UnknownAccelerator => "unknown_accelerator",
            Reason::SolutionAbsent => "solution_absent",
            Reason::InsufficientCapacity => "insufficient_capacity",
            Reason::PermissionDenied => "permission_denied",
            Reason::ImageUnavailable => "image_unavailable",
            Reason::ProxyUnreachable => "proxy_unreachable",
            Reason::AuthRequired => "auth_required",
            Reason::MetricDelayed => "metric_delayed",
            Reason::CompetingWorkload => "competing_workload",
            Reason::FeatureGateOff => "feature_gate_off",
            Reason::VersionSkew => "version_skew",
            Reason::Deadline => "deadline",
            Reason::CleanupIncomplete => "cleanup_incomplete",
        }
    }
}

/// What a case concludes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// The claim held.
    Pass,
    /// The claim was contradicted; the text says by what.
    Fail(String),
    /// Could not tell; the text says what would settle it.
    Unknown(Reason, String),
    /// The condition of the requirement does not arise; the text says what shows its absence.
    NotApplicable(String),
}

impl Conclusion {
    /// A fail with its explanation.
    pub fn fail(text: impl Into<String>) -> Self {
        Conclusion::Fail(text.into())
    }

    /// An unknown with its reason and what would settle it.
    pub fn unknown(reason: Reason, text: impl Into<String>) -> Self {
        Conclusion::Unknown(reason, text.into())
    }

    /// Whether the claim held.
    pub fn is_pass(&self) -> bool {
        *self == Conclusion::Pass
    }

    /// Concludes cases that rest on the one that concluded this, and so were not tried: with its reason where it could not
    /// tell, and with its text.
    ///
    /// # Errors
    /// As [`not_tried`].
    pub fn leaves_untried(&self, ids: &[CaseId]) -> Result<()> {
        let (reason, why) = match self {
            Conclusion::Unknown(reason, text) => (*reason, text.as_str()),
            Conclusion::Fail(text) | Conclusion::NotApplicable(text) => {
                (Reason::Deadline, text.as_str())
            }
            Conclusion::Pass => (Reason::Deadline, "nothing was found"),
        };
        not_tried(ids, reason, &format!("not tried: {why}"))
    }
}

/// Concludes cases that cannot be tried. They say so themselves, so that a reader need not guess.
///
/// # Errors
/// When a case is not opened, or the door does not take the conclusion.
pub fn not_tried(ids: &[CaseId], reason: Reason, why: &str) -> Result<()> {
    for id in ids {
        id.open("")?.unknown(reason, why)?;
    }
    Ok(())
}

/// The id of a case, made from `probe.toml` by `karat_sdk_build`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CaseId(&'static str);

impl CaseId {
    #[doc(hidden)]
    pub const fn from_manifest(id: &'static str) -> Self {
        CaseId(id)
    }

    /// The id as the manifest writes it.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// Opens the case for a subject: a node, a device, a version; empty when there is only one.
    ///
    /// # Errors
    /// Refused while another case is open, and for the same case and subject twice.
    pub fn open(self, subject: &str) -> Result<Case> {
        Ok(Case {
            handle: Some(host::open_case(self.0, subject)?),
        })
    }

    /// Opens the case, runs `body` and concludes by what it gives. An error ends the case as far as it shows something
    /// ([`crate::Error::conclusion`]), and the probe may go on with other cases.
    ///
    /// # Errors
    /// Only those after which nothing can go on: the case was not opened, a budget is used up, the run is ending.
    pub fn check(
        self,
        subject: &str,
        body: impl FnOnce(&Case) -> Result<Conclusion>,
    ) -> Result<Conclusion> {
        let case = self.open(subject)?;
        let result = body(&case);
        finish(case, result)
    }
}

/// Apart from [`CaseId::check`], so that its code exists once and not for every case.
fn finish(case: Case, result: Result<Conclusion>) -> Result<Conclusion> {
    match result {
        Ok(conclusion) => {
            case.conclude(&conclusion)?;
            Ok(conclusion)
        }
        Err(error) if error.ends_the_probe() => {
            // The conclusion may be refused as well; the first error is the one that tells.
            let _ = case.conclude(&error.conclusion());
            Err(error)
        }
        Err(error) => {
            let conclusion = error.conclusion();
            case.conclude(&conclusion)?;
            Ok(conclusion)
        }
    }
}

/// An open case. A case that is dropped without a conclusion ends as `unknown`, so a forgotten branch is never a pass.
#[derive(Debug)]
pub struct Case {
    handle: Option<host::Case>,
}

impl Case {
    /// Shows a value that was seen. At least one value of a pass must occur in an answer of this case; a value that the
    /// probe computed, or wrote itself, is shown but proves nothing.
    pub fn observe(&self, name: &str, value: impl ToString) {
        if let Some(handle) = &self.handle {
            handle.observe(name, &value.to_string());
        }
    }

    /// The claim held.
    ///
    /// # Errors
    /// When the door does not take the conclusion.
    pub fn pass(self) -> Result<()> {
        self.conclude(&Conclusion::Pass)
    }

    /// The claim was contradicted.
    ///
    /// # Errors
    /// When the door does not take the conclusion.
    pub fn fail(self, text: impl Into<String>) -> Result<()> {
        self.conclude(&Conclusion::Fail(text.into()))
    }

    /// Could not tell.
    ///
    /// # Errors
    /// When the door does not take the conclusion.
    pub fn unknown(self, reason: Reason, text: impl Into<String>) -> Result<()> {
        self.conclude(&Conclusion::Unknown(reason, text.into()))
    }

    /// The condition does not arise.
    ///
    /// # Errors
    /// When the door does not take the conclusion.
    pub fn not_applicable(self, text: impl Into<String>) -> Result<()> {
        self.conclude(&Conclusion::NotApplicable(text.into()))
    }

    /// Ends the case.
    ///
    /// # Errors
    /// When the door does not take the conclusion.
    pub fn conclude(mut self, conclusion: &Conclusion) -> Result<()> {
        let Some(handle) = self.handle.take() else {
            return Ok(());
        };
        // The contract's `fail` carries no text: the explanation is shown as a value instead.
        if let Conclusion::Fail(text) = conclusion {
            handle.observe("contradiction", text);
        }
        handle.conclude(conclusion)
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            let text = "the probe left the case without a conclusion".to_owned();
            // Nothing can be done about a refusal here; without a conclusion the engine says `not_exercised` anyway.
            let _ = handle.conclude(&Conclusion::Unknown(Reason::Deadline, text));
        }
    }
}

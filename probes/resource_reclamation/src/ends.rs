//! The kinds of end, each made without a shell: the pause image prints its version and ends, or runs until it is told to stop; a
//! program that is not in it makes the pod fail.

use crate::place::{Place, job};
use karat_sdk::build::PodBuilder;
use karat_sdk::{Object, Result, Target, inventory, json, run};
use std::time::Duration;

/// The program of the image, and the flag with which it ends at once.
const ENDS: [&str; 2] = ["/pause", "-v"];
/// A program that the image does not have.
const FAILS: [&str; 1] = ["/there-is-no-such-program"];
/// `activeDeadlineSeconds` of a pod that runs into it.
const DEADLINE: u32 = 5;
/// How long a played node may take to play an end.
const PLAYS: Duration = Duration::from_secs(8);

/// A kind of end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It succeeds; pod and Job stay.
    Success,
    /// It fails; the pod stays.
    Failure,
    /// It runs into its deadline; the pod stays.
    Deadline,
    /// It is deleted.
    Deletion,
    /// It is evicted through the API.
    Eviction,
    /// It is deleted without time to end.
    Forced,
    /// Its Job is deleted.
    Owner,
}

impl End {
    /// Word for names.
    pub(crate) fn word(self) -> &'static str {
        match self {
            End::Success => "succeeds",
            End::Failure => "fails",
            End::Deadline => "deadline",
            End::Deletion => "deleted",
            End::Eviction => "evicted",
            End::Forced => "forced",
            End::Owner => "owned",
        }
    }

    /// Whether it ends without being told to.
    pub(crate) fn by_itself(self) -> bool {
        matches!(self, End::Success | End::Failure | End::Deadline)
    }

    /// Whether a Job makes the pod.
    pub(crate) fn has_job(self) -> bool {
        matches!(self, End::Success | End::Owner)
    }

    fn shape(self, pod: PodBuilder) -> PodBuilder {
        match self {
            End::Success => pod.command(&ENDS),
            End::Failure => pod.command(&FAILS),
            End::Deadline => pod.deadline(DEADLINE),
            _ => pod,
        }
    }
}

fn jobs(place: &Place) -> Target {
    Target::new("batch/v1", "jobs").in_namespace(&place.namespace)
}

/// Creates the pod that ends this way, or its Job; gives what was created.
pub(crate) fn begin(place: &Place, end: End) -> Result<Object> {
    let name = run::name(end.word());
    let pod = end.shape(place.with_unit(place.pod(&name)?)).build();
    if end.has_job() {
        jobs(place).create(&job(&name, &pod))
    } else {
        place.pods().create(&pod)
    }
}

/// Ends the pod, if it does not end by itself.
pub(crate) fn bring_about(place: &Place, end: End, pod: &str) -> Result<()> {
    match end {
        End::Success | End::Failure | End::Deadline => Ok(()),
        End::Deletion => place.pods().delete(pod),
        End::Forced => place.pods().delete_with_grace(pod, 0),
        End::Owner => jobs(place).delete(&run::name(end.word())),
        End::Eviction => {
            let target = Target::new("v1", "pods/eviction").in_namespace(&place.namespace);
            target
                .create(&json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}))
                .map(drop)
        }
    }
}

/// Which of these ends a played node plays: pods without a unit are let go first, side by side.
pub(crate) fn played(place: &Place, ends: &[End]) -> Result<Vec<End>> {
    let scout = |end: &End| run::name(&format!("{}-scout", end.word()));
    let mut watch = place.pods().query().watch()?;
    for end in ends {
        let pod = end.shape(place.pod(&scout(end))?).build();
        place.pods().create(&pod)?;
    }
    let mut found: Vec<End> = Vec::new();
    let all = watch.until(PLAYS, "the end of pods on a played node", |pod| {
        let played = ends.iter().find(|end| pod.name() == scout(end));
        if let Some(end) = played.filter(|_| inventory::has_ended(pod))
            && !found.contains(end)
        {
            found.push(*end);
        }
        (found.len() == ends.len()).then_some(())
    });
    watch.close();
    for end in ends {
        place.pods().delete_with_grace(&scout(end), 0)?;
    }
    match all {
        Err(error) if !error.is_deadline() => Err(error),
        _ => Ok(found),
    }
}

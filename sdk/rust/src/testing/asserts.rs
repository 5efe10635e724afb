//! What tests of a probe say of a run, and the fault of the server at every step that every probe must survive.
//!
//! A message of a failed assertion tells what all cases said, because a case that surprises mostly does so for what an earlier
//! one said.

use super::pods::NO_IMAGE;
use super::{FakeCluster, Fault, Run, run};
use crate::Probe;
use crate::case::{Conclusion, Reason};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// At most so many calls of a verb are spoilt by each fault, evenly spread from the first to the last.
const SPOILT: u32 = 5;
/// Time of the fake cluster in which a missing image must be told.
const MINUTE: Duration = Duration::from_secs(60);

impl Run {
    /// Asserts that these cases passed.
    ///
    /// # Panics
    /// When the first case of one of these ids concluded otherwise, or is missing.
    #[track_caller]
    pub fn assert_passed(&self, ids: &[&str]) {
        for id in ids {
            if self.conclusion(id) != Some(&Conclusion::Pass) {
                panic!("`{id}` did not pass\n{}", self.told());
            }
        }
    }

    /// Asserts that a case failed with an explanation that contains `part`.
    ///
    /// # Panics
    /// When the first case of this id concluded otherwise, or is missing.
    #[track_caller]
    pub fn assert_failed(&self, id: &str, part: &str) {
        match self.conclusion(id) {
            Some(Conclusion::Fail(text)) if text.contains(part) => {}
            _ => panic!("`{id}` did not fail with `{part}`\n{}", self.told()),
        }
    }

    /// Asserts that a case could not tell, for this reason.
    ///
    /// # Panics
    /// As [`Run::assert_failed`].
    #[track_caller]
    pub fn assert_unknown(&self, id: &str, reason: Reason) {
        self.assert_unknown_with(id, reason, "");
    }

    /// As [`Run::assert_unknown`], with a text that contains `part`.
    ///
    /// # Panics
    /// As [`Run::assert_failed`].
    #[track_caller]
    pub fn assert_unknown_with(&self, id: &str, reason: Reason, part: &str) {
        match self.conclusion(id) {
            Some(Conclusion::Unknown(have, text)) if *have == reason && text.contains(part) => {}
            _ => panic!(
                "`{id}` is not unknown ({}) with `{part}`\n{}",
                reason.code(),
                self.told()
            ),
        }
    }

    /// Asserts that a case says within a minute that there is no image for it, in the words of the kubelet of a
    /// [`FakeCluster::without_images`], and that no case failed.
    ///
    /// # Panics
    /// When the first case of this id concluded otherwise, a case failed, or the run took longer.
    #[track_caller]
    pub fn assert_image_unavailable(&self, id: &str) {
        self.assert_unknown_with(id, Reason::ImageUnavailable, NO_IMAGE);
        self.assert_no_fail();
        let took = self.cluster.elapsed();
        assert!(took <= MINUTE, "it took {took:?}\n{}", self.told());
    }

    /// Asserts that no case failed.
    ///
    /// # Panics
    /// When one did.
    #[track_caller]
    pub fn assert_no_fail(&self) {
        let failed =
            |conclusion: &Option<Conclusion>| matches!(conclusion, Some(Conclusion::Fail(_)));
        if let Some(case) = self.cases.iter().find(|case| failed(&case.conclusion)) {
            panic!("`{}` failed\n{}", case.id, self.told());
        }
    }

    /// Asserts that nothing of the run is left among these resources, given by their plurals.
    ///
    /// # Panics
    /// When something is.
    #[track_caller]
    pub fn assert_clean(&self, resources: &[&str]) {
        let left = self.left_behind(resources);
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    /// Every case with what it said, one a line, and why the probe ended early.
    fn told(&self) -> String {
        let mut text = String::from("what the cases said:");
        for case in &self.cases {
            let subject = if case.subject.is_empty() {
                String::new()
            } else {
                format!(" ({})", case.subject)
            };
            let said = match &case.conclusion {
                None => "nothing".to_owned(),
                Some(Conclusion::Pass) => "pass".to_owned(),
                Some(Conclusion::Fail(text)) => format!("fail: {text}"),
                Some(Conclusion::Unknown(reason, text)) => {
                    format!("unknown ({}): {text}", reason.code())
                }
                Some(Conclusion::NotApplicable(text)) => format!("not applicable: {text}"),
            };
            // Writing to a String cannot fail.
            let _ = write!(text, "\n  {}{subject}: {said}", case.id);
        }
        if let Err(error) = &self.result {
            let _ = write!(text, "\n  check: {error}");
        }
        text
    }
}

/// What can go wrong with a server that conforms: trouble, load, rules, other writers, lost answers.
fn faults() -> [Fault; 8] {
    [
        Fault::Answer(500, "InternalError", "etcdserver: request timed out"),
        Fault::Answer(503, "ServiceUnavailable", "apiserver is shutting down"),
        Fault::Answer(429, "TooManyRequests", "too many requests"),
        Fault::Answer(403, "Forbidden", "not allowed"),
        Fault::Answer(409, "Conflict", "the object has been modified"),
        Fault::Lost,
        Fault::LostAfter,
        Fault::Expired,
    ]
}

/// Asserts that no trouble of the server becomes a `fail`: the probe runs again and again on a cluster on which it does not
/// fail, and each time one of its calls goes wrong, with every verb it uses and early as well as late.
///
/// # Panics
/// When a case failed, with or without a fault, or the probe made no call at all.
#[track_caller]
pub fn assert_faults_are_no_fail<P: Probe>(manifest: &str, cluster: impl Fn() -> FakeCluster) {
    let calm = run::<P>(manifest, cluster());
    calm.assert_no_fail();
    let mut verbs: BTreeMap<&str, u32> = BTreeMap::new();
    for call in &calm.calls {
        *verbs.entry(&call.verb).or_default() += 1;
    }
    assert!(
        !verbs.is_empty(),
        "the probe calls nothing\n{}",
        calm.told()
    );
    for (verb, calls) in verbs {
        for fault in faults() {
            for at in spread(calls) {
                let mut cluster = cluster();
                cluster.fail(verb, "*", fault.clone(), at, 1);
                let run = run::<P>(manifest, cluster);
                let fail = run
                    .cases
                    .iter()
                    .any(|case| matches!(case.conclusion, Some(Conclusion::Fail(_))));
                assert!(
                    !fail,
                    "{fault:?} at call {at} of `{verb}` became a fail\n{}",
                    run.told()
                );
            }
        }
    }
}

/// At most [`SPOILT`] positions among so many calls, with the first and the last.
fn spread(calls: u32) -> Vec<u32> {
    let many = calls.min(SPOILT);
    (0..many)
        .map(|at| at * (calls - 1) / (many - 1).max(1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_spread_from_the_first_call_to_the_last() {
        assert_eq!(spread(0), Vec::<u32>::new());
        assert_eq!(spread(1), [0]);
        assert_eq!(spread(4), [0, 1, 2, 3]);
        assert_eq!(spread(9), [0, 2, 4, 6, 8]);
    }
}

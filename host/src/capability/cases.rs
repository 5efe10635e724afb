//! The declared cases of the manifest: opened, shown, concluded. The engine judges; this only keeps the order.

use super::{address::malformed, nothing};
use crate::event::RunEventKind;
use crate::gate::{Answer, Call, Content, Door, Wire, reduce::clip};
use crate::model::{CaseKey, Conclusion};
use crate::recording::format::{Failure, function};
use serde_json::json;

/// Longest subject in bytes: a node name has at most 253.
const SUBJECT_MAX: usize = 253;
/// Longest name of an observation; the rest is cut.
const OBSERVATION_NAME_MAX: usize = 63;
/// Longest value of an observation; the rest is cut.
const OBSERVATION_VALUE_MAX: usize = 8 << 10;
/// Longest explanation of a conclusion; the rest is cut.
const EXPLANATION_MAX: usize = 4 << 10;

/// Opens a case of the manifest for a subject.
///
/// # Errors
/// Refused: an unknown id, a second case while one is open, the same case and subject twice. Malformed: a long subject.
pub fn open(door: &Door, id: &str, subject: &str) -> Result<CaseKey, Failure> {
    let key = CaseKey {
        id: clip(id, 253).to_owned(),
        subject: subject.to_owned(),
    };
    let call = Call::new(
        function::CASES_OPEN,
        json!({"id": key.id, "subject": subject}),
    );
    if subject.len() > SUBJECT_MAX {
        let failure = malformed("subject", subject, "is longer than 253 bytes");
        nothing(function::CASES_OPEN, door.refuse(call, failure))?;
        return Ok(key);
    }
    let reply = door.local(call, |_| {
        let refused = |text: String| Err(Failure::Refused(text).into());
        let declared = door.manifest().cases.iter().find(|case| case.id == key.id);
        let Some(declared) = declared else {
            return refused(format!(
                "probe.toml declares no case {:?}; add it to `cases`",
                key.id
            ));
        };
        let mut state = door.state();
        if let Some(open) = &state.case {
            return refused(format!(
                "case {open} is still open; conclude it before opening {key}, so that each call belongs to one case"
            ));
        }
        if !state.opened.insert(key.clone()) {
            return refused(format!(
                "case {key} was opened before; give another subject, or conclude once what both show"
            ));
        }
        state.case = Some(key.clone());
        drop(state);
        door.events().send(RunEventKind::CaseOpened {
            probe: door.probe().to_owned(),
            case: key.clone(),
            claim: declared.claim.clone(),
        });
        Ok(Answer::own(Content::Nothing))
    });
    nothing(function::CASES_OPEN, reply)?;
    Ok(key)
}

/// Shows a value. Name and value are cut at 63 bytes and 8 KiB.
///
/// # Errors
/// The attempt is over.
pub fn observe(door: &Door, _case: &CaseKey, name: &str, value: &str) -> Result<(), Failure> {
    let name = clip(name, OBSERVATION_NAME_MAX);
    let value = clip(value, OBSERVATION_VALUE_MAX);
    let arguments = json!({"name": name, "value": value});
    let call = Call::new(function::CASES_OBSERVE, arguments).always();
    let reply = door.local(call, |_| Ok(Answer::own(Content::Nothing)));
    nothing(function::CASES_OBSERVE, reply)
}

/// Ends the case. Explanations are cut at 4 KiB. A `fail` while nodes are leased looks at them again first: what others changed
/// there stands in the facts, and no guest sees it.
///
/// # Errors
/// Refused: the case is not the open one.
pub async fn conclude(door: &Door, case: &CaseKey, conclusion: Conclusion) -> Result<(), Failure> {
    let cut = |text: String| clip(&text, EXPLANATION_MAX).to_owned();
    let (word, conclusion) = match conclusion {
        Conclusion::Pass => ("pass", Conclusion::Pass),
        Conclusion::Fail => ("fail", Conclusion::Fail),
        Conclusion::Unknown(text) => ("unknown", Conclusion::Unknown(cut(text))),
        Conclusion::NotApplicable(text) => ("not-applicable", Conclusion::NotApplicable(cut(text))),
        Conclusion::Other(text) => ("other", Conclusion::Other(cut(text))),
    };
    let call = Call::new(function::CASES_CONCLUDE, json!({"outcome": conclusion}));
    let fails = conclusion == Conclusion::Fail;
    let live = |wire: Wire| async move {
        let mut answer = Answer::own(Content::Nothing);
        let leases = &wire.live.leases;
        let is_open = door.state().case.as_ref() == Some(case);
        if fails && is_open && leases.holds_nodes() {
            answer.facts.changed = leases.changed().await;
        }
        let mut state = door.state();
        if state.case.as_ref() != Some(case) {
            return Err(Failure::Refused(format!("case {case} is not open")).into());
        }
        state.case = None;
        drop(state);
        door.events().send(RunEventKind::CaseConcluded {
            probe: door.probe().to_owned(),
            case: case.clone(),
            word: word.to_owned(),
        });
        Ok(answer)
    };
    let reply = door.call(call, live).await.0;
    nothing(function::CASES_CONCLUDE, reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::{clock, testing::Rig};

    fn refusal(result: Result<impl std::fmt::Debug, Failure>) -> String {
        match result {
            Err(Failure::Refused(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn one_case_at_a_time_and_each_once() {
        let mut rig = Rig::new("");
        let door = rig.door.clone();
        assert!(refusal(open(&door, "nonsense", "")).contains("no case \"nonsense\""));
        let first = open(&door, "first", "node-1").unwrap();
        assert!(refusal(open(&door, "second", "")).contains("first[node-1] is still open"));
        clock::now(&door).unwrap();
        observe(&door, &first, &"n".repeat(100), &"v".repeat(10_000)).unwrap();
        conclude(&door, &first, Conclusion::Pass).await.unwrap();
        assert!(refusal(conclude(&door, &first, Conclusion::Pass).await).contains("not open"));
        assert!(refusal(open(&door, "first", "node-1")).contains("opened before"));
        open(&door, "first", "node-2").unwrap();
        assert!(matches!(
            open(&door, "first", &"s".repeat(300)),
            Err(Failure::Malformed(_))
        ));
        rig.replay();
        let entries = rig.entries();
        let case = |at: usize| entries[at].case.as_ref().map(|case| case.id.as_str());
        assert_eq!(case(0), None);
        assert_eq!(case(1), Some("first"), "the opening belongs to its case");
        assert_eq!(case(3), Some("first"));
        assert_eq!(entries[4].arguments["name"].as_str().unwrap().len(), 63);
        assert_eq!(entries[4].arguments["value"].as_str().unwrap().len(), 8192);
        assert_eq!(case(5), Some("first"), "the conclusion belongs to its case");
        assert_eq!(case(6), None);
    }
}

//! The run head: one hash that commits to every finished recording in the order in which the attempts ended.
//!
//! `head(n) = sha256(head(n-1) || head of the recording)`, both as 32 bytes; `head(0)` is 32 zero bytes. Whoever keeps a
//! run head from the middle of a run can tell later whether what came before was edited.

use crate::model::RunRecord;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The head of a run so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHead {
    hash: [u8; 32],
    folded: u32,
}

impl Default for RunHead {
    fn default() -> Self {
        RunHead::new()
    }
}

impl RunHead {
    /// The head of a run in which nothing has ended yet.
    pub fn new() -> RunHead {
        RunHead {
            hash: [0; 32],
            folded: 0,
        }
    }

    /// Folds in the head of a recording. Gives its place, for [`crate::model::AttemptRecord::folded`].
    ///
    /// # Errors
    /// The text is not 64 lowercase hexadecimal digits.
    pub fn fold(&mut self, recording_head: &str) -> Result<u32, String> {
        let hash: [u8; 32] = HEXLOWER
            .decode(recording_head.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| "the head of a recording is not 64 hexadecimal digits".to_owned())?;
        let place = self
            .folded
            .checked_add(1)
            .ok_or_else(|| "too many recordings in one run".to_owned())?;
        self.hash = Sha256::new()
            .chain_update(self.hash)
            .chain_update(hash)
            .finalize()
            .into();
        self.folded = place;
        Ok(place)
    }

    /// 64 lowercase hexadecimal digits, for [`RunRecord::head`].
    pub fn text(&self) -> String {
        HEXLOWER.encode(&self.hash)
    }

    /// How many recordings are folded in.
    pub fn folded(&self) -> u32 {
        self.folded
    }
}

/// Computes the head of a record anew from its attempts.
///
/// # Errors
/// An attempt has a head without a place or a place without a head, or the places are not 1, 2, 3, …
pub fn head_of(record: &RunRecord) -> Result<RunHead, String> {
    let mut head = RunHead::new();
    for (place, recording) in recordings_of(record)? {
        if head.fold(recording)? != place {
            return Err(format!(
                "no recording has place {} in the run head",
                head.folded()
            ));
        }
    }
    Ok(head)
}

/// Every head that a record had, in their order: the first is the one before any recording, the last is [`head_of`].
///
/// # Errors
/// As [`head_of`].
pub fn heads_of(record: &RunRecord) -> Result<Vec<String>, String> {
    head_of(record)?;
    let mut head = RunHead::new();
    let mut heads = vec![head.text()];
    for recording in recordings_of(record)?.values() {
        head.fold(recording)?;
        heads.push(head.text());
    }
    Ok(heads)
}

/// Heads of recordings by their place.
fn recordings_of(record: &RunRecord) -> Result<BTreeMap<u32, &str>, String> {
    let mut places: BTreeMap<u32, &str> = BTreeMap::new();
    for (probe, attempt) in record
        .probes
        .iter()
        .flat_map(|probe| probe.attempts.iter().map(move |attempt| (probe, attempt)))
    {
        match (&attempt.head, attempt.folded) {
            (Some(head), Some(place)) => {
                if places.insert(place, head).is_some() {
                    return Err(format!("two recordings have place {place} in the run head"));
                }
            }
            (None, None) => {}
            _ => {
                return Err(format!(
                    "attempt {} of {} has a head and no place in the run head, or a place and no head",
                    attempt.attempt,
                    probe.probe.chars().take(80).collect::<String>()
                ));
            }
        }
    }
    Ok(places)
}

//! How many watches, responses and streams an attempt has open, each kind counted for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What of one kind is open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots(Arc<AtomicU32>);

/// Counts as open as long as it lives.
#[derive(Debug)]
pub(crate) struct Slot(Slots);

impl Slots {
    /// One more, if there are fewer than so many.
    pub(crate) fn take(&self, most: u32) -> Option<Slot> {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
                (open < most).then_some(open + 1)
            })
            .ok()
            .map(|_| Slot(self.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_free_again_when_its_holder_is_gone() {
        let slots = Slots::default();
        let (first, second) = (slots.take(2), slots.take(2));
        assert!(first.is_some() && second.is_some() && slots.take(2).is_none());
        drop(first);
        assert!(slots.clone().take(2).is_some());
    }
}

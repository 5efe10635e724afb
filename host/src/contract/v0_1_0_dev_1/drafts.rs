//! The interface that the contract drafts and this release does not serve: its call is refused through the door, so that it stands
//! in the recording.

use super::{Answered, GuestState, contract, not_live};
use serde_json::json;

impl contract::device::Host for GuestState {
    async fn paths(&mut self, node: String, pattern: String) -> Answered<String> {
        self.cpu.pause();
        let arguments = json!({ "node": node, "pattern": pattern });
        let failure = not_live::refuse(&self.door, "device.paths", arguments);
        self.back(Err(failure))
    }
}

//! What a gang scheduling solution must be told and asked, whichever it is.
//!
//! An adapter knows names and fields of one solution and decides nothing. Members of a group carry the label [`GROUP`], so
//! pods are found alike whether the adapter creates them or a controller does.

use crate::room::Room;
use karat_sdk::{Conclusion, Object, Query, Result, Value};

/// Label of every pod of a group, with the group's name.
pub const GROUP: &str = "gang/group";

/// A group to submit.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name, with the run id.
    pub name: String,
    /// Pods, all of which must start together.
    pub count: u64,
    /// The pod that all of them are like; its name is filled in, and it carries the label [`GROUP`].
    pub pod: Value,
}

/// What a solution says about a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It lets the group start.
    Admitted,
    /// The group does not fit, in the solution's words.
    Rejected(String),
    /// Something else is wrong, in the solution's words.
    Trouble(String),
}

/// One solution.
pub trait Adapter {
    /// Its name and the API version that is spoken.
    fn describe(&self) -> String;

    /// Makes the queues that groups need, with a quota of what fits; nothing for a solution that looks at nodes alone. Gives a
    /// conclusion when there can be none.
    ///
    /// # Errors
    /// Those after which nothing can go on.
    fn prepare(&self, _: &Room) -> Result<Option<Conclusion>> {
        Ok(None)
    }

    /// Changes the quota of what [`Adapter::prepare`] made to so many pods, and waits until that is in force. Gives a conclusion
    /// when it cannot.
    ///
    /// # Errors
    /// Those after which nothing can go on.
    fn set_quota(&self, _: &Room, _pods: u64) -> Result<Option<Conclusion>> {
        Ok(None)
    }

    /// Creates the group's own objects and gives the minimum as the server stored it.
    ///
    /// # Errors
    /// Those of the server and of the door.
    fn create(&self, group: &Group) -> Result<Option<u64>>;

    /// Creates the group's pods, or what makes a controller create them. False when the server dropped what ties them to their
    /// group.
    ///
    /// # Errors
    /// Those of the server and of the door.
    fn start(&self, group: &Group) -> Result<bool>;

    /// Where decisions are to be seen.
    fn decisions(&self) -> Query;

    /// What an object of [`Adapter::decisions`] says about a group; none while nothing was decided, or about another one.
    fn decision(&self, object: &Object, group: &str) -> Option<Decision>;

    /// Removes the group's own objects; pods that a controller made go with them.
    ///
    /// # Errors
    /// Those of the server and of the door.
    fn remove(&self, group: &str) -> Result<()>;

    /// Whether it counts quota and not places on nodes, and pods of a group that is held back do not exist.
    fn by_quota(&self) -> bool {
        false
    }

    /// Whether its quota is that of [`Adapter::prepare`], and not somebody else's.
    fn owns_quota(&self) -> bool {
        true
    }

    /// Whether pods of its groups may ask for devices by claims.
    fn takes_claims(&self) -> bool {
        true
    }

    /// Removes what [`Adapter::prepare`] made. What stays is removed by the engine.
    ///
    /// # Errors
    /// Those after which nothing can go on.
    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

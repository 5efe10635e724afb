//! What the tests of the whole system share: the state of a cluster as one comparable value, and guests with manifests
//! made for one test. The tests themselves are one binary, `tests/all`.

pub mod folders;
pub mod guests;
pub mod program;
pub mod runs;
pub mod state;

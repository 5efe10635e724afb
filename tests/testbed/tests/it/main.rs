//! Proofs about the testbed itself, with real programs. They need the programs, or Go to build them, and fail without.
//! Those about real nodes need more of the machine; where it has not got it they say by name that they were not run.

mod add_ons;
mod control_plane;
mod fixtures;
mod images;
mod killed;
mod node;
mod prometheus;
mod proxy;

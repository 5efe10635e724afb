//! Proofs about the testbed itself, with real programs. They need the programs, or Go to build them, and fail without.

mod control_plane;
mod fixtures;
mod killed;
mod proxy;

//! The tests of the whole system, one binary: they share one control plane where they can.

mod accounts;
mod admission_policy;
mod bundle;
mod canaries;
mod cli;
mod docs;
mod door;
mod dra_support;
mod end_to_end;
mod faults;
mod guards;
mod guide;
mod hostile;
mod kill;
mod layers;
mod leases;
mod polyglot;
mod redacting;
mod reports;
mod review_bot;
mod runs_meet;
mod safety;
mod side_by_side;
mod submit;
mod witness;
mod words;

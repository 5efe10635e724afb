//! What `wit-bindgen` makes of the contract. Private: probes meet the modules of this crate, never these types, so the
//! contract may change its shape without a change in every probe.

#![allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::all,
    reason = "generated code"
)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "probe",
    pub_export_macro: true,
    export_macro_name: "export",
});

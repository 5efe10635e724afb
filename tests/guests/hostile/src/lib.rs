//! A probe that does what no probe should. One core module serves every test: the tests wrap it with manifests of their
//! own and choose the deed with the setting `attack`; `attack = "script"` makes it a puppet that makes the calls of the
//! setting `script` (JSON, see `puppet.rs`) one by one and logs what each one gave.
//!
//! It uses the bare contract rather than the SDK, so that nothing stands between the attack and the host.

mod attacks;
mod puppet;

pub(crate) mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "probe" });
}

use bindings::karat::probe::settings;

struct Hostile;

impl bindings::exports::karat::probe::guest::Guest for Hostile {
    fn check() -> Result<(), String> {
        let attack = settings::get("attack").ok_or("the setting `attack` is missing")?;
        if attack == "script" {
            let script = settings::get("script").ok_or("the setting `script` is missing")?;
            return puppet::play(&script);
        }
        attacks::commit(&attack)
    }
}

mod export {
    #![expect(
        unsafe_code,
        reason = "the export macro of wit-bindgen writes extern functions"
    )]
    use super::{Hostile, bindings};
    bindings::export!(Hostile with_types_in bindings);
}

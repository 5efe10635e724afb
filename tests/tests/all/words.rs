//! Words that stand in two places by intent, because a guest may not depend on the engine, stay the same words.

use karat_engine::model::Reason as Engines;
use karat_sdk::Reason as Guests;

#[test]
fn the_sdk_knows_exactly_the_reasons_that_probes_may_give() {
    let engines = Engines::ALL.iter().filter(|reason| reason.is_for_probes());
    let engines: Vec<&str> = engines.map(|reason| reason.code()).collect();
    let guests: Vec<&str> = Guests::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(guests, engines);
}

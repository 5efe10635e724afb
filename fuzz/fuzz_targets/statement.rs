//! What signs a bundle: statement, envelope, public key, and the key set of an issuer.
#![no_main]

use karat_engine::bundle::signature::{Envelope, PublicKey};
use karat_engine::bundle::statement::Statement;
use karat_engine::witness::keys::KeySet;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(statement) = Statement::parse(data) {
        let written = statement.to_json();
        let again = Statement::parse(written.as_bytes()).expect("it was written here");
        assert_eq!(again, statement);
    }
    if let Ok(envelope) = Envelope::parse(data) {
        assert!(envelope.claimed_keys().count() > 0);
        let _ = Statement::parse(envelope.payload());
    }
    let _ = KeySet::parse(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(key) = PublicKey::from_pem(text)
    {
        let pem = key.to_pem().expect("it was read");
        assert_eq!(PublicKey::from_pem(&pem).expect("it was written here").id(), key.id());
    }
});

//! A packed bundle: the input is the tar in it. What can be unpacked is packed again and is the same.
#![no_main]

use flate2::{Compression, write::GzEncoder};
use karat_engine::bundle::Limits;
use karat_engine::bundle::archive::{pack, unpack};
use libfuzzer_sys::fuzz_target;
use std::io::Write as _;

fuzz_target!(|data: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    gzip.write_all(data).expect("memory");
    let packed = gzip.finish().expect("memory");
    let limits = Limits { entries: 100, bytes: 1 << 20 };
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    match unpack(&packed, &one, &limits) {
        Err(_) => assert!(!one.exists()),
        Ok(_) => {
            let again = pack(&one).expect("what was unpacked is a bundle");
            unpack(&again.bytes, &two, &limits).expect("what was packed can be unpacked");
            assert_eq!(again, pack(&two).expect("the same"));
        }
    }
});

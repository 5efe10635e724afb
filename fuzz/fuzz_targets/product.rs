//! A product file, which is YAML, alone and in a folder that is linted as a whole.
#![no_main]

use karat_engine::form::read_product;
use karat_engine::lint::lint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = read_product("PRODUCT.yaml", text);
    let folder = tempfile::tempdir().expect("a folder");
    let product = folder.path().join("v1.37/product");
    std::fs::create_dir_all(&product).expect("a folder");
    std::fs::write(product.join("PRODUCT.yaml"), text).expect("a product");
    if let Ok(report) = lint(&product, None) {
        assert!(report.errors() + report.warnings() <= report.findings.len());
    }
});

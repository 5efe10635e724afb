//! An exposition of a workload, and an expression of a guest on its way to a monitoring system.
#![no_main]

use karat_engine::capability::metrics::read_anything;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| read_anything(text));

//! Makes constants of `probe.toml`.

fn main() {
    karat_sdk_build::manifest();
}

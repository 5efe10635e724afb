//! Where the program under test is.

use anyhow::{Result, ensure};
use std::path::PathBuf;

/// The program `karat` of this build folder.
///
/// # Errors
/// If it was not built.
pub fn karat() -> Result<PathBuf> {
    let path = crate::guests::target_dir().join("debug/karat");
    ensure!(
        path.is_file(),
        "{} is missing; build it with `cargo build -p karat`",
        path.display()
    );
    Ok(path)
}

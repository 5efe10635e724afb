//! Holds a laboratory until it is killed, under a name if one is given. The tests of the testbed kill it with SIGKILL
//! and look what is left.

use std::io::Write as _;

use karat_testbed::{Component, ControlPlane, named};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(name) = std::env::args().nth(1) {
        named::serve(&name, ControlPlane::builder()).await?;
        return Ok(());
    }
    let lab = ControlPlane::builder().start().await?;
    let pids: Vec<u32> = Component::ALL
        .into_iter()
        .filter_map(|c| lab.pid(c))
        .collect();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{}",
        serde_json::json!({ "state": lab.state_dir(), "pids": pids })
    )?;
    out.flush()?;
    std::future::pending::<()>().await;
    Ok(())
}

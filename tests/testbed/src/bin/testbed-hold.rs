//! Holds a laboratory until it is killed, under a name if one is given, with a real node after `--real-node`. The tests of the testbed kill it with SIGKILL
//! and look what is left.

use std::io::Write as _;

use karat_testbed::{Component, ControlPlane, named};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut builder = ControlPlane::builder();
    match std::env::args().nth(1).as_deref() {
        Some("--real-node") => builder = builder.real_nodes(1),
        Some(name) => {
            named::serve(name, builder).await?;
            return Ok(());
        }
        None => {}
    }
    let lab = builder.start().await?;
    let pids: Vec<u32> = Component::ALL
        .into_iter()
        .filter_map(|c| lab.pid(c))
        .chain(lab.real_nodes().iter().filter_map(|n| n.first_process()))
        .collect();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{}",
        serde_json::json!({ "state": lab.state_dir(), "pids": pids, "url": lab.url() })
    )?;
    out.flush()?;
    std::future::pending::<()>().await;
    Ok(())
}

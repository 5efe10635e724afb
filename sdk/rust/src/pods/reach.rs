//! Whether one pod reaches another by a name. Both run the tool image; the other one serves with its command `echo`.

use super::exec;
use crate::{Case, Conclusion, Object, Reason, Result};
use std::time::Duration;

/// The program of the tool image.
const PROGRAM: &str = "/bin/tool";
/// How long the pod may take to ask for two addresses, each for 20 s at most.
const LOOK: Duration = Duration::from_secs(60);

/// Asks `server` from `client`: by the address of its pod, without which nothing can be said of the name, and by `name`, where
/// `host` must answer.
///
/// # Errors
/// As [`super::Command::run`].
pub fn reaches(
    case: &Case,
    client: &Object,
    server: &Object,
    name: &str,
    port: u16,
    host: &str,
) -> Result<Conclusion> {
    let port = port.to_string();
    let url = |host: &str| ["http://", host, ":", &port, "/"].concat();
    let by_address = url(server.text("/status/podIP"));
    let by_name = url(name);
    let look = exec(client, PROGRAM)
        .arg("look")
        .arg(&["http=", &by_address].concat())
        .arg(&["http=", &by_name].concat())
        .run(LOOK)?;
    let said = |url: &str| {
        let key = ["http.", url, "="].concat();
        let line = look.output.lines().find_map(|line| line.strip_prefix(&key));
        line.unwrap_or("nothing").to_owned()
    };
    let (address, named) = (said(&by_address), said(&by_name));
    case.observe("by its address", &address);
    case.observe("by its name", &named);
    if address != "200" {
        return Ok(Conclusion::unknown(
            Reason::ProxyUnreachable,
            format!("{server} is not reached by its address either: {address}"),
        ));
    }
    if named != "200" {
        return Ok(Conclusion::fail(format!(
            "{by_name} does not lead to {server}, which answers under its address: {named}"
        )));
    }
    let asked = exec(client, PROGRAM).arg("get").arg(&by_name).run(LOOK)?;
    let answer = Object::parse(asked.output.trim())?;
    let who = answer.text("/pod");
    case.observe("who answers", who);
    if who != host {
        return Ok(Conclusion::fail(format!(
            "under {by_name} answers {who}, and not {host}"
        )));
    }
    Ok(Conclusion::Pass)
}

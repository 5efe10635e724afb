//! A client that is just enough to ask a pod or a Service something: HTTP/1.1 without TLS, and bare TCP.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

use crate::{Failure, report};

/// Largest answer that is passed on.
const MOST: u64 = 16 << 20;

/// Body to standard output, status to standard error.
pub(crate) fn get(url: &str, seconds: u64) -> Result<ExitCode, Failure> {
    let (authority, path) = parts(url)?;
    let patience = Duration::from_secs(seconds.max(1));
    let answer = fetch(authority, &path, patience).map_err(|e| format!("{url}: {e}"))?;
    let (status, body) = split(&answer).ok_or_else(|| format!("{url}: not an HTTP answer"))?;
    writeln!(io::stderr(), "{status}")?;
    io::stdout().write_all(body)?;
    Ok(if (200..300).contains(&status) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The status that a GET is answered with; none if what comes back is no HTTP.
pub(crate) fn ask(url: &str, patience: Duration) -> io::Result<Option<u16>> {
    let (authority, path) =
        parts(url).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why.to_string()))?;
    let answer = fetch(authority, &path, patience)?;
    Ok(split(&answer).map(|(status, _)| status))
}

fn fetch(authority: &str, path: &str, patience: Duration) -> io::Result<Vec<u8>> {
    let mut stream = dial(&with_port(authority), patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    // HTTP/1.0 asks for an answer without chunks, which ends with the connection.
    let request = format!(
        "GET {path} HTTP/1.0\r\nHost: {authority}\r\nUser-Agent: karat-tool\r\nAccept: */*\r\n\r\n"
    );
    // In one piece: a server that reads once and answers would reset the connection over the rest.
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer)?;
    Ok(answer)
}

/// An authority with the port that HTTP has where it names none.
pub(crate) fn with_port(authority: &str) -> String {
    if authority.contains(':') {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    }
}

/// Opens a connection to `host:port` and says what came of it.
pub(crate) fn connect(address: &str, seconds: u64) -> Result<ExitCode, Failure> {
    let result = dial(address, Duration::from_secs(seconds.max(1))).map(|_| ());
    report("address", address, "connected", &result)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn dial(address: &str, patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for one in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&one, patience) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Authority and path of an `http:` URL.
pub(crate) fn parts(url: &str) -> Result<(&str, String), Failure> {
    let rest = url
        .strip_prefix("http://")
        .ok_or("only http:// URLs can be asked")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || url.contains(['\r', '\n', ' ']) {
        return Err(format!("{url:?}: not a URL").into());
    }
    Ok((
        authority,
        if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        },
    ))
}

/// Status and body of an answer; none if it is no HTTP.
pub(crate) fn split(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head
        .strip_prefix("HTTP/1.")?
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()?;
    Some((status, &answer[end + 4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        assert_eq!(
            parts("http://a.b:81/x?y=1").unwrap(),
            ("a.b:81", "/x?y=1".into())
        );
        assert_eq!(parts("http://a").unwrap(), ("a", "/".into()));
        assert_eq!(parts("http://a?q").unwrap(), ("a", "/?q".into()));
        for bad in ["https://a/", "http:///x", "http://a/\r\nHost: b", "a"] {
            assert!(parts(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn answers_have_a_status_and_a_body() {
        assert_eq!(
            split(b"HTTP/1.1 503 No\r\nA: b\r\n\r\nbody"),
            Some((503, &b"body"[..]))
        );
        assert_eq!(split(b"SSH-2.0\r\n\r\n"), None);
    }
}

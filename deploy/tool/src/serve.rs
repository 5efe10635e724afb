//! The smallest HTTP/1.1 server that answers one request for each connection. A connection costs a thread, a request is
//! capped, and a client that says nothing is left after ten seconds.

use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crate::Failure;

const MOST_HEAD: usize = 16 << 10;
const MOST_BODY: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// A request as far as the servers here look at it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    pub(crate) query: String,
    /// In the order of the request, names as they were written.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A parameter of the query, as it is written there.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }
}

/// Where an answer goes: one plain answer, or a head and then pieces.
pub(crate) struct Answer<'a>(&'a mut TcpStream);

impl Answer<'_> {
    pub(crate) fn plain(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        body: &str,
    ) -> io::Result<()> {
        let length = body.len().to_string();
        self.head(
            status,
            &[headers, &[("Content-Length", length.as_str())]].concat(),
        )?;
        self.0.write_all(body.as_bytes())
    }

    pub(crate) fn head(&mut self, status: u16, headers: &[(&str, &str)]) -> io::Result<()> {
        let mut text = format!("HTTP/1.1 {status} {}\r\nConnection: close\r\n", {
            if status < 400 { "OK" } else { "Refused" }
        });
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        self.0.write_all(text.as_bytes())
    }

    /// A piece of a body whose head said `Transfer-Encoding: chunked`; an empty one ends it.
    pub(crate) fn piece(&mut self, text: &str) -> io::Result<()> {
        write!(self.0, "{:x}\r\n{text}\r\n", text.len())?;
        self.0.flush()
    }
}

/// Serves until the process ends.
pub(crate) fn forever<F>(port: u16, handler: F) -> Result<std::process::ExitCode, Failure>
where
    F: Fn(&Request, &mut Answer<'_>) -> io::Result<()> + Send + Sync + 'static,
{
    // Both families where the kernel has them.
    let listener =
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))?;
    let handler = Arc::new(handler);
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let handler = Arc::clone(&handler);
        std::thread::spawn(move || {
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let _ = stream.set_write_timeout(Some(PATIENCE));
            let _ = match read(&mut stream) {
                Some(request) => handler(&request, &mut Answer(&mut stream)),
                None => Answer(&mut stream).plain(400, &[], "not a request\n"),
            };
        });
    }
    Ok(std::process::ExitCode::SUCCESS)
}

fn read(stream: &mut impl io::Read) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if bytes.len() > MOST_HEAD {
            return None;
        }
        more(stream, &mut bytes)?;
    };
    let mut request = head(std::str::from_utf8(&bytes[..end]).ok()?)?;
    let length: usize = request
        .header("content-length")
        .map_or(Some(0), |v| v.parse().ok())?;
    if length > MOST_BODY {
        return None;
    }
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        more(stream, &mut body)?;
    }
    body.truncate(length);
    request.body = body;
    Some(request)
}

fn more(stream: &mut impl io::Read, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer) {
        Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
        _ => return None,
    }
    Some(())
}

fn head(text: &str) -> Option<Request> {
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target, version) = (first.next()?, first.next()?, first.next()?);
    if !version.starts_with("HTTP/1.") {
        return None;
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        })
        .collect::<Option<Vec<_>>>()?;
    Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_with_its_body() {
        let mut text =
            &b"POST /a/b?x=1&yy=2 HTTP/1.1\r\nHost: h\r\ncontent-length: 3\r\n\r\nabcdef"[..];
        let request = read(&mut text).unwrap();
        assert_eq!(request.path, "/a/b");
        assert_eq!(request.parameter("yy"), Some("2"));
        assert_eq!(request.parameter("y"), None);
        assert_eq!(request.header("HOST"), Some("h"));
        assert_eq!(request.body, b"abc");
    }

    #[test]
    fn what_is_no_request_or_too_large_is_refused() {
        for bad in [
            &b"GET / SPDY/3\r\n\r\n"[..],
            b"GET /\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab",
        ] {
            let mut text = bad;
            assert!(
                read(&mut text).is_none(),
                "{}",
                String::from_utf8_lossy(bad)
            );
        }
        let long = vec![b'a'; MOST_HEAD + 8192];
        assert!(read(&mut long.as_slice()).is_none());
    }
}

//! `traffic`: asks a URL again and again, each time with a connection of its own, and writes one line of JSON a second about
//! what came of it: who answered with which status, and why there was no answer.
//!
//! The name is looked up once, so that names are not what is tried. A request counts in the second in which it ends. One that
//! keeps its connection would stay with whoever got the first, so none does.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{Failure, errno, net};

/// Most requests a second.
const MOST: u32 = 100;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the name may take to be known.
const NAMES: Duration = Duration::from_secs(60);
/// Time between two questions for the name.
const PAUSE: Duration = Duration::from_millis(200);
/// Time that one line tells of.
const INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of an answer that are read at most.
const MOST_ANSWER: u64 = 1 << 20;
/// Header in which a server of ours names itself.
const SERVED_BY: &str = "x-served-by";
/// Different answers of one line at most; what names itself anew each time must not fill the memory.
const KINDS: usize = 32;

/// What came of the requests of some time.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    sent: u64,
    /// By `SERVER STATUS`; `-` for a server that does not name itself.
    answered: BTreeMap<String, u64>,
    /// By the kernel's name of the error.
    failed: BTreeMap<String, u64>,
}

impl Tally {
    fn count(all: &mut BTreeMap<String, u64>, key: String) {
        let full = all.len() >= KINDS && !all.contains_key(&key);
        *all.entry(if full { "others".into() } else { key })
            .or_default() += 1;
    }

    fn ended(&mut self, result: io::Result<(u16, String)>) {
        match result {
            Ok((status, by)) => Tally::count(&mut self.answered, format!("{by} {status}")),
            Err(error) => Tally::count(&mut self.failed, errno(&error)),
        }
    }

    fn add(&mut self, other: &Tally) {
        self.sent += other.sent;
        for (to, from) in [
            (&mut self.answered, &other.answered),
            (&mut self.failed, &other.failed),
        ] {
            for (key, count) in from {
                *to.entry(key.clone()).or_default() += count;
            }
        }
    }

    fn line(&self, key: &str, value: Value) -> Value {
        json!({key: value, "sent": self.sent, "answered": self.answered, "failed": self.failed})
    }
}

/// One request, again and again.
struct Asking {
    address: SocketAddr,
    text: String,
}

/// `URL [A SECOND] [--post=JSON]`
pub(crate) fn run(args: &[&str]) -> Result<ExitCode, Failure> {
    let (url, flags) = args.split_first().ok_or("a URL is missing")?;
    let mut rate: u32 = 5;
    let mut body = None;
    for flag in flags {
        match flag.strip_prefix("--post=") {
            Some(text) => body = Some(text),
            None => rate = flag.parse().map_err(|e| format!("{flag:?}: {e}"))?,
        }
    }
    if !(1..=MOST).contains(&rate) {
        return Err(format!("{rate}: 1 to {MOST} requests a second").into());
    }
    let (authority, path) = net::parts(url)?;
    let ending = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&ending))?;
    }
    let Some(address) = look_up(authority, &ending)? else {
        return Ok(ExitCode::SUCCESS);
    };
    let asking = Asking {
        address,
        text: request(authority, &path, body),
    };
    asking.go_on(rate, &ending, &mut io::stdout())?;
    Ok(ExitCode::SUCCESS)
}

/// The address behind a name, asked for until there is one; none if it is told to end before.
fn look_up(authority: &str, ending: &AtomicBool) -> Result<Option<SocketAddr>, Failure> {
    let whole = net::with_port(authority);
    let began = Instant::now();
    while !ending.load(Ordering::Relaxed) {
        match whole.to_socket_addrs().map(|mut all| all.next()) {
            Ok(Some(address)) => return Ok(Some(address)),
            Err(e) if began.elapsed() > NAMES => return Err(format!("{authority}: {e}").into()),
            Ok(None) if began.elapsed() > NAMES => {
                return Err(format!("{authority}: the name has no address").into());
            }
            _ => std::thread::sleep(PAUSE),
        }
    }
    Ok(None)
}

fn request(authority: &str, path: &str, body: Option<&str>) -> String {
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.unwrap_or_default();
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.0\r\nHost: {authority}\r\nUser-Agent: karat-tool\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

impl Asking {
    /// Asks until it is told to end. What is still open then is waited for, so that nothing is left out.
    fn go_on(self, rate: u32, ending: &AtomicBool, out: &mut impl Write) -> Result<(), Failure> {
        let gap = INTERVAL / rate;
        let asking = Arc::new(self);
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut total = Tally::default();
        let mut open = Vec::new();
        let mut n = 0_u64;
        let mut next = Instant::now();
        let mut line = next + INTERVAL;
        while !ending.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= line {
                line += INTERVAL;
                n += 1;
                let told = std::mem::take(&mut *locked(&tally));
                writeln!(out, "{}", told.line("n", json!(n)))?;
                out.flush()?;
                total.add(&told);
                open.retain(|thread: &std::thread::JoinHandle<()>| !thread.is_finished());
            }
            if now >= next {
                next += gap;
                locked(&tally).sent += 1;
                let (asking, tally) = (Arc::clone(&asking), Arc::clone(&tally));
                open.push(std::thread::spawn(move || {
                    let result = asking.ask();
                    locked(&tally).ended(result);
                }));
            }
            let until = next.min(line).saturating_duration_since(Instant::now());
            // Short enough to hear soon that it shall end.
            std::thread::sleep(until.min(PAUSE));
        }
        for thread in open {
            let _ = thread.join();
        }
        total.add(&locked(&tally));
        writeln!(out, "{}", total.line("total", json!(true)))?;
        out.flush()?;
        Ok(())
    }

    fn ask(&self) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(self.text.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(MOST_ANSWER).read_to_end(&mut answer)?;
        read(&answer).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

fn locked(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Status of an answer and who gave it.
fn read(answer: &[u8]) -> Option<(u16, String)> {
    let (status, _) = net::split(answer)?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let by = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.eq_ignore_ascii_case(SERVED_BY)).then(|| value.trim().to_owned())
    });
    let named = by.filter(|by| !by.is_empty() && !by.contains(' '));
    Some((status, named.unwrap_or_else(|| "-".into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers so many connections with this and then is gone.
    fn server(times: usize, text: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(times) {
                let mut stream = stream.unwrap();
                let mut seen = [0; 4096];
                let _ = stream.read(&mut seen);
                stream.write_all(text.as_bytes()).unwrap();
            }
        });
        address
    }

    #[test]
    fn an_answer_says_who_gave_it() {
        let head = b"HTTP/1.1 503 Refused\r\nx-served-by: model-1\r\n\r\n{}";
        assert_eq!(read(head), Some((503, "model-1".into())));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n\r\n"), Some((200, "-".into())));
        assert_eq!(read(b""), None);
    }

    #[test]
    fn every_request_is_in_a_line_and_in_the_total() {
        let text = "HTTP/1.1 200 OK\r\nX-Served-By: a\r\n\r\n";
        let asking = Asking {
            address: server(usize::MAX, text),
            text: request("h", "/v1/models", None),
        };
        let ending = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ending);
        // Ends when it has written a line, so that nothing depends on how fast this machine is.
        struct Out(Vec<u8>, Arc<AtomicBool>);
        impl Write for Out {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.extend_from_slice(bytes);
                self.1.store(true, Ordering::Relaxed);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = Out(Vec::new(), flag);
        asking.go_on(20, &ending, &mut out).unwrap();
        let text = String::from_utf8(out.0).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["n"], 1);
        assert_eq!(lines[1]["total"], true);
        assert_eq!(lines[1]["sent"], lines[1]["answered"]["a 200"]);
        assert!(lines[1]["sent"].as_u64() >= lines[0]["sent"].as_u64());
    }

    #[test]
    fn why_there_was_no_answer_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let asking = Asking {
            address,
            text: request("h", "/", Some("{}")),
        };
        let mut tally = Tally::default();
        tally.ended(asking.ask());
        assert_eq!(tally.failed["ECONNREFUSED"], 1);
        let asking = Asking {
            address: server(1, "SSH-2.0\r\n\r\n"),
            text: String::from("x"),
        };
        tally.ended(asking.ask());
        assert_eq!(tally.failed.values().sum::<u64>(), 2);
        for n in 0..100 {
            tally.ended(Ok((200, format!("server-{n}"))));
        }
        assert_eq!(tally.answered.len(), KINDS + 1);
        assert_eq!(tally.answered.values().sum::<u64>(), 100);
    }

    #[test]
    fn a_body_makes_it_a_post() {
        let text = request("h:80", "/v1/completions", Some("{}"));
        assert!(
            text.starts_with("POST /v1/completions HTTP/1.0\r\n"),
            "{text}"
        );
        assert!(
            text.ends_with("Content-Length: 2\r\nConnection: close\r\n\r\n{}"),
            "{text}"
        );
        for bad in [&[][..], &["http://a/", "0"], &["http://a/", "1000"], &["a"]] {
            assert!(run(bad).is_err(), "{bad:?}");
        }
    }
}

//! The simulated model server as a process: told to end, it says so, serves what was begun, and ends in good order.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(port: u16, request: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

fn rest(mut stream: TcpStream) -> std::io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn get(port: u16, path: &str) -> std::io::Result<String> {
    connect(port, &format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).and_then(rest)
}

/// A server on a port that was free a moment ago; if somebody took it since, on another one.
fn server() -> std::io::Result<Server> {
    for _ in 0..5 {
        let free = TcpListener::bind(("127.0.0.1", 0))?;
        let port = free.local_addr()?.port();
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_karat-tool"))
            .args(["model", &port.to_string(), "--drain=1"])
            .env("POD_NAME", "model-test")
            .spawn()?;
        let mut server = Server { child, port };
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(30) {
            if server.child.try_wait()?.is_some() {
                break;
            }
            if get(port, "/health").is_ok_and(|text| text.contains("X-Served-By: model-test\r\n")) {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    Err(std::io::Error::other("no server came up"))
}

#[test]
fn it_drains_before_it_ends() {
    let mut server = server().unwrap();
    let body = r#"{"model": "karat-simulated", "prompt": "a", "stream": true, "max_tokens": 200}"#;
    let length = body.len();
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut stream = connect(server.port, &request).unwrap();
    // The answer has begun, so it must be told to its end.
    let mut first = [0];
    stream.read_exact(&mut first).unwrap();

    let pid = Pid::from_raw(i32::try_from(server.child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let began = Instant::now();
    let mut health = String::new();
    while !health.contains("draining") {
        assert!(began.elapsed() < Duration::from_secs(30), "{health}");
        health = get(server.port, "/health").unwrap();
    }
    assert!(health.starts_with("HTTP/1.1 503"), "{health}");
    let models = get(server.port, "/v1/models").unwrap();
    assert!(models.starts_with("HTTP/1.1 200"), "{models}");

    let text = rest(stream).unwrap();
    assert!(
        text.ends_with("0\r\n\r\n") && text.contains("[DONE]"),
        "{text}"
    );
    assert_eq!(text.matches("data: {").count(), 200);
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

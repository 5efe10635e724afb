//! `look`: looks at what a container sees and prints `key=value` lines, and `done=1` when it told everything. A probe reads the
//! log; without the last line it takes nothing for absent. Nothing that is looked at is changed, but for the file of `write=`.

use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use crate::{errno, net};

/// Longest wait for a connection or an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest value that is printed, in bytes.
const VALUE_MAX: usize = 1024;

/// One thing to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Release, version and boot id of the kernel.
    Kernel,
    /// Names of all processes.
    Processes,
    /// Kind, root and place of all mounts.
    Mounts,
    /// Names of the network interfaces.
    Interfaces,
    /// Whether a path is there.
    Exists(String),
    /// Whether a path can be opened for reading.
    Open(String),
    /// Whether a file can be written.
    Write(String),
    /// Whether `host:port` takes a connection.
    Connect(String),
    /// Status of an answer to GET `http://host[:port]/path`.
    Http(String),
}

impl Item {
    /// Reads a word of the command line.
    pub(crate) fn parse(word: &str) -> Option<Item> {
        Some(match word.split_once('=') {
            None => match word {
                "kernel" => Item::Kernel,
                "processes" => Item::Processes,
                "mounts" => Item::Mounts,
                "interfaces" => Item::Interfaces,
                _ => return None,
            },
            Some((_, "")) => return None,
            Some((what, value)) => {
                let value = value.to_owned();
                match what {
                    "exists" => Item::Exists(value),
                    "open" => Item::Open(value),
                    "write" => Item::Write(value),
                    "connect" => Item::Connect(value),
                    "http" => Item::Http(value),
                    _ => return None,
                }
            }
        })
    }

    fn tell(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Item::Kernel => {
                for (key, path) in [
                    ("release", "/proc/sys/kernel/osrelease"),
                    ("version", "/proc/version"),
                    ("boot", "/proc/sys/kernel/random/boot_id"),
                ] {
                    let text = fs::read_to_string(path).unwrap_or_default();
                    line(out, &format!("kernel.{key}"), text.trim())?;
                }
                Ok(())
            }
            Item::Processes => each(out, "process", processes()),
            Item::Mounts => {
                let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
                each(out, "mount", text.lines().filter_map(mount))
            }
            Item::Interfaces => {
                let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
                let names = text.lines().skip(2);
                let names =
                    names.filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
                each(out, "interface", names)
            }
            Item::Exists(path) => {
                let answer = match fs::symlink_metadata(path) {
                    Ok(_) => "yes".to_owned(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => "no".to_owned(),
                    Err(error) => errno(&error),
                };
                line(out, &format!("exists.{path}"), &answer)
            }
            Item::Open(path) => line(out, &format!("open.{path}"), &word(fs::File::open(path))),
            Item::Write(path) => line(
                out,
                &format!("write.{path}"),
                &word(fs::write(path, "karat")),
            ),
            Item::Connect(to) => line(
                out,
                &format!("connect.{to}"),
                &word(net::dial(to, PATIENCE)),
            ),
            Item::Http(url) => line(out, &format!("http.{url}"), &status(url)),
        }
    }
}

/// Looks at everything in its order and says `done=1`.
///
/// # Errors
/// The output is closed.
pub(crate) fn look(items: &[Item], out: &mut impl Write) -> io::Result<()> {
    for item in items {
        item.tell(out)?;
    }
    writeln!(out, "done=1")?;
    out.flush()
}

fn each(
    out: &mut impl Write,
    key: &str,
    values: impl IntoIterator<Item = String>,
) -> io::Result<()> {
    for value in values {
        line(out, key, &value)?;
    }
    Ok(())
}

/// One line, whatever is in the value.
fn line(out: &mut impl Write, key: &str, value: &str) -> io::Result<()> {
    let value = &value[..value.floor_char_boundary(VALUE_MAX)];
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let key: String = key.chars().map(plain).collect();
    let value: String = value.chars().map(plain).collect();
    writeln!(out, "{key}={value}")
}

fn processes() -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().bytes().all(|b| b.is_ascii_digit())
    });
    numbers
        .filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok())
        .map(|name| name.trim_end_matches('\n').to_owned())
        .collect()
}

/// Kind, root and place of a line of `mountinfo` (proc(5)): the fourth and fifth word, and the first behind ` - `.
fn mount(line: &str) -> Option<String> {
    let (before, after) = line.split_once(" - ")?;
    let mut words = before.split(' ').skip(3);
    let (root, at) = (words.next()?, words.next()?);
    Some(format!("{} {root} {at}", after.split(' ').next()?))
}

fn word<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => errno(&error),
    }
}

/// The status code that a server answers to a GET.
fn status(url: &str) -> String {
    match net::ask(url, PATIENCE) {
        Ok(Some(status)) => status.to_string(),
        Ok(None) => "no HTTP answer".to_owned(),
        Err(error) => errno(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn told(words: &[&str]) -> String {
        let items: Vec<Item> = words
            .iter()
            .map(|word| Item::parse(word).unwrap())
            .collect();
        let mut out = Vec::new();
        look(&items, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_there_is_told() {
        let text = told(&[
            "kernel",
            "processes",
            "mounts",
            "interfaces",
            "exists=/proc",
            "exists=/no/such",
        ]);
        for part in [
            "kernel.release=",
            "kernel.boot=",
            "process=",
            "mount=proc / /proc",
            "interface=lo",
            "exists./proc=yes",
            "exists./no/such=no",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.ends_with("done=1\n"), "{text}");
    }

    #[test]
    fn errors_have_their_names() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        assert!(told(&[&format!("connect={open}")]).contains("=ok"));
        drop(listener);
        assert!(told(&[&format!("connect={open}")]).contains("=ECONNREFUSED"));
        assert!(told(&["open=/no/such"]).contains("open./no/such=ENOENT"));
        assert!(told(&["write=/proc/no/such"]).contains("=ENOENT"));
    }

    #[test]
    fn the_status_of_an_answer_is_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let text = told(&[&format!("http=http://{address}/v1/models")]);
        assert!(text.contains("/v1/models=404"), "{text}");
        assert!(
            server
                .join()
                .unwrap()
                .starts_with("GET /v1/models HTTP/1.0")
        );
    }

    #[test]
    fn words_that_mean_nothing_are_none() {
        for word in ["", "files", "open=", "=x", "shell=id"] {
            assert_eq!(Item::parse(word), None, "{word}");
        }
        assert_eq!(
            mount("24 1 0:22 / /proc rw,nosuid - proc proc rw").as_deref(),
            Some("proc / /proc")
        );
    }
}

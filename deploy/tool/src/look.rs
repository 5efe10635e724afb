//! `look`: looks at what a container sees and prints `key=value` lines, and `done=1` when it told everything. A probe reads the
//! log; without the last line it takes nothing for absent. Nothing that is looked at is changed, but for the file of `write=`.

use std::fs;
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev, mknodat};

use crate::{errno, net};

/// Longest wait for a connection or an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer is asked for again: names and Services take some time until every node knows them.
const ASKING: Duration = Duration::from_secs(20);
/// Time between two questions.
const PAUSE: Duration = Duration::from_millis(200);
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
    /// Below which mounts a path is, as `/host` for `/etc/fstab` where there is `/host/etc/fstab`.
    Below(String),
    /// Whether a path can be opened for reading.
    Open(String),
    /// Files whose names are a beginning and a number, as `/dev/nvidia0`: number of the device, and whether each opens.
    Devices(String),
    /// What comes of opening a file of a character device that is made for it: `major:minor`.
    Made(u32, u32),
    /// Whether a path can be read, if only one byte. What is masked by an empty file can be opened, too.
    Read(String),
    /// Whether a file can be written.
    Write(String),
    /// Whether `host:port` takes a connection.
    Connect(String),
    /// Status of an answer to GET `http://host[:port]/path`, asked for until there is one.
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
                    "below" => Item::Below(value),
                    "open" => Item::Open(value),
                    "devices" => Item::Devices(value),
                    "made" => {
                        let (major, minor) = value.split_once(':')?;
                        Item::Made(major.parse().ok()?, minor.parse().ok()?)
                    }
                    "read" => Item::Read(value),
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
                let mounts = text.lines().filter_map(mount);
                each(out, "mount", mounts.map(|mount| mount.join(" ")))
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
            Item::Below(path) => {
                let found = below(path);
                let none = found.is_empty().then(|| "none".to_owned());
                each(out, &format!("below.{path}"), found.into_iter().chain(none))
            }
            Item::Open(path) => line(out, &format!("open.{path}"), &word(open(path))),
            Item::Devices(prefix) => {
                let found = match numbered(prefix) {
                    Ok(found) => found,
                    Err(error) => return line(out, &format!("devices.{prefix}"), &errno(&error)),
                };
                for path in &found {
                    let answer = format!("{} {}", number(path), word(open(path)));
                    line(out, &format!("device.{path}"), &answer)?;
                }
                line(out, &format!("devices.{prefix}"), &found.len().to_string())
            }
            Item::Made(major, minor) => {
                let key = format!("made.{major}:{minor}");
                line(out, &key, &made(*major, *minor))
            }
            Item::Read(path) => {
                let read = open(path).and_then(|mut file| file.read(&mut [0]));
                let answer = match read {
                    Ok(0) => "empty".to_owned(),
                    read => word(read),
                };
                line(out, &format!("read.{path}"), &answer)
            }
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
fn mount(line: &str) -> Option<[&str; 3]> {
    let (before, after) = line.split_once(" - ")?;
    let mut words = before.split(' ').skip(3);
    let (root, at) = (words.next()?, words.next()?);
    Some([after.split(' ').next()?, root, at])
}

/// The mounts below which a path is. The root is left out: what is there is asked for by `exists`.
fn below(path: &str) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let places = text.lines().filter_map(mount).map(|[_, _, at]| at);
    let there = |at: &&str| *at != "/" && fs::symlink_metadata(format!("{at}{path}")).is_ok();
    places.filter(there).map(str::to_owned).collect()
}

/// Opens for reading. A terminal, or a pipe without another end, must not hold us.
fn open(path: &str) -> io::Result<fs::File> {
    let flags = OFlags::NONBLOCK.bits() | OFlags::NOCTTY.bits();
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags).unwrap_or(0))
        .open(path)
}

fn word<T>(result: io::Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => errno(&error),
    }
}

/// Files whose names are a beginning and digits, sorted. A folder that is not there has none.
fn numbered(prefix: &str) -> io::Result<Vec<String>> {
    let (folder, begin) = prefix.rsplit_once('/').unwrap_or((".", prefix));
    let entries = match fs::read_dir(format!("{folder}/")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let digits = name.strip_prefix(begin).unwrap_or_default();
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            found.push(format!("{folder}/{name}"));
        }
    }
    found.sort();
    Ok(found)
}

/// Major and minor of a device; `-` for another kind of file.
fn number(path: &str) -> String {
    match fs::metadata(path) {
        Ok(meta) if meta.file_type().is_char_device() => {
            let device = meta.rdev();
            format!(
                "{}:{}",
                rustix::fs::major(device),
                rustix::fs::minor(device)
            )
        }
        _ => "-".to_owned(),
    }
}

/// Makes a file of a device at the root, which no mount option keeps from being opened, tries it, and takes it away.
fn made(major: u32, minor: u32) -> String {
    let path = format!("/karat-made-{major}-{minor}");
    let device = makedev(major, minor);
    let mode = Mode::from_raw_mode(0o600);
    match mknodat(CWD, &path, FileType::CharacterDevice, mode, device) {
        Err(error) => format!("mknod {}", errno(&error.into())),
        Ok(()) => {
            let answer = word(open(&path));
            let _ = fs::remove_file(&path);
            answer
        }
    }
}

/// The status code that a server answers to a GET, or why none did so in time.
fn status(url: &str) -> String {
    let began = Instant::now();
    loop {
        let answer = match net::ask(url, PATIENCE) {
            Ok(Some(status)) => return status.to_string(),
            Ok(None) => "no HTTP answer".to_owned(),
            Err(error) => errno(&error),
        };
        if began.elapsed() > ASKING {
            return answer;
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(told(&["read=/no/such"]).contains("read./no/such=ENOENT"));
        assert!(told(&["write=/proc/no/such"]).contains("=ENOENT"));
    }

    #[test]
    fn what_is_masked_can_be_opened_and_has_nothing_to_read() {
        let text = told(&["open=/dev/null", "read=/dev/null", "read=/dev/zero"]);
        for part in [
            "open./dev/null=ok",
            "read./dev/null=empty",
            "read./dev/zero=ok",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn devices_are_files_with_a_number_behind_a_beginning() {
        let folder = std::env::temp_dir().join(format!("karat-look-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for name in ["x0", "x12", "x", "x1a", "y0"] {
            fs::write(folder.join(name), "").unwrap();
        }
        let begin = format!("{}/x", folder.display());
        let text = told(&[&format!("devices={begin}"), "devices=/no/such/x"]);
        for part in [
            format!("device.{begin}0=- ok\ndevice.{begin}12=- ok\ndevices.{begin}=2\n"),
            "devices./no/such/x=0\n".to_owned(),
        ] {
            assert!(text.contains(&part), "{part}: {text}");
        }
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(number("/dev/null"), "1:3");
    }

    #[test]
    fn paths_are_found_below_mounts() {
        let text = told(&["below=/self/status", "below=/no/such"]);
        assert!(text.contains("below./self/status=/proc\n"), "{text}");
        assert!(text.contains("below./no/such=none\n"), "{text}");
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
        for word in ["", "files", "open=", "=x", "shell=id", "made=1", "made=a:b"] {
            assert_eq!(Item::parse(word), None, "{word}");
        }
        assert_eq!(
            mount("24 1 0:22 / /proc rw,nosuid - proc proc rw"),
            Some(["proc", "/", "/proc"])
        );
    }
}

//! Archives in the ustar format that depend on nothing but their content: no time, no owner, no order of a file system.

/// What an entry is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    Folder,
    File(&'a [u8]),
}

/// One entry; the path has no leading slash and at most 100 bytes.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) content: Content<'a>,
}

const BLOCK: usize = 512;

/// The archive of these entries, in their order.
pub(super) fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let (kind, data) = match entry.content {
            Content::Folder => (b'5', &[][..]),
            Content::File(data) => (b'0', data),
        };
        out.extend_from_slice(&header(&entry.path, entry.mode, kind, data.len()));
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn header(path: &str, mode: u32, kind: u8, size: usize) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, path);
    put(100, &format!("{mode:07o}\0"));
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "00000000000\0");
    // The sum is made with spaces in its own place.
    put(148, "        ");
    put(257, "ustar\x0000");
    block[156] = kind;
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn the_tar_of_the_system_reads_it() {
        let bytes = archive(&[
            Entry {
                path: "bin/".into(),
                mode: 0o755,
                content: Content::Folder,
            },
            Entry {
                path: "bin/a".into(),
                mode: 0o750,
                content: Content::File(&[b'x'; 700]),
            },
        ]);
        assert_eq!(bytes.len(), 2 * 512 + 1024 + 1024);
        let mut tar = Command::new("tar")
            .args(["--list", "--verbose", "--numeric-owner", "--utc"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = tar.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        assert!(
            text.contains("drwxr-xr-x 0/0")
                && text.contains("-rwxr-x--- 0/0")
                && text.contains("700 1970-01-01"),
            "{text}"
        );
    }
}

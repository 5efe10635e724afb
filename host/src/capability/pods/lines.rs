//! Cuts a stream into pieces that can be redacted one by one.
//!
//! A secret is found where it stands whole. Most stand in a line; a private key in PEM has many, and packed text is often
//! wrapped. So three things are held back: a line without its end, a key until its last line, and a line that ends in packed
//! text until one follows that does not. A digest (64 hexadecimal digits) is no such end: logs are full of them.

/// Most bytes that are held back.
pub(super) const HELD_MAX: usize = 256 << 10;
/// A run of letters of packed text that is as long may go on in the next line: `base64` and PEM wrap at 64 and 76, `xxd` at 60.
const PACKED_MIN: usize = 60;
/// Hexadecimal digits of a SHA-256.
const DIGEST: usize = 64;

/// What has to be held back is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// What came of a stream and was not taken.
#[derive(Debug, Default)]
pub(super) struct Lines {
    raw: Vec<u8>,
    /// Up to here pieces are whole.
    whole: usize,
    /// Up to here lines were looked at.
    looked: usize,
    /// Up to here there is no end of a line.
    searched: usize,
    held: Held,
}

/// Why the last whole lines are held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Held {
    #[default]
    No,
    /// Inside a PEM block.
    Key,
    /// Behind a line that may go on.
    Packed,
}

impl Lines {
    /// Bytes that were not taken.
    pub(super) fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether there is a whole piece.
    pub(super) fn has_whole(&self) -> bool {
        self.whole > 0
    }

    /// Adds what came.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.raw.extend_from_slice(bytes);
        while let Some(length) = self.raw[self.searched..].iter().position(|b| *b == b'\n') {
            let end = self.searched + length + 1;
            self.held = after(self.held, &self.raw[self.looked..end]);
            if self.held == Held::No {
                self.whole = end;
            }
            self.looked = end;
            self.searched = end;
        }
        self.searched = self.raw.len();
        if self.raw.len() - self.whole > HELD_MAX {
            return Err(TooLong);
        }
        Ok(())
    }

    /// Nothing follows: what is there is whole.
    pub(super) fn finish(&mut self) {
        self.whole = self.raw.len();
        self.looked = self.whole;
        self.searched = self.whole;
        self.held = Held::No;
    }

    /// Something is missing: drops what is not whole.
    pub(super) fn abandon(&mut self) {
        self.raw.truncate(self.whole);
        self.finish();
    }

    /// Takes the whole pieces.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let rest = self.raw.split_off(self.whole);
        self.looked -= self.whole;
        self.searched -= self.whole;
        self.whole = 0;
        std::mem::replace(&mut self.raw, rest)
    }
}

/// What has to be held back when this line has come.
fn after(held: Held, line: &[u8]) -> Held {
    let find = |what: &[u8]| line.windows(what.len()).rposition(|window| window == what);
    let (begin, end) = (find(b"-----BEGIN "), find(b"-----END "));
    let inside = match (begin, end) {
        (None, None) => held == Held::Key,
        (begin, end) => begin > end,
    };
    if inside {
        Held::Key
    } else if ends_packed(line) {
        Held::Packed
    } else {
        Held::No
    }
}

/// Whether a line ends in a run of packed text that may go on.
fn ends_packed(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    let is_packed = |b: &&u8| b.is_ascii_alphanumeric() || b"+/=_-".contains(b);
    let run = line.iter().rev().take_while(is_packed).count();
    let tail = &line[line.len() - run..];
    run >= PACKED_MIN && !(run == DIGEST && tail.iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_waits_for_its_end_wherever_it_is_cut() {
        let whole = "first=1\nsecond=2\n";
        for at in 0..whole.len() {
            let mut lines = Lines::default();
            lines.push(&whole.as_bytes()[..at]).unwrap();
            let before = text(lines.take());
            assert!(before.is_empty() || before.ends_with('\n'), "{before:?}");
            lines.push(&whole.as_bytes()[at..]).unwrap();
            assert_eq!(before + &text(lines.take()), whole);
            assert!(!lines.has_whole() && lines.len() == 0);
        }
    }

    #[test]
    fn a_key_comes_as_a_whole_or_not_at_all() {
        let mut lines = Lines::default();
        lines.push(b"go\n-----BEGIN PRIVATE KEY-----\n").unwrap();
        assert_eq!(text(lines.take()), "go\n");
        lines.push(b"QUJD\nREVG\n").unwrap();
        assert!(!lines.has_whole());
        lines.push(b"-----END PRIVATE KEY-----\nnext").unwrap();
        let key = text(lines.take());
        assert!(
            key.starts_with("-----BEGIN") && key.ends_with("KEY-----\n"),
            "{key}"
        );

        lines
            .push(b" line\n-----BEGIN PRIVATE KEY-----\nQUJD\n")
            .unwrap();
        assert_eq!(text(lines.take()), "next line\n");
        lines.abandon();
        assert_eq!(lines.len(), 0, "half a key is dropped");
        // One line may hold a whole one.
        lines.push(b"-----BEGIN X-----A-----END X-----\n").unwrap();
        assert!(lines.has_whole());
    }

    #[test]
    fn wrapped_text_comes_together_and_a_digest_does_not_wait() {
        let row = "QUJD".repeat(16);
        let mut lines = Lines::default();
        lines.push(format!("token: {row}\n").as_bytes()).unwrap();
        assert!(!lines.has_whole());
        lines.push(format!("{row}\n").as_bytes()).unwrap();
        assert!(!lines.has_whole());
        lines.push(b"QQ==\n").unwrap();
        assert_eq!(text(lines.take()).lines().count(), 3);
        lines
            .push(format!("pulled sha256:{}\n", "0a".repeat(32)).as_bytes())
            .unwrap();
        assert!(lines.has_whole());
    }

    #[test]
    fn the_end_frees_what_is_held_and_a_flood_does_not() {
        let mut lines = Lines::default();
        lines.push(b"no end").unwrap();
        assert!(!lines.has_whole());
        lines.finish();
        assert_eq!(text(lines.take()), "no end");
        let flood = vec![b'x'; HELD_MAX];
        lines.push(&flood).unwrap();
        assert_eq!(lines.push(b"x"), Err(TooLong));
    }
}

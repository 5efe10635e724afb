//! Numbers, times and lines for people, the same in every report and on the terminal. Harmless text only; see [`super::text`].

/// Columns a text takes on a terminal.
pub fn width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// Breaks text at spaces into lines of at most `columns`; a longer word stays whole.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().map_or(0, |line| width(line));
        let fits = line == 0 || line + 1 + width(word) <= columns;
        if !fits {
            lines.push(String::new());
        }
        if let Some(last) = lines.last_mut() {
            if fits && line > 0 {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

/// Time for people: `34 ms`, `1.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`.
pub fn duration_ms(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms} ms"),
        1..10 => format!("{}.{} s", seconds, ms % 1000 / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// As [`duration_ms`].
pub fn duration(time: std::time::Duration) -> String {
    duration_ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Bytes for people, in powers of 1024: `640 B`, `94 KiB`, `1.5 MiB`.
pub fn bytes(count: u64) -> String {
    let scaled = |shift: u32, unit: &str| {
        let whole = count >> shift;
        let tenth = ((count & ((1 << shift) - 1)) * 10) >> shift;
        if whole < 10 {
            format!("{whole}.{tenth} {unit}")
        } else {
            format!("{whole} {unit}")
        }
    };
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => scaled(10, "KiB"),
        1_048_576..1_073_741_824 => scaled(20, "MiB"),
        _ => scaled(30, "GiB"),
    }
}

/// A number and its noun: `1 probe`, `2 probes`.
pub fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

/// Sequence numbers: `1-3, 7`.
pub fn ranges(numbers: &[u64]) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut rest = numbers.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|next| Some(*next) == last.checked_add(1)) {
            last = next;
        }
        out.push(if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        });
    }
    out.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_wraps_at_words() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("longer-than-that x", 5), ["longer-than-that", "x"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(duration_ms(0), "0 ms");
        assert_eq!(duration_ms(999), "999 ms");
        assert_eq!(duration_ms(9_950), "9.9 s");
        assert_eq!(duration_ms(59_999), "59 s");
        assert_eq!(duration_ms(125_000), "2 min 05 s");
        assert_eq!(duration_ms(7_800_000), "2 h 10 min");
        assert_eq!(bytes(640), "640 B");
        assert_eq!(bytes(96_300), "94 KiB");
        assert_eq!(bytes(1_572_864), "1.5 MiB");
        assert_eq!(bytes(64 << 20), "64 MiB");
        assert_eq!(counted(1, "probe"), "1 probe");
        assert_eq!(counted(0, "probe"), "0 probes");
    }
    #[test]
    fn calls_are_ranges() {
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), "1-3, 7, 9-10");
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[u64::MAX]), u64::MAX.to_string());
    }
}

//! Kubernetes' quantities, read without floating point: `250m`, `32`, `1.5`, `512Mi`, `2e3`. The SDK reads them the same way.

/// The value in thousandths, rounded up; none for what is no quantity or does not fit.
pub(in crate::lease) fn milli(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 9 {
        return None;
    }
    let mut value = format!("0{whole}{fraction}").parse::<u128>().ok()?;
    let mut below = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let (binary, decimal) = match suffix {
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "" => (0, 0),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => (0, suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?),
    };
    let power = |exponent: u32| 10u128.checked_pow(exponent);
    value = value.checked_mul(1000)?.checked_mul(1 << binary)?;
    if decimal < 0 {
        below = below.checked_mul(power(decimal.unsigned_abs())?)?;
    } else {
        value = value.checked_mul(power(decimal.unsigned_abs())?)?;
    }
    u64::try_from(value.div_ceil(below)).ok()
}

#[cfg(test)]
mod tests {
    use super::milli;

    #[test]
    fn quantities_of_every_form() {
        for (text, thousandths) in [
            ("0", Some(0)),
            ("250m", Some(250)),
            ("32", Some(32_000)),
            ("1.5", Some(1500)),
            (".5", Some(500)),
            ("100n", Some(1)),
            ("2e3", Some(2_000_000)),
            ("1Ki", Some(1_024_000)),
            ("256Gi", Some(256 * 1024 * 1024 * 1024 * 1000)),
            ("", None),
            (".", None),
            ("-1", None),
            ("1.2.3", None),
            ("1x", None),
            ("99999999999999999999E", None),
        ] {
            assert_eq!(milli(text), thousandths, "{text}");
        }
    }
}

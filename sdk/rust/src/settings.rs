//! The operator's settings for this probe, as the manifest declares them.
//!
//! The build makes a constant of each setting, with its type, so that a wrong key or type does not compile.

use crate::error::{Error, Result};
use crate::host;
use std::marker::PhantomData;
use std::time::Duration;

/// A setting of the manifest.
#[derive(Clone, Copy, Debug)]
pub struct Setting<T> {
    key: &'static str,
    value: PhantomData<T>,
}

/// A type that a setting can have.
pub trait SettingValue: Sized {
    /// Reads the text; none when it has another form.
    fn parse(text: &str) -> Option<Self>;
}

/// A reference to a secret, which only the host can turn into its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRef(pub String);

impl SettingValue for String {
    fn parse(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl SettingValue for SecretRef {
    fn parse(text: &str) -> Option<Self> {
        Some(SecretRef(text.to_owned()))
    }
}

impl SettingValue for bool {
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl SettingValue for i64 {
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl SettingValue for Duration {
    /// Numbers with units, largest first: `250ms`, `90s`, `1h30m`.
    fn parse(text: &str) -> Option<Self> {
        const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
        let mut rest = text;
        let mut next_unit = 0;
        let mut total = 0u64;
        while next_unit == 0 || !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let (number, after) = rest.split_at(digits);
            let letters = after
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let at = UNITS.iter().position(|(name, _)| *name == unit)?;
            if at < next_unit {
                return None;
            }
            next_unit = at + 1;
            total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(UNITS[at].1)?)?;
            rest = after;
        }
        Some(Duration::from_millis(total))
    }
}

impl<T: SettingValue> Setting<T> {
    #[doc(hidden)]
    pub const fn from_manifest(key: &'static str) -> Self {
        Setting {
            key,
            value: PhantomData,
        }
    }

    /// The value, or the manifest's default; none without either.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the text is no value of this type. The host checks it before the run, so this means that
    /// host and probe disagree about the form.
    pub fn get(&self) -> Result<Option<T>> {
        host::setting(self.key)
            .map(|text| {
                T::parse(&text).ok_or_else(|| {
                    Error::Malformed(format!(
                        "setting `{}` has the value `{text}`, which its type does not allow",
                        self.key
                    ))
                })
            })
            .transpose()
    }

    /// The value, or `default` when neither operator nor manifest gives one.
    ///
    /// # Errors
    /// As [`Setting::get`].
    pub fn get_or(&self, default: T) -> Result<T> {
        Ok(self.get()?.unwrap_or(default))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        let read = |text| <Duration as SettingValue>::parse(text);
        assert_eq!(read("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(read("90s"), Some(Duration::from_secs(90)));
        assert_eq!(read("5m"), Some(Duration::from_secs(300)));
        assert_eq!(read("1h30m"), Some(Duration::from_secs(5400)));
        for wrong in [
            "",
            "5",
            "s",
            "-1s",
            "1.5s",
            "5 m",
            "5s5m",
            "5s5s",
            "5sx",
            "99999999999999999999h",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}

//! Selectors in Kubernetes' own syntax, written without commas in the wrong place.

use std::fmt;

/// A label or field selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<String>);

impl Selector {
    /// Matches everything.
    pub fn new() -> Self {
        Selector::default()
    }

    /// Only objects of this run.
    pub fn of_this_run() -> Self {
        Selector::new().equals("karat.internal/run", &crate::run::id())
    }

    /// The key has this value.
    #[must_use]
    pub fn equals(mut self, key: &str, value: &str) -> Self {
        self.0.push(format!("{key}={value}"));
        self
    }

    /// The key is missing or has another value.
    #[must_use]
    pub fn differs(mut self, key: &str, value: &str) -> Self {
        self.0.push(format!("{key}!={value}"));
        self
    }

    /// The key has one of these values. Labels only.
    #[must_use]
    pub fn one_of(mut self, key: &str, values: &[&str]) -> Self {
        self.0.push(format!("{key} in ({})", values.join(",")));
        self
    }

    /// The key is there. Labels only.
    #[must_use]
    pub fn exists(mut self, key: &str) -> Self {
        self.0.push(key.to_owned());
        self
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_joined() {
        let selector = Selector::new()
            .equals("a", "b")
            .differs("c", "d")
            .one_of("e", &["f", "g"])
            .exists("h");
        assert_eq!(selector.to_string(), "a=b,c!=d,e in (f,g),h");
    }
}

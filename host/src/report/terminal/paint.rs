//! Colours of a terminal, by what they mean.

/// What a colour stands for. No meaning is carried by colour alone: the word is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Plain,
    /// Passed.
    Good,
    /// Failed, or an error.
    Bad,
    /// Could not tell, or a warning.
    Unsure,
    /// A heading or a name.
    Strong,
    /// Of less interest.
    Faint,
}

/// Whether colours are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Plain text.
    Never,
    /// ANSI colours.
    Ansi,
}

impl Paint {
    /// The text in a style.
    pub fn paint(self, style: Style, text: &str) -> String {
        let code = match (self, style) {
            (Paint::Never, _) | (_, Style::Plain) => return text.to_owned(),
            (_, Style::Good) => "32",
            (_, Style::Bad) => "1;31",
            (_, Style::Unsure) => "33",
            (_, Style::Strong) => "1",
            (_, Style::Faint) => "2",
        };
        if text.is_empty() {
            return String::new();
        }
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

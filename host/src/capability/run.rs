//! Who we are in this run: names, namespaces and images.

use super::{address::malformed, text};
use crate::gate::{Answer, Call, Content, Door};
use crate::recording::format::Failure;
use serde_json::json;

/// Longest prefix that [`name`] keeps.
const PREFIX_MAX: usize = 40;

/// The run id.
///
/// # Errors
/// The attempt is over.
pub fn id(door: &Door) -> Result<String, Failure> {
    let call = Call::new("run.id", json!({})).always();
    let reply = door.local(call, |live| Ok(Answer::own(Content::Own(live.run.clone()))));
    text("run.id", reply)
}

/// A name for an object of this run: `<prefix>-<run id>`. A prefix that is no DNS label is reduced to one.
///
/// # Errors
/// The attempt is over.
pub fn name(door: &Door, prefix: &str) -> Result<String, Failure> {
    let prefix = label(prefix);
    let call = Call::new("run.name", json!({"prefix": prefix})).always();
    let reply = door.local(call, |live| {
        let name = format!("{prefix}-{}", live.run);
        Ok(Answer::own(Content::Own(name)))
    });
    text("run.name", reply)
}

/// The sandbox namespace under an alias of the manifest.
///
/// # Errors
/// The manifest has no such alias.
pub fn namespace(door: &Door, alias: &str) -> Result<String, Failure> {
    declared(door, "run.namespace", "alias", alias)
}

/// The image under a name of the manifest, by digest, after the operator's mirrors.
///
/// # Errors
/// The manifest has no such image.
pub fn image(door: &Door, name: &str) -> Result<String, Failure> {
    declared(door, "run.image", "name", name)
}

fn declared(door: &Door, function: &'static str, key: &str, word: &str) -> Result<String, Failure> {
    let call = Call::new(function, json!({key: word}));
    if word.len() > 253 {
        let failure = malformed(key, word, "is longer than 253 bytes");
        return text(function, door.refuse(call, failure));
    }
    let reply = door.local(call, |live| {
        let (table, section) = if key == "alias" {
            (&live.namespaces, "namespace")
        } else {
            (&live.images, "image")
        };
        match table.get(word) {
            Some(value) => Ok(Answer::own(Content::Own(value.clone()))),
            None => Err(Failure::Refused(format!(
                "probe.toml declares no {section} {word:?}; add it: [[{section}s]] {key} = {word:?}"
            ))
            .into()),
        }
    });
    text(function, reply)
}

/// The nearest DNS label: other characters become `-`, too long ones are cut, none at all becomes `x`.
fn label(prefix: &str) -> String {
    let text: String = prefix
        .chars()
        .take(PREFIX_MAX)
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => c,
            _ => '-',
        })
        .collect();
    let text = text.trim_matches('-');
    match text.as_bytes().first() {
        None => "x".to_owned(),
        // Names of services must begin with a letter.
        Some(first) if first.is_ascii_digit() => {
            let cut: String = text.chars().take(PREFIX_MAX - 1).collect();
            format!("x{}", cut.trim_end_matches('-'))
        }
        Some(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::testing::Rig;

    #[test]
    fn any_prefix_becomes_a_label() {
        for (given, wanted) in [
            ("echo", "echo"),
            ("Echo_1", "echo-1"),
            ("--a--", "a"),
            ("", "x"),
            ("../..", "x"),
            ("9lives", "x9lives"),
            ("ä", "x"),
        ] {
            assert_eq!(label(given), wanted);
        }
        assert_eq!(label(&"a".repeat(300)).len(), 40);
        assert_eq!(label(&"9".repeat(300)).len(), 40);
    }

    #[tokio::test]
    async fn names_come_from_the_run_and_unknown_ones_say_what_to_add() {
        let mut rig = Rig::new("");
        assert_eq!(id(&rig.door).unwrap(), "abcdefgh");
        assert_eq!(name(&rig.door, "echo").unwrap(), "echo-abcdefgh");
        assert_eq!(
            namespace(&rig.door, "main").unwrap(),
            "karat-abcdefgh-demo-main"
        );
        let Err(Failure::Refused(text)) = image(&rig.door, "tool") else {
            panic!("an undeclared image was given");
        };
        assert!(text.contains("[[images]] name = \"tool\""), "{text}");
        assert!(matches!(
            namespace(&rig.door, &"a".repeat(300)),
            Err(Failure::Malformed(_))
        ));
        let replay = rig.replay();
        assert_eq!(name(&replay, "Echo").unwrap_err(), Failure::Stopping);
        assert!(replay.finish_replay().unwrap_err().contains("run.id"));
    }
}

//! Which RuntimeClass is a sandbox, by its words. They only choose: what it is worth is decided by what its pods see.

use crate::manifest::settings;
use karat_sdk::{Case, Conclusion, Query, Result};

/// Words of names and handlers of sandboxes.
const WORDS: [&str; 7] = [
    "gvisor",
    "runsc",
    "kata",
    "sandboxed",
    "quark",
    "krun",
    "firecracker",
];

/// A RuntimeClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) name: String,
    pub(crate) handler: String,
}

impl Class {
    fn speaks_of_a_sandbox(&self) -> bool {
        let text = format!("{} {}", self.name, self.handler).to_ascii_lowercase();
        WORDS.iter().any(|word| text.contains(word))
    }
}

/// The class of the setting, or the first that speaks of a sandbox.
pub(crate) fn find(case: &Case, found: &mut Option<Class>) -> Result<Conclusion> {
    let mut classes: Vec<Class> = Query::new("node.k8s.io/v1", "runtimeclasses")
        .keep(&["/handler"])
        .list()?
        .iter()
        .map(|class| Class {
            name: class.name().to_owned(),
            handler: class.text("/handler").to_owned(),
        })
        .collect();
    classes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    case.observe("RuntimeClasses", classes.len());
    let wanted = settings::RUNTIME_CLASS.get_or(String::new())?;
    let chosen = classes.iter().find(|class| {
        if wanted.is_empty() {
            class.speaks_of_a_sandbox()
        } else {
            class.name == wanted
        }
    });
    let Some(chosen) = chosen else {
        let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
        return Ok(Conclusion::fail(if wanted.is_empty() {
            format!(
                "no RuntimeClass speaks of a sandbox (there are: {}); install one such as gVisor or Kata Containers, or name yours by the setting runtime-class",
                if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                }
            )
        } else {
            format!("there is no RuntimeClass `{wanted}`, which the setting runtime-class names")
        }));
    };
    case.observe("RuntimeClass", &chosen.name);
    case.observe("handler", &chosen.handler);
    *found = Some(chosen.clone());
    Ok(Conclusion::Pass)
}

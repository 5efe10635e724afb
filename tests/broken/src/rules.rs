//! Rules of the proxy before the API server, as data. What each does is the business of [`karat_testbed::proxy`].

use anyhow::{Result, ensure};
use karat_testbed::proxy::Rule;
use serde::Deserialize;
use serde_json::Value;

use crate::edit::{Edit, apply_all};
use crate::words::{Pattern, Time};

/// Which requests, and what happens to them. The first rule that fits a request decides.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RuleData {
    /// `GET`, `POST`, …; any if it is missing.
    #[serde(default)]
    pub method: Option<Method>,
    /// Occurs in the path (without the query).
    pub path: Pattern,
    /// Occurs in the query, as in `watch=(1|true)`.
    #[serde(default)]
    pub query: Option<Pattern>,
    /// Only the first so many requests.
    #[serde(default)]
    pub times: Option<u32>,
    /// Not the first so many of them.
    #[serde(default)]
    pub skip: Option<u32>,
    /// Wait first. The only one that may stand beside another action.
    #[serde(default)]
    pub delay: Option<Time>,
    /// Pretend success; nothing happens.
    #[serde(default)]
    pub swallow: bool,
    /// Close the connection without an answer.
    #[serde(default)]
    pub disconnect: bool,
    /// Forward, so that it takes effect, and close the connection without an answer.
    #[serde(default)]
    pub disconnect_after: bool,
    /// Close the connection after so many bytes of the answer.
    #[serde(default)]
    pub cut_after: Option<usize>,
    /// Answer with an error.
    #[serde(default)]
    pub fail: Option<Failure>,
    /// Answer with this.
    #[serde(default)]
    pub answer: Option<Answer>,
    /// Forward without this parameter.
    #[serde(default)]
    pub drop_parameter: Option<String>,
    /// Forward with this parameter set.
    #[serde(default)]
    pub set_parameter: Option<Parameter>,
    /// Change the body of the request.
    #[serde(default)]
    pub requests: Vec<Edit>,
    /// Change every object of the answer, be it alone, in a list or in a watch.
    #[serde(default)]
    pub objects: Vec<Edit>,
    /// Change the whole answer; in a watch each event (`type` and `object`).
    #[serde(default)]
    pub answers: Vec<Edit>,
}

/// A parameter of a query.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// An HTTP method.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the words of HTTP")]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// An error as the API server gives it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// HTTP status.
    pub code: u16,
    /// Reason of the `Status` object.
    pub reason: String,
    /// Its message.
    pub message: String,
}

/// An answer of any form.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Value,
}

impl RuleData {
    /// The rule.
    ///
    /// # Errors
    /// If it does nothing, or two things.
    pub fn rule(&self) -> Result<Rule> {
        let path = self.path.as_str();
        let edits = [&self.requests, &self.objects, &self.answers];
        let actions = [
            self.swallow,
            self.disconnect,
            self.disconnect_after,
            self.cut_after.is_some(),
            self.fail.is_some(),
            self.answer.is_some(),
            self.drop_parameter.is_some(),
            self.set_parameter.is_some(),
        ];
        let actions = actions.into_iter().filter(|on| *on).count()
            + edits.iter().filter(|edits| !edits.is_empty()).count();
        ensure!(
            actions <= 1,
            "rule for {path}: {actions} actions; write one rule for each, in proxies of their own if one request needs both"
        );
        ensure!(
            actions == 1 || self.delay.is_some(),
            "rule for {path}: does nothing; it needs an action or a delay"
        );
        ensure!(
            edits
                .iter()
                .flat_map(|e| e.iter())
                .all(Edit::does_something),
            "rule for {path}: a change that changes nothing"
        );
        let codes = self.fail.iter().map(|f| f.code);
        for code in codes.chain(self.answer.iter().map(|a| a.status)) {
            ensure!((200..600).contains(&code), "rule for {path}: status {code}");
        }
        let mut rule = Rule::on(self.method.map_or("*", Method::word), path);
        if let Some(query) = &self.query {
            rule = rule.query(query.as_str());
        }
        if let Some(times) = self.times {
            rule = rule.times(times);
        }
        if let Some(skip) = self.skip {
            rule = rule.skip(skip);
        }
        if let Some(delay) = self.delay {
            rule = rule.delay(delay.0);
        }
        Ok(self.act(rule))
    }

    fn act(&self, rule: Rule) -> Rule {
        let edit = |edits: &[Edit]| {
            let edits = edits.to_vec();
            move |value: &mut Value| apply_all(&edits, value)
        };
        if self.swallow {
            rule.swallow()
        } else if self.disconnect {
            rule.disconnect()
        } else if self.disconnect_after {
            rule.disconnect_after()
        } else if let Some(bytes) = self.cut_after {
            rule.cut_after(bytes)
        } else if let Some(f) = &self.fail {
            rule.fail(f.code, &f.reason, &f.message)
        } else if let Some(a) = &self.answer {
            rule.answer(a.status, a.body.clone())
        } else if let Some(name) = &self.drop_parameter {
            rule.drop_parameter(name)
        } else if let Some(p) = &self.set_parameter {
            rule.set_parameter(&p.name, &p.value)
        } else if !self.requests.is_empty() {
            let edit = edit(&self.requests);
            rule.rewrite_request(move |value| {
                edit(value);
            })
        } else if !self.objects.is_empty() {
            rule.rewrite_objects(edit(&self.objects))
        } else if !self.answers.is_empty() {
            let edit = edit(&self.answers);
            rule.rewrite(move |value| {
                edit(value);
            })
        } else {
            rule
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(yaml: &str) -> Result<Rule> {
        serde_yaml_ng::from_str::<RuleData>(yaml)?.rule()
    }

    #[test]
    fn a_rule_does_exactly_one_thing() {
        for fine in [
            "{path: ^/, delay: 300ms}",
            "{method: DELETE, path: ^/, times: 4, swallow: true, delay: 1s}",
            "{path: ^/, fail: {code: 503, reason: X, message: y}}",
            "{path: ^/, objects: [{hide: true}]}",
        ] {
            rule(fine).unwrap();
        }
        for (wrong, part) in [
            ("{path: ^/}", "does nothing"),
            ("{path: ^/, swallow: true, disconnect: true}", "2 actions"),
            ("{path: ^/, objects: [{where: {/a: 1}}]}", "changes nothing"),
            ("{path: ^/, answer: {status: 20, body: {}}}", "status 20"),
            ("{path: (, swallow: true}", "expression"),
            ("{method: GETT, path: ^/, swallow: true}", "unknown variant"),
            ("{path: ^/, swallows: true}", "unknown field"),
        ] {
            let error = format!("{:#}", rule(wrong).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }
}

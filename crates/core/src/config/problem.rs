//! What is wrong with a configuration, and where.

use crate::model::cause::{Cause, Failure, printable};
use crate::model::secret::redact;
use std::fmt;
use std::rc::Rc;

/// Where a key or value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A file's path, `user-data`, an environment variable, `built-in defaults`.
    pub source: Rc<str>,
    /// Line, from 1; 0 when the source has no lines.
    pub line: usize,
    /// Column in characters, from 1; 0 when the source has no lines.
    pub column: usize,
}

impl Place {
    /// A whole source.
    pub fn whole(source: &str) -> Self {
        Place { source: source.into(), line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.source),
            line => write!(f, "{}:{line}:{}", self.source, self.column),
        }
    }
}

/// One mistake in the configuration, in the form of a compiler's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where; `None` for what is missing everywhere.
    pub place: Option<Place>,
    /// What is wrong. Anything that has the form of a secret is masked.
    pub message: String,
    /// What to write instead, when that can be said.
    pub suggestion: Option<String>,
}

impl Problem {
    /// A problem at a place.
    pub fn at(place: &Place, message: impl AsRef<str>) -> Self {
        Problem { place: Some(place.clone()), message: said(message.as_ref()), suggestion: None }
    }

    /// Something that no layer says.
    pub fn missing(message: impl Into<String>) -> Self {
        Problem { place: None, message: message.into(), suggestion: None }
    }

    /// The same problem with a suggestion.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl AsRef<str>) -> Self {
        self.suggestion = Some(said(suggestion.as_ref()));
        self
    }
}

/// For a terminal, and without secrets: problems quote what was written.
fn said(text: &str) -> String {
    redact(&printable(text.to_owned()))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

/// All problems as one failure with the cause `Configuration`; every problem is in the text, one a line.
pub fn failure(problems: &[Problem]) -> Failure {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    let detail = match lines.as_slice() {
        [one] => one.clone(),
        many => format!("{} problems:\n  {}\n ", many.len(), many.join("\n  ")),
    };
    Failure::new(Cause::Configuration, "load the configuration", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_read_like_a_compilers_messages() {
        let place = Place { source: "/etc/kubestrap/config.yaml".into(), line: 3, column: 5 };
        let problem = Problem::at(&place, "unknown key \"rol\"").suggest("did you mean \"role\"?");
        assert_eq!(problem.to_string(), "/etc/kubestrap/config.yaml:3:5: unknown key \"rol\"; did you mean \"role\"?");
        let variable = Problem::at(&Place::whole("KUBESTRAP_ROLE"), "no");
        assert_eq!(variable.to_string(), "KUBESTRAP_ROLE: no");
        let both = failure(&[problem, variable]);
        assert_eq!(both.cause, Cause::Configuration);
        assert!(both.detail.contains("2 problems") && both.detail.contains("KUBESTRAP_ROLE: no"), "{both}");
    }

    #[test]
    fn a_token_in_a_wrong_place_is_not_repeated() {
        let problem = Problem::at(&Place::whole("x"), "\"abcdef.0123456789abcdef\" is not a role");
        assert!(!problem.to_string().contains("0123456789abcdef"), "{problem}");
    }
}

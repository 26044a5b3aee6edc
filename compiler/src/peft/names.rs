//! Which parameters or modules a pattern means.

use crate::tensor::ParamLayout;
use regex::Regex;
use serde::{Deserialize, Serialize};

/// Names that are meant: of parameters, or of the modules that they belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Patterns {
    /// The regular expression of a whole name.
    Regex(String),
    /// Several names.
    List(Vec<String>),
}

impl Patterns {
    /// Whether a module is meant, as PEFT reads `target_modules`: a name of a list is a module's own or the end of it, behind a dot.
    pub fn means(&self, module: &str) -> bool {
        match self {
            Self::Regex(pattern) => whole(pattern).is_ok_and(|regex| regex.is_match(module)),
            Self::List(names) => names.iter().any(|name| is_end(name, module)),
        }
    }
}

/// Whether a name is a module's own or the end of it, behind a dot.
fn is_end(name: &str, module: &str) -> bool {
    module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// A pattern that means nothing, or cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; the model has {}", names.join(", "))]
pub struct NameError {
    /// Which pattern, and what is wrong with it.
    problem: String,
    /// Names that there are, those of the layers once.
    names: Vec<String>,
}

impl NameError {
    /// What is wrong, for a model that has these names.
    pub fn new<'a>(problem: impl Into<String>, names: impl IntoIterator<Item = &'a str>) -> Self {
        Self { problem: problem.into(), names: open_names(names) }
    }
}

/// The regular expression that a whole name must match.
///
/// # Errors
/// What is wrong with it.
pub fn whole(pattern: &str) -> Result<Regex, String> {
    Regex::new(&format!("^(?:{pattern})$")).map_err(|error| format!("`{pattern}` is no regular expression ({error})"))
}

/// What `target_modules` says where every product but the output head is meant.
pub const ALL_LINEAR: &str = "all-linear";

/// Which of the modules `patterns` mean ([`Patterns::means`]), one answer each.
///
/// # Errors
/// [`NameError`] where a pattern means none.
pub fn matching_modules(patterns: &Patterns, modules: &[&str]) -> Result<Vec<bool>, NameError> {
    let idle = |pattern: &str| {
        let problem = format!("`{pattern}` matches no module that could be adapted");
        NameError::new(problem, modules.iter().copied())
    };
    let shown = match patterns {
        Patterns::Regex(pattern) => {
            whole(pattern).map_err(|problem| NameError::new(problem, modules.iter().copied()))?;
            pattern
        }
        Patterns::List(names) => {
            if let Some(name) = names.iter().find(|name| !modules.iter().any(|module| is_end(name, module))) {
                return Err(idle(name));
            }
            ""
        }
    };
    let is_meant: Vec<bool> = modules.iter().map(|module| patterns.means(module)).collect();
    if is_meant.contains(&true) { Ok(is_meant) } else { Err(idle(shown)) }
}

/// Whether a module's name, or its end behind a dot, is what a regular expression says; never where that is none.
pub fn ends_like(pattern: &str, module: &str) -> bool {
    whole(&format!("(?:.*\\.)?(?:{pattern})")).is_ok_and(|regex| regex.is_match(module))
}

/// Which of a layout's parameters `patterns` mean, one answer each; in a list, `*` stands for any characters.
///
/// # Errors
/// [`NameError`] where a pattern means none.
pub fn matching_params(patterns: &Patterns, layout: &ParamLayout) -> Result<Vec<bool>, NameError> {
    let names = || layout.specs().iter().map(|spec| spec.name.as_str());
    let idle = |pattern: &str| NameError::new(format!("`{pattern}` matches no parameter"), names());
    match patterns {
        Patterns::Regex(pattern) => {
            let regex = whole(pattern).map_err(|problem| NameError::new(problem, names()))?;
            let is_meant: Vec<bool> = names().map(|name| regex.is_match(name)).collect();
            if is_meant.contains(&true) { Ok(is_meant) } else { Err(idle(pattern)) }
        }
        Patterns::List(patterns) => {
            if patterns.is_empty() {
                return Err(NameError::new("no name is given", names()));
            }
            match patterns.iter().find(|pattern| !names().any(|name| glob_matches(pattern, name))) {
                Some(pattern) => Err(idle(pattern)),
                None => Ok(names().map(|name| patterns.iter().any(|pattern| glob_matches(pattern, name))).collect()),
            }
        }
    }
}

/// Whether a name is what a pattern says, `*` standing for any characters, even none.
pub fn glob_matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(start) else { return false };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let end = pieces.pop().unwrap_or("");
    for piece in pieces {
        // The first place that fits leaves the most to the pieces that follow.
        let Some(at) = name.find(piece) else { return false };
        name = &name[at + piece.len()..];
    }
    name.ends_with(end)
}

/// Names with the layers' numbers left open, each once.
pub fn open_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut opened: Vec<String> = Vec::new();
    for name in names {
        let open = |part: &str| if part.parse::<usize>().is_ok() { "*".to_owned() } else { part.to_owned() };
        let name = name.split('.').map(open).collect::<Vec<_>>().join(".");
        if !opened.contains(&name) {
            opened.push(name);
        }
    }
    opened
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, want) in [
            ("a.b", "a.b", true),
            ("a", "a.b", false),
            ("a*", "a", true),
            ("*b", "a.b", true),
            ("a*a", "a", false),
            ("*norm*", "x.norm.y", true),
            ("*.a.*.b", "x.a.a.y.b", true),
            ("*ab*ab", "xab", false),
            ("*", "", true),
        ] {
            assert_eq!(glob_matches(pattern, name), want, "{pattern} and {name}");
        }
    }

    #[test]
    fn modules_are_named_as_peft_names_them() {
        let modules = ["a.q_proj", "a.v_proj", "b.q_proj", "b.xq_proj", "head"];
        let list = |names: &[&str]| Patterns::List(names.iter().map(|name| (*name).to_owned()).collect());
        let matching = |patterns: Patterns| matching_modules(&patterns, &modules).map_err(|error| error.to_string());
        assert_eq!(matching(list(&["q_proj", "head"])).unwrap(), [true, false, true, false, true]);
        assert_eq!(matching(list(&["b.q_proj"])).unwrap(), [false, false, true, false, false]);
        assert_eq!(matching(Patterns::Regex(r"b\..*q_proj".into())).unwrap(), [false, false, true, true, false]);
        assert!(matching(list(&["q_proj", "k_proj"])).unwrap_err().starts_with("`k_proj` matches no module"));
        assert!(matching(Patterns::Regex("q_proj".into())).unwrap_err().starts_with("`q_proj` matches no module"));
        assert!(ends_like("q_proj", "a.q_proj") && ends_like("a.[qk]_proj", "a.q_proj") && ends_like("head", "head"));
        assert!(!ends_like("q_proj", "b.xq_proj") && !ends_like("(", "("));
    }

    #[test]
    fn a_pattern_that_means_nothing_is_named() {
        let mut layout = ParamLayout::default();
        for layer_idx in 0..3 {
            layout.matrix(format!("layers.{layer_idx}.up.weight"), 1, 1);
            layout.vector(format!("layers.{layer_idx}.up.bias"), 1);
        }
        let list = |names: &[&str]| Patterns::List(names.iter().map(|name| (*name).to_owned()).collect());
        let matching = |patterns: Patterns| matching_params(&patterns, &layout).map_err(|error| error.to_string());
        assert_eq!(matching(list(&["*.2.*", "*.0.up.bias"])).unwrap(), [false, true, false, false, true, true]);
        let regex = Patterns::Regex(r"layers\.[12]\.up\.weight|.*0.*bias".into());
        assert_eq!(matching(regex).unwrap(), [false, true, true, false, true, false]);
        let error = matching(list(&["*.bias", "*.5.*"])).unwrap_err();
        assert_eq!(error, "`*.5.*` matches no parameter; the model has layers.*.up.weight, layers.*.up.bias");
        assert!(matching(Patterns::Regex("layers".into())).unwrap_err().starts_with("`layers` matches no parameter"));
        assert!(matching(Patterns::Regex("(".into())).unwrap_err().contains("no regular expression"));
        assert!(matching(list(&[])).unwrap_err().contains("no name is given"));
    }
}

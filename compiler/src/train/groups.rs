//! Which parameter follows which of an optimiser's settings.

use crate::recipe::OptimizerSection;
use crate::tensor::{ParamLayout, ParamSpec};
use std::ops::Range;

/// A group of `[optimizer]` that no parameter is in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; the model has {}", names.join(", "))]
pub struct GroupError {
    /// Which pattern of which group, and what is wrong with it.
    problem: String,
    /// Names of the model's parameters, those of the layers once.
    names: Vec<String>,
}

/// A parameter and its settings.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    /// Which of the layout's parameters it is.
    pub param_idx: usize,
    /// Where its numbers lie.
    pub range: Range<usize>,
    /// Multiplies the learning rate.
    pub rate_scale: f64,
    /// Share of it removed per step, times the learning rate.
    pub weight_decay: f64,
}

/// The settings of each parameter: those of the first group with a pattern that matches its name.
///
/// # Errors
/// [`GroupError`] if a pattern matches nothing, or a group only what earlier groups have.
pub(super) fn members(section: &OptimizerSection, layout: &ParamLayout) -> Result<Vec<Member>, GroupError> {
    let specs = layout.specs();
    let mut group_of: Vec<Option<usize>> = vec![None; specs.len()];
    for (group_idx, group) in section.group.iter().enumerate() {
        let error = |problem: String| {
            Err(GroupError { problem: format!("group {}: {problem}", group_idx + 1), names: names(specs) })
        };
        if let Some(idle) = group.params.iter().find(|pattern| !specs.iter().any(|spec| matches(pattern, &spec.name))) {
            return error(format!("`{idle}` matches no parameter"));
        }
        let mut n_taken = 0;
        for (spec, group_of) in specs.iter().zip(&mut group_of) {
            if group_of.is_none() && group.params.iter().any(|pattern| matches(pattern, &spec.name)) {
                *group_of = Some(group_idx);
                n_taken += 1;
            }
        }
        if n_taken == 0 {
            return error("every parameter that it matches is in an earlier group".into());
        }
    }
    let member = |(param_idx, (spec, group)): (usize, (&ParamSpec, &Option<usize>))| {
        let group = group.map(|idx| &section.group[idx]);
        let decays = !spec.is_vector || section.decay_norms;
        let usual = if decays { section.weight_decay } else { 0.0 };
        Member {
            param_idx,
            range: spec.range.clone(),
            rate_scale: group.map_or(1.0, |group| group.learning_rate_scale),
            weight_decay: group.and_then(|group| group.weight_decay).unwrap_or(usual),
        }
    };
    Ok(specs.iter().zip(&group_of).enumerate().map(member).collect())
}

/// Whether a name is what a pattern says, `*` standing for any characters, even none.
fn matches(pattern: &str, name: &str) -> bool {
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
fn names(specs: &[ParamSpec]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for spec in specs {
        let open = |part: &str| if part.parse::<usize>().is_ok() { "*".to_owned() } else { part.to_owned() };
        let name = spec.name.split('.').map(open).collect::<Vec<_>>().join(".");
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> ParamLayout {
        let mut layout = ParamLayout::default();
        layout.matrix("model.embed_tokens.weight", 3, 2);
        for layer_idx in 0..2 {
            layout.matrix(format!("model.layers.{layer_idx}.mlp.up_proj.weight"), 2, 2);
            layout.vector(format!("model.layers.{layer_idx}.input_layernorm.weight"), 2);
        }
        layout
    }

    fn settings(groups: &str) -> Result<Vec<(f64, f64)>, String> {
        let section: OptimizerSection =
            toml::from_str(&format!("learning_rate = 0.1\nweight_decay = 0.5\n{groups}")).unwrap();
        let members = members(&section, &layout()).map_err(|error| error.to_string())?;
        Ok(members.iter().map(|member| (member.rate_scale, member.weight_decay)).collect())
    }

    #[test]
    fn the_first_group_that_names_a_parameter_has_it() {
        assert_eq!(settings("").unwrap(), [(1.0, 0.5), (1.0, 0.5), (1.0, 0.0), (1.0, 0.5), (1.0, 0.0)]);
        let groups = "
            [[group]]
            params = ['model.layers.1.*']
            learning_rate_scale = 0.25
            [[group]]
            params = ['model.embed_tokens.weight', '*norm*']
            weight_decay = 0.125";
        assert_eq!(settings(groups).unwrap(), [(1.0, 0.125), (1.0, 0.5), (1.0, 0.125), (0.25, 0.5), (0.25, 0.0)]);
    }

    #[test]
    fn an_idle_group_is_an_error_that_names_what_there_is() {
        let error = settings("group = [{ params = ['*.weight'] }, { params = ['*.bias'] }]").unwrap_err();
        assert!(error.starts_with("group 2: `*.bias` matches no parameter"), "{error}");
        assert!(error.contains("model.embed_tokens.weight, model.layers.*.mlp.up_proj.weight, "), "{error}");
        let error = settings("group = [{ params = ['model.*'] }, { params = ['*norm.weight'] }]").unwrap_err();
        assert!(error.starts_with("group 2: every parameter that it matches is in an earlier group"), "{error}");
    }

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
            assert_eq!(matches(pattern, name), want, "{pattern} and {name}");
        }
    }
}

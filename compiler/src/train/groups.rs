//! Which parameter follows which of an optimiser's settings.

use crate::peft::names::{NameError, glob_matches as matches};
use crate::recipe::OptimizerSection;
use crate::tensor::{ParamLayout, ParamSpec};
use std::ops::Range;

/// A parameter and its settings.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    /// Which of the layout's parameters it is.
    pub param_idx: usize,
    /// Where its numbers lie among the trained ones.
    pub range: Range<usize>,
    /// Multiplies the learning rate.
    pub rate_scale: f64,
    /// Share of it removed per step, times the learning rate.
    pub weight_decay: f64,
}

/// The settings of each trained parameter: those of the first group with a pattern that matches its name.
///
/// # Errors
/// [`NameError`] if a pattern matches nothing, or a group only what earlier groups have.
pub(super) fn members(section: &OptimizerSection, layout: &ParamLayout) -> Result<Vec<Member>, NameError> {
    let (places, specs): (Vec<usize>, Vec<&ParamSpec>) =
        layout.specs().iter().enumerate().filter(|(_, spec)| spec.grad.is_some()).unzip();
    let mut group_of: Vec<Option<usize>> = vec![None; specs.len()];
    for (group_idx, group) in section.group.iter().enumerate() {
        let error = |problem: String| {
            let names = specs.iter().map(|spec| spec.name.as_str());
            Err(NameError::new(format!("group {}: {problem}", group_idx + 1), names))
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
    let member = |(param_idx, (spec, group)): (usize, (&ParamSpec, Option<usize>))| {
        let group = group.map(|idx| &section.group[idx]);
        let decays = !spec.is_vector || section.decay_norms;
        let usual = if decays { section.weight_decay } else { 0.0 };
        Member {
            param_idx,
            range: spec.grad.clone().unwrap_or_default(),
            rate_scale: group.map_or(1.0, |group| group.learning_rate_scale),
            weight_decay: group.and_then(|group| group.weight_decay).unwrap_or(usual),
        }
    };
    Ok(places.into_iter().zip(specs.into_iter().zip(group_of)).map(member).collect())
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
}

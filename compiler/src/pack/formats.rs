//! Formats of single matrices: exceptions from the one that a model is packed in, by layer or by what a matrix is for.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use siskin_runtime::WeightFormat;
use siskin_runtime::format::{Role, Storage, TensorId};

/// What matrices are for, by the names that exceptions have.
const ROLES: [(&str, Role); 17] = [
    ("embedding", Role::Embedding),
    ("positions", Role::Positions),
    ("embedding-projection", Role::EmbeddingProjection),
    ("qkv", Role::Qkv),
    ("query", Role::Query),
    ("key-value", Role::KeyValue),
    ("attention-output", Role::AttentionOutput),
    ("cross-query", Role::CrossQuery),
    ("cross-key-value", Role::CrossKeyValue),
    ("cross-output", Role::CrossOutput),
    ("gate-up", Role::GateUp),
    ("down", Role::Down),
    ("input-gates", Role::InputGates),
    ("state-gates", Role::StateGates),
    ("head-transform", Role::HeadTransform),
    ("pooler", Role::Pooler),
    ("head", Role::Head),
];

/// Some matrices and the format that they have instead of the model's, as text `down=int8-g32`, `layers.0=int8` or `layers.2-3.qkv=int4-g32`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatException {
    /// As it was written.
    text: String,
    /// The layers, or `None` for all of the model.
    layers: Option<RangeInclusive<usize>>,
    /// What the matrices are for, or `None` for all.
    role: Option<Role>,
    format: WeightFormat,
}

impl FormatException {
    /// The format that `tensor` has in a model of `format`: the last exception that covers it says.
    pub fn format_of(exceptions: &[Self], format: WeightFormat, tensor: TensorId) -> WeightFormat {
        exceptions.iter().rev().find(|exception| exception.covers(tensor)).map_or(format, |exception| exception.format)
    }

    /// Of the formats of a model the one of which activations take the most memory, as `MemoryPlan` wants it.
    pub fn widest(exceptions: &[Self], format: WeightFormat) -> WeightFormat {
        exceptions.iter().map(|exception| exception.format).fold(format, |widest, format| match widest.is_grouped() {
            true => widest,
            false => format,
        })
    }

    /// Whether `tensor` is meant. What lies outside the layers is in none.
    fn covers(&self, tensor: TensorId) -> bool {
        use Role::*;
        let outside = [Embedding, Positions, EmbeddingProjection, HeadTransform, Pooler, Head].contains(&tensor.role);
        let in_layers = self.layers.as_ref().is_none_or(|layers| !outside && layers.contains(&tensor.layer_idx));
        in_layers && self.role.is_none_or(|role| role == tensor.role)
    }

    /// Checks that each exception covers a matrix of `tensors`.
    ///
    /// # Errors
    /// The text of the first that does not, and the names of what there is.
    pub(super) fn check(exceptions: &[Self], tensors: &[TensorId]) -> Result<(), (String, String)> {
        let matrices = || tensors.iter().filter(|tensor| tensor.storage() == Storage::Matrix);
        let Some(idle) = exceptions.iter().find(|exception| !matrices().any(|&tensor| exception.covers(tensor))) else {
            return Ok(());
        };
        let names = ROLES.iter().filter(|(_, role)| matrices().any(|tensor| tensor.role == *role));
        Err((idle.text.clone(), names.map(|&(name, _)| name).collect::<Vec<_>>().join(", ")))
    }
}

impl fmt::Display for FormatException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for FormatException {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tensors, format) = text.split_once('=').ok_or("write it as TENSORS=FORMAT, such as down=int8-g32")?;
        let known = || WeightFormat::ALL.map(WeightFormat::name).join(", ");
        let format = WeightFormat::ALL.into_iter().find(|known| known.name() == format);
        let format = format.ok_or_else(|| format!("the formats are {}", known()))?;
        let (layers, role) = match tensors.strip_prefix("layers.") {
            Some(rest) => {
                let (layers, role) = rest.split_once('.').map_or((rest, None), |(layers, role)| (layers, Some(role)));
                (Some(parse_layers(layers)?), role)
            }
            None => (None, Some(tensors)),
        };
        let role = role.map(parse_role).transpose()?;
        Ok(Self { text: text.to_owned(), layers, role, format })
    }
}

fn parse_layers(text: &str) -> Result<RangeInclusive<usize>, String> {
    let number =
        |text: &str| text.parse::<usize>().map_err(|_| format!("`{text}` is no layer; write layers.0 or layers.0-1"));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let layers = number(first)?..=number(last)?;
    if layers.is_empty() { Err(format!("the layers {text} end before they start")) } else { Ok(layers) }
}

fn parse_role(text: &str) -> Result<Role, String> {
    let named = ROLES.iter().find(|(name, _)| *name == text);
    let names = || ROLES.map(|(name, _)| name).join(", ");
    named.map(|&(_, role)| role).ok_or_else(|| format!("`{text}` is no matrix; there are layers.N and {}", names()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(role: Role, layer_idx: usize) -> TensorId {
        TensorId { role, layer_idx, is_bias: false }
    }

    #[test]
    fn exceptions_cover_what_they_say() {
        let exceptions: Vec<FormatException> =
            ["down=int8-g32", "layers.2-3=int8", "layers.3.qkv=int4-g32", "head=int8"]
                .map(|text| text.parse().unwrap())
                .into();
        let format = |role, layer| FormatException::format_of(&exceptions, WeightFormat::Int4G32, tensor(role, layer));
        assert_eq!(format(Role::Down, 0), WeightFormat::Int8G32);
        assert_eq!(format(Role::Down, 2), WeightFormat::Int8);
        assert_eq!(format(Role::GateUp, 3), WeightFormat::Int8);
        assert_eq!(format(Role::Qkv, 3), WeightFormat::Int4G32);
        assert_eq!(format(Role::GateUp, 1), WeightFormat::Int4G32);
        assert_eq!((format(Role::Embedding, 0), format(Role::Head, 0)), (WeightFormat::Int4G32, WeightFormat::Int8));
    }

    #[test]
    fn what_covers_nothing_is_named() {
        let exceptions = ["qkv=int8".parse().unwrap(), "layers.7=int8".parse().unwrap()];
        let tensors = [tensor(Role::Embedding, 0), tensor(Role::Qkv, 1)];
        let (idle, names) = FormatException::check(&exceptions, &tensors).unwrap_err();
        assert_eq!((idle.as_str(), names.as_str()), ("layers.7=int8", "embedding, qkv"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, said) in [
            ("down", "TENSORS=FORMAT"),
            ("down=int3", "int4-g32"),
            ("layers.x=int8", "`x`"),
            ("layers.3-2=int8", "3-2"),
            ("knee=int8", "`knee`"),
            ("layers.1.knee=int8", "`knee`"),
        ] {
            let error = text.parse::<FormatException>().unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}

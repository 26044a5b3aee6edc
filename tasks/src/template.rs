//! Templates: texts with choices, `(a|b|)`, and names of slots and fragments, `<room>`, `<first:room>`.

use std::collections::BTreeMap;

use crate::draw::Draw;

/// A part of a template.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    /// One of these.
    Choice(Vec<Vec<Piece>>),
    /// A slot or a fragment, and what it is called here: the same name is the same value.
    Name {
        called: String,
        name: String,
    },
}

/// A part of a template whose choices are made and whose fragments are written out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chosen<'t> {
    Text(&'t str),
    Slot { called: &'t str, name: &'t str },
}

/// The fragments of a grammar: each a choice of templates.
pub(crate) type Fragments = BTreeMap<String, Vec<Vec<Piece>>>;

/// Reads a template, or says what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Vec<Piece>, String> {
    let mut rest = text;
    let pieces = sequence(&mut rest, false)?;
    match rest.chars().next() {
        None => Ok(pieces),
        Some(c) => Err(format!("{c:?} in {text:?} ends a choice that was not begun")),
    }
}

fn sequence(rest: &mut &str, is_in_choice: bool) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    while let Some(at) = rest.find(['(', ')', '|', '<']).or(Some(rest.len())).filter(|_| !rest.is_empty()) {
        let (text, after) = rest.split_at(at);
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        *rest = after;
        match after.chars().next() {
            Some('(') => {
                *rest = &after[1..];
                pieces.push(choice(rest)?);
            }
            Some('<') => {
                let (name, after) = after[1..].split_once('>').ok_or_else(|| format!("{after:?} has no >"))?;
                let (called, name) = name.split_once(':').unwrap_or((name, name));
                pieces.push(Piece::Name { called: called.to_owned(), name: name.to_owned() });
                *rest = after;
            }
            Some(_) if is_in_choice => break,
            Some(c) => return Err(format!("{c:?} stands outside of a choice")),
            None => {}
        }
    }
    Ok(pieces)
}

fn choice(rest: &mut &str) -> Result<Piece, String> {
    let mut choices = Vec::new();
    loop {
        choices.push(sequence(rest, true)?);
        let end = rest.chars().next().ok_or("a choice has no )")?;
        *rest = &rest[1..];
        if end == ')' {
            return Ok(Piece::Choice(choices));
        }
    }
}

/// Every name in a template.
pub(crate) fn names(pieces: &[Piece]) -> Vec<&str> {
    let mut found = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Text(_) => {}
            Piece::Choice(choices) => found.extend(choices.iter().flat_map(|pieces| names(pieces))),
            Piece::Name { name, .. } => found.push(name.as_str()),
        }
    }
    found
}

/// Makes the choices of a template, fragments within fragments included.
pub(crate) fn choose<'t>(pieces: &'t [Piece], fragments: &'t Fragments, draw: &mut Draw, chosen: &mut Vec<Chosen<'t>>) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => chosen.push(Chosen::Text(text)),
            Piece::Choice(choices) => choose(&choices[draw.below(choices.len())], fragments, draw, chosen),
            Piece::Name { called, name } => match fragments.get(name) {
                Some(choices) => choose(&choices[draw.below(choices.len())], fragments, draw, chosen),
                None => chosen.push(Chosen::Slot { called, name }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read_and_chosen_from() {
        let pieces = parse("turn (it|the <a:lamp>|) off").unwrap();
        assert_eq!(names(&pieces), ["lamp"]);
        let fragments = Fragments::from([("lamp".to_owned(), vec![parse("lamp").unwrap(), parse("light").unwrap()])]);
        let texts: std::collections::BTreeSet<String> = (0..100)
            .map(|seed| {
                let mut chosen = Vec::new();
                choose(&pieces, &fragments, &mut Draw::new(seed, ""), &mut chosen);
                chosen.iter().map(|part| if let Chosen::Text(text) = part { text } else { "?" }).collect()
            })
            .collect();
        let expected = ["turn  off", "turn it off", "turn the lamp off", "turn the light off"].map(str::to_owned);
        assert_eq!(texts, expected.into());
    }

    #[test]
    fn what_is_no_template_is_said() {
        for wrong in ["(a", "a)", "a|b", "<a"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}

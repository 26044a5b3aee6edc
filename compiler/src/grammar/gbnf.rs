//! GBNF: `name ::= alternatives`, of literals, character classes, `.`, groups, rules and repetitions; `#` begins a comment.
//!
//! All of llama.cpp's notation but tokens in angle brackets. A rule may go on over line ends where the next line does not begin another.

use std::collections::HashMap;

use super::{Expr, GrammarError, Rules};

/// Most groups within each other.
const NESTING_MAX: usize = 64;
/// The rule that is the whole text.
const ROOT: &str = "root";

/// Reads a grammar.
pub(super) fn parse(text: &str) -> Result<Rules, GrammarError> {
    let mut parser = Parser { text, at: 0, names: Vec::new(), index: HashMap::new(), bodies: Vec::new(), nesting: 0 };
    // The whole text is the first rule, wherever it stands.
    parser.rule_named(ROOT);
    parser.skip_space();
    while parser.peek().is_some() {
        parser.definition()?;
    }
    let rules = parser.names.into_iter().zip(parser.bodies);
    let rules = rules.map(|(name, body)| match body {
        Some(body) => Ok((name, body)),
        None => Err(GrammarError::UnknownRule { name }),
    });
    Ok(Rules { rules: rules.collect::<Result<_, _>>()? })
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    names: Vec<String>,
    index: HashMap<String, usize>,
    bodies: Vec<Option<Expr>>,
    nesting: usize,
}

impl<'t> Parser<'t> {
    fn rule_named(&mut self, name: &str) -> usize {
        if let Some(&known) = self.index.get(name) {
            return known;
        }
        self.names.push(name.to_owned());
        self.bodies.push(None);
        self.index.insert(name.to_owned(), self.names.len() - 1);
        self.names.len() - 1
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn take(&mut self, text: &str) -> bool {
        let is_there = self.rest().starts_with(text);
        self.at += if is_there { text.len() } else { 0 };
        is_there
    }

    fn wrong<T>(&self, what: impl Into<String>) -> Result<T, GrammarError> {
        let before = &self.text[..self.at];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Err(GrammarError::Syntax {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            what: what.into(),
        })
    }

    /// Passes over white space and comments.
    fn skip_space(&mut self) {
        loop {
            self.at += self.rest().len() - self.rest().trim_start().len();
            if !self.rest().starts_with('#') {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn name(&mut self) -> Option<&'t str> {
        let rest = self.rest();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let bytes = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        self.at += bytes;
        (bytes > 0).then(|| &rest[..bytes])
    }

    fn definition(&mut self) -> Result<(), GrammarError> {
        let Some(name) = self.name() else { return self.wrong("a rule's name was expected") };
        let rule = self.rule_named(name);
        self.skip_space();
        if !self.take("::=") {
            return self.wrong(format!("::= was expected after the name {name}"));
        }
        if self.bodies[rule].is_some() {
            return self.wrong(format!("the rule {name} is defined twice"));
        }
        self.bodies[rule] = Some(self.choice()?);
        match self.peek() {
            None => Ok(()),
            Some(_) if self.is_at_definition() => Ok(()),
            Some(found) => self.wrong(format!("{found:?} does not belong here")),
        }
    }

    /// Whether a name and `::=` come next.
    fn is_at_definition(&self) -> bool {
        let mut ahead = Parser { names: Vec::new(), index: HashMap::new(), bodies: Vec::new(), ..*self };
        let is_name = ahead.name().is_some();
        ahead.skip_space();
        is_name && ahead.rest().starts_with("::=")
    }

    fn choice(&mut self) -> Result<Expr, GrammarError> {
        let mut choices = vec![self.sequence()?];
        while self.take("|") {
            choices.push(self.sequence()?);
        }
        Ok(if choices.len() == 1 { choices.remove(0) } else { Expr::Choice(choices) })
    }

    fn sequence(&mut self) -> Result<Expr, GrammarError> {
        let mut items = Vec::new();
        self.skip_space();
        while let Some(item) = self.item()? {
            let item = self.repetitions(item)?;
            items.push(item);
            self.skip_space();
        }
        Ok(if items.len() == 1 { items.remove(0) } else { Expr::Sequence(items) })
    }

    fn item(&mut self) -> Result<Option<Expr>, GrammarError> {
        match self.peek() {
            Some('"') => self.literal().map(Some),
            Some('[') => self.class().map(Some),
            Some('.') => {
                self.next();
                Ok(Some(Expr::Class(vec![('\0', char::MAX)])))
            }
            Some('(') => {
                self.next();
                self.nesting += 1;
                if self.nesting > NESTING_MAX {
                    return self.wrong(format!("more than {NESTING_MAX} groups within each other"));
                }
                let inner = self.choice()?;
                self.nesting -= 1;
                if self.take(")") { Ok(Some(inner)) } else { self.wrong("a ) is missing") }
            }
            Some(c) if c.is_ascii_alphanumeric() || c == '_' => {
                if self.is_at_definition() {
                    return Ok(None);
                }
                let name = self.name().unwrap_or_default();
                Ok(Some(Expr::Rule(self.rule_named(name))))
            }
            _ => Ok(None),
        }
    }

    fn repetitions(&mut self, mut item: Expr) -> Result<Expr, GrammarError> {
        loop {
            let (min, max) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => self.bounds()?,
                _ => return Ok(item),
            };
            self.next();
            if matches!(item, Expr::Repeat { .. }) {
                self.nesting += 1;
                if self.nesting > NESTING_MAX {
                    return self.wrong("too many repetitions of repetitions");
                }
            }
            item = item.repeated(min, max);
        }
    }

    /// `{m}`, `{m,}`, `{,n}` or `{m,n}`, up to the closing brace.
    fn bounds(&mut self) -> Result<(u32, Option<u32>), GrammarError> {
        let Some((inner, _)) = self.rest()[1..].split_once('}') else { return self.wrong("a } is missing") };
        let number = |text: &str, empty: Option<u32>| match text.trim() {
            "" => Some(empty),
            text => text.parse().ok().map(Some),
        };
        let bounds = match inner.split_once(',') {
            None => inner.trim().parse().ok().map(|count| (Some(count), Some(count))),
            Some((min, max)) => number(min, Some(0)).zip(number(max, None)),
        };
        match bounds {
            Some((Some(min), max)) if max.is_none_or(|max| min <= max) => {
                self.at += 1 + inner.len();
                Ok((min, max))
            }
            _ => self.wrong("a repetition is {m}, {m,}, {,n} or {m,n}, the least number first"),
        }
    }

    fn literal(&mut self) -> Result<Expr, GrammarError> {
        self.next();
        let mut text = String::new();
        loop {
            match self.peek() {
                Some('"') => {
                    self.next();
                    return Ok(Expr::text(&text));
                }
                None | Some('\n') => return self.wrong("a literal's closing quote is missing"),
                Some(_) => text.push(self.character()?),
            }
        }
    }

    fn class(&mut self) -> Result<Expr, GrammarError> {
        self.next();
        let is_negated = self.take("^");
        let mut ranges = Vec::new();
        while !self.take("]") {
            if matches!(self.peek(), None | Some('\n')) {
                return self.wrong("a character class's ] is missing");
            }
            let low = self.character()?;
            let is_range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            let high = if is_range {
                self.next();
                self.character()?
            } else {
                low
            };
            if high < low {
                return self.wrong(format!("the range {low:?} to {high:?} is backwards"));
            }
            ranges.push((low, high));
        }
        let ranges = merged(ranges);
        Ok(Expr::Class(if is_negated { others(&ranges) } else { ranges }))
    }

    /// A character of a literal or a class, which may be escaped.
    fn character(&mut self) -> Result<char, GrammarError> {
        let Some(first) = self.next() else { return self.wrong("the grammar ends early") };
        if first != '\\' {
            return Ok(first);
        }
        let Some(escape) = self.next() else { return self.wrong("the grammar ends early") };
        let digits = match escape {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            '"' | '\\' | '[' | ']' | '-' | '^' => return Ok(escape),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => {
                return self.wrong(format!(
                    "the escape \\{escape} is none of \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\^ \\x \\u \\U"
                ));
            }
        };
        let code = self.rest().get(..digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let Some(character) = code.and_then(char::from_u32) else {
            return self.wrong(format!("\\{escape} takes {digits} hexadecimal digits of a character"));
        };
        self.at += digits;
        Ok(character)
    }
}

/// The same characters in ascending ranges that do not touch.
pub(super) fn merged(mut ranges: Vec<(char, char)>) -> Vec<(char, char)> {
    ranges.sort_unstable();
    let mut merged: Vec<(char, char)> = Vec::new();
    for (low, high) in ranges {
        match merged.last_mut() {
            Some((_, last)) if low <= *last || after(*last) == Some(low) => *last = (*last).max(high),
            _ => merged.push((low, high)),
        }
    }
    merged
}

/// All other characters than those of merged `ranges`.
pub(super) fn others(ranges: &[(char, char)]) -> Vec<(char, char)> {
    let (mut others, mut from) = (Vec::new(), Some('\0'));
    for &(low, high) in ranges {
        if let (Some(from), Some(before)) = (from, before(low))
            && from <= before
        {
            others.push((from, before));
        }
        from = after(high);
    }
    others.extend(from.map(|from| (from, char::MAX)));
    others
}

/// The character after `c`; surrogates are none.
fn after(c: char) -> Option<char> {
    (c..=char::MAX).nth(1)
}

fn before(c: char) -> Option<char> {
    ('\0'..c).next_back()
}

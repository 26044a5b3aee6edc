//! A subset of JSON Schema, as rules for compact JSON: properties in the order of the schema, no white space between tokens.
//!
//! `type` (one or a list), `properties`, `required`, `additionalProperties: false`, `items`, `minItems`, `maxItems`, `minLength`,
//! `maxLength`, `enum`, `const`, `anyOf`, `$ref` to `#/$defs` or `#/definitions`. Words that only describe are passed over; any other
//! is refused, as leaving it out would let texts through that the schema forbids.
//!
//! Integers have at most 15 digits, so that readers with 64-bit floats keep them; other numbers at most 15 before and 15 after the point, and
//! an exponent of two. Strings escape quotes, backslashes and control characters, and nothing else as `\u`.

use super::gbnf::others;
use super::json::Json;
use super::{Expr, GrammarError, Rules};

/// Words that say nothing about what is valid.
const DESCRIPTIONS: [&str; 12] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
];

/// Most schemas within each other.
const NESTING_MAX: usize = 64;

/// Reads a schema.
pub(super) fn parse(text: &str) -> Result<Rules, GrammarError> {
    let root: Json = serde_json::from_str(text).map_err(|error| GrammarError::NotJson(error.to_string()))?;
    let mut writer = Writer { root: &root, rules: vec![("root".to_owned(), Expr::empty())], path: Vec::new() };
    writer.rules[0].1 = writer.value(&root)?;
    let mut idx = 1;
    while let Some((name, _)) = writer.rules.get(idx) {
        // References that are met on the way become rules, and are written in their turn.
        let name = name.clone();
        writer.path = name.trim_start_matches("#/").split('/').map(str::to_owned).collect();
        let schema = writer.referred(&name)?;
        writer.rules[idx].1 = writer.value(schema)?;
        idx += 1;
    }
    Ok(Rules { rules: writer.rules })
}

struct Writer<'s> {
    root: &'s Json,
    rules: Vec<(String, Expr)>,
    /// Keys down to the schema under way.
    path: Vec<String>,
}

impl<'s> Writer<'s> {
    fn wrong<T>(&self, what: impl Into<String>) -> Result<T, GrammarError> {
        let path = if self.path.is_empty() { "the root".to_owned() } else { self.path.join("/") };
        Err(GrammarError::Schema { path, what: what.into() })
    }

    fn within<T>(
        &mut self,
        key: &str,
        work: impl FnOnce(&mut Self) -> Result<T, GrammarError>,
    ) -> Result<T, GrammarError> {
        if self.path.len() >= NESTING_MAX {
            return self.wrong(format!("more than {NESTING_MAX} schemas within each other"));
        }
        self.path.push(key.to_owned());
        let done = work(self)?;
        self.path.pop();
        Ok(done)
    }

    /// The schema that `$ref` names.
    fn referred(&self, name: &str) -> Result<&'s Json, GrammarError> {
        let keys = name.strip_prefix("#/").unwrap_or_default().split_once('/');
        let found = keys.filter(|(defs, _)| ["$defs", "definitions"].contains(defs));
        let found = found.and_then(|(defs, key)| self.root.get(defs)?.get(key));
        found.map_or_else(
            || self.wrong(format!("$ref to {name:?}: only #/$defs/NAME is followed, and it must be there")),
            Ok,
        )
    }

    fn value(&mut self, schema: &'s Json) -> Result<Expr, GrammarError> {
        let Json::Object(members) = schema else {
            return self.wrong("a schema is an object; true and false are not supported");
        };
        if let Some(target) = schema.get("$ref") {
            self.check_words(members, &["$ref"])?;
            let Some(name) = target.as_str() else { return self.wrong("$ref must be a string") };
            return self.reference(name);
        }
        if let Some(value) = schema.get("const") {
            self.check_words(members, &["const", "type"])?;
            return Ok(Expr::text(&value.to_string()));
        }
        if let Some(values) = schema.get("enum") {
            self.check_words(members, &["enum", "type"])?;
            let Json::Array(values) = values else { return self.wrong("enum must be a list") };
            return Ok(Expr::Choice(values.iter().map(|value| Expr::text(&value.to_string())).collect()));
        }
        if let Some(schemas) = schema.get("anyOf") {
            self.check_words(members, &["anyOf"])?;
            let Json::Array(schemas) = schemas else { return self.wrong("anyOf must be a list") };
            let one =
                |(idx, schema): (usize, &'s Json)| self.within(&format!("anyOf/{idx}"), |writer| writer.value(schema));
            return Ok(Expr::Choice(schemas.iter().enumerate().map(one).collect::<Result<_, _>>()?));
        }
        match schema.get("type") {
            Some(Json::Array(types)) => {
                let types =
                    types.iter().map(|name| self.of_type(name.as_str().unwrap_or_default(), schema, members, true));
                Ok(Expr::Choice(types.collect::<Result<_, _>>()?))
            }
            Some(name) => self.of_type(name.as_str().unwrap_or_default(), schema, members, false),
            None => self.wrong("one of type, enum, const, anyOf or $ref is needed"),
        }
    }

    fn reference(&mut self, name: &str) -> Result<Expr, GrammarError> {
        self.referred(name)?;
        let known = self.rules.iter().position(|(rule, _)| rule == name);
        Ok(Expr::Rule(known.unwrap_or_else(|| {
            self.rules.push((name.to_owned(), Expr::empty()));
            self.rules.len() - 1
        })))
    }

    /// Refuses words that neither describe nor are in `known`.
    fn check_words(&self, members: &[(String, Json)], known: &[&str]) -> Result<(), GrammarError> {
        let is_known = |word: &str| DESCRIPTIONS.contains(&word) || known.contains(&word);
        match members.iter().find(|(word, _)| !is_known(word)) {
            Some((word, _)) => self.wrong(format!("{word} is not supported here")),
            None => Ok(()),
        }
    }

    /// With several types, the words for the others are known as well.
    fn of_type(
        &mut self,
        name: &str,
        schema: &'s Json,
        members: &[(String, Json)],
        is_one_of: bool,
    ) -> Result<Expr, GrammarError> {
        const OBJECT: [&str; 4] = ["type", "properties", "required", "additionalProperties"];
        const ARRAY: [&str; 4] = ["type", "items", "minItems", "maxItems"];
        const STRING: [&str; 3] = ["type", "minLength", "maxLength"];
        let words = match name {
            _ if is_one_of => &[&OBJECT[..], &ARRAY, &STRING].concat()[..],
            "object" => &OBJECT,
            "array" => &ARRAY,
            "string" => &STRING,
            _ => &["type"],
        };
        self.check_words(members, words)?;
        match name {
            "null" => Ok(Expr::text("null")),
            "boolean" => Ok(Expr::Choice(vec![Expr::text("true"), Expr::text("false")])),
            "integer" => Ok(integer()),
            "number" => Ok(number()),
            "string" => {
                let (min, max) = self.bounds(schema, "minLength", "maxLength")?;
                let quote = || Expr::text("\"");
                Ok(Expr::Sequence(vec![quote(), string_character().repeated(min, max), quote()]))
            }
            "array" => self.array(schema),
            "object" => self.object(schema),
            _ => self
                .wrong(format!("the type {name:?} is none of null, boolean, integer, number, string, array, object")),
        }
    }

    fn bounds(&self, schema: &Json, least: &str, most: &str) -> Result<(u32, Option<u32>), GrammarError> {
        let count = |key: &str| match schema.get(key) {
            None => Ok(None),
            Some(value) => {
                value.as_count().map_or_else(|| self.wrong(format!("{key} must be a whole number")), |n| Ok(Some(n)))
            }
        };
        match (count(least)?.unwrap_or(0), count(most)?) {
            (min, Some(max)) if max < min => self.wrong(format!("{most} is below {least}")),
            bounds => Ok(bounds),
        }
    }

    fn array(&mut self, schema: &'s Json) -> Result<Expr, GrammarError> {
        let Some(items) = schema.get("items") else { return self.wrong("an array needs items") };
        let (min, max) = self.bounds(schema, "minItems", "maxItems")?;
        let item = self.within("items", |writer| writer.value(items))?;
        let another = Expr::Sequence(vec![Expr::text(","), item.clone()]);
        let inner = match max {
            Some(0) => Expr::empty(),
            _ => {
                let others = another.repeated(min.saturating_sub(1), max.map(|max| max - 1));
                Expr::Sequence(vec![item, others]).repeated(min.min(1), Some(1))
            }
        };
        Ok(Expr::Sequence(vec![Expr::text("["), inner, Expr::text("]")]))
    }

    fn object(&mut self, schema: &'s Json) -> Result<Expr, GrammarError> {
        if schema.get("additionalProperties").is_some_and(|value| value.to_string() != "false") {
            return self.wrong("additionalProperties can only be false: no others are generated");
        }
        let properties: &'s [(String, Json)] = match schema.get("properties") {
            None => &[],
            Some(Json::Object(properties)) => properties,
            Some(_) => return self.wrong("properties must be an object"),
        };
        let required = match schema.get("required") {
            None => Vec::new(),
            Some(Json::Array(names)) => names.iter().filter_map(Json::as_str).collect(),
            Some(_) => return self.wrong("required must be a list"),
        };
        if let Some(name) = required.iter().find(|name| !properties.iter().any(|(known, _)| known == *name)) {
            return self.wrong(format!("the property {name:?} is required, but properties does not have it"));
        }
        let mut members = Vec::new();
        for (name, property) in properties {
            let value = self.within(name, |writer| writer.value(property))?;
            let key = Expr::text(&format!("{}:", serde_json::Value::from(name.as_str())));
            members.push((Expr::Sequence(vec![key, value]), required.contains(&name.as_str())));
        }
        Ok(Expr::Sequence(vec![Expr::text("{"), in_order(&members), Expr::text("}")]))
    }
}

/// Members between commas, in order, those that are not required or not. The first that is there has no comma before it.
fn in_order(members: &[(Expr, bool)]) -> Expr {
    let after_comma = |(member, is_required): &(Expr, bool)| {
        let member = Expr::Sequence(vec![Expr::text(","), member.clone()]);
        if *is_required { member } else { member.optional() }
    };
    let mut firsts = Vec::new();
    for (idx, (member, is_required)) in members.iter().enumerate() {
        let others = members[idx + 1..].iter().map(after_comma);
        firsts.push(Expr::Sequence(std::iter::once(member.clone()).chain(others).collect()));
        if *is_required {
            return Expr::Choice(firsts);
        }
    }
    firsts.push(Expr::empty());
    Expr::Choice(firsts)
}

fn digits(min: u32, max: u32) -> Expr {
    Expr::Class(vec![('0', '9')]).repeated(min, Some(max))
}

fn natural() -> Expr {
    Expr::Sequence(vec![Expr::Class(vec![('1', '9')]), digits(0, 14)])
}

fn integer() -> Expr {
    Expr::Choice(vec![Expr::text("0"), Expr::Sequence(vec![Expr::text("-").optional(), natural()])])
}

fn number() -> Expr {
    let whole = Expr::Choice(vec![Expr::text("0"), natural()]);
    let fraction = Expr::Sequence(vec![Expr::text("."), digits(1, 15)]);
    let sign = Expr::Class(vec![('+', '+'), ('-', '-')]);
    let power = Expr::Sequence(vec![Expr::Class(vec![('1', '9')]), digits(0, 1)]);
    let exponent = Expr::Sequence(vec![Expr::Class(vec![('E', 'E'), ('e', 'e')]), sign.optional(), power]);
    Expr::Sequence(vec![Expr::text("-").optional(), whole, fraction.optional(), exponent.optional()])
}

/// A character of a string, or an escape for one that must be escaped.
fn string_character() -> Expr {
    let plain = others(&[('\0', '\u{1f}'), ('"', '"'), ('\\', '\\')]);
    let short = ['"', '/', '\\', 'b', 'f', 'n', 'r', 't'].map(|c| (c, c)).to_vec();
    let hex = Expr::Class(vec![('0', '9'), ('a', 'f')]);
    let control = Expr::Sequence(vec![Expr::text("u00"), Expr::Class(vec![('0', '1')]), hex]);
    let escape = Expr::Sequence(vec![Expr::text("\\"), Expr::Choice(vec![Expr::Class(short), control])]);
    Expr::Choice(vec![Expr::Class(plain), escape])
}

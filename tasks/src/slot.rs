//! Slots: values, and the ways to say each.

use serde::Deserialize;

use crate::words;

/// A slot as a grammar writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlotText {
    /// Each `value`, or `value = said | said`.
    values: Option<Vec<String>>,
    /// From, to and step of whole numbers.
    range: Option<[i64; 3]>,
    /// Digits after the point: a range's numbers are so many times ten smaller.
    #[serde(default)]
    decimals: usize,
    /// `clock` (every five minutes of a day), or `date` (every day of a year).
    calendar: Option<Calendar>,
    /// How a range's numbers are said: texts with `{n}`, `{words}`, `{nth}`, `{ordinal}`, `{euros}`, `{dollars}`,
    /// `{pounds}`.
    say: Option<Vec<String>>,
    /// What a range's numbers are in completions; the same.
    value: Option<String>,
    /// In place of that: `lower bound = value`, ascending; a number has the value of the last bound not above it.
    bands: Option<Vec<String>>,
    /// A calendar's or a number's value is how it is spoken, said as it is written.
    #[serde(default)]
    spoken: bool,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Calendar {
    Clock,
    Date,
}

/// A slot that can be drawn from.
pub(crate) struct Slot {
    /// One at least.
    pub(crate) entries: Vec<Entry>,
    /// Values made of parts that occur in others: a number never seen is no riddle.
    pub(crate) is_compositional: bool,
}

/// A value.
pub(crate) struct Entry {
    /// What stands in completions, by the part's name; a slot that has one part has it without a name.
    pub(crate) fields: Vec<(&'static str, Value)>,
    /// How it is said: one way at least.
    pub(crate) said: Vec<String>,
}

/// A value in a completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
}

impl Value {
    /// As it stands in running text.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
        }
    }
}

impl Slot {
    /// Reads a slot, or says what is wrong with it.
    pub(crate) fn new(text: &SlotText) -> Result<Self, String> {
        let (entries, is_compositional) = match (&text.values, text.range, text.calendar) {
            (Some(values), None, None) => (values.iter().map(|value| listed(value)).collect(), false),
            (None, Some(range), None) => (numbers(text, range)?, text.bands.is_none()),
            (None, None, Some(Calendar::Clock)) => (clock(text.spoken), true),
            (None, None, Some(Calendar::Date)) => (dates(), true),
            _ => return Err("a slot has one of values, range and calendar".to_owned()),
        };
        match entries.iter().all(|entry: &Entry| !entry.said.is_empty()) && !entries.is_empty() {
            true => Ok(Self { entries, is_compositional }),
            false => Err("a slot has a value at least, and each value a way to say it".to_owned()),
        }
    }
}

fn listed(line: &str) -> Entry {
    let (value, said) = line.split_once(" = ").unwrap_or((line, line));
    let said = said.split(" | ").map(|way| way.trim().to_owned()).collect();
    Entry { fields: vec![("", Value::Text(value.trim().to_owned()))], said }
}

fn numbers(text: &SlotText, [from, to, step]: [i64; 3]) -> Result<Vec<Entry>, String> {
    let say = text.say.as_deref().ok_or("a range needs say")?;
    if step < 1 || to < from {
        return Err("a range ascends by 1 or more".to_owned());
    }
    let bands = text.bands.iter().flatten().map(|band| {
        let (bound, value) = band.split_once(" = ").ok_or_else(|| format!("{band:?} is no `bound = value`"))?;
        bound.trim().parse::<i64>().map(|bound| (bound, value.trim())).map_err(|error| format!("{band:?}: {error}"))
    });
    let bands: Vec<(i64, &str)> = bands.collect::<Result<_, String>>()?;
    let value = |n: i64| match (&text.value, bands.iter().rev().find(|(bound, _)| *bound <= n)) {
        (_, Some((_, value))) => Ok(Value::Text((*value).to_owned())),
        (Some(value), None) => Ok(Value::Text(written(value, n, text.decimals))),
        (None, None) if bands.is_empty() => Ok(Value::Number(n)),
        (None, None) => Err(format!("{n} is below the first band")),
    };
    let entry = |n: i64| {
        let said = say.iter().map(|say| written(say, n, text.decimals)).collect();
        Ok(Entry { fields: vec![("", value(n)?)], said })
    };
    (from..=to).step_by(step as usize).map(entry).collect()
}

/// A number in a text.
fn written(text: &str, n: i64, n_decimals: usize) -> String {
    let text =
        text.replace("{n}", &words::decimal(n, n_decimals)).replace("{words}", &words::decimal_words(n, n_decimals));
    let text = text.replace("{nth}", &words::nth(n)).replace("{ordinal}", &words::ordinal(n));
    let text = text.replace("{euros}", &words::money(n, ["euro", "euros", "cent", "cents"]));
    let text = text.replace("{dollars}", &words::money(n, ["dollar", "dollars", "cent", "cents"]));
    text.replace("{pounds}", &words::money(n, ["pound", "pounds", "penny", "pence"]))
}

/// The times of a day, every five minutes: hour and minute, or how they are read aloud.
fn clock(is_spoken: bool) -> Vec<Entry> {
    let times = (0..24).flat_map(|hour| (0..60).step_by(5).map(move |minute| (hour, minute)));
    times
        .map(|(hour, minute)| {
            let spoken = spoken_times(hour, minute);
            match is_spoken {
                true => Entry {
                    fields: vec![("", Value::Text(spoken[0].clone()))],
                    said: vec![format!("{hour:02}:{minute:02}"), twelve_hours(hour, minute)],
                },
                false => Entry {
                    fields: vec![("hour", Value::Number(hour)), ("minute", Value::Number(minute))],
                    said: spoken.into_iter().chain([format!("{hour}:{minute:02}")]).collect(),
                },
            }
        })
        .collect()
}

/// Ways to say a time, the plainest first.
fn spoken_times(hour: i64, minute: i64) -> Vec<String> {
    let half_of_day = if hour < 12 { "a m" } else { "p m" };
    let name = |hour: i64| words::cardinal(if hour % 12 == 0 { 12 } else { hour % 12 });
    let (this, next) = (name(hour), name(hour + 1));
    let next_half = if (hour + 1) % 24 < 12 { "a m" } else { "p m" };
    match minute {
        0 => vec![format!("{this} {half_of_day}"), format!("{this} o'clock {half_of_day}")],
        5 => vec![format!("{this} oh five {half_of_day}"), format!("five past {this} {half_of_day}")],
        15 => vec![format!("{this} fifteen {half_of_day}"), format!("quarter past {this} {half_of_day}")],
        30 => vec![format!("{this} thirty {half_of_day}"), format!("half past {this} {half_of_day}")],
        45 => vec![format!("{this} forty five {half_of_day}"), format!("quarter to {next} {next_half}")],
        _ => vec![format!("{this} {} {half_of_day}", words::cardinal(minute))],
    }
}

fn twelve_hours(hour: i64, minute: i64) -> String {
    let half_of_day = if hour < 12 { "am" } else { "pm" };
    format!("{}:{minute:02} {half_of_day}", if hour % 12 == 0 { 12 } else { hour % 12 })
}

/// The days of a year, read aloud, as they are written.
fn dates() -> Vec<Entry> {
    const MONTHS: [(&str, i64); 12] = [
        ("January", 31),
        ("February", 28),
        ("March", 31),
        ("April", 30),
        ("May", 31),
        ("June", 30),
        ("July", 31),
        ("August", 31),
        ("September", 30),
        ("October", 31),
        ("November", 30),
        ("December", 31),
    ];
    let days =
        MONTHS.iter().enumerate().flat_map(|(idx, (month, n_days))| (1..=*n_days).map(move |day| (idx, *month, day)));
    days.map(|(idx, month, day)| Entry {
        fields: vec![("", Value::Text(format!("{} the {}", month.to_lowercase(), words::ordinal(day))))],
        said: vec![
            format!("{month} {day}"),
            format!("{} {day}", &month[..3]),
            format!("{month} {}", words::nth(day)),
            format!("{:02}-{day:02}", idx + 1),
        ],
    })
    .collect()
}

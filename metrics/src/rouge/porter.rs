//! Porter's stemmer (1980) with the extensions of NLTK, which rouge-score uses: `PorterStemmer.NLTK_EXTENSIONS`.
//!
//! A stem's measure is the number of its changes from vowels to consonants. `y` is a consonant at the start and after a
//! vowel. In each step the first suffix of a list that fits decides, whether or not its condition holds. The
//! extensions: a few irregular words; `ies` and `ied` keep their e in words of four letters; `y` becomes i after any
//! consonant that is not alone before it; `alli` goes before the other suffixes of step 2, which has `bli`, `fulli` and
//! `logi` too; two letters, vowel and consonant, take an e where a consonant, vowel and consonant do.

/// Words with stems of their own.
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// Suffixes of step 2 and what they become, after a stem of measure 1 or more.
const STEP_2: [(&str, &str); 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];

/// As those, of step 3.
const STEP_3: [(&str, &str); 7] =
    [("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", "")];

/// Suffixes that step 4 drops, after a stem of measure 2 or more.
const STEP_4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou", "ism", "ate", "iti",
    "ous", "ive", "ize",
];

/// The stem of a word of lower-case letters and digits; other characters count as consonants.
pub fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(irregular, _)| *irregular == word) {
        return (*stem).to_owned();
    }
    if word.chars().nth(2).is_none() {
        return word.to_owned();
    }
    let mut word = word.to_owned();
    step_1a(&mut word);
    step_1b(&mut word);
    if let Some(stem) = word.strip_suffix('y')
        && stem.chars().nth(1).is_some()
        && ends_in_consonant(stem)
    {
        replace(&mut word, 1, "i");
    }
    step_2(&mut word);
    if let Some((suffix, replacement)) = find(&STEP_3, &word)
        && measure(&word[..word.len() - suffix.len()]) > 0
    {
        replace(&mut word, suffix.len(), replacement);
    }
    step_4(&mut word);
    step_5(&mut word);
    word
}

/// Plurals.
fn step_1a(word: &mut String) {
    if word.ends_with("ies") && word.chars().count() == 4 {
        word.truncate(word.len() - 1);
    } else if word.ends_with("sses") || word.ends_with("ies") {
        word.truncate(word.len() - 2);
    } else if word.ends_with('s') && !word.ends_with("ss") {
        word.truncate(word.len() - 1);
    }
}

/// Past tenses and gerunds.
fn step_1b(word: &mut String) {
    if word.ends_with("ied") {
        let n_dropped = if word.chars().count() == 4 { 1 } else { 2 };
        word.truncate(word.len() - n_dropped);
        return;
    }
    if let Some(stem) = word.strip_suffix("eed") {
        if measure(stem) > 0 {
            word.truncate(word.len() - 1);
        }
        return;
    }
    let stems = ["ed", "ing"].into_iter().filter_map(|suffix| word.strip_suffix(suffix));
    let Some(stem_bytes) = stems.filter(|stem| has_vowel(stem)).map(str::len).next() else { return };
    word.truncate(stem_bytes);
    if ["at", "bl", "iz"].into_iter().any(|suffix| word.ends_with(suffix)) {
        word.push('e');
    } else if ends_in_double_consonant(word) {
        if !word.ends_with(['l', 's', 'z']) {
            word.pop();
        }
    } else if measure(word) == 1 && ends_as_hop(word) {
        word.push('e');
    }
}

fn step_2(word: &mut String) {
    if word.strip_suffix("alli").is_some_and(|stem| measure(stem) > 0) {
        replace(word, 4, "al");
        step_2(word);
    } else if let Some((suffix, replacement)) = find(&STEP_2, word) {
        if measure(&word[..word.len() - suffix.len()]) > 0 {
            replace(word, suffix.len(), replacement);
        }
    } else if word.ends_with("logi") && measure(&word[..word.len() - 3]) > 0 {
        // The l belongs to the stem, so that short ones such as geo and theo count.
        word.pop();
    }
}

fn step_4(word: &mut String) {
    let Some(suffix) = STEP_4.into_iter().find(|suffix| word.ends_with(suffix)) else { return };
    let stem = &word[..word.len() - suffix.len()];
    if measure(stem) > 1 && (suffix != "ion" || stem.ends_with(['s', 't'])) {
        word.truncate(stem.len());
    }
}

/// A last e, and a double l.
fn step_5(word: &mut String) {
    if let Some(stem) = word.strip_suffix('e') {
        let measure = measure(stem);
        if measure > 1 || measure == 1 && !ends_as_hop(stem) {
            word.pop();
        }
    }
    if word.ends_with("ll") && measure(&word[..word.len() - 1]) > 1 {
        word.pop();
    }
}

fn find(rules: &[(&'static str, &'static str)], word: &str) -> Option<(&'static str, &'static str)> {
    rules.iter().copied().find(|(suffix, _)| word.ends_with(suffix))
}

fn replace(word: &mut String, n_bytes: usize, replacement: &str) {
    word.truncate(word.len() - n_bytes);
    word.push_str(replacement);
}

/// For each character, whether it is a consonant.
fn consonants(word: &str) -> impl Iterator<Item = bool> {
    let mut before = false;
    word.chars().map(move |c| {
        before = match c {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => !before,
            _ => true,
        };
        before
    })
}

/// How often a consonant follows a vowel.
fn measure(stem: &str) -> usize {
    let mut before = true;
    consonants(stem).filter(|&is_consonant| !std::mem::replace(&mut before, is_consonant) && is_consonant).count()
}

fn has_vowel(stem: &str) -> bool {
    consonants(stem).any(|is_consonant| !is_consonant)
}

fn ends_in_consonant(word: &str) -> bool {
    consonants(word).last().unwrap_or(false)
}

fn ends_in_double_consonant(word: &str) -> bool {
    let mut from_end = word.chars().rev();
    let last = from_end.next();
    last.is_some() && last == from_end.next() && ends_in_consonant(word)
}

/// Whether a stem ends in consonant, vowel and consonant, the last of them not w, x or y, or is a vowel and a
/// consonant.
fn ends_as_hop(stem: &str) -> bool {
    let kinds: Vec<bool> = consonants(stem).collect();
    match kinds[..] {
        [false, true] => true,
        [.., true, false, true] => !stem.ends_with(['w', 'x', 'y']),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_paper_and_of_the_extensions() {
        let cases = [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("dies", "die"),
            ("spied", "spi"),
            ("tied", "tie"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("sing", "sing"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("enjoyment", "enjoy"),
            ("happy", "happi"),
            ("vietnamization", "vietnam"),
            ("hopefully", "hope"),
            ("geology", "geolog"),
            ("theatrically", "theatric"),
            ("adjustable", "adjust"),
            ("replacement", "replac"),
            ("controlling", "control"),
            ("succeed", "succeed"),
            ("skies", "sky"),
            ("syzygy", "syzygi"),
        ];
        for (word, expected) in cases {
            assert_eq!(stem(word), expected, "{word}");
        }
    }
}

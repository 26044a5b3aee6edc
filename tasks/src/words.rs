//! Numbers in English words.

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// "two thousand three hundred and five", up to 999,999; "minus five" below 0.
pub(crate) fn cardinal(n: i64) -> String {
    match n {
        ..0 => format!("minus {}", cardinal(-n)),
        0..20 => SMALL[n as usize].to_owned(),
        20..100 => joined(TENS[n as usize / 10], " ", n % 10),
        100..1000 => joined(&format!("{} hundred", cardinal(n / 100)), " and ", n % 100),
        _ => joined(&format!("{} thousand", cardinal(n / 1000)), if n % 1000 < 100 { " and " } else { " " }, n % 1000),
    }
}

fn joined(start: &str, with: &str, rest: i64) -> String {
    if rest == 0 { start.to_owned() } else { format!("{start}{with}{}", cardinal(rest)) }
}

/// "twenty first".
pub(crate) fn ordinal(n: i64) -> String {
    let words = cardinal(n);
    let (start, last) = words.rsplit_once(' ').map_or(("", words.as_str()), |(start, last)| (start, last));
    let last = match last {
        "one" => "first".to_owned(),
        "two" => "second".to_owned(),
        "three" => "third".to_owned(),
        "five" => "fifth".to_owned(),
        "eight" => "eighth".to_owned(),
        "nine" => "ninth".to_owned(),
        "twelve" => "twelfth".to_owned(),
        tens if tens.ends_with('y') => format!("{}ieth", &tens[..tens.len() - 1]),
        other => format!("{other}th"),
    };
    if start.is_empty() { last } else { format!("{start} {last}") }
}

/// "21st".
pub(crate) fn nth(n: i64) -> String {
    let ending = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

/// A number of `n / 10^n_decimals`, in digits.
pub(crate) fn decimal(n: i64, n_decimals: usize) -> String {
    let scale = 10_i64.pow(n_decimals as u32);
    let sign = if n < 0 { "-" } else { "" };
    match n_decimals {
        0 => n.to_string(),
        _ => format!("{sign}{}.{:0n_decimals$}", n.abs() / scale, n.abs() % scale),
    }
}

/// The same in words: "three point five".
pub(crate) fn decimal_words(n: i64, n_decimals: usize) -> String {
    if n_decimals == 0 {
        return cardinal(n);
    }
    let digits = decimal(n.abs(), n_decimals);
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    let digit_words = |digits: &str| digits.bytes().map(|b| SMALL[usize::from(b - b'0')]).collect::<Vec<_>>().join(" ");
    let sign = if n < 0 { "minus " } else { "" };
    format!("{sign}{} point {}", cardinal(whole.parse().unwrap_or(0)), digit_words(fraction))
}

/// "three pounds fifty", of cents: "fifty pence" below one.
pub(crate) fn money(cents: i64, [one, many, small_one, small_many]: [&str; 4]) -> String {
    let (whole, small) = (cents / 100, cents % 100);
    let amount = |n: i64, one: &str, many: &str| format!("{} {}", cardinal(n), if n == 1 { one } else { many });
    match (whole, small) {
        (0, _) => amount(small, small_one, small_many),
        (_, 0) => amount(whole, one, many),
        _ => format!("{} and {}", amount(whole, one, many), amount(small, small_one, small_many)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spelled() {
        assert_eq!(cardinal(-21), "minus twenty one");
        assert_eq!(cardinal(305), "three hundred and five");
        assert_eq!(cardinal(2_005), "two thousand and five");
        assert_eq!(cardinal(110_340), "one hundred and ten thousand three hundred and forty");
        assert_eq!([1, 12, 20, 23, 30].map(ordinal), ["first", "twelfth", "twentieth", "twenty third", "thirtieth"]);
        assert_eq!([1, 11, 22, 113].map(nth), ["1st", "11th", "22nd", "113th"]);
        assert_eq!((decimal(-35, 1), decimal_words(-35, 1)), ("-3.5".to_owned(), "minus three point five".to_owned()));
        assert_eq!(decimal_words(1205, 2), "twelve point zero five");
        let euros = ["euro", "euros", "cent", "cents"];
        assert_eq!([101, 50, 200].map(|c| money(c, euros)), ["one euro and one cent", "fifty cents", "two euros"]);
    }
}

//! Durations as they stand in a configuration: a number and a unit, read by humantime, with its surprises taken out.

use std::time::Duration;

use super::error::{Fault, Quoted};

/// More digits than any sane time needs. humantime panics where a sum ends exactly one second past `u64::MAX` seconds;
/// numbers this short stay far below that.
const MOST_DIGITS: usize = 11;

/// Reads `"250ms"`, `"2s"`, `"1h 30m"`; any unit of humantime except `M`, which is a month there and a slip here.
///
/// # Errors
/// [`Fault::NoUnit`] for a bare number, [`Fault::BadDuration`] for the rest.
pub fn read(text: &str) -> Result<Duration, Fault> {
    let bad = |why: &str| Fault::BadDuration { found: Quoted::new(text), why: why.to_owned() };
    let number = text.trim();
    if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(Fault::NoUnit { number: number.chars().take(MOST_DIGITS).collect() });
    }
    if text.contains('-') {
        return Err(bad("it is below zero"));
    }
    if text.bytes().filter(u8::is_ascii_digit).count() > MOST_DIGITS {
        return Err(bad("it has too many digits"));
    }
    if text.contains('M') {
        return Err(bad("M is neither a minute (m) nor a millisecond (ms)"));
    }
    humantime::parse_duration(text).map_err(|error| match error {
        humantime::DurationError::UnknownUnit { unit, .. } if unit.is_empty() => bad("a number has no unit"),
        humantime::DurationError::UnknownUnit { unit, .. } => bad(&format!("there is no unit {}", Quoted::new(&unit))),
        humantime::DurationError::NumberExpected(_) => bad("a number is missing"),
        humantime::DurationError::InvalidCharacter(_) => bad("another character is in it"),
        humantime::DurationError::NumberOverflow => bad("it is too large or too precise"),
        humantime::DurationError::Empty => bad("it is empty"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        let cases = [
            ("50us", Duration::from_micros(50)),
            ("250ms", Duration::from_millis(250)),
            ("2s", Duration::from_secs(2)),
            ("1m", Duration::from_secs(60)),
            ("1h", Duration::from_secs(3600)),
            ("1h 30m", Duration::from_secs(5400)),
            ("1.5s", Duration::from_millis(1500)),
            ("0s", Duration::ZERO),
            ("99999999999s", Duration::from_secs(99_999_999_999)),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        let cases = [
            ("zero has a unit too", "0", "0 has no unit; add one: \"0s\""),
            ("a bare number", "50", "50 has no unit; add one: \"50s\""),
            ("a bare fraction", "1.5", "1.5 has no unit"),
            ("the second number is bare", "1s 5", "a number has no unit"),
            ("no number", "s", "a number is missing"),
            ("a unit nobody has", "1fortnight", "no unit \"fortnight\""),
            ("a month is a slip", "5M", "M is neither"),
            ("below zero", "-1s", "below zero"),
            ("a comma", "1s, 2ms", "another character"),
            ("finer than the unit can be", "0.5ns", "too large or too precise"),
            ("humantime would panic", "18446744073709551615s 1000000000ns", "too many digits"),
            ("more than 64 bits", "99999999999999999999s", "too many digits"),
            ("only a blank", " ", "it is empty"),
        ];
        for (why, text, expected) in cases {
            let told = read(text).map_err(|fault| fault.to_string());
            assert!(told.as_ref().is_err_and(|told| told.contains(expected)), "{why}: {told:?}");
        }
    }
}

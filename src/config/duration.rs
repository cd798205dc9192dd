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
pub(super) fn read(text: &str) -> Result<Duration, Fault> {
    let bad = |why: &str| Fault::BadDuration {
        found: Quoted::new(text),
        why: why.to_owned(),
    };
    let number = text.trim();
    if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(Fault::NoUnit {
            number: number.chars().take(MOST_DIGITS).collect(),
        });
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
        humantime::DurationError::UnknownUnit { unit, .. } if unit.is_empty() => {
            bad("a number has no unit")
        }
        humantime::DurationError::UnknownUnit { unit, .. } => {
            bad(&format!("there is no unit {}", Quoted::new(&unit)))
        }
        humantime::DurationError::NumberExpected(_) => bad("a number is missing"),
        humantime::DurationError::InvalidCharacter(_) => bad("another character is in it"),
        humantime::DurationError::NumberOverflow => bad("it is too large or too precise"),
        humantime::DurationError::Empty => bad("it is empty"),
    })
}

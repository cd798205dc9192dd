//! Sizes as they stand in a configuration: a number and a unit, read by bytesize, with its surprises taken out.

use bytesize::ByteSize;

use super::error::{Fault, Quoted};

/// What may stand behind the number, in any case; nothing means bytes.
const UNITS: [&str; 12] = ["", "b", "kib", "mib", "gib", "tib", "pib", "kb", "mb", "gb", "tb", "pb"];

/// Reads `"16KiB"`, `"1.5 MiB"`, `"1GB"` or a bare number of bytes, in bytes. `"16K"` is refused: bytesize takes it for
/// 16,000, and those who know it from nginx mean 16,384. What is too large for 64 bits comes out as the largest number.
///
/// # Errors
/// [`Fault::BadSize`].
pub(super) fn read(text: &str) -> Result<u64, Fault> {
    let bad = |why: &str| Fault::BadSize { found: Quoted::new(text), why: why.to_owned() };
    let size = text.trim();
    if size.starts_with('-') {
        return Err(bad("it is below zero"));
    }
    let unit = size.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').trim_start();
    if unit.len() == size.len() {
        return Err(bad("it does not begin with a number"));
    }
    let lower = unit.to_ascii_lowercase();
    if ["k", "m", "g", "t", "p"].contains(&lower.trim_end_matches('i')) {
        return Err(bad(&format!("{unit} alone is a thousand to some and 1024 to others")));
    }
    if !UNITS.contains(&lower.as_str()) {
        return Err(bad(&format!("there is no unit {}", Quoted::new(unit))));
    }
    if unit.is_empty() && size.contains('.') {
        return Err(bad("a fraction has no unit"));
    }
    // With a unit always, for without one a number past 64 bits is refused instead.
    let whole = if unit.is_empty() { format!("{size}B") } else { size.to_owned() };
    let bytes = whole.parse::<ByteSize>().map_err(|_| bad("its number is none"))?.as_u64();
    if bytes == 0 && size.bytes().any(|b| (b'1'..=b'9').contains(&b)) {
        return Err(bad("it is less than a byte"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_a_number_and_a_unit() {
        let cases = [
            ("none", "0", 0),
            ("none, with a unit", "0KiB", 0),
            ("a bare number is bytes", "4096", 4096),
            ("bytes", "12B", 12),
            ("powers of two", "16KiB", 16_384),
            ("of a thousand", "16kB", 16_000),
            ("a fraction", "1.5MiB", 1_572_864),
            ("a blank between", "1 GiB", 1 << 30),
            ("blanks around", " 1TiB ", 1 << 40),
            ("in any case", "1pib", 1 << 50),
            ("past 64 bits", "99999999999999999999PiB", u64::MAX),
            ("past 64 bits, bare", "99999999999999999999", u64::MAX),
        ];
        for (why, text, expected) in cases {
            assert_eq!(read(text), Ok(expected), "{why}: {text}");
        }
    }

    #[test]
    fn what_is_no_size_says_why() {
        let cases = [
            ("1000 or 1024?", "16K", "K alone is a thousand to some"),
            ("in small letters, as in nginx", "8m", "m alone is a thousand to some"),
            ("no less so", "16Ki", "Ki alone"),
            ("a unit nobody has", "1block", "no unit \"block\""),
            ("a unit of time", "1s", "no unit \"s\""),
            ("two of them", "1KiB 2B", "no unit"),
            ("no number", "KiB", "does not begin with a number"),
            ("below zero", "-1", "below zero"),
            ("a sign", "+1KiB", "does not begin with a number"),
            ("an exponent", "1e3", "no unit \"e3\""),
            ("two points", "1.2.3KiB", "its number is none"),
            ("half a byte, and 0 has a meaning of its own", "0.5B", "less than a byte"),
            ("half a byte without a unit", "0.5", "a fraction has no unit"),
            ("only a point", ".", "a fraction has no unit"),
        ];
        for (why, text, expected) in cases {
            let told = read(text).map_err(|fault| fault.to_string());
            assert!(told.as_ref().is_err_and(|told| told.contains(expected)), "{why}: {told:?}");
        }
    }
}
